"""All figures of a network on a set of images: arrays in, numbers out.

The test of a run and cxr.evaluate both use Evaluation, so that their figures mean the same.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from cxr.evaluation.calibration import calibration
from cxr.evaluation.exact_intervals import share_over_groups
from cxr.evaluation.intervals import headline, intervals
from cxr.evaluation.metrics import as_plain, compute, evaluation_metrics
from cxr.evaluation.screening import choose_threshold, keeping_threshold, operating_point, screening

log = logging.getLogger(__name__)

SLICES = 20  # values of a column
PAIR = ("NORMAL", "PNEUMONIA")  # the reference set has them from one source


@dataclass(frozen=True)
class Evaluation:
    """Predictions for a set of N images, and their figures under the keys of metrics.json.

    Attributes:
        index: int64 (N,), rows of the table of images.
        labels: int64 (N,).
        logits: float32 (N, C).
        group: (N,), equal for images that are not independent; see intervals.intervals().
        classes: the C names.
        temperature: the divisor of the logits, fitted on validation images; None if there were none.
    """

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    group: np.ndarray
    classes: Sequence[str]
    temperature: float | None

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: np.ndarray) -> "Evaluation":
        """The evaluation of the images for which `mask` (N,) is true."""
        columns = {name: getattr(self, name)[mask] for name in ("index", "labels", "logits", "group")}
        return replace(self, **columns)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated: float32 (N, C)."""
        return softmax(self.logits / np.float32(self.temperature or 1.0), axis=1)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Predicted classes: int64 (N,)."""
        return self.logits.argmax(1)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """The part "test" (or "val"); see scores_of()."""
        return scores_of(self.labels, self.probabilities, self.group, self.classes)

    @cached_property
    def calibration(self) -> dict[str, Any]:
        """The part "calibration": how far probabilities are off before and, with a temperature, after calibration."""
        parts = {"before": calibration(self.labels, softmax(self.logits, axis=1), self.group)}
        if self.temperature:
            parts["after"] = calibration(self.labels, self.probabilities, self.group)
        return {"temperature": self.temperature or 1.0, **parts}

    def operating_point(self, name: str, threshold: float) -> dict[str, Any]:
        """Sensitivity and specificity for a class; see screening.operating_point()."""
        label = self.classes.index(name)
        return operating_point(self.labels == label, self.probabilities[:, label], self.group, threshold)

    def keeping_threshold(self, name: str, sensitivity: float) -> dict[str, Any]:
        """The threshold that keeps a sensitivity for a class; see screening.keeping_threshold()."""
        label = self.classes.index(name)
        return keeping_threshold(self.labels == label, self.probabilities[:, label], self.group, sensitivity)

    def figures(
        self, slices: Mapping[str, np.ndarray], rules: Mapping[str, np.ndarray], masked: Mapping[str, "Evaluation"]
    ) -> dict[str, Any]:
        """The parts "n_test", "test", "calibration", "slices" and "shortcuts".

        Args:
            slices: further columns of the table of images, see ImageTable.
            rules: predicted classes (N,) of rules that need no network.
            masked: evaluations of the same network with a part of each image blacked out.
        """
        return {
            "n_test": len(self),
            "test": self.scores,
            "calibration": self.calibration,
            "slices": self.slices(slices),
            "shortcuts": self.shortcuts(rules, masked),
        }

    def slices(self, columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, Any]]]:
        """The part "slices": accuracy on the images of each value of a column, with its exact interval.

        (A slice has few images, and few of the classes: macro F1 would mean little.) A column with many values, such as
        a date, has no slices; nor has the hospital: scores_by_hospital() has its scores.
        """
        right, slices = self.predicted == self.labels, {}
        for column, of_images in columns.items():
            if column == "hospital":
                continue
            values = of_images[self.index]
            names = sorted(set(values.tolist()) - {""})
            if len(names) > SLICES:
                log.info("no slices by %s: it has %d values, more than %d", column, len(names), SLICES)
                continue
            if len(names) == 1 and (values == names[0]).all():  # what the whole set's accuracy says already
                continue
            for name in names:
                hits, group = right[values == name], self.group[values == name]
                share = {"accuracy": float(hits.mean()), "ci95": {"accuracy": share_over_groups(hits, group)}}
                slices.setdefault(column, {})[name] = {"images": len(hits), **share}
        return slices

    def shortcuts(
        self, rules: Mapping[str, np.ndarray], masked: Mapping[str, "Evaluation"]
    ) -> dict[str, dict[str, Any]]:
        """The part "shortcuts": accuracy and macro F1, with intervals, of predictions that do not need the lungs (of
        rules also the "recall" of each class that has images), and of this network on NORMAL against PNEUMONIA, within
        one source. Nothing is chosen by it. Arguments as for figures()."""
        predictions = {**rules, **{name: m.predicted[np.isin(m.index, self.index)] for name, m in masked.items()}}
        scores = {
            name: headline(self.labels, predicted, self.group, len(self.classes))
            for name, predicted in predictions.items()
        }
        for name, predicted in rules.items():
            hits = predicted == self.labels
            scores[name]["recall"] = {
                self.classes[label]: float(hits[self.labels == label].mean()) for label in np.unique(self.labels)
            }
        present = {self.classes[label] for label in self.labels}
        if set(PAIR) < present:
            pair = [self.classes.index(name) for name in PAIR]
            members = self.where(np.isin(self.labels, pair))
            labels, predicted = (members.labels == pair[1]).astype(int), members.logits[:, pair].argmax(1)
            scores["normal_or_pneumonia"] = headline(labels, predicted, members.group, 2)
        return scores


def scores_of(
    labels: np.ndarray, probabilities: np.ndarray, group: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """All metrics of labels (N,) and probabilities (N, C), with their intervals over groups (N,), in the form of
    metrics.json."""
    metrics = evaluation_metrics(len(classes))
    metrics.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return as_plain(compute(metrics), classes) | {"ci95": intervals(labels, probabilities, group, classes)}


def screen(val: Evaluation, test: Evaluation, name: str, sensitivity: float, confidence: float) -> dict[str, Any]:
    """The part "screening": a class as a screening test whose threshold is chosen on validation images; see
    screening.choose_threshold()."""
    label = val.classes.index(name)
    positive = val.labels == label
    chosen = choose_threshold(val.probabilities[positive, label], val.group[positive], sensitivity, confidence)
    points = [evaluation.operating_point(name, chosen["threshold"]) for evaluation in (val, test)]
    return screening({"class": name, **chosen, "val": points[0]}, points[1])
