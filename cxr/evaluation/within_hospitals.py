"""The score within hospitals: what is left where a network cannot tell classes by their hospitals.

Zech et al. 2018 and DeGrave, Janizek & Lee 2021 show networks that recognise hospitals.
"""

from typing import Any

import numpy as np

from cxr.evaluation.intervals import counts_by_group, ends_of, figures_of, resampled_figures

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
