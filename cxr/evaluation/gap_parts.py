"""What the loss of macro F1 outside consists of: other shares of the classes, thresholds that no longer fit, and a
worse ranking of the images.

Offsets that are added to the logits move the thresholds between classes, and leave the ranking within each class as it
is. The best ones are searched on outside images and tried by cross-fitting (Chernozhukov et al. 2018): the offsets of a
fifth of the patients come from the others, so that no image chooses its own.
"""

from typing import Any

import numpy as np

from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.intervals import counts_by_group, ends_of, figures_of, resampled_counts, share

FOLDS = 5  # of cross-fitting
ROUNDS = 3  # of the search, each over all classes
CANDIDATES = 65  # offsets that are tried for a class in a round


def gap_parts(inside: Evaluation, outside: Evaluation) -> dict[str, dict[str, Any]] | None:
    """The parts of the loss, macro F1 inside less macro F1 outside, which they add up to.

    Returns:
        "prevalence": what is lost inside if its images are weighted to the class shares outside. "threshold": how much
        more the best offsets win outside than inside, so weighted. "ranking": what is then left. Each has a
        "difference" and its "ci95" over the patients of both sets. None where the two sets have different classes or
        one alone, for which
        some offset always wins back all, and where one has fewer patients than FOLDS.
    """
    classes = set(outside.labels.tolist())
    if len(classes) < 2 or set(inside.labels.tolist()) != classes:
        return None
    groups = [np.unique(side.group, return_inverse=True)[1] for side in (inside, outside)]
    if any(of_side.max() + 1 < FOLDS for of_side in groups):
        return None
    # Of each side, as it is predicted and with the best offsets, with the same resamples of its patients.
    (within, within_moved), (away, away_moved) = (
        [point_and_resamples(side, p, seed) for p in (side.predicted, predict_cross_fitted(side, of_side))]
        for seed, (side, of_side) in enumerate(zip((inside, outside), groups, strict=True))
    )
    weighted, weighted_moved = (
        share(counts, counts.sum(-1, keepdims=True)) * away.sum(-1, keepdims=True) for counts in (within, within_moved)
    )
    f1 = [figures_of(counts)["f1_macro"] for counts in (within, weighted, weighted_moved, away_moved, away)]
    inside_f1, weighted_f1, weighted_best, outside_best, outside_f1 = f1
    parts = {
        "prevalence": inside_f1 - weighted_f1,
        "threshold": (outside_best - outside_f1) - (weighted_best - weighted_f1),
        "ranking": weighted_best - outside_best,
    }
    return {name: {"difference": float(part[0]), "ci95": ends_of(part[1:]).tolist()} for name, part in parts.items()}


def point_and_resamples(evaluation: Evaluation, predicted: np.ndarray, seed: int) -> np.ndarray:
    """Confusion counts of predicted classes (N,), and of resampled patients: (1 + RESAMPLES, C, C)."""
    group = np.unique(evaluation.group, return_inverse=True)[1]
    counts = counts_by_group(evaluation.labels, predicted, group, len(evaluation.classes))
    return np.concatenate([counts.sum(0)[None], resampled_counts(counts, seed=seed)])


def predict_cross_fitted(evaluation: Evaluation, groups: np.ndarray) -> np.ndarray:
    """Predicted classes (N,) with the best offsets of the other folds; `groups` (N,) counts the patients from 0."""
    fold = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % FOLDS
    predicted = evaluation.predicted.copy()
    for number in range(FOLDS):
        of_fold = fold == number
        offsets = best_offsets(evaluation.labels[~of_fold], evaluation.logits[~of_fold])
        predicted[of_fold] = (evaluation.logits[of_fold] + offsets).argmax(1)
    return predicted


def best_offsets(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The offsets (C,) of logits (N, C) with the highest macro F1 on labels (N,) that a search class by class finds."""
    classes = logits.shape[1]
    offsets = np.zeros(classes)

    def f1_of(tried: np.ndarray) -> float:
        counts = np.bincount(labels * classes + (logits + tried).argmax(1), minlength=classes**2)
        return float(figures_of(counts.reshape(classes, classes))["f1_macro"])

    best = f1_of(offsets)
    for c in list(range(classes)) * ROUNDS:
        others = np.delete(logits + offsets, c, axis=1).max(1)
        for candidate in np.quantile(others - logits[:, c], np.linspace(0, 1, CANDIDATES)):
            tried = np.where(np.arange(classes) == c, candidate, offsets)
            if (f1 := f1_of(tried)) > best:
                best, offsets = f1, tried
    return offsets
