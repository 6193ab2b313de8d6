"""What a trained network is worth: scored on films that it has not seen, and against whoever does not look at lungs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from cxr.callbacks import EpochTimer
from cxr.data.datamodule import CXRDataModule
from cxr.data.sources import class_name
from cxr.models.classifier import Classifier
from cxr.results.calibration import calibration, fit_temperature
from cxr.results.intervals import exact_share, headline, intervals
from cxr.results.metrics import as_plain, evaluation_metrics
from cxr.results.screening import choose_threshold, operating_point, screening
from cxr.trainer import build_trainer


class Predicted(NamedTuple):
    """What a network says of films: rows of the table (N,), labels (N,) and logits (N, C)."""

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """(N, C), float32."""
        return softmax(self.logits / np.float32(temperature), axis=1)


def predict(
    model: Classifier, data: CXRDataModule, side: str, options: Mapping[str, Any], timer: EpochTimer
) -> Predicted:
    """What a network says of the val or test films."""
    kept = {key: options[key] for key in ("accelerator", "devices", "precision")}
    trainer = build_trainer(kept, data.cache, False, [timer])  # None would be a logger of Lightning's own
    evaluation = trainer.validate if side == "val" else trainer.test
    evaluation(model, datamodule=data, verbose=False)
    return Predicted(*(t.cpu().numpy() for t in model.evaluation()))


def score(labels: np.ndarray, probabilities: np.ndarray, group: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Figures as in metrics.json, with their intervals, of labels (N,), probabilities (N, C) and group (N,)."""
    metrics = evaluation_metrics(len(classes))
    metrics.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return as_plain(metrics.compute(), classes) | {"ci95": intervals(labels, probabilities, group, classes)}


def calibrate(data: CXRDataModule, val: Predicted | None, test: Predicted) -> dict[str, Any]:
    """Of metrics.json: the temperature that the validation films ask for (1 without any), and how far the probabilities
    of the test films are off before and after they are divided by it."""
    temperature = fit_temperature(val.logits, val.labels) if val else 1.0
    group = data.group[test.index]
    found: dict[str, Any] = {
        "temperature": temperature,
        "before": calibration(test.labels, test.probabilities(), group),
    }
    if val:
        found["after"] = calibration(test.labels, test.probabilities(temperature), group)
    return found


def screen(
    options: Mapping[str, Any], data: CXRDataModule, val: Predicted | None, test: Predicted, temperature: float
) -> dict[str, Any] | None:
    """Of metrics.json: one class as a screening test, see cxr.results.screening; None without validation films, or
    where the set has no such class."""
    classes, name = data.films.classes, class_name(options["class"])
    if name not in classes or not val:
        return None
    of = classes.index(name)
    chance = {side: p.probabilities(temperature)[:, of] for side, p in (("val", val), ("test", test))}
    threshold = choose_threshold(val.labels == of, chance["val"], options["sensitivity"])
    points = [operating_point(p.labels == of, chance[side], threshold) for side, p in (("val", val), ("test", test))]
    return screening(name, options["sensitivity"], threshold, *points)


def slices(data: CXRDataModule, predicted: Predicted) -> dict[str, dict[str, Any]]:
    """Of metrics.json: accuracy on the test films of each source that a manifest names, with its exact binomial
    interval. (Sources have few films, and few of the classes: macro F1 would mean little.)"""
    source, right = data.films.source[predicted.index], predicted.logits.argmax(1) == predicted.labels
    found = {}
    for name in sorted(set(source.tolist()) - {""}):
        hits, films = int(right[source == name].sum()), int((source == name).sum())
        found[name] = {"films": films, "accuracy": hits / films, "ci95": {"accuracy": exact_share(hits, films)}}
    return found


def give_aways(
    model: Classifier,
    data: CXRDataModule,
    options: Mapping[str, Any],
    timer: EpochTimer,
    predicted: Predicted,
) -> dict[str, dict[str, Any]]:
    """Of metrics.json: what the test films give away to whoever does not look at lungs, each with accuracy, macro F1
    and their intervals. Nothing is chosen by it.

    Three simple rules; this network with the lungs blacked out, and with all but them; and, since NORMAL and PNEUMONIA
    come from one source in the reference set, the network's score on these two alone.
    """
    index, labels, logits = predicted
    group, classes = data.group[index], data.films.classes
    said = dict(data.say_without_lungs(index))
    for name, hidden in (("lungs_black", "lungs"), ("only_lungs", "rest")):
        data.hidden = hidden
        said[name] = predict(model, data, "test", options, timer).logits.argmax(1)
    data.hidden = ""
    found = {name: headline(labels, values, group, len(classes)) for name, values in said.items()}
    if {"NORMAL", "PNEUMONIA"} <= set(classes) and len(classes) > 2:
        pair = [classes.index("NORMAL"), classes.index("PNEUMONIA")]
        own = np.isin(labels, pair)
        two = (labels[own] == pair[1]).astype(int)
        found["normal_or_pneumonia"] = headline(two, logits[own][:, pair].argmax(1), group[own], 2)
    return found
