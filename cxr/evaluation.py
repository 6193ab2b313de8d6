"""What a trained network is worth: scored on films that it has not seen, and against whoever does not look at lungs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr.callbacks import EpochTimer
from cxr.data.datamodule import CXRDataModule
from cxr.models.classifier import Classifier
from cxr.results.intervals import headline, intervals
from cxr.results.metrics import as_plain
from cxr.trainer import build_trainer

Predicted = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows (N,), labels (N,) and probabilities (N, C)


def evaluate(
    model: Classifier, data: CXRDataModule, side: str, options: Mapping[str, Any], timer: EpochTimer
) -> tuple[dict[str, Any], Predicted]:
    """Figures of the val or test films as in metrics.json, with their intervals, and what was predicted."""
    index, labels, probabilities = predicted = predict(model, data, side, options, timer)
    scores = as_plain({k: v.cpu() for k, v in model.scores.items()}, data.films.classes)
    scores["ci95"] = intervals(labels, probabilities, data.group[index], data.films.classes)
    return scores, predicted


def predict(
    model: Classifier, data: CXRDataModule, side: str, options: Mapping[str, Any], timer: EpochTimer
) -> Predicted:
    """What a network says of the val or test films; its `scores` are theirs then."""
    kept = {key: options[key] for key in ("accelerator", "devices", "precision")}
    trainer = build_trainer(kept, data.cache, False, [timer])  # None would be a logger of Lightning's own
    evaluation = trainer.validate if side == "val" else trainer.test
    evaluation(model, datamodule=data, verbose=False)
    index, labels, logits = (t.cpu() for t in model.evaluation())
    return index.numpy(), labels.numpy(), logits.softmax(1).numpy()


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
    index, labels, probabilities = predicted
    group, classes = data.group[index], data.films.classes
    said = dict(data.say_without_lungs(index))
    for name, hidden in (("lungs_black", "lungs"), ("only_lungs", "rest")):
        data.hidden = hidden
        said[name] = predict(model, data, "test", options, timer)[2].argmax(1)
    data.hidden = ""
    found = {name: headline(labels, values, group, len(classes)) for name, values in said.items()}
    if {"NORMAL", "PNEUMONIA"} <= set(classes) and len(classes) > 2:
        pair = [classes.index("NORMAL"), classes.index("PNEUMONIA")]
        own = np.isin(labels, pair)
        two = (labels[own] == pair[1]).astype(int)
        found["normal_or_pneumonia"] = headline(two, probabilities[own][:, pair].argmax(1), group[own], 2)
    return found
