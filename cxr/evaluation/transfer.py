"""Scores of a network on images from outside beside those inside, from the hospitals that it was trained on."""

from typing import Any

import numpy as np

from cxr.evaluation.calibration import calibration
from cxr.evaluation.differences import unpaired_difference
from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.intervals import counts_by_group


def of_common_classes(ours: Evaluation, theirs: Evaluation) -> Evaluation:
    """Those of `ours` that are of a class that `theirs` have too: means over other classes cannot be compared."""
    return ours.where(np.isin(ours.labels, theirs.labels))


def transfer(inside: Evaluation, outside: Evaluation) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Compare two sets without common images, and with the same classes: see of_common_classes().

    Returns:
        "n_test", "test" and "calibration" of `inside`, as in metrics.json; and the transfer gap, outside less inside:
        see unpaired_difference().
    """
    counts = []
    for side in (outside, inside):
        _, group = np.unique(side.group, return_inverse=True)
        counts.append(counts_by_group(side.labels, side.predicted, group, len(side.classes)))
    figures = {
        "n_test": len(inside),
        "test": inside.scores,
        "calibration": calibration(inside.labels, inside.probabilities, inside.group),
    }
    return figures, unpaired_difference(*counts)
