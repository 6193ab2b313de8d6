"""Score a trained network on images that it has not seen, and compare it with shortcuts."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from cxr.data.datamodule import CXRDataModule
from cxr.data.image_table import class_name
from cxr.errors import Diverged
from cxr.evaluation.calibration import calibration
from cxr.evaluation.intervals import exact_share, headline, intervals
from cxr.evaluation.metrics import as_plain, evaluation_metrics
from cxr.evaluation.screening import choose_threshold, operating_point, screening
from cxr.models.classifier import Classifier
from cxr.training.callbacks import EpochTimer, StopWhenAsked
from cxr.training.trainer import build_trainer

log = logging.getLogger(__name__)

SLICES = 20  # values of a column


class Predicted(NamedTuple):
    """What a network says of images: rows of the table (N,), labels (N,) and logits (N, C)."""

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """(N, C), float32."""
        return softmax(self.logits / np.float32(temperature), axis=1)


def predict(
    model: Classifier, data: CXRDataModule, side: str, options: Mapping[str, Any], timer: EpochTimer
) -> Predicted:
    """What a network says of the val or test images.

    Raises:
        Diverged: it says nothing: training left the finite numbers.
    """
    kept = {key: options[key] for key in ("accelerator", "precision")}
    # One device, also where several trained: then no image is counted twice, and none is missing.
    gpus = options["devices"] if isinstance(options["devices"], list) else None
    kept["devices"] = gpus[:1] if gpus else 1
    trainer = build_trainer(
        kept, data.cache, False, [timer, StopWhenAsked()]
    )  # None would be a logger of Lightning's own
    evaluation = trainer.validate if side == "val" else trainer.test
    evaluation(model, datamodule=data, verbose=False)
    said = Predicted(*(t.cpu().numpy() for t in model.evaluation()))
    if not np.isfinite(said.logits).all():
        raise Diverged("the network's output is not finite: training diverged; try a smaller optim.lr")
    return said


def score(labels: np.ndarray, probabilities: np.ndarray, group: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Figures as in metrics.json, with their intervals, of labels (N,), probabilities (N, C) and group (N,)."""
    metrics = evaluation_metrics(len(classes))
    metrics.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return as_plain(metrics.compute(), classes) | {"ci95": intervals(labels, probabilities, group, classes)}


def calibrate(predicted: Predicted, group: np.ndarray, temperature: float | None) -> dict[str, Any]:
    """Of metrics.json: how far the probabilities of images of some groups (N,) are off, before and after logits are
    divided by the temperature that the validation images asked for (None: there were none)."""
    found: dict[str, Any] = {
        "temperature": temperature or 1.0,
        "before": calibration(predicted.labels, predicted.probabilities(), group),
    }
    if temperature:
        found["after"] = calibration(predicted.labels, predicted.probabilities(temperature), group)
    return found


def screen(
    options: Mapping[str, Any], data: CXRDataModule, val: Predicted, test: Predicted, temperature: float
) -> dict[str, Any] | None:
    """Of metrics.json: one class as a screening test, see cxr.evaluation.screening; None where the set has no such
    class."""
    classes, name = data.images.classes, class_name(options["class"])
    if name not in classes:
        return None
    of = classes.index(name)
    chance = {side: p.probabilities(temperature)[:, of] for side, p in (("val", val), ("test", test))}
    threshold = choose_threshold(val.labels == of, chance["val"], options["sensitivity"])
    points = [operating_point(p.labels == of, chance[side], threshold) for side, p in (("val", val), ("test", test))]
    return screening(name, options["sensitivity"], threshold, *points)


def slices(data: CXRDataModule, predicted: Predicted) -> dict[str, dict[str, dict[str, Any]]]:
    """Of metrics.json: for each further column of a table or manifest, accuracy on the test images of each of its
    values, with its exact binomial interval. (A slice has few images, and few of the classes: macro F1 would mean
    little.) A column of many values, such as a date, makes no slices."""
    right, found = predicted.logits.argmax(1) == predicted.labels, {}
    for column, of_images in data.images.slices.items():
        values = of_images[predicted.index]
        names = sorted(set(values.tolist()) - {""})
        if len(names) > SLICES:
            log.info("no slices by %s: it has %d values, more than %d", column, len(names), SLICES)
            continue
        for name in names:
            hits, images = int(right[values == name].sum()), int((values == name).sum())
            share = {"images": images, "accuracy": hits / images, "ci95": {"accuracy": exact_share(hits, images)}}
            found.setdefault(column, {})[name] = share
    return found


def shortcuts(
    model: Classifier,
    data: CXRDataModule,
    options: Mapping[str, Any],
    timer: EpochTimer,
    predicted: Predicted,
    rules: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """Of metrics.json: what test images give away to whoever does not look at lungs, each with accuracy, macro F1 and
    their intervals. Nothing is chosen by it.

    Simple rules, by what they say of the predicted images; this network with the lungs blacked out, and with all but
    them; and, since NORMAL and PNEUMONIA come from one source in the reference set, the network's score on these two
    alone.
    """
    index, labels, logits = predicted
    group, classes, said = data.group[index], model.classes, dict(rules)
    for name, hidden in (("lungs_black", "lungs"), ("only_lungs", "rest")):
        data.hidden = hidden
        again = predict(model, data, "test", options, timer)
        said[name] = again.logits.argmax(1)[np.isin(again.index, index)]
    data.hidden = ""
    found = {name: headline(labels, values, group, len(classes)) for name, values in said.items()}
    if {"NORMAL", "PNEUMONIA"} <= {classes[i] for i in labels} != {"NORMAL", "PNEUMONIA"}:
        pair = [classes.index("NORMAL"), classes.index("PNEUMONIA")]
        own = np.isin(labels, pair)
        two = (labels[own] == pair[1]).astype(int)
        found["normal_or_pneumonia"] = headline(two, logits[own][:, pair].argmax(1), group[own], 2)
    return found
