"""The tests of heatmaps pass the maps of a network that looks at a corner, and fail maps that say nothing of it."""

import numpy as np
import pytest
import torch
from torch import nn

from cxr.evaluation import heatmap_tests
from cxr.models.classifier import Classifier
from cxr.models.heatmaps import scaled
from cxr.training.explaining import heatmap_figures, shuffled

pytest.importorskip("captum", reason="captum is not installed (pip install captum)")
SIZE, N = 32, 40
CNN = {"_target_": "cxr.models.cnn.CNN", "widths": [2, 2], "hidden": 4}


class Spots(nn.Module):
    """Sees the second class where an image has a bright spot, wherever that is."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU())
        self.head = nn.Linear(8, 2)
        with torch.no_grad():
            for tensor in self.parameters():
                tensor.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
            self.features[0].weight[:4], self.features[0].bias[:4] = 1 / 25, -0.6
            self.head.weight[1, :4], self.head.weight[0, :4], self.head.bias[1] = 120, -120, -2

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


class Blind(Spots):
    """Gives every image the same class, and nearly the same probability."""

    def forward(self, images):
        return super().forward(images) * 1e-5 + torch.tensor([0.0, 1.0])


class Gated(Spots):
    """With its weights shuffled, it gives every image the same."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.eye(1, 1000)[0])

    def forward(self, images):
        return super().forward(images) * self.gate[0]


def classifier(net):
    model = Classifier(CNN, {"_target_": "torch.optim.SGD", "lr": 0.1}, ("A", "B"), SIZE)
    model.net = net
    return model.eval()


@pytest.fixture
def images():
    """Noise with a bright spot somewhere in each image: uint8 (N, S, S)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (N, SIZE, SIZE), dtype=np.uint8)
    for image, (y, x) in zip(images, rng.integers(0, SIZE - 8, (N, 2)), strict=True):
        image[y : y + 8, x : x + 8] = 255
    return images


def figures(net, images, **arguments):
    return heatmap_figures(classifier(net), images, np.ones(N, dtype=np.int64), np.arange(N), 0, **arguments)


def edges(model, images, targets):
    """A "map" that shows edges, whatever the network."""
    across, down = images[:, 0].diff(dim=2).abs(), images[:, 0].diff(dim=1).abs()
    return scaled(nn.functional.pad(across, (0, 1)) + nn.functional.pad(down, (0, 0, 0, 1)))


def test_maps_of_what_a_network_sees_pass(images):
    tested = figures(Spots(), images)
    assert tested["images"] == N and tested["layer"] == "features" and tested["grid"] == SIZE
    deletion, sanity = tested["deletion"], tested["sanity"]
    assert deletion["passed"] and deletion["marked"] > 0.5 > 0.3 > deletion["random"]
    assert deletion["difference"] == pytest.approx(deletion["marked"] - deletion["random"])
    assert deletion["marked"] > deletion["another"], "the spot is elsewhere in another image"
    low, high = sanity["ci95"]["correlation"]
    assert sanity["passed"] and low <= sanity["correlation"] <= high < sanity["pairs"] < 0.5


def test_a_network_that_ignores_its_input_fails_the_deletion_test(images):
    deletion = figures(Blind(), images)["deletion"]
    assert not deletion["passed"] and deletion["difference"] == pytest.approx(0, abs=1e-3)


def test_edges_fail_the_sanity_check(images):
    """They do not depend on the weights, although they mark what matters: the deletion test alone would not tell."""
    tested = figures(Spots(), images, explain=edges)
    assert not tested["sanity"]["passed"] and tested["sanity"]["correlation"] == pytest.approx(1)
    middle = torch.zeros(SIZE, SIZE)
    middle[8:24, 8:24] = 1
    tested = figures(Spots(), images, explain=lambda model, images, targets: middle.expand(len(images), -1, -1))
    assert not tested["sanity"]["passed"] and tested["lungs"]["share"] == pytest.approx(1, abs=0.01)


def test_empty_maps_are_counted_and_not_tested(images):
    tested = figures(Spots(), images, explain=lambda model, images, targets: torch.zeros(len(images), SIZE, SIZE))
    assert tested["empty"] == N and tested["deletion"] is None and tested["sanity"] is None


def test_images_of_one_patient_prove_nothing(images):
    tested = heatmap_figures(classifier(Spots()), images, np.ones(N, dtype=np.int64), np.zeros(N), 0)
    assert tested["empty"] == 0 and tested["deletion"] is None and tested["sanity"] is None


def test_shuffled_weights_return_to_what_they_were():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ZeroDivisionError), shuffled(net, 0, 0):
        weight = net[0].weight.flatten()
        assert not torch.equal(weight, before["0.weight"].flatten())
        assert torch.equal(weight.sort().values, before["0.weight"].flatten().sort().values)
        raise ZeroDivisionError
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_masks_cover_a_tenth_and_keep_their_shape_elsewhere():
    maps = np.random.default_rng(0).random((5, 20, 20))
    masks = heatmap_tests.marked(maps)
    assert (masks.sum((1, 2)) == 40).all() and all(maps[i][masks[i]].min() > maps[i][~masks[i]].max() for i in range(5))
    moved = heatmap_tests.moved(masks, 0)
    assert (moved.sum((1, 2)) == 40).all() and not np.array_equal(moved, masks)
    shifts = [np.roll(masks[0], (y, x), (0, 1)) for y in range(20) for x in range(20)]
    assert any(np.array_equal(moved[0], shifted) for shifted in shifts)
    few = np.zeros((1, 20, 20))
    few[0, 5:8, 5:8] = 1
    assert np.array_equal(heatmap_tests.marked(few), few > 0), "what the map does not mark is not covered"


def test_the_interval_is_over_patients():
    """Images of one patient are not independent: ten copies of each say no more."""
    values = np.random.default_rng(0).normal(size=30)
    once = heatmap_tests.mean_over_groups("x", values, np.arange(30))
    often = heatmap_tests.mean_over_groups("x", np.repeat(values, 10), np.repeat(np.arange(30), 10))
    assert often["ci95"]["x"] == pytest.approx(once["ci95"]["x"], abs=1e-5)


def test_a_network_that_ignores_its_input_once_its_weights_are_shuffled(images):
    assert figures(Gated(), images)["sanity"]["correlation"] == 0
