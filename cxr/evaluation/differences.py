"""The statistics of comparisons: differences of two recipes' scores, and means over seeds, with intervals.

What varies between the networks of a recipe (its seeds) and what varies between patients are separate components of the
variance (cxr.evaluation.components). With one seed per recipe, nothing is known of other seeds: the interval then holds
for these two networks, and comes from the bootstrap alone (cxr.evaluation.intervals).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr.evaluation.components import half_width, p_value, seeds_needed, variance_components
from cxr.evaluation.exact_intervals import LEVEL, difference_ends, exact_ends
from cxr.evaluation.intervals import RESAMPLES, counts_by_group, ends_of_counts, figures_of, resampled_figures

FIGURES = ("f1_macro", "accuracy")
RELEVANT = 0.05  # of macro F1 or accuracy: the difference for which seeds_needed is stated
CORRECTED_RESAMPLES = 10_000  # the ends of intervals that are corrected for many comparisons lie far out


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
    """The difference of scores, `ours` less `theirs`, on the same images.

    Args:
        labels: int (N,), of the images that both have predicted.
        group: (N,), see intervals.intervals().
        ours, theirs: predicted classes (N,), one array per seed.
        classes: how many there are.
        comparisons: their number in all; each interval is widened so that all hold together (Bonferroni).

    Returns:
        For f1_macro and accuracy: "difference" of the means over seeds, "ci95" [low, high], "p" (two-sided, multiplied
        by `comparisons`), "shown" (whether 0 lies outside). With two seeds or more on both sides, the interval holds
        for other seeds too, and there is "seeds_needed": how many on each side would show a true difference of RELEVANT
        in four of five sweeps; None where more than 100, or more test patients, are needed. Where neither patients nor
        seeds change the difference, the interval is that of equal_ends().
    """
    alpha = (1 - LEVEL) / comparisons
    figures = figures_of_networks(labels, group, [*ours, *theirs], classes, resamples, seed)
    result = {}
    for key, (points, drawn) in figures.items():
        difference = float(points[: len(ours)].mean() - points[len(ours) :].mean())
        if min(len(ours), len(theirs)) > 1:
            components = variance_components(points, drawn, len(ours), len(np.unique(group)))
            half = half_width(components, alpha)
            ends, p = [difference - half, difference + half], p_value(difference, components)
            needed = {"seeds_needed": seeds_needed(components, RELEVANT, alpha)}
        else:
            values = drawn[:, : len(ours)].mean(1) - drawn[:, len(ours) :].mean(1)
            ends = np.quantile(values, [alpha / 2, 1 - alpha / 2]).tolist()
            p, needed = 2 * (1 + min((values <= 0).sum(), (values >= 0).sum())) / (1 + len(values)), {}
        if ends[0] == ends[1]:
            ends = equal_ends(labels, group, ours, theirs, classes, 1 - alpha)[key]
            p = 1.0 if ends[0] <= 0 <= ends[1] else alpha
        ends = np.clip(ends, -1, 1).tolist()
        shown = bool(ends[0] > 0 or ends[1] < 0)
        p = float(min(1.0, p * comparisons))
        result[key] = {"difference": difference, "ci95": ends, "p": p, "shown": shown, **needed}
    return result


def equal_ends(
    labels: np.ndarray,
    group: np.ndarray,
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    classes: int,
    level: float,
) -> dict[str, list[float]]:
    """The interval of a difference that is the same for all patients and seeds; arguments as for paired_difference().

    Of the same predictions, as far below and above 0 as the share of patients may be for whom they differ, if there was
    none among these; of others, that of independent figures with exact intervals."""
    number = np.unique(group, return_inverse=True)[1]
    if all(np.array_equal(predicted, ours[0]) for predicted in (*ours, *theirs)):
        none_right = counts_by_group(labels, (labels + 1) % classes, number, classes)
        highest = {key: ends[1] for key, ends in exact_ends(none_right, figures_of(none_right.sum(0)), level).items()}
        return {key: [-float(highest[key]), float(highest[key])] for key in FIGURES}
    sides = []
    for predicted in (ours[0], theirs[0]):
        counts = counts_by_group(labels, predicted, number, classes)
        figures = figures_of(counts.sum(0))
        exact = exact_ends(counts, figures, level)
        sides.append({key: (float(figures[key]), exact[key]) for key in FIGURES})
    return {key: difference_ends(sides[0][key], sides[1][key]) for key in FIGURES}


def mean_over_seeds(
    labels: np.ndarray, group: np.ndarray, predicted: Sequence[np.ndarray], classes: int, resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """What to expect of a recipe: the mean over its networks, with an interval over patients and seeds.

    Args:
        predicted: predicted classes (N,), one array per seed, two or more; everything else as in paired_difference().

    Returns:
        For f1_macro and accuracy: "mean", "sd" (of the seeds), "ci95" [low, high], within [0, 1]; where neither
        patients nor seeds change the figure, that of intervals.ends_of_counts().
    """
    result = {}
    number = np.unique(group, return_inverse=True)[1]
    for key, (points, drawn) in figures_of_networks(labels, group, predicted, classes, resamples).items():
        components = variance_components(points, drawn, len(predicted), len(np.unique(group)))
        mean, half = float(points.mean()), half_width(components, 1 - LEVEL)
        ends = [max(0.0, mean - half), min(1.0, mean + half)]
        if not half:
            ends = ends_of_counts(counts_by_group(labels, predicted[0], number, classes))[key].tolist()
        result[key] = {"mean": mean, "sd": float(points.std(ddof=1)), "ci95": ends}
    return result


def gap_over_seeds(
    outside: tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]],
    inside: tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]],
    classes: int,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """What to expect of a recipe's transfer gap: macro F1 and accuracy outside less inside, on two sets without common
    images, which are resampled independently.

    Args:
        outside, inside: labels (N,), groups (N,) and predicted classes (N,), one array per seed, two or more, of each
            set.

    Returns:
        For f1_macro and accuracy: "mean", "sd" (of the seeds) and "ci95" [low, high] over patients and seeds.
    """
    sides = outside, inside
    figures = [figures_of_networks(*side, classes, resamples, seed) for seed, side in enumerate(sides)]
    alone = [mean_over_seeds(*side, classes, resamples) for side in sides]
    groups, result = min(len(np.unique(side[1])) for side in sides), {}
    for key in FIGURES:
        (out, drawn_out), (within, drawn_within) = (of_side[key] for of_side in figures)
        points, drawn = out - within, drawn_out - drawn_within
        mean = float(points.mean())
        half = half_width(variance_components(points, drawn, len(points), groups), 1 - LEVEL)
        ends = [mean - half, mean + half]
        if any(np.ptp(of_side[key][1], axis=0).max() == 0 for of_side in figures):  # resampling says nothing of a side
            ends = difference_ends(*((of_side[key]["mean"], of_side[key]["ci95"]) for of_side in alone))
        result[key] = {"mean": mean, "sd": float(points.std(ddof=1)), "ci95": np.clip(ends, -1, 1).tolist()}
    return result


def figures_of_networks(
    labels: np.ndarray,
    group: np.ndarray,
    predicted: Sequence[np.ndarray],
    classes: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """f1_macro and accuracy of several networks on the same images: their values (S,), and those of resampled groups
    (resamples, S), which are drawn alike for all networks."""
    _, group = np.unique(group, return_inverse=True)
    counts = np.stack([counts_by_group(labels, one, group, classes) for one in predicted], axis=1)  # (G, S, C, C)
    points = figures_of(counts.sum(0))
    drawn = resampled_figures(counts, resamples, seed)
    return {key: (points[key], drawn[key]) for key in FIGURES}


def unpaired_difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, dict[str, Any]]:
    """The difference of scores between two sets without common images.

    Args:
        ours, theirs: counts_by_group(), (G, C, C) each.

    Returns:
        For f1_macro and accuracy: "difference" and "ci95" [low, high], see exact_intervals.difference_ends().
    """
    sides = [
        (figures_of(counts.sum(0)), ends_of_counts(counts, seed=seed)) for seed, counts in enumerate((ours, theirs))
    ]
    return {
        key: {
            "difference": float(sides[0][0][key] - sides[1][0][key]),
            "ci95": difference_ends(*((float(figures[key]), ends[key]) for figures, ends in sides)),
        }
        for key in FIGURES
    }
