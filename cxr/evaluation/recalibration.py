"""Calibration on some images of another hospital: what a network scores on the rest of them then."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from cxr.evaluation.calibration import calibration
from cxr.evaluation.differences import paired_difference
from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.intervals import figures_of

SPREAD = 2.0  # standard deviation of the normal prior of an offset: few images then move the logits little


DRAWS = 20  # of other images to calibrate on


def draw_images(group: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """Draw whole groups at random until they have `number` images: bool (N,) of group (N,). A function of all three."""
    names, images = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = order[: int((np.cumsum(images[order]) < number).sum()) + 1]
    return np.isin(group, names[chosen])


def fit_offsets(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Temperature and offsets (C,) under which labels (N,) are most likely: softmax(logits / temperature + offsets)
    (bias-corrected temperature scaling, Alexandari, Kundaje & Shrikumar 2020), with a normal prior of all parameters
    (SPREAD), so that a class without images keeps a finite one."""
    rows = np.arange(len(labels))

    def loss(parameters: np.ndarray) -> float:
        scaled = logits / np.exp(parameters[0]) + parameters[1:]
        return -log_softmax(scaled, axis=1)[rows, labels].sum() + (parameters**2).sum() / (2 * SPREAD**2)

    fitted = minimize(loss, np.zeros(1 + logits.shape[1]), method="L-BFGS-B").x
    return float(np.exp(fitted[0])), fitted[1:] - fitted[1:].mean()


def recalibrate(fitted_on: Evaluation, rest: Evaluation, number: int) -> dict[str, Any]:
    """The scores of other images, `rest`, after temperature and offsets were fitted on the images `fitted_on`, which
    draw_images() drew to be `number`.

    Returns:
        "images" that it was fitted on, and "counts" of them by class; "temperature" and "offsets" (by class, of logits
        that are divided by this temperature); "test" and "calibration" of `rest`, as in metrics.json; "difference" of
        its scores, with less without: see paired_difference(). These hold for the images that were drawn; "other_draws"
        is the lowest and the highest difference of macro F1 with DRAWS other draws.
    """
    temperature, offsets = fit_offsets(fitted_on.logits, fitted_on.labels)
    after = replace(rest, logits=(rest.logits / temperature + offsets).astype(np.float32), temperature=None)
    counts = np.bincount(fitted_on.labels, minlength=len(rest.classes)).tolist()
    return {
        "images": len(fitted_on),
        "counts": dict(zip(rest.classes, counts, strict=True)),
        "temperature": temperature,
        "offsets": dict(zip(rest.classes, offsets.tolist(), strict=True)),
        "test": after.scores,
        "calibration": calibration(after.labels, after.probabilities, after.group),
        "difference": paired_difference(
            rest.labels, rest.group, [after.predicted], [rest.predicted], len(rest.classes)
        ),
        "other_draws": gains_of_draws([fitted_on, rest], number),
    }


def gains_of_draws(parts: Sequence[Evaluation], number: int) -> list[float]:
    """The lowest and the highest gain in macro F1 by calibration on `number` images of all `parts`, of DRAWS draws."""
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "logits", "group")}
    gains = []
    for seed in range(1, 1 + DRAWS):
        drawn = draw_images(whole["group"], number, seed)
        temperature, offsets = fit_offsets(whole["logits"][drawn], whole["labels"][drawn])
        labels, logits = whole["labels"][~drawn], whole["logits"][~drawn]
        scores = [f1_macro(labels, moved.argmax(1)) for moved in (logits / temperature + offsets, logits)]
        gains.append(scores[0] - scores[1])
    return [min(gains), max(gains)]


def f1_macro(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Macro F1 of predicted classes (N,)."""
    classes = int(max(labels.max(), predicted.max())) + 1
    counts = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return float(figures_of(counts)["f1_macro"])
