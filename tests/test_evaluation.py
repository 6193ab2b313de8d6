"""What is said of a run beside its own score."""

import json

import numpy as np
import pytest

from cxr.results.run_folder import read_table


def test_give_aways_follow_from_the_films_and_the_predictions(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    found = metrics["give_aways"]
    rules = ("majority_class", "file_facts", "nearest_neighbour", "lungs_black", "only_lungs", "normal_or_pneumonia")
    assert tuple(found) == rules
    rows = read_table(folder / "predictions.csv")
    counts = [sum(r["label"] == c for r in rows) for c in metrics["classes"]]
    assert found["majority_class"]["accuracy"] == pytest.approx(max(counts) / len(rows))
    two = [r for r in rows if r["label"] in ("NORMAL", "PNEUMONIA")]
    right = [(r["label"] == "NORMAL") == (float(r["prob_NORMAL"]) >= float(r["prob_PNEUMONIA"])) for r in two]
    assert found["normal_or_pneumonia"]["films"] == len(two) < len(rows)
    assert found["normal_or_pneumonia"]["accuracy"] == pytest.approx(np.mean(right))
    for name in rules:
        low, high = found[name]["ci95"]["f1_macro"]
        assert low <= found[name]["f1_macro"] <= high
