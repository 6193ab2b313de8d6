"""How well the hospital of an image can be predicted: where it can be, a network may use it in place of the disease.

Among images of one class alone, for else the class would give the hospital away. The probe is a linear classifier, as
of Alain & Bengio 2017: Understanding intermediate layers using linear classifier probes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr.data.shortcuts import FOLDS, cross_predict
from cxr.evaluation.exact_intervals import ends_where_equal
from cxr.evaluation.intervals import ends_of, resampled_counts, share

FEWEST = 2 * FOLDS  # patients of a class in a hospital
SAMPLE = 500  # images of a class in a hospital


def hospital_probe(
    features: np.ndarray, labels: np.ndarray, hospital: np.ndarray, group: np.ndarray, classes: Sequence[str]
) -> dict[str, Any] | None:
    """Predict hospitals within each class, in cross-validation by patient.

    Args:
        features: float (N, D).
        labels: int64 (N,).
        hospital: strings (N,), "" for unknown: not used.
        group: (N,), equal for images that are not independent.
        classes: the C names.

    Returns:
        "accuracy": the balanced one, the mean over the hospitals of a class, and then over the classes that two
        hospitals or more have FEWEST patients of; its "ci95" over patients; "chance": what guessing gets; "images"; and
        "classes", the names of these.
        None if there are none.
    """
    rng, rows, right, stratum, chances, probed = np.random.default_rng(0), [], [], [], [], []
    for label in np.unique(labels).tolist():
        names = [
            name
            for name in sorted(set(hospital[labels == label].tolist()) - {""})
            if len(np.unique(group[(labels == label) & (hospital == name)])) >= FEWEST
        ]
        if len(names) < 2:
            continue
        of = [rng.permutation(np.flatnonzero((labels == label) & (hospital == name)))[:SAMPLE] for name in names]
        members, truth = np.concatenate(of), np.repeat(np.arange(len(of)), [len(part) for part in of])
        rows.append(members)
        right.append(cross_predict(features[members], truth, group[members]) == truth)
        stratum.append(truth + sum(map(len, chances)))
        chances.append([1 / len(names)] * len(names))
        probed.append(classes[label])
    if not rows:
        return None
    class_of = np.repeat(np.arange(len(chances)), [len(part) for part in chances])
    strata, groups = np.concatenate(stratum), group[np.concatenate(rows)]
    accuracies = balanced(np.concatenate(right), strata, class_of, groups)
    ends = ends_of(accuracies[1:])
    if ends[0] == ends[1]:  # all are right: the mean of exact intervals, as in exact_ends()
        patients = np.array([len(np.unique(groups[strata == s])) for s in range(len(class_of))])
        ends = ends_where_equal(np.full(len(patients), accuracies[0]), patients).mean(1)
    return {
        "accuracy": float(accuracies[0]),
        "ci95": {"accuracy": ends.tolist()},
        "chance": float(np.mean([part[0] for part in chances])),
        "images": sum(map(len, rows)),
        "classes": probed,
    }


def balanced(right: np.ndarray, stratum: np.ndarray, class_of: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The mean over classes of the mean over their hospitals of the share that is right, of all n images and then of
    resampled groups: (1 + RESAMPLES,).

    Args:
        right: bool (n,). stratum: int (n,), the hospital within a class, counted through all of the S there are.
        class_of: int (S,), the class of each.
        group: (n,).
    """
    groups = np.unique(group, return_inverse=True)[1]
    counts = np.zeros((groups.max() + 1, len(class_of), 2), dtype=np.float32)
    np.add.at(counts, (groups, stratum, right.astype(int)), 1)
    counts = np.concatenate([counts.sum(0)[None], resampled_counts(counts)])
    shares = share(counts[..., 1], counts.sum(-1))
    return np.mean([shares[:, class_of == c].mean(1) for c in range(class_of.max() + 1)], axis=0)
