import sys

import pytest
import torch

from cxr import train
from cxr.errors import UserError
from cxr.models.cost import cost
from cxr.models.timm import timm_network
from cxr.options.timm_names import timm_names

timm = pytest.importorskip("timm", reason="timm is not installed (pip install timm)")


def test_names_are_those_that_timm_lists():
    assert timm_names() == set(timm.list_models())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("convnext_tinny", "model.name=convnext_tinny: timm has no network of this name; did you mean convnext_tiny"),
        ("hf-hub:timm/resnet18.a1_in1k", "did you mean resnet18"),
        ("local-dir:/tmp/resnet18", "did you mean resnet18"),
        ("timm/resnet18", "did you mean resnet18"),
        ("∞", "see timm.list_models()"),
    ],
)
def test_other_names_are_refused_before_anything_starts(run, tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(train.main, "model=timm", f"model.name='{name}'", "name=r")
    assert code == 2 and says in err and err.count("\n") == 1 and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="timm has no network"):  # as a checkpoint could ask for it
        timm_network(4, 64, name, None)


def test_without_timm_one_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)  # as import itself marks what is not there
    code, _, err = run(train.main, "model=timm", "model.name=resnet18", "name=r")
    assert (code, err) == (2, "cxr: model=timm needs timm: pip install timm\n")


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("inception_v3", 64, "data.image_size=64: RuntimeError"),
        ("crossvit_9_240", 224, "data.image_size=224: "),
        ("resnet18.nobody", 64, "Invalid pretrained tag"),
    ],
)
def test_what_timm_cannot_build_is_one_line(name, size, says):
    with pytest.raises(UserError, match=f"model.name={name}.*{says}") as caught:
        timm_network(4, size, name, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "first", "norm"),
    [
        ("deit_tiny_patch16_224", "patch_embed.proj", None),  # its convolution has a bias and no padding
        ("test_byobnet", "stem.conv", "stem.bn"),
    ],
)
def test_colour_weights_become_grey_ones(name, first, norm, tmp_path):
    """As timm's own weights would: a network for colour with weights and statistics of its own."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=10, **({"img_size": 64} if norm is None else {}))
    theirs(torch.rand(8, 3, 64, 64))  # moves the running statistics
    torch.save(theirs.eval().state_dict(), tmp_path / "weights.pth")
    ours = timm_network(4, 64, name, str(tmp_path / "weights.pth")).eval()
    grey = torch.rand(2, 1, 64, 64)
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    assert len(set(mean.flatten().tolist())) == 3
    images = (grey.expand(-1, 3, -1, -1) - mean) / std, (grey - ours.zero) / ours.one
    want, got = (net.get_submodule(first)(x) for net, x in zip((theirs, ours.net), images, strict=True))
    if norm:
        want, got = (net.get_submodule(norm)(x) for net, x in ((theirs, want), (ours.net, got)))
    inside = (..., slice(2, -2), slice(2, -2)) if norm else ...
    assert torch.allclose(got[inside], want[inside], atol=1e-4)
    assert ours(grey).shape == (2, 4)
    assert torch.equal(list(ours.parameters())[-5], list(theirs.parameters())[-5])


def test_a_safetensors_file_is_read_too(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    net = timm.create_model("test_vit2", in_chans=1, num_classes=4, img_size=64)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    again = timm_network(4, 64, "test_vit2", str(tmp_path / "w.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert (again.zero, again.one) == (0, 1), "weights for one channel say nothing of how they took it"


def test_weights_of_our_own_load_whole_and_others_are_refused(tmp_path):
    net = timm_network(4, 64, "test_vit2", None)
    net.zero.fill_(0.4)
    torch.save({"state_dict": {f"net.{key}": value for key, value in net.state_dict().items()}}, tmp_path / "own.ckpt")
    again = timm_network(4, 64, "test_vit2", str(tmp_path / "own.ckpt"))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    with pytest.raises(UserError, match="model.weights=.*test_resnet"):
        timm_network(4, 64, "test_resnet", str(tmp_path / "own.ckpt"))


def test_imagenet_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="model.weights=imagenet: timm could not load.*by hand.*model.weights=PATH"):
        timm_network(4, 160, "test_vit2", "imagenet")


def test_attention_is_counted():
    net = timm_network(4, 160, "test_vit2", None)
    attention = net.net.blocks[0].attn
    tokens, width, depth = net.net.pos_embed.shape[1], net.net.embed_dim, len(net.net.blocks)
    layers = sum(m.weight.numel() for m in net.net.blocks.modules() if isinstance(m, torch.nn.Linear))
    products = 2 * tokens * tokens * width * depth  # queries by keys, and those by values
    patches = net.net.patch_embed.num_patches * net.net.patch_embed.proj.weight.numel()
    assert attention.num_heads * attention.head_dim == width
    assert cost(net, 160)["flops"] == 2 * (tokens * layers + products + patches + width * 4)
