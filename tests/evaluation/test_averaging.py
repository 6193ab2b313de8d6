"""The mean of several networks' probabilities."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from cxr.evaluation.averaging import average, log_mean
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.evaluation import Evaluation


def evaluation(logits, labels, temperature):
    return Evaluation(np.arange(len(labels)), labels, logits, np.arange(len(labels)), ("A", "B", "C"), temperature)


def test_the_mean_of_calibrated_networks_is_too_cautious_and_is_calibrated_again():
    """Three networks that see the truth with noise of their own: the temperature that validation images give their mean
    lies below 1, and makes fresh images more likely."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, (8000, 3))
    labels = (softmax(truth, axis=1).cumsum(1) > rng.random((8000, 1))).argmax(1)
    seen = [(truth + rng.normal(0, 2, truth.shape)).astype(np.float32) for _ in range(3)]
    val, fresh = slice(0, 4000), slice(4000, None)
    temperatures = [fit_temperature(logits[val], labels[val]) for logits in seen]
    assert min(temperatures) > 1.2, "each alone is too sure"
    members = [evaluation(*pair) for pair in zip(seen, [labels] * 3, temperatures, strict=True)]
    ensemble = average(members, None)
    assert ensemble.probabilities == pytest.approx(np.mean([m.probabilities for m in members], axis=0), abs=1e-6)
    again = fit_temperature(ensemble.logits[val], labels[val])
    assert again < 0.9
    calibrated = average(members, again)
    assert (calibrated.predicted == ensemble.predicted).all()

    def loss(probabilities):
        return -np.log(probabilities[np.arange(8000), labels][fresh]).mean()

    assert loss(calibrated.probabilities) < loss(ensemble.probabilities) < min(loss(m.probabilities) for m in members)
    assert calibrated.calibration["after"]["ece"] < calibrated.calibration["before"]["ece"]


def test_one_network_stays_as_it_is():
    logits, labels = np.eye(3, dtype=np.float32), np.arange(3)
    member = evaluation(logits, labels, 2.0)
    assert average([member], None) is member


def test_a_class_that_no_network_thinks_possible_keeps_a_finite_logit():
    sure = np.array([[1, 0, 0]], dtype=np.float32)
    logits = log_mean([sure, sure])
    assert logits.dtype == np.float32 and np.isfinite(logits).all()
    assert np.exp(log_softmax(logits, axis=1)) == pytest.approx(sure, abs=1e-7)
