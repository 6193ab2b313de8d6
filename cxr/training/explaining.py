"""Heatmaps of images of a store, and what the tests of heatmaps say of a network's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxr.data.batches import to_unit
from cxr.data.masking import lungs
from cxr.evaluation import heatmap_tests as tests
from cxr.models.classifier import Classifier
from cxr.models.heatmaps import find_layer, heatmaps

IMAGES = 64  # whose maps are tested
# Networks with random weights, since the maps of a single one can resemble others by chance; and images that each gets.
RANDOMISED, SHARED = 4, 16
BATCH = 32  # gradients take more memory than predictions

Explain = Callable[[Classifier, Tensor, Tensor], Tensor]  # see cxr.models.heatmaps.heatmaps()


def maps_of(
    model: Classifier, images: np.ndarray, targets: np.ndarray, batch: int, explain: Explain = heatmaps
) -> np.ndarray:
    """Heatmaps, float32 (N, S, S), of images uint8 (N, S, S) for the classes int (N,)."""
    maps = [explain(model, part, of_part).cpu().numpy() for part, of_part in batches(model, images, targets, batch)]
    return np.concatenate(maps)


@torch.no_grad()
def probabilities_of(model: Classifier, images: np.ndarray, targets: np.ndarray, batch: int) -> np.ndarray:
    """The probability of the class of each image, float32 (N,); arguments as for maps_of()."""
    parts = [
        model.probabilities(part).gather(1, of_part[:, None])[:, 0].cpu().numpy()
        for part, of_part in batches(model, images, targets, batch)
    ]
    return np.concatenate(parts)


def batches(model: Classifier, images: np.ndarray, targets: np.ndarray, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 1, S, S) from 0 to 1 and their classes (B,), on the network's device."""
    batch = min(batch, BATCH)
    for start in range(0, len(images), batch):
        part = torch.from_numpy(images[start : start + batch])[:, None].to(model.device)
        yield to_unit(part), torch.from_numpy(targets[start : start + batch]).to(model.device)


def heatmap_figures(
    model: Classifier,
    images: np.ndarray,
    targets: np.ndarray,
    group: np.ndarray,
    seed: int,
    batch: int = BATCH,
    explain: Explain | None = None,
) -> dict[str, Any]:
    """The part "heatmaps" of metrics.json: the number of "images"; the "layer" that has the maps and the cells of its
    "grid"; the tests "deletion" and "sanity", and the mass in the "lungs". See cxr.evaluation.heatmap_tests.

    Args:
        images: uint8 (N, S, S), at least two.
        targets: int (N,), their predicted classes.
        group: (N,), equal for images that are not independent.
        seed: of all that is random.
        batch: images at a time.
        explain: makes the maps; None: heatmaps().
    """
    layer = find_layer(model)
    # Of the layer that the trained network has maps of: with shuffled weights, a network may ignore its input, and then
    # no layer counts for it.
    explain = explain or partial(heatmaps, layer=layer)
    about = {"images": len(images), "layer": layer.name, "grid": layer.side}
    maps = maps_of(model, images, targets, batch, explain)
    there = maps.any((1, 2))  # for no class is there anything in a map of zeros
    about["empty"] = int((~there).sum())
    # The intervals are over patients.
    if len(np.unique(group[there][:SHARED])) < 2:
        return {**about, "deletion": None, "sanity": None, "lungs": None}
    maps, images, targets, group = maps[there], images[there], targets[there], group[there]

    masks = tests.marked(maps)
    regions = {"marked": masks, "random": tests.moved(masks, seed), "another": tests.exchanged(masks)}
    covered = {name: probabilities_of(model, cover(images, mask), targets, batch) for name, mask in regions.items()}
    randomised = []
    for number in range(RANDOMISED):
        with shuffled(model.net, seed, number):
            randomised.append(maps_of(model, images[:SHARED], targets[:SHARED], batch, explain))
    return {
        **about,
        "deletion": tests.deletion(probabilities_of(model, images, targets, batch), covered, group),
        "sanity": tests.sanity(maps, randomised, group, seed),
        "lungs": tests.mass_inside(maps, lungs(images.shape[-1]).numpy(), group),
    }


def cover(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Images uint8 (N, S, S) with the pixels of masks (N, S, S) set to the mean of the image."""
    return np.where(masks, images.mean((1, 2), keepdims=True).round().astype(np.uint8), images)


@contextmanager
def shuffled(net: nn.Module, seed: int, number: int) -> Iterator[None]:
    """A block in which the values of each weight of a network are shuffled, by a seed and a number from 0.

    Adebayo et al. 2018 draw new initial weights. Shuffled ones are as random, need no knowledge of how a network (also
    a user's own) was initialised, and keep the scale of what each layer puts out, so that the maps are not just zero.
    """
    tensors = net.state_dict().values()
    kept = [tensor.clone() for tensor in tensors]
    generator = torch.Generator().manual_seed(seed * RANDOMISED + number)
    try:
        with torch.no_grad():
            for tensor in tensors:
                if tensor.is_floating_point():
                    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                    tensor.copy_(tensor.flatten()[order].view(tensor.shape))
        yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(tensors, kept, strict=True):
                tensor.copy_(before)
