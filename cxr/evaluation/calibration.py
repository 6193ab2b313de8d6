"""Calibration: temperature scaling, and how far probabilities are from the observed frequencies."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cxr.evaluation.intervals import RESAMPLES, draw_weights, ends_of

BINS = 15  # of equal width, over the probability of the predicted class (Guo et al. 2017)
LEAST = 1e-12  # probability that counts in a logarithm
TEMPERATURES = (0.2, 10.0)  # with few validation images, all of them predicted correctly, the best one would be 0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of logits (N, C) under which labels (N,) are most likely (Guo et al. 2017: On calibration of modern
    neural networks). It changes probabilities, but no predicted class."""
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def calibration(labels: np.ndarray, probabilities: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """How far probabilities (N, C) are from the labels, as in metrics.json.

    Args:
        labels: int (N,).
        group: (N,), see intervals.intervals().

    Returns:
        "nll": mean negative logarithm of the true class's probability. "brier": mean squared distance of the
        probabilities from the truth, summed over classes, 0 to 2 (Brier 1950). "ece": expected calibration error, the
        mean distance between confidence and accuracy over BINS bins. "ci95" of these three. "bins": images, mean
        confidence and accuracy of each bin.
    """
    rows, predicted, n = np.arange(len(labels)), probabilities.argmax(1), len(labels)
    confidence, right = probabilities[rows, predicted].astype(np.float64), (predicted == labels).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    truth = np.zeros(probabilities.shape)
    truth[rows, labels] = 1
    each = np.zeros((n, 2 + BINS))  # per image: nll, Brier score, and in its bin the excess of confidence
    each[:, 0] = -np.log(np.maximum(probabilities[rows, labels].astype(np.float64), LEAST))
    each[:, 1] = ((probabilities - truth) ** 2).sum(1)
    each[rows, 2 + bins] = confidence - right
    names, number = np.unique(group, return_inverse=True)
    of_group = np.zeros((len(names), 2 + BINS))
    np.add.at(of_group, number, each)
    images = np.bincount(number)
    drawn = [figures_of(weights @ of_group, weights @ images) for weights in draw_weights(len(names), RESAMPLES)]
    point = {key: float(v[0]) for key, v in figures_of(of_group.sum(0)[None], np.array([n])).items()}
    resampled = {key: np.concatenate([part[key] for part in drawn]) for key in point}
    # A resample has the noise of its images twice, which distances cannot cancel. Without this shift by the bootstrap's
    # estimate of that bias, the ece of a well calibrated network lies below its interval.
    resampled["ece"] = np.maximum(resampled["ece"] - (resampled["ece"].mean() - point["ece"]), 0)
    ends = {key: ends_of(values).tolist() for key, values in resampled.items()}
    if len(names) == 1:  # which says nothing about others
        ends = {"nll": [0.0, -float(np.log(LEAST))], "brier": [0.0, 2.0], "ece": [0.0, 1.0]}
    counts = np.bincount(bins, minlength=BINS)
    means = {
        name: [round(float(s / c), 4) if c else None for s, c in zip(np.bincount(bins, v, BINS), counts, strict=True)]
        for name, v in (("confidence", confidence), ("right", right))
    }
    return {**point, "ci95": ends, "bins": {"images": counts.tolist(), **means}}


def figures_of(sums: np.ndarray, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """nll, brier and ece, each (r,), of sums over images (r, 2 + BINS) and their number (r,)."""
    return {
        "nll": sums[:, 0] / images,
        "brier": sums[:, 1] / images,
        "ece": np.abs(sums[:, 2:]).sum(1) / images,
    }
