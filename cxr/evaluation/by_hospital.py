"""Scores by hospital, and the score within hospitals: what is left where no class can be told by its hospital.

Zech et al. 2018 and DeGrave, Janizek & Lee 2021 show networks that recognise hospitals.
"""

from typing import Any

import numpy as np

from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.intervals import counts_by_group, ends_of, exact_share, figures_of, headline, resampled_figures

FEW = 10  # images of a hospital, below which it has no score


def within_hospitals(
    labels: np.ndarray, logits: np.ndarray, hospital: np.ndarray, group: np.ndarray
) -> dict[str, Any] | None:
    """Macro F1 within hospitals: of each that has FEW images and two classes or more, among its classes; then the mean.

    Args:
        labels, logits: int64 (N,) and float (N, C).
        hospital: strings (N,), "" for unknown.
        group: (N,), equal for images that are not independent.

    Returns:
        "f1_macro", "ci95" over patients of these hospitals, "images" and "hospitals": each one's f1_macro, images and
        classes (indices). None if no hospital has two classes.
    """
    parts: dict[str, dict[str, Any]] = {}
    drawn = []
    for seed, name in enumerate(sorted(set(hospital.tolist()) - {""})):
        members = hospital == name
        present, of_members = np.unique(labels[members], return_inverse=True)
        if len(present) < 2 or members.sum() < FEW:
            continue
        predicted = logits[members][:, present].argmax(1)
        groups = np.unique(group[members], return_inverse=True)[1]
        counts = counts_by_group(of_members, predicted, groups, len(present))
        drawn.append(resampled_figures(counts, seed=seed)["f1_macro"])
        f1 = float(figures_of(counts.sum(0))["f1_macro"])
        parts[name] = {"f1_macro": f1, "images": int(members.sum()), "classes": present.tolist()}
    if not parts:
        return None
    return {
        "f1_macro": float(np.mean([part["f1_macro"] for part in parts.values()])),
        "ci95": {"f1_macro": ends_of(np.mean(drawn, axis=0)).tolist()},
        "images": sum(part["images"] for part in parts.values()),
        "hospitals": parts,
    }


def scores_by_hospital(evaluation: Evaluation, hospital: np.ndarray) -> dict[str, dict[str, Any]]:
    """The scores of N images by hospital, those with most images first; macro F1 is the mean over a hospital's classes.

    Args:
        hospital: strings (N,), "" for unknown: no scores.

    Returns:
        By hospital: "images", "f1_macro", "accuracy", their "ci95", and "per_class": "recall", "support" and "ci95"
        (exact, of the recall) of each class that it has.
    """
    scores = {}
    names, images = np.unique(hospital[hospital != ""], return_counts=True)
    for name in names[np.argsort(-images, kind="stable")].tolist():
        of = evaluation.where(hospital == name)
        per_class = {}
        for label in np.unique(of.labels).tolist():
            members = of.labels == label
            hits, support = int((of.predicted[members] == label).sum()), int(members.sum())
            ends = {"recall": exact_share(hits, support)}
            per_class[of.classes[label]] = {"recall": hits / support, "support": support, "ci95": ends}
        scores[name] = headline(of.labels, of.predicted, of.group, len(of.classes)) | {"per_class": per_class}
    return scores


def lowest_f1(labels: np.ndarray, predicted: np.ndarray, hospital: np.ndarray, classes: int) -> tuple[float, float]:
    """The lowest macro F1 of a hospital that has FEW images or more (of any, if none has), and the mean over these.

    Args:
        labels, predicted: int64 (N,).
        hospital: strings (N,), "" for unknown: not counted unless all are.
        classes: how many there are.
    """
    names, images = np.unique(hospital, return_counts=True)
    large = names[(images >= FEW) & (names != "")]
    scores = []
    for name in large if len(large) else names:
        of = hospital == name
        alike = np.zeros(of.sum(), dtype=np.int64)
        counts = counts_by_group(labels[of], predicted[of], alike, classes).sum(0)
        scores.append(float(figures_of(counts)["f1_macro"]))
    return min(scores), float(np.mean(scores))
