"""What makes a mean over seeds uncertain: the patients who were tested, and the seeds that were trained.

Networks and patients are crossed as readers and cases are in a reader study, and the networks of two recipes are
different ones (readers nested in tests). The components of the variance follow Obuchowski & Rockette 1995: the
covariance between networks of different seeds, from the bootstrap over patients, is that of the patients; the variance
between the scores of a recipe's seeds is that of the seeds (and of their interaction with patients).

The interval adds both parts' half-widths in quadrature, each with its own quantile of Student's t (Howe 1974). For the
seeds of two recipes, the degrees of freedom are Welch's (1947). One degree-of-freedom formula for the whole variance
(Satterthwaite 1946) gives more false findings than it promises with two seeds: an estimate that happens to be small
then also counts as a reliable one. `tests/evaluation/test_seeds.py` simulates both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

MOST_SEEDS = 100
POWER = 0.8


class Components(NamedTuple):
    """The variance of a mean over seeds, or of a difference of two such means.

    Attributes:
        patients: the part of the patients.
        groups: how many independent groups of images were tested.
        seeds: for each recipe, the variance between seeds and their number.
    """

    patients: float
    groups: int
    seeds: Sequence[tuple[float, int]]


def variance_components(points: np.ndarray, drawn: np.ndarray, first: int, groups: int) -> Components:
    """Components of the mean of the `first` networks, less that of the others if there are any.

    Args:
        points: the score of each network, (S,). drawn: those of resampled patients, (R, S).
        first: how many of the networks are of the first recipe; two or more of each recipe.
        groups: see Components.
    """
    covariances = np.cov(drawn, rowvar=False)
    sides = [slice(0, first), *([slice(first, None)] if len(points) > first else [])]
    patients = sum(mean_off_diagonal(covariances[side, side]) for side in sides)
    if len(sides) == 2:
        patients -= 2 * covariances[sides[0], sides[1]].mean()
    seeds = [(float(points[side].var(ddof=1)), len(points[side])) for side in sides]
    return Components(max(float(patients), 0.0), groups, seeds)


def mean_off_diagonal(matrix: np.ndarray) -> float:
    """The mean of a square matrix without its diagonal."""
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


def half_width(components: Components, alpha: float) -> float:
    """Half the width of the interval that misses the truth with a probability of `alpha`."""
    of_patients = t.isf(alpha / 2, max(components.groups - 1, 1)) ** 2 * components.patients
    parts = [variance / n for variance, n in components.seeds]
    if not sum(parts):
        return float(of_patients**0.5)
    freedom = sum(parts) ** 2 / sum(part**2 / (n - 1) for part, (_, n) in zip(parts, components.seeds, strict=True))
    return float((of_patients + t.isf(alpha / 2, freedom) ** 2 * sum(parts)) ** 0.5)


def p_value(difference: float, components: Components) -> float:
    """The two-sided p value: the alpha at which the interval's end is 0."""

    def beyond(log_alpha: float) -> float:
        return half_width(components, np.exp(log_alpha)) - abs(difference)

    if beyond(0.0) >= 0:  # alpha 1, a half-width of 0
        return 1.0
    return float(np.exp(brentq(beyond, -600, 0))) if beyond(-600) > 0 else 0.0


def seeds_needed(components: Components, difference: float, alpha: float) -> int | None:
    """How many seeds of each recipe would show a true difference with a probability of about POWER, if the components
    are as estimated; None where MOST_SEEDS are too few."""
    for n in range(2, MOST_SEEDS + 1):
        more = components._replace(seeds=[(variance, n) for variance, _ in components.seeds])
        deviation = (more.patients + sum(variance / n for variance, _ in more.seeds)) ** 0.5
        if half_width(more, alpha) + norm.ppf(POWER) * deviation <= difference:
            return n
    return None
