"""A map marks what a network looks at, for every network of conf and for a user's own."""

import importlib.util

import pytest
import torch
from torch import nn

from cxr.errors import UserError
from cxr.models.classifier import Classifier, load_classifier
from cxr.models.ensemble import Ensemble
from cxr.models.heatmaps import find_layer, heatmaps
from cxr.options.command_line import read_runs
from cxr.options.composing import CONF
from cxr.training.build import build_model

pytest.importorskip("captum", reason="captum is not installed (pip install captum)")
OPTIM = {"_target_": "torch.optim.SGD", "lr": 0.1}
CNN = {"_target_": "cxr.models.cnn.CNN", "widths": [2, 2], "hidden": 4}


def classifier(net, size=32):
    """A Classifier around any network."""
    model = Classifier(CNN, OPTIM, ("A", "B"), size)
    model.net = net
    return model.eval()


class Corner(nn.Module):
    """Looks at the brightness of a quarter of the image alone: top left for the first class, bottom right for the
    second. Its layers are named as no other network's, and give their cells first, last, or as a row of tokens."""

    def __init__(self, form):
        super().__init__()
        self.form, self.squint, self.shape = form, nn.AvgPool2d(2), nn.Identity()

    def forward(self, images):
        cells = self.squint(images)
        half = cells.shape[-1] // 2
        tokens = torch.cat([torch.ones_like(cells[:, 0, :1, :1]), cells.flatten(2).movedim(1, 2)], 1)
        cells = {"first": cells, "last": cells.movedim(1, 3), "tokens": tokens}[self.form]
        cells = self.shape(cells)
        if self.form == "tokens":
            cells = cells[:, 1:].movedim(1, 2).unflatten(2, (2 * half, 2 * half))
        elif self.form == "last":
            cells = cells.movedim(3, 1)
        sides = cells[:, 0, :half, :half], cells[:, 0, half:, half:]
        return torch.stack([10 * side.mean((1, 2)) for side in sides], 1)


@pytest.mark.parametrize("form", ["first", "last", "tokens"])
def test_the_corner_that_a_network_looks_at_is_marked(form):
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    model = classifier(Corner(form))
    assert find_layer(model).name == "shape" and find_layer(model).side == 16
    maps = heatmaps(model, images, torch.tensor([0, 1, 0]))
    assert maps.shape == (3, 32, 32) and maps.dtype == torch.float32 and not maps.requires_grad
    assert maps.min() == 0 and (maps.amax((1, 2)) == 1).all()
    inside = torch.stack([maps[0, :16, :16].sum(), maps[1, 16:, 16:].sum(), maps[2, :16, :16].sum()])
    assert (inside > 0.95 * maps.sum((1, 2))).all()


def test_networks_together_have_the_mean_of_their_maps():
    images = {size: torch.rand(2, 1, size, size) + 1 for size in (16, 32)}
    members = [classifier(Corner("first"), size) for size in (16, 32)]
    targets = torch.tensor([0, 0])
    together = Ensemble(members).heatmaps(images, targets)
    small = nn.functional.interpolate(heatmaps(members[0], images[16], targets)[:, None], (32, 32), mode="bilinear")
    assert torch.allclose(together, (small[:, 0] + heatmaps(members[1], images[32], targets)) / 2)


def test_a_network_without_a_grid_is_refused_in_one_line():
    model = classifier(nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2)))
    with pytest.raises(UserError, match="none of its layers puts out a grid") as error:
        heatmaps(model, torch.rand(1, 1, 32, 32), torch.tensor([0]))
    assert "\n" not in str(error.value)


def of_conf(network, size):
    ((_, config),) = read_runs([*network, f"data.image_size={size}"])
    torch.manual_seed(0)
    data = type("Data", (), {"images": type("Images", (), {"classes": ("A", "B", "C")}), "note": ""})
    return build_model(config, data).eval()


# timm's own network for tests, as the many of timm whose last block puts out patches that no class depends on.
TINY = ["model=timm", "model.name=test_vit"]


@pytest.mark.parametrize(
    ("network", "layer", "side"), [(["model=resnet18"], "layer1", 16), (TINY, "net.blocks.4", 4)], ids=["resnet", "vit"]
)
def test_the_layer_is_found(network, layer, side):
    if network == TINY:
        pytest.importorskip("timm", reason="timm is not installed (pip install timm)")
    check_maps(of_conf(network, 64), 64)
    chosen = find_layer(of_conf(network, 64))
    assert (chosen.name, chosen.side) == (layer, side)


@pytest.mark.long
@pytest.mark.parametrize("network", sorted(file.stem for file in (CONF / "model").glob("*.yaml")))
def test_every_network_has_maps(network):
    if network == "timm" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed (pip install timm)")
    names = ["test_vit2", "swin_tiny_patch4_window7_224", "convnext_atto"] if network == "timm" else [None]
    for name in names:
        words = [f"model={network}", *([f"model.name={name}"] if name else [])]
        check_maps(of_conf(words, 224), 224)


def check_maps(model, size):
    images = torch.rand(4, 1, size, size, generator=torch.Generator().manual_seed(0))
    maps = heatmaps(model, images, torch.tensor([0, 1, 2, 0]))
    assert maps.shape == (4, size, size) and maps.isfinite().all() and maps.min() >= 0 and maps.max() == 1
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_a_network_in_bf16_has_maps_too(bf16_folder):
    model = load_classifier(bf16_folder / "checkpoints" / "best.ckpt")
    with torch.inference_mode():  # as an ensemble predicts
        images = torch.rand(2, 1, 32, 32)
    assert heatmaps(model, images, torch.tensor([0, 1])).isfinite().all()
