import copy

import pytest
import torch
from torchvision.models import resnet18 as torchvision_resnet18

from cxr.errors import UserError
from cxr.models.cnn import CNN
from cxr.models.resnet import IMAGENET_MEAN, IMAGENET_STD, resnet18


def test_cnn_is_three_convolutions_and_two_fully_connected_layers():
    net = CNN(4, image_size=40, widths=[8, 16, 24], hidden=32)
    layers = [type(m).__name__ for m in net.modules() if not list(m.children())]
    assert layers == ["Conv2d", "MaxPool2d", "ReLU"] * 3 + ["Flatten", "Linear", "ReLU", "Linear"]
    assert [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)] == [8, 16, 24]
    assert net(torch.rand(2, 1, 40, 40)).shape == (2, 4)


def test_relu_after_the_pooling_is_relu_before_it():
    net = CNN(4, image_size=40, widths=[8, 16, 24], hidden=32)
    textbook = copy.deepcopy(net)
    f = textbook.features
    textbook.features = torch.nn.Sequential(*(f[i + k] for i in range(0, len(f), 3) for k in (0, 2, 1)))
    assert [type(m).__name__ for m in textbook.features[:3]] == ["Conv2d", "ReLU", "MaxPool2d"]
    films = torch.rand(8, 1, 40, 40)
    outputs = [n(films) for n in (net, textbook)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for (name, ours), theirs in zip(net.named_parameters(), textbook.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def test_cnn_for_films_too_small():
    with pytest.raises(UserError, match="image_size"):
        CNN(4, image_size=16, widths=[4] * 5, hidden=8)


def test_resnet18_is_torchvisions_with_one_input_channel():
    net = resnet18(3, image_size=64, weights=None)
    theirs = torchvision_resnet18(num_classes=3)
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert net.conv1.weight.shape == (64, 1, 7, 7)
    assert net(torch.rand(2, 1, 64, 64)).shape == (2, 3)


@pytest.fixture
def three_channels(tmp_path):
    """A stand-in for ImageNet's weights: torchvision's network with weights and statistics of its own."""
    torch.manual_seed(0)
    net = torchvision_resnet18()
    net(torch.rand(4, 3, 64, 64))  # moves the running statistics
    torch.save(net.eval().state_dict(), tmp_path / "weights.pth")
    return net, tmp_path / "weights.pth"


def test_folding_to_one_channel_is_exact_inside(three_channels):
    theirs, path = three_channels
    ours = resnet18(4, image_size=64, weights=str(path)).eval()
    gray = torch.rand(2, 1, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    want = theirs.bn1(theirs.conv1((gray.expand(-1, 3, -1, -1) - mean) / std))
    got = ours.bn1(ours.conv1(gray))
    inside = (..., slice(2, -2), slice(2, -2))  # the padding means black here, ImageNet's mean there
    assert torch.allclose(got[inside], want[inside], atol=1e-4)
    assert torch.equal(ours.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)
    assert ours.fc.out_features == 4


def test_weights_of_one_channel_and_these_classes_load_whole(tmp_path):
    net = resnet18(4, image_size=64, weights=None)
    torch.save(net.state_dict(), tmp_path / "own.pth")
    again = resnet18(4, image_size=64, weights=str(tmp_path / "own.pth"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_weights_that_cannot_be_used(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(CNN(4, 32, [4, 4, 4], 8).state_dict(), tmp_path / "cnn.pth")
    for name in ("text.pth", "other.pth", "list.pth", "cnn.pth", "missing.pth"):
        with pytest.raises(UserError, match="model.weights="):
            resnet18(4, image_size=64, weights=str(tmp_path / name))


def test_imagenet_without_a_network(monkeypatch, tmp_path):
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(UserError, match="by hand.*model.weights=PATH"):
        resnet18(4, image_size=64, weights="imagenet")
