"""Whether a network is as sure as it is right: temperature scaling, and how far probabilities are off."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cxr.evaluation.intervals import RESAMPLES, draw_weights, ends_of

BINS = 15  # of the probability of the said class, of equal width, as Guo et al. 2017 have it
TEMPERATURES = (0.2, 10.0)  # few validation images, all said rightly, would else ask for none at all


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number by which logits (N, C) are to be divided so that labels (N,) are as likely as can be.

    It changes no said class, only how sure it is said (Guo et al. 2017: On calibration of modern neural networks).
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def calibration(labels: np.ndarray, probabilities: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """How far probabilities (N, C) are from what came true, as metrics.json has it.

    Args:
        labels: int (N,).
        group: (N,), see intervals.intervals().

    Returns:
        "nll": mean negative logarithm of the true class's probability. "brier": mean squared distance of the
        probabilities from the truth, summed over classes, 0 to 2 (Brier 1950). "ece": expected calibration error, mean
        distance between how sure the said class was and how often it was right, over BINS bins. "ci95" of these three.
        "bins": images, mean confidence and share of right ones of each bin.
    """
    rows, said, n = np.arange(len(labels)), probabilities.argmax(1), len(labels)
    sure, right = probabilities[rows, said].astype(np.float64), (said == labels).astype(np.float64)
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    truth = np.zeros(probabilities.shape)
    truth[rows, labels] = 1
    each = np.zeros((n, 2 + BINS))  # of an image: nll, Brier score, and in its bin how much too sure it was
    each[:, 0] = -np.log(np.maximum(probabilities[rows, labels].astype(np.float64), 1e-12))
    each[:, 1] = ((probabilities - truth) ** 2).sum(1)
    each[rows, 2 + bins] = sure - right
    names, number = np.unique(group, return_inverse=True)
    of_group = np.zeros((len(names), 2 + BINS))
    np.add.at(of_group, number, each)
    images = np.bincount(number)
    drawn = [figures_of(weights @ of_group, weights @ images) for weights in draw_weights(len(names), RESAMPLES)]
    own = {key: float(v[0]) for key, v in figures_of(of_group.sum(0)[None], np.array([n])).items()}
    resampled = {key: np.concatenate([part[key] for part in drawn]) for key in own}
    # A resample has the noise of its images twice, which no bin's distance can cancel: without this shift by the
    # bootstrap's own estimate of that bias, a well calibrated network's ece lies below its interval.
    resampled["ece"] = np.maximum(resampled["ece"] - (resampled["ece"].mean() - own["ece"]), 0)
    ends = {key: ends_of(values).tolist() for key, values in resampled.items()}
    counts = np.bincount(bins, minlength=BINS)
    means = {
        name: [round(float(s / c), 4) if c else None for s, c in zip(np.bincount(bins, v, BINS), counts, strict=True)]
        for name, v in (("confidence", sure), ("right", right))
    }
    return {**own, "ci95": ends, "bins": {"images": counts.tolist(), **means}}


def figures_of(sums: np.ndarray, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """nll, brier and ece, each (r,), of sums over images (r, 2 + BINS) and their number (r,)."""
    return {
        "nll": sums[:, 0] / images,
        "brier": sums[:, 1] / images,
        "ece": np.abs(sums[:, 2:]).sum(1) / images,
    }
