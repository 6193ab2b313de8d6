"""95 % intervals: how far a figure could have been off if other patients had been tested.

Bootstrap over groups (Efron 1979; whole clusters, Field & Welsh 2007): images of one patient, and copies, are not
independent, so groups are drawn with replacement, each with all of its images. A resample is a weight for each group,
and all resamples together are one product of weights and confusion counts. (torchmetrics' BootStrapper draws images.)
Recall of a class is a plain share of its images: it has an exact interval (cxr.evaluation.exact_intervals).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cxr.evaluation.exact_intervals import LEVEL, ends_where_equal, exact_ends, share_over_groups
from cxr.files.run_folder import HEADLINES

RESAMPLES = 2000
CHUNK = 8_000_000  # weights in memory at once
IMAGES = 1_000_000  # images times resamples that aurocs() handles at a time: 190 bytes each


def draw_weights(groups: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each group is drawn in each resample: float32 parts (r, groups), `resamples` rows in all."""
    rows = max(1, CHUNK // max(groups, 1))
    for start in range(0, resamples, rows):
        yield weights_part(groups, min(rows, resamples - start), (seed, start))


@lru_cache(maxsize=2)  # a run asks for the same ones many times
def weights_part(groups: int, rows: int, seed: tuple[int, ...]) -> np.ndarray:
    """One part of draw_weights(); a function of its arguments."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=rows).astype(np.float32)


def counts_by_group(labels: np.ndarray, predicted: np.ndarray, group: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts of each group: float32 (G, C, C), true by predicted; `group` (N,) numbers them from 0."""
    counts = np.zeros((group.max(initial=-1) + 1, classes, classes), dtype=np.float32)
    np.add.at(counts, (group, labels, predicted), 1)
    return counts


def figures_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of confusion counts (…, C, C), true by predicted: accuracy and macro figures (…), and precision, recall
    and f1 of the classes (…, C). Macro figures are means over the classes that have images."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    classes = {
        "precision": share(hits, predicted),
        "recall": share(hits, true),
        "f1": share(2 * hits, true + predicted),
    }
    there = (true > 0).astype(hits.dtype)
    macro = {f"{name}_macro": share((values * there).sum(-1), there.sum(-1)) for name, values in classes.items()}
    return {"accuracy": share(hits.sum(-1), true.sum(-1)), **macro, **classes}


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def aurocs(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the others: (r, C) of weights (r, N), labels (N,) and
    probabilities (N, C). Ties count half (Mann & Whitney 1947); NaN without images on both sides."""
    areas = np.full((len(weights), probabilities.shape[1]), np.nan)
    for c in range(probabilities.shape[1]):
        positive = labels == c
        order = np.argsort(probabilities[~positive, c])
        lower = np.zeros((len(weights), len(order) + 1))
        np.cumsum(weights[:, ~positive][:, order], axis=1, out=lower[:, 1:], dtype=np.float64)
        below = probabilities[~positive, c][order]
        first, last = (np.searchsorted(below, probabilities[positive, c], side) for side in ("left", "right"))
        beaten, drawn = (lower[:, first] + lower[:, last]) / 2, weights[:, positive]
        pairs = drawn.sum(1, dtype=np.float64) * lower[:, -1]
        areas[:, c] = np.divide((drawn * beaten).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return areas


def intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    group: np.ndarray,
    classes: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """95 % intervals [low, high] of all figures, under the keys of metrics.json.

    Args:
        labels: int (N,). probabilities: (N, C); the most probable class is the predicted one.
        group: (N,), equal for images that are not independent: those of one patient, and copies.
        classes: the C names.
    """
    _, group = np.unique(group, return_inverse=True)
    predicted = probabilities.argmax(1)
    counts = counts_by_group(labels, predicted, group, len(classes))
    ends = ends_of_counts(counts, resamples, seed)
    drawn = draw_weights(len(counts), resamples, seed)
    parts = (
        part for weights in drawn for part in np.array_split(weights, -(-weights.shape[0] * len(labels) // IMAGES))
    )
    areas = np.concatenate([aurocs(labels, probabilities, weights[:, group]) for weights in parts])
    ends["auroc_macro"] = auroc_ends(areas, labels, group)
    per_class = {
        name: {
            "precision": ends["precision"][:, i].tolist(),
            "recall": share_over_groups(predicted[labels == i] == i, group[labels == i]),
            "f1": ends["f1"][:, i].tolist(),
        }
        for i, name in enumerate(classes)
    }
    return {key: ends[key].tolist() for key in (*HEADLINES, "auroc_macro")} | {"per_class": per_class}


def ends_of_counts(counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """The ends, (2, …), of 95 % intervals of everything in figures_of(), of counts (G, C, C) of groups.

    Where all resamples are equal, they are exact_ends().
    """
    ends = {key: ends_of(values) for key, values in resampled_figures(counts, resamples, seed).items()}
    if any((low == high).any() for low, high in ends.values()):
        exact = exact_ends(counts, figures_of(counts.sum(0)))
        ends = {key: np.where(of_key[0] == of_key[1], exact[key], of_key) for key, of_key in ends.items()}
    return ends


def auroc_ends(areas: np.ndarray, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The ends (2,) of the mean over classes of resampled areas (r, C), see aurocs(). Where all are equal, each class
    has the exact interval of as many pairs, of a group with it and one without, as there are without a common group."""
    means = share(np.nansum(areas, axis=1), (~np.isnan(areas)).sum(1))
    ends = ends_of(means)
    if ends[0] < ends[1] or np.isnan(areas).all():
        return ends
    pairs = [min(len(np.unique(group[labels == c])), len(np.unique(group[labels != c]))) for c in np.unique(labels)]
    return ends_where_equal(np.full(len(pairs), means[0]), np.array(pairs)).mean(1)


def resampled_figures(counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """Everything in figures_of() of each resample of groups with counts (G, C, C): (resamples, …)."""
    return figures_of(resampled_counts(counts, resamples, seed))


def resampled_counts(counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The counts of each resample of groups with counts (G, …): (resamples, …)."""
    flat = counts.reshape(len(counts), -1)
    drawn = [weights @ flat for weights in draw_weights(len(counts), resamples, seed)]
    return np.concatenate(drawn).reshape(-1, *counts.shape[1:])


def headline(labels: np.ndarray, predicted: np.ndarray, group: np.ndarray, classes: int) -> dict[str, Any]:
    """accuracy and f1_macro of predicted classes (N,), their "ci95", and the number of "images"; see intervals()."""
    _, group = np.unique(group, return_inverse=True)
    counts = counts_by_group(labels, predicted, group, classes)
    figures, ends, keys = figures_of(counts.sum(0)), ends_of_counts(counts), ("accuracy", "f1_macro")
    ci95 = {key: ends[key].tolist() for key in keys}
    return {**{key: float(figures[key]) for key in keys}, "ci95": ci95, "images": len(labels)}


def ends_of(values: np.ndarray) -> np.ndarray:
    """The ends of the middle 95 % of resampled values (r, …): (2, …)."""
    tail = (1 - LEVEL) / 2
    return np.quantile(values, [tail, 1 - tail], axis=0)
