"""Differences of scores, with intervals: two recipes on the same images, or one network on two sets of images.

The bootstrap is that of cxr.evaluation.intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr.evaluation.intervals import (
    LEVEL,
    RESAMPLES,
    counts_by_group,
    draw_weights,
    ends_of,
    figures_of,
    resampled_figures,
)

FIGURES = ("f1_macro", "accuracy")


def paired_difference(
    labels: np.ndarray,
    group: np.ndarray,
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    classes: int,
    comparisons: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Mapping[str, dict[str, Any]]:
    """The difference of scores, `ours` less `theirs`, on the same images: paired bootstrap over groups and over seeds.

    Args:
        labels: int (N,), of the images that both have predicted.
        group: (N,), see intervals.intervals().
        ours, theirs: predicted classes (N,), one array per seed; paired seed by seed where both have the same number.
        classes: how many there are.
        comparisons: their number in all; each interval is widened so that all hold together (Bonferroni).

    Returns:
        For f1_macro and accuracy: "difference" of the means over seeds, "ci95" [low, high], "p" (two-sided, from the
        bootstrap, multiplied by `comparisons`), "shown" (whether 0 lies outside).
    """
    _, group = np.unique(group, return_inverse=True)
    sides = [np.stack([counts_by_group(labels, one, group, classes) for one in side]) for side in (ours, theirs)]
    points = [[figures_of(counts.sum(0)) for counts in side] for side in sides]
    result = {}
    for key, values in resampled_differences(sides, resamples, seed).items():
        tail = (1 - LEVEL) / 2 / comparisons
        low, high = np.quantile(values, [tail, 1 - tail])
        means = [np.mean([figures[key] for figures in side]) for side in points]
        p = min(1.0, comparisons * 2 * (1 + min((values <= 0).sum(), (values >= 0).sum())) / (1 + len(values)))
        result[key] = {
            "difference": float(means[0] - means[1]),
            "ci95": [float(low), float(high)],
            "p": float(p),
            "shown": bool(low > 0 or high < 0),
        }
    return result


def resampled_differences(sides: Sequence[np.ndarray], resamples: int, seed: int) -> dict[str, np.ndarray]:
    """f1_macro and accuracy of the first side less those of the second, each (resamples,).

    Args:
        sides: two arrays of counts_by_group(), (S, G, C, C) each, one for each of S seeds. Groups are drawn alike for
            both; seeds too, where both sides have the same number.
    """
    rng = np.random.default_rng(seed + 1)
    drawn: dict[str, list[np.ndarray]] = {key: [] for key in FIGURES}
    for weights in draw_weights(sides[0].shape[1], resamples, seed):
        picks = [rng.integers(len(side), size=(len(weights), len(side))) for side in sides]
        if len(sides[0]) == len(sides[1]):
            picks[1] = picks[0]
        means = [resampled_means(side, weights, pick) for side, pick in zip(sides, picks, strict=True)]
        for key, parts in drawn.items():
            parts.append(means[0][key] - means[1][key])
    return {key: np.concatenate(parts) for key, parts in drawn.items()}


def resampled_means(counts: np.ndarray, weights: np.ndarray, picks: np.ndarray) -> dict[str, np.ndarray]:
    """Mean figures over the seeds that `picks` (r, S) names, of counts (S, G, C, C) and weights (r, G): each (r,)."""
    groups, classes = counts.shape[1:3]
    drawn = np.stack([(weights @ side.reshape(groups, -1)).reshape(-1, classes, classes) for side in counts], axis=1)
    figures = figures_of(np.take_along_axis(drawn, picks[:, :, None, None], axis=1))
    return {key: figures[key].mean(1) for key in FIGURES}


def unpaired_difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, dict[str, Any]]:
    """The difference of scores between two sets without common images, which are resampled independently.

    Args:
        ours, theirs: counts_by_group(), (G, C, C) each.

    Returns:
        For f1_macro and accuracy: "difference" and "ci95" [low, high].
    """
    points = [figures_of(counts.sum(0)) for counts in (ours, theirs)]
    drawn = [resampled_figures(counts, seed=seed) for seed, counts in enumerate((ours, theirs))]
    return {
        key: {
            "difference": float(points[0][key] - points[1][key]),
            "ci95": ends_of(drawn[0][key] - drawn[1][key]).tolist(),
        }
        for key in FIGURES
    }
