"""What is said of a run beside its own score."""

import json

import numpy as np
import pytest
from sklearn.metrics import log_loss

from cxr import evaluate, report, train
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
    assert found["class"] == "TUBERCULOSIS"
    assert (found["confidence"], found["patients_needed"], found["promised"]) == (0.95, 29, False)
    split = read_table(folder / "split.csv")
    validated = {r["group"] for r in split if (r["split"], r["label"]) == ("val", "TUBERCULOSIS")}
    assert found["val_patients"] == len(validated) < 29
    assert found["val"]["sensitivity"] == 1, "where nothing can be promised, all validation images reach the threshold"
    rows = read_table(folder / "predictions.csv")
    called = np.array([float(r["prob_TUBERCULOSIS"]) >= found["threshold"] - 1e-8 for r in rows])
    own = np.array([r["label"] == "TUBERCULOSIS" for r in rows])
    assert found["test"]["sensitivity"] == pytest.approx(called[own].mean())
    assert found["test"]["specificity"] == pytest.approx(1 - called[~own].mean())


def test_every_class_can_have_its_threshold_also_elsewhere(run, small, drawn, cache, tmp_path, monkeypatch):
    """From the option to metrics.json, console, card, report and the figures of another hospital."""
    monkeypatch.chdir(tmp_path)
    words = ("name=a", "trainer.max_epochs=1", "screen.class=all", "screen.sensitivity=0.5", "screen.confidence=0.6")
    code, out, _ = run(train.main, *words, *small)
    made = tmp_path / "runs" / "a"
    metrics = json.loads((made / "metrics.json").read_text())
    assert code == 0 and metrics["screening"] is None and list(metrics["screenings"]) == metrics["classes"]
    assert run(report.main, made)[0] == 0
    page, card = ((made / name).read_text() for name in ("report.html", "MODEL_CARD.md"))
    rows = read_table(made / "predictions.csv")
    for name, screening in metrics["screenings"].items():
        own = [float(r[f"prob_{name}"]) for r in rows if r["label"] == name]
        reached = np.mean(np.array(own) >= screening["threshold"] - 1e-8)
        assert screening["class"] == name and screening["test"]["sensitivity"] == pytest.approx(reached)
        assert screening["promised"] == (screening["val_patients"] >= 2 == screening["patients_needed"])
        start = f"{name}: threshold {screening['threshold']:.3g}; measured: sensitivity {reached:.3f} ["
        kept = (
            "at least 50% with 60% confidence (needs 2 " if screening["promised"] else "NONE; 50% with 60% confidence"
        )
        for text in (out, card):
            line = next(line for line in text.splitlines() if line[2:].startswith(start))
            assert f"; promised sensitivity: {kept}" in line
        assert f"<td>a</td><td>{name}</td><td>{screening['threshold']:.3g}</td>" in page
    assert any(screening["promised"] for screening in metrics["screenings"].values())

    ckpt = f"ckpt={made}/checkpoints/best.ckpt"
    words = ("name=e", ckpt, f"data.root={drawn}/test", "data.on_leak=keep")
    code, out, _ = run(evaluate.main, *words, f"cache_dir={cache}")
    elsewhere = json.loads((tmp_path / "runs" / "e" / "evaluation.json").read_text())
    assert code == 0 and elsewhere["screening"] is None and "holds for patients like those of the run" in out
    for name, screening in elsewhere["screenings"].items():
        assert screening["threshold"] == metrics["screenings"][name]["threshold"]
        assert screening["promised"] == metrics["screenings"][name]["promised"]
        internal = elsewhere["internal"]["screenings"][name]
        assert internal["sensitivity"] == pytest.approx(metrics["screenings"][name]["test"]["sensitivity"])
        for key in ("sensitivity", "specificity"):
            shown = [f"{point[key]:.3f} [" for point in (internal, screening["test"])]
            line = next(line for line in out.splitlines() if line.startswith(f"| {key} for {name} "))
            assert all(share in line for share in shown)
