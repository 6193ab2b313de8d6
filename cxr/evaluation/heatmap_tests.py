"""Do heatmaps show what matters to the network? Maps and probabilities in, numbers out.

A heatmap always looks convincing; these tests can show that it is wrong. They test the maps against the network, not
the network against the disease.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from cxr.evaluation.intervals import ends_of, resampled_counts

MARKED = 0.1  # of the pixels: those with the highest values
RELEVANT = 0.05  # of a probability: many images show differences that mean nothing
PAIRS = 50  # of maps of different images
MOST_CORRELATED = 0.5  # maps of the trained network and of random ones


def marked(maps: np.ndarray) -> np.ndarray:
    """The pixels of each of the maps (N, S, S) with the highest values, a share of MARKED: bool (N, S, S). Of equal
    values, those that come first; none of value 0, which a map does not mark."""
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, : round(MARKED * flat.shape[1])]
    masks = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(masks, order, True, axis=1)
    return masks.reshape(maps.shape) & (maps > 0)


def moved(masks: np.ndarray, seed: int) -> np.ndarray:
    """Masks (N, S, S), each moved to a random place: what leaves the image at one side comes in at the other. So they
    cover as many pixels, in blobs of the same shape."""
    rng, size = np.random.default_rng([seed, 1]), masks.shape[1]
    return np.stack([np.roll(mask, rng.integers(0, size, 2), axis=(0, 1)) for mask in masks])


def exchanged(masks: np.ndarray) -> np.ndarray:
    """Masks (N, S, S), each that of the image before."""
    return np.roll(masks, 1, axis=0)


def deletion(whole: np.ndarray, covered: Mapping[str, np.ndarray], group: np.ndarray) -> dict[str, Any]:
    """The deletion test (after Petsiuk et al. 2018; Samek et al. 2017): how far the probability of the predicted class
    falls if what a map marks is covered, and if something else is.

    Args:
        whole: this probability of the whole images, (N,).
        covered: and with pixels covered: "marked", (N,); as many at a "random" place; the pixels that the map of
            "another" image marks.
        group: (N,), equal for images that are not independent.

    Returns:
        The mean falls, and the "difference" of "marked" less "random" with its interval over groups ("ci95"). The maps
        "passed" if it is RELEVANT or more, and its interval above 0.
    """
    falls = {name: float((whole - probabilities).mean()) for name, probabilities in covered.items()}
    difference = mean_over_groups("difference", covered["random"] - covered["marked"], group)
    passed = difference["difference"] >= RELEVANT and difference["ci95"]["difference"][0] > 0
    return {**falls, **difference, "passed": passed}


def sanity(maps: np.ndarray, randomised: Sequence[np.ndarray], group: np.ndarray, seed: int) -> dict[str, Any]:
    """The sanity check (Adebayo et al. 2018): a map that says something about the network changes if the weights of the
    network are random. One that stays shows edges, or the middle of the image.

    Args:
        maps: of the trained network, (N, S, S), none of them constant.
        randomised: of the first K images, (K, S, S), by several networks with random weights.
        group: (N,), equal for images that are not independent.
        seed: of the pairs.

    Returns:
        The mean rank "correlation" (Spearman) of the pixels of both maps of an image, and its "ci95"; "pairs", that of
        the trained network's maps of different images. The maps "passed" if the interval is below "pairs", the bound of
        Arun et al. 2021 (who compare maps by SSIM), and, whatever the pairs, below 0.5: then they have less than a
        quarter of the variance of their ranks in common.
    """
    ranks, images = standard_ranks(maps), len(randomised[0])
    correlations = np.mean([(ranks[:images] * standard_ranks(other)).sum(1) for other in randomised], axis=0)
    first, second = np.triu_indices(len(maps), 1)
    drawn = np.random.default_rng([seed, 2]).permutation(len(first))[:PAIRS]
    pairs = (ranks[first[drawn]] * ranks[second[drawn]]).sum(1)
    correlation = mean_over_groups("correlation", correlations, group[:images])
    passed = correlation["ci95"]["correlation"][1] < min(float(pairs.mean()), MOST_CORRELATED)
    return {**correlation, "pairs": float(pairs.mean()), "passed": passed}


def standard_ranks(maps: np.ndarray) -> np.ndarray:
    """The ranks of the pixels of maps (N, S, S), (N, S²): less their mean, divided by their length, so that the sum of
    products is the rank correlation. Those of a constant map are 0."""
    ranks = rankdata(maps.reshape(len(maps), -1), axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def mass_inside(maps: np.ndarray, box: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """The "share" of the mass of maps (N, S, S) within a part of the image, bool (S, S), mean over images with its
    "ci95"; and the "area" of this part, which is the share of a map that marks all alike."""
    shares = maps[:, box].sum(1) / maps.sum((1, 2))
    return {**mean_over_groups("share", shares, group), "area": float(box.mean())}


def mean_over_groups(key: str, values: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """The mean of values (N,) under the name `key`, and its interval by bootstrap over groups (N,)."""
    _, group = np.unique(group, return_inverse=True)
    sums = np.stack([np.bincount(group, values), np.bincount(group)], axis=1).astype(np.float32)
    drawn = resampled_counts(sums)
    return {key: float(values.mean()), "ci95": {key: ends_of(drawn[:, 0] / drawn[:, 1]).tolist()}}
