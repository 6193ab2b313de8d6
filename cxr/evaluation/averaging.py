"""An ensemble: the mean of several networks' probabilities, as an Evaluation of its own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cxr.evaluation.evaluation import Evaluation

LEAST = 1e-8  # of a mean probability: the last digit of predictions.csv, so that a logarithm of 0 is never needed


def log_mean(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The logits of an ensemble: the logarithm of the mean of its networks' probabilities, each float32 (N, C).

    Their softmax is that mean. Divided by a temperature, they calibrate it (Rahaman & Thiery 2021, Uncertainty
    quantification and deep ensembles: the mean of calibrated probabilities is too cautious, so it needs one more).
    """
    return np.log(np.maximum(np.mean(probabilities, axis=0), np.float32(LEAST)))


def average(members: Sequence[Evaluation], temperature: float | None) -> Evaluation:
    """The evaluation of an ensemble from those of its networks on the same images; that of one network stays as it is.

    Args:
        temperature: the divisor of the ensemble's logits, or None where it is not calibrated again.
    """
    if len(members) == 1:
        return members[0]
    return replace(members[0], logits=log_mean([m.probabilities for m in members]), temperature=temperature)
