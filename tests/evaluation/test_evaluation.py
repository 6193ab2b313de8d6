"""What is said of a run beside its own score."""

import json

import numpy as np
import pytest
from sklearn.metrics import log_loss

from cxr.files.writing import read_table
from cxr.models.classifier import load_classifier


def test_shortcuts_follow_from_the_images_and_the_predictions(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    found = metrics["shortcuts"]
    rules = ("majority_class", "file_facts", "nearest_neighbour", "lungs_black", "only_lungs", "normal_or_pneumonia")
    assert tuple(found) == rules
    rows = read_table(folder / "predictions.csv")
    counts = [sum(r["label"] == c for r in rows) for c in metrics["classes"]]
    assert found["majority_class"]["accuracy"] == pytest.approx(max(counts) / len(rows))
    two = [r for r in rows if r["label"] in ("NORMAL", "PNEUMONIA")]
    right = [(r["label"] == "NORMAL") == (float(r["prob_NORMAL"]) >= float(r["prob_PNEUMONIA"])) for r in two]
    assert found["normal_or_pneumonia"]["images"] == len(two) < len(rows)
    assert found["normal_or_pneumonia"]["accuracy"] == pytest.approx(np.mean(right))
    for name in rules:
        low, high = found[name]["ci95"]["f1_macro"]
        assert low <= found[name]["f1_macro"] <= high


def test_the_checkpoint_holds_the_temperature_that_the_validation_images_asked_for(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    found = metrics["calibration"]
    model = load_classifier(folder / "checkpoints" / "best.ckpt")
    assert model.temperature.item() == pytest.approx(found["temperature"]) != 1.0
    rows = read_table(folder / "predictions.csv")
    p = np.array([[float(r[f"prob_{c}"]) for c in metrics["classes"]] for r in rows])
    truth = [metrics["classes"].index(r["label"]) for r in rows]
    assert found["after"]["nll"] == pytest.approx(log_loss(truth, p / p.sum(1, keepdims=True)), rel=1e-4), (
        "predictions are the calibrated ones"
    )


def test_the_screening_threshold_does_on_the_predictions_what_metrics_json_says(folder):
    found = json.loads((folder / "metrics.json").read_text())["screening"]
    assert found["class"] == "TUBERCULOSIS" and found["val"]["sensitivity"] >= 0.9
    rows = read_table(folder / "predictions.csv")
    called = np.array([float(r["prob_TUBERCULOSIS"]) >= found["threshold"] - 1e-8 for r in rows])
    own = np.array([r["label"] == "TUBERCULOSIS" for r in rows])
    assert found["test"]["sensitivity"] == pytest.approx(called[own].mean())
    assert found["test"]["specificity"] == pytest.approx(1 - called[~own].mean())
