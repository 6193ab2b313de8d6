"""How unlike its training images an image is: no network should judge photographs, negatives or another body part.

An image counts by its distance from the nearest training images (Sun et al. 2022, Out-of-distribution detection with
deep nearest neighbors), both among a network's features and among thumbnails. On features alone, negatives and turned
images pass for chests: the network reduces them to what it knows; on thumbnails alone, some photographs do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t

NEAREST = 5  # the neighbour whose distance counts: one alone may be odd itself
SAMPLE = 1000  # training images that are kept
REFUSED = 0.01  # share of the images of other patients of the same hospitals that would be refused


class Familiar(NamedTuple):
    """What a network is familiar with.

    Attributes:
        features: of M training images, float (M, D), of length 1; D is 0 for a network without a last linear layer.
        thumbnails: the same images, float (M, T), less their mean and of length 1.
        limits: float (2,), the distances by features and by thumbnails at which an image is unfamiliar.
    """

    features: np.ndarray
    thumbnails: np.ndarray
    limits: np.ndarray

    def unfamiliar(self, features: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
        """How unfamiliar n images are, with features (n, D) and thumbnails (n, T): float (n,). Above 1, the network
        should not judge the image."""
        return (distances(self, features, thumbnails) / self.limits).max(1)


def mean_unfamiliar(each: Sequence[np.ndarray]) -> np.ndarray:
    """Familiar.unfamiliar() of several networks together, (n,): their mean, to the three decimals that tables have, so
    that what is above 1 is so everywhere."""
    return np.round(np.mean(each, axis=0), 3)


def distances(familiar: Familiar, features: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """The distances of n images from the NEAREST-th training image, by features and by thumbnails: float (n, 2)."""
    sides = (directions(features), familiar.features), (directions(centred(thumbnails)), familiar.thumbnails)
    return np.stack([nearest(*side) for side in sides], axis=1)


def nearest(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance of each vector (n, D) from the NEAREST-th of others (M, D), all of length 1: (n,)."""
    squared = 2 - 2 * vectors @ others.astype(np.float32).T
    kth = min(NEAREST, len(others)) - 1
    return np.sqrt(np.maximum(np.partition(squared, kth, axis=1)[:, kth], 0))


def learn_familiar(training: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]) -> Familiar:
    """What a network is familiar with, from features (M, D) and thumbnails (M, T) of training images, and of validation
    images, which are of other patients: REFUSED of these are unfamiliar."""
    features, thumbnails = directions(training[0]), directions(centred(training[1]))
    familiar = Familiar(features.astype(np.float16), thumbnails.astype(np.float16), np.ones(2))
    apart = distances(familiar, *validation)
    each = np.array([limit_of(side) for side in apart.T])
    return familiar._replace(limits=each * limit_of((apart / each).max(1)))


def limit_of(values: np.ndarray) -> float:
    """What a share of REFUSED of further values, like these (n,), will exceed: the quantile or, of few, the prediction
    limit of a log-normal distribution (Hahn & Meeker 1991, Statistical Intervals, 4.8)."""
    values, n = np.maximum(values, 1e-6), len(values)
    if n * REFUSED >= 1:
        return float(np.quantile(values, 1 - REFUSED))
    logs = np.log(values)
    spread = logs.std(ddof=1) * (1 + 1 / n) ** 0.5 if n > 1 else np.inf
    return float(np.exp(logs.mean() + t.isf(REFUSED, max(n - 1, 1)) * spread))


def centred(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, D), each less its mean."""
    return vectors - vectors.mean(1, keepdims=True)


def directions(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, D) at a length of 1."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
