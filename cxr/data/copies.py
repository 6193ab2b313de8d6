"""Which images are the same image: copies, re-encoded, resized, cropped a little, annotated or brightened.

A distance between hashes cannot tell: all chest images look alike from afar. What differs between two images are the
edges of ribs and vessels, so only these are compared, in two steps: thumbnails of all pairs, with allowance for a crop
of up to 3 %, then, for the few pairs whose thumbnails are alike, the images themselves, laid over each other.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cxr.data.augment import warp
from cxr.data.store import Store

log = logging.getLogger(__name__)

# Measured on the reference set (7,103 images, 25 million pairs) and on 300 copies of its images, cropped by 3 %,
# resized by 0.5 to 1.5, changed in brightness and contrast and saved as JPEG of quality 30 to 80.
THUMBNAIL, ALIKE = 32, 0.86  # copies 0.905 and more; 0.0005 % of all other pairs reach it, and are looked at again
SAME = 0.92  # copies: 99 % reach 0.92; two exposures of one patient, moments apart, up to 0.916; others up to 0.83
SURE = 0.96  # copies already as they lie: laying one over the other, which takes most of the time, could not tell more
CROP = 0.03  # of a side
COLUMNS = 8192  # thumbnails that are compared at a time
MANY = 5000  # pairs to look at again that are announced: they take seconds


class Copy(NamedTuple):
    """Two rows of the table of images, first < second, that show the same image, and their likeness (at most 1)."""

    first: int
    second: int
    likeness: float


def find_copies(store: Store) -> list[Copy]:
    """All pairs of images that are copies of each other, the most alike first.

    Time grows with the square of the number of images; memory is 4 kB per image, plus 0.3 GB.
    """
    alike = {(min(pair), max(pair)) for pair in alike_pairs(store, whole_edges(store)) if pair[0] != pair[1]}
    return [Copy(*pair, value) for *pair, value in confirmed(store, store, alike)]


def find_common(ours: Store, theirs: Store) -> list[tuple[int, int, float]]:
    """All pairs of an image of one store and an image of another, of one size, that are copies: rows of both and their
    likeness, the most alike first."""
    alike = set(alike_pairs(ours, whole_edges(theirs)))
    alike |= {(row, other) for other, row in alike_pairs(theirs, whole_edges(ours))}
    return confirmed(ours, theirs, alike)


def alike_pairs(store: Store, whole: Tensor) -> Iterator[tuple[int, int]]:
    """Candidate pairs: a row of a store whose image, whole or cropped, resembles a row of `whole` (n, 1024), thumbnails
    of whole images. (The crops of one image are compared with the whole of the other, so both orders count.)"""
    for rows, part in store.parts():
        windows = small_edges(part)
        for column in range(0, len(whole), COLUMNS):
            others = whole[column : column + COLUMNS]
            best = windows[0] @ others.T
            for window in windows[1:]:
                torch.maximum(best, window @ others.T, out=best)
            pairs = torch.nonzero(best > ALIKE) + torch.tensor([rows.start, column])
            yield from map(tuple, pairs.tolist())


def confirmed(ours: Store, theirs: Store, alike: set[tuple[int, int]]) -> list[tuple[int, int, float]]:
    """The candidate pairs that show the same image, with their likeness, the most alike first."""
    pairs = np.array(sorted(alike), dtype=np.int64).reshape(-1, 2)
    if len(pairs) > MANY:
        log.info("comparing %d pairs of images that look alike", len(pairs))
    copies = []
    with tqdm(total=len(pairs), unit=" pairs", disable=None if len(pairs) > MANY else True) as bar:
        for part in np.split(pairs, range(64, len(pairs), 64)) if len(pairs) else ():
            values = likeness(ours, theirs, part).tolist()
            copies += [(*pair, value) for pair, value in zip(part.tolist(), values, strict=True) if value > SAME]
            bar.update(len(part))
    return sorted(copies, key=lambda pair: -pair[2])


def whole_edges(store: Store) -> Tensor:
    """The first of small_edges() of all images: (n, 1024)."""
    whole = torch.empty(len(store), THUMBNAIL**2)
    for rows, part in store.parts():
        whole[rows] = thumbnail(shrink(torch.from_numpy(part), min(store.size, 4 * THUMBNAIL)))
    return whole


def small_edges(images: np.ndarray) -> list[Tensor]:
    """Thumbnails of images (n, S, S), whole and as ten crops of them: a list of (n, 1024)."""
    shrunk = shrink(torch.from_numpy(images), min(images.shape[-1], 4 * THUMBNAIL))
    size = shrunk.shape[-1]
    cut = max(1, round(CROP * size))
    corners = [(y, x) for y in (0, cut // 2, cut) for x in (0, cut // 2, cut)]
    crops = [shrunk] + [shrunk[:, y : size - cut + y, x : size - cut + x] for y, x in corners]
    crops.append(shrunk[:, cut : size - cut, cut : size - cut])
    return [thumbnail(crop) for crop in crops]


def thumbnail(images: Tensor) -> Tensor:
    """Edges of images (n, S, S), made small, as vectors of length 1: (n, 1024)."""
    return F.normalize(edges(shrink(images, THUMBNAIL), 3).flatten(1))


def shrink(images: Tensor, side: int) -> Tensor:
    """Images (n, S, S) as float32 (n, side, side), each pixel the mean of those it covers."""
    return F.adaptive_avg_pool2d(images[:, None].float(), side)[:, 0]


def edges(images: Tensor, radius: int) -> Tensor:
    """Images (n, S, S) less the mean of the square around each pixel, with mean 0 and standard deviation 1."""
    padded = F.pad(images[:, None], (radius,) * 4, mode="replicate")
    images = images - F.avg_pool2d(padded, 2 * radius + 1, 1)[:, 0]
    images = images - images.mean((1, 2), keepdim=True)
    return images / images.std((1, 2), keepdim=True).clamp_min(1e-6)


def likeness(ours: Store, theirs: Store, pairs: np.ndarray) -> Tensor:
    """How alike images of one store are to those of another, once laid over each other: float32 (n,). Above SURE they
    are compared as they lie.

    Args:
        pairs: rows of both, int (n, 2).
    """
    sharp = sharpened(ours, pairs[:, 0]), sharpened(theirs, pairs[:, 1])
    values = correlation(*sharp)
    unsure = values <= SURE
    if unsure.any():
        sharp, rows = [images[unsure] for images in sharp], pairs[unsure.numpy()]
        moving, fixed = torch.from_numpy(ours[rows[:, 0]]), torch.from_numpy(theirs[rows[:, 1]])
        maps = torch.eye(2, 3).repeat(len(moving), 1, 1)
        for side, steps in ((28, 8), (56, 6)):
            maps = align(maps, edges(shrink(moving, side), 5), edges(shrink(fixed, side), 5), steps)
        maps = align(maps, *sharp, 5)
        values[unsure] = correlation(warp(sharp[0][:, None], maps)[:, 0], sharp[1])
    return values


def sharpened(store: Store, rows: np.ndarray) -> Tensor:
    """Edges of images by their rows (n,), among which one may come often: (n, 112, 112)."""
    distinct, place = np.unique(rows, return_inverse=True)
    return edges(shrink(torch.from_numpy(store[distinct]), 112), 5)[place]


def correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """How alike edges (n, 112, 112) are to others, one by one: float32 (n,).

    The correlation of patches of 16 × 16 pixels in the middle, without the border, where marks of a scanner are alike
    on all its images; of these the median, since an arrow or a letter may have been drawn on one of the two.
    """
    ours, theirs = (patches(images, 16)[:, 1:-1, 1:-1] for images in (ours, theirs))
    return F.cosine_similarity(ours, theirs, dim=-1).flatten(1).median(1).values


def patches(images: Tensor, side: int) -> Tensor:
    """Images (n, S, S) as (n, S / side, S / side, side²) patches, each with mean 0."""
    cut = images.unfold(1, side, side).unfold(2, side, side).flatten(3)
    return cut - cut.mean(-1, keepdim=True)


def align(maps: Tensor, moving: Tensor, fixed: Tensor, steps: int) -> Tensor:
    """Improve affine maps (n, 2, 3), in grid_sample's units, that map images `moving` (n, S, S) onto `fixed`.

    Gauss-Newton on the squared difference (Lucas & Kanade 1981), after removing a gain and an offset.
    """
    size = fixed.shape[-1]
    slopes = torch.gradient(moving, dim=(2, 1))
    images = torch.stack([moving, *(slope * size / 2 for slope in slopes)], 1)
    centres = torch.linspace(1 / size - 1, 1 - 1 / size, size)
    place = torch.stack([centres.repeat(size), centres.repeat_interleave(size), torch.ones(size * size)])
    inside = torch.ones(len(fixed), 1, size, size)
    for _ in range(steps):
        seen, across, down = warp(images, maps).flatten(2).unbind(1)
        weight = (warp(inside, maps).flatten(1) > 0.99).float()
        count = weight.sum(1, keepdim=True).clamp_min(1)
        seen, target = ((v - (v * weight).sum(1, keepdim=True) / count) * weight for v in (seen, fixed.flatten(1)))
        gain = (seen * target).sum(1, keepdim=True) / (seen * seen).sum(1, keepdim=True).clamp_min(1e-6)
        jacobian = torch.cat([(gain * slope * weight)[:, None] * place for slope in (across, down)], 1)
        normal = jacobian @ jacobian.mT
        normal = normal + 1e-3 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2)) + 1e-6 * torch.eye(6)
        step = torch.linalg.solve(normal, jacobian @ (target - gain * seen)[:, :, None])
        maps = maps + step.reshape(-1, 2, 3).clamp(-0.1, 0.1)
    return maps
