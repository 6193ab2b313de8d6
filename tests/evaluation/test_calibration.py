import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss
from torchmetrics.classification import MulticlassCalibrationError

from cxr.evaluation.calibration import BINS, calibration, fit_temperature


def drawn(images, temperature, seed=0):
    """Logits (N, 4) that are right once divided by `temperature`, and labels drawn from what they then say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, 4))
    labels = (rng.random((images, 1)) > softmax(logits, axis=1).cumsum(1)).sum(1)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_that_the_images_were_drawn_with(temperature):
    logits, labels = drawn(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_a_few_images_all_right_do_not_make_a_network_sure_of_everything():
    assert fit_temperature(np.eye(4) * 3, np.arange(4)) > 0.19


def test_figures_agree_with_those_of_others():
    logits, labels = drawn(3000, 2.0)
    p = softmax(logits, axis=1)
    found = calibration(labels, p, np.arange(3000))
    assert found["nll"] == pytest.approx(log_loss(labels, p))
    assert found["brier"] == pytest.approx(((p - np.eye(4)[labels]) ** 2).sum(1).mean())
    ece = MulticlassCalibrationError(4, n_bins=BINS, norm="l1")(torch.from_numpy(p), torch.from_numpy(labels))
    assert found["ece"] == pytest.approx(ece.item(), abs=1e-6)
    assert sum(found["bins"]["images"]) == 3000
    for key in ("nll", "brier", "ece"):
        low, high = found["ci95"][key]
        assert low < found[key] < high


def test_dividing_by_the_temperature_mends_them():
    logits, labels = drawn(4000, 3.0)
    fresh, truth = drawn(4000, 3.0, seed=1)
    t = fit_temperature(logits, labels)
    before, after = (calibration(truth, softmax(fresh / d, axis=1), np.arange(4000)) for d in (1, t))
    assert all(after[key] < before["ci95"][key][0] for key in ("nll", "brier", "ece"))


def test_images_of_one_patient_are_one_draw():
    logits, labels = drawn(300, 1.0)
    p = softmax(logits, axis=1)
    alone, ten = (
        calibration(np.tile(labels, 10), np.tile(p, (10, 1)), g) for g in (np.arange(3000), np.arange(3000) % 300)
    )
    assert alone["nll"] == pytest.approx(ten["nll"])
    widths = [np.ptp(found["ci95"]["nll"]) for found in (alone, ten)]
    assert widths[1] / widths[0] == pytest.approx(10**0.5, rel=0.1)


def test_intervals_of_a_calibrated_network_cover_what_such_samples_show():
    found = []
    for seed in range(80):
        logits, labels = drawn(300, 1.0, seed)
        found.append(calibration(labels, softmax(logits, axis=1), np.arange(300)))
    for key in ("nll", "brier", "ece"):
        mean = np.mean([f[key] for f in found])
        assert np.mean([f["ci95"][key][0] <= mean <= f["ci95"][key][1] for f in found]) >= 0.88, key
