import copy
import re

import pytest
import torch
from torchvision import models
from torchvision.models import resnet18 as torchvision_resnet18

from cxr.errors import UserError
from cxr.models.classifier import build
from cxr.models.cnn import CNN
from cxr.models.cost import cost
from cxr.models.densenet import densenet121
from cxr.models.efficientnet import efficientnet_b0
from cxr.models.resnet import resnet18
from cxr.models.weights import IMAGENET_MEAN, IMAGENET_STD


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
    images = torch.rand(8, 1, 40, 40)
    outputs = [n(images) for n in (net, textbook)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for (name, ours), theirs in zip(net.named_parameters(), textbook.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def test_cnn_centres_pixels_first():
    net = CNN(4, image_size=40, widths=[8, 16, 24], hidden=32, mean=0.5, std=0.25)
    plain = CNN(4, image_size=40, widths=[8, 16, 24], hidden=32)
    plain.load_state_dict(net.state_dict())  # the same parameters
    images = torch.rand(2, 1, 40, 40)
    assert torch.equal(net(images), plain((images - 0.5) / 0.25))
    assert not torch.equal(net(images), plain(images))


def test_cnn_for_images_too_small():
    with pytest.raises(UserError, match="image_size"):
        CNN(4, image_size=16, widths=[4] * 5, hidden=8)


def test_resnet18_is_torchvisions_with_one_input_channel():
    net = resnet18(3, image_size=64, weights=None)
    theirs = torchvision_resnet18(num_classes=3)
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert net.conv1.weight.shape == (64, 1, 7, 7)
    assert net(torch.rand(2, 1, 64, 64)).shape == (2, 3)


def colour(make, tmp_path):
    """A stand-in for ImageNet's weights: torchvision's network with weights and statistics of its own, and its file."""
    torch.manual_seed(0)
    net = make()
    net(torch.rand(4, 3, 64, 64))  # moves the running statistics
    torch.save(net.eval().state_dict(), tmp_path / "weights.pth")
    return net, str(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("make", "theirs", "first", "norm", "head"),
    [
        (resnet18, models.resnet18, "conv1", "bn1", "fc"),
        (densenet121, models.densenet121, "features.conv0", "features.norm0", "classifier"),
        (efficientnet_b0, models.efficientnet_b0, "features.0.0", "features.0.1", "classifier.1"),
    ],
)
def test_folding_to_one_channel_is_exact_inside(make, theirs, first, norm, head, tmp_path):
    theirs, path = colour(theirs, tmp_path)
    ours = make(4, image_size=64, weights=path).eval()
    grey = torch.rand(2, 1, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images = (grey.expand(-1, 3, -1, -1) - mean) / std
    want, got = (net.get_submodule(norm)(net.get_submodule(first)(x)) for net, x in ((theirs, images), (ours, grey)))
    inside = (..., slice(2, -2), slice(2, -2))  # the padding means black here, ImageNet's mean there
    assert torch.allclose(got[inside], want[inside], atol=1e-4)
    rest = {k: v for k, v in theirs.state_dict().items() if not k.startswith((f"{first}.", f"{norm}.", f"{head}."))}
    own = ours.state_dict()
    assert all(torch.equal(own[key], value) for key, value in rest.items())
    assert ours.get_submodule(head).out_features == 4


def test_densenets_published_weights_have_old_names(tmp_path):
    def old(state):
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in state.items()}

    theirs, path = models.densenet121(), str(tmp_path / "weights.pth")
    key = "features.denseblock2.denselayer3.norm1.weight"
    with torch.no_grad():
        theirs.get_parameter(key).fill_(0.5)
    torch.save(old(theirs.state_dict()), path)
    assert "features.denseblock2.denselayer3.norm.1.weight" in torch.load(path)
    assert (densenet121(4, image_size=32, weights=path).get_parameter(key) == 0.5).all()


def test_densenet_says_what_images_are_too_small():
    with pytest.raises(UserError, match="data.image_size=28: too small for DenseNet-121"):
        densenet121(4, image_size=28, weights=None)
    assert densenet121(4, image_size=29, weights=None).eval()(torch.rand(1, 1, 29, 29)).shape == (1, 4)


def test_cost_of_the_cnn_as_computed_by_hand():
    net = CNN(3, image_size=32, widths=[4, 8], hidden=10).train()
    state = torch.get_rng_state()
    found = cost(net, 32)
    convolutions = 2 * 9 * (1 * 4 * 32 * 32 + 4 * 8 * 16 * 16)
    assert found["flops"] == convolutions + 2 * (8 * 8 * 8 * 10 + 10 * 3)
    assert found["parameters"] == 4 * (9 + 1) + 8 * (36 + 1) + 10 * (512 + 1) + 3 * (10 + 1)
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_cost_leaves_statistics_and_counts_torchvisions_figure():
    net = resnet18(1000, image_size=224, weights=None)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = cost(net, 224)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    # torchvision counts multiply-adds of three channels, in 1e9.
    meta = models.ResNet18_Weights.IMAGENET1K_V1.meta
    assert found["flops"] / 2e9 + 2 * 64 * 49 * 112**2 / 1e9 == pytest.approx(meta["_ops"], abs=1e-3)
    assert found["parameters"] + 2 * 64 * 49 == meta["num_params"]


def test_weights_of_one_channel_and_these_classes_load_whole(tmp_path):
    net = resnet18(4, image_size=64, weights=None)
    torch.save(net.state_dict(), tmp_path / "own.pth")
    again = resnet18(4, image_size=64, weights=str(tmp_path / "own.pth"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_resnets_are_torchvisions_and_take_no_others_weights(name, tmp_path):
    net = build("model", {"_target_": f"cxr.models.resnet.{name}", "weights": None}, n_classes=3, image_size=64)
    theirs = getattr(models, name)(num_classes=3)
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    torch.save(theirs.state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="state dict of ResNet-18|differ from those of ResNet-18"):
        resnet18(3, image_size=64, weights=str(tmp_path / "other.pth"))


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
