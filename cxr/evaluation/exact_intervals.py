"""Exact intervals: of shares; and of every figure that resampling patients does not change, because all predictions
are right, or none, or there is one patient alone."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import beta, t

LEVEL = 0.95


def exact_share(hits: float, images: float, level: float = LEVEL) -> list[float]:
    """The exact interval of a share (Clopper & Pearson 1934); [0, 1] without images."""
    tail = (1 - level) / 2
    low = beta.ppf(tail, hits, images - hits + 1) if hits > 0 else 0.0
    high = beta.isf(tail, hits + 1, images - hits) if hits < images else 1.0
    return [float(low), float(high)]


def share_over_groups(hits: np.ndarray, group: np.ndarray) -> list[float]:
    """The exact interval of the share of images that are hits, for the number of independent images that would vary as
    much as these do (Korn & Graubard 1998, Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data).

    Args:
        hits: bool (N,).
        group: (N,), equal for images that are not independent.
    """
    number = np.unique(group, return_inverse=True)[1]
    images = np.bincount(number)
    n, groups = len(hits), len(images)
    share = hits.mean() if n else 0.0
    if groups == n:
        return exact_share(int(hits.sum()), n)
    if groups == 1 or share in (0, 1):  # the images of a group agree, as far as one can see
        return exact_share(share * groups, groups)
    excess = np.bincount(number, hits) - share * images
    variance = (excess**2).sum() * groups / (groups - 1) / n**2
    effective = share * (1 - share) / variance if variance else math.inf
    # The variance is estimated from few groups: their correction for its degrees of freedom.
    tail = (1 - LEVEL) / 2
    effective = min(n, effective * (t.isf(tail, n - 1) / t.isf(tail, groups - 1)) ** 2)
    return exact_share(share * effective, effective)


def ends_where_equal(values: np.ndarray, groups: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The ends (2, …) of shares (…) that are equal in all resamples of some numbers of groups (…): exact where all
    groups are hits (1) or none is (0); else 0 and 1, for one group says nothing about others."""
    ends = [
        exact_share(round(value) * n, n, level) if value in (0, 1) else [0.0, 1.0]
        for value, n in zip(values.ravel().tolist(), groups.ravel().tolist(), strict=True)
    ]
    return np.array(ends).T.reshape(2, *values.shape)


def exact_ends(counts: np.ndarray, figures: Mapping[str, np.ndarray], level: float = LEVEL) -> dict[str, np.ndarray]:
    """The ends, (2, …), of every figure that all resamples agree on.

    A macro figure has the means of the ends of the classes with images, which is wider than needed.

    Args:
        counts: confusion counts of groups, (G, C, C), true by predicted.
        figures: intervals.figures_of() of all of them together.
    """
    true, predicted = ((counts.sum(axis) > 0).sum(0) for axis in (2, 1))  # groups with images, or predictions, of each
    of_class = {"precision": predicted, "recall": true, "f1": true}
    ends = {name: ends_where_equal(figures[name], groups, level) for name, groups in of_class.items()}
    there = true > 0
    macro = {
        f"{name}_macro": of_name[:, there].mean(1) if there.any() else np.array([0.0, 1.0])
        for name, of_name in ends.items()
    }
    accuracy = ends_where_equal(np.asarray(figures["accuracy"]), np.array(len(counts)), level)
    return {"accuracy": accuracy, **macro, **ends}


def difference_ends(ours: tuple[float, Any], theirs: tuple[float, Any]) -> list[float]:
    """The interval of the difference, ours less theirs, of two independent figures, each with its interval: the square
    root of the sum of squares of what the ends add (Newcombe 1998, Interval estimation for the difference between
    independent proportions; for any two figures, Zou & Donner 2008)."""
    (a, (low_a, high_a)), (b, (low_b, high_b)) = ours, theirs
    return [a - b - float(np.hypot(a - low_a, high_b - b)), a - b + float(np.hypot(high_a - a, b - low_b))]
