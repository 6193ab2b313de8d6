"""Scores by hospital, and the score within hospitals: what is left where no class can be told by its hospital.

Zech et al. 2018 and DeGrave, Janizek & Lee 2021 show networks that recognise hospitals.
"""

from typing import Any

import numpy as np

from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.exact_intervals import share_over_groups
from cxr.evaluation.intervals import counts_by_group, figures_of, headline

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
        "f1_macro", "ci95" over patients of these hospitals (as in exact_intervals.difference_ends()), "images" and
        "hospitals": each one's f1_macro, images and classes (indices). None if no hospital has two classes.
    """
    parts: dict[str, dict[str, Any]] = {}
    beyond = []  # how far the ends of each are from its f1_macro
    for name in sorted(set(hospital.tolist()) - {""}):
        members = hospital == name
        present, of_members = np.unique(labels[members], return_inverse=True)
        if len(present) < 2 or members.sum() < FEW:
            continue
        predicted = logits[members][:, present].argmax(1)
        scores = headline(of_members, predicted, group[members], len(present))
        beyond.append(np.array(scores["ci95"]["f1_macro"]) - scores["f1_macro"])
        parts[name] = {key: scores[key] for key in ("f1_macro", "images")} | {"classes": present.tolist()}
    if not parts:
        return None
    mean = float(np.mean([part["f1_macro"] for part in parts.values()]))
    below, above = np.hypot.reduce(np.array(beyond), axis=0) / len(parts)
    return {
        "f1_macro": mean,
        "ci95": {"f1_macro": [mean - float(below), mean + float(above)]},
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
            hits = of.predicted[members] == label
            ends = {"recall": share_over_groups(hits, of.group[members])}
            per_class[of.classes[label]] = {"recall": float(hits.mean()), "support": len(hits), "ci95": ends}
        scores[name] = headline(of.labels, of.predicted, of.group, len(of.classes)) | {"per_class": per_class}
    return scores


def large_hospitals(hospital: np.ndarray) -> list[str]:
    """The names, among strings (N,), that FEW images or more have; "" is none."""
    names, images = np.unique(hospital, return_counts=True)
    return names[(images >= FEW) & (names != "")].tolist()


def lowest_f1(labels: np.ndarray, predicted: np.ndarray, hospital: np.ndarray, classes: int) -> tuple[float, float]:
    """The lowest macro F1 of the large_hospitals(), of which there must be one, and the mean over these.

    Args:
        labels, predicted: int64 (N,).
        hospital: strings (N,), "" for unknown.
        classes: how many there are.
    """
    scores = []
    for name in large_hospitals(hospital):
        of = hospital == name
        alike = np.zeros(of.sum(), dtype=np.int64)
        counts = counts_by_group(labels[of], predicted[of], alike, classes).sum(0)
        scores.append(float(figures_of(counts)["f1_macro"]))
    return min(scores), float(np.mean(scores))
