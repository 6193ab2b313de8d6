"""Which recipes are compared, and in which words."""

import numpy as np
import pytest

from cxr.files.predictions import write_predictions
from cxr.files.run_folder import METRICS, PREDICTIONS
from cxr.files.status import write_status
from cxr.files.writing import write_json, write_table
from cxr.reporting import comparison

CLASSES = ("NORMAL", "PNEUMONIA")


@pytest.fixture
def add(tmp_path):
    """Add a run to a sweep, of a network that is right for `right` of 600 images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=600)
    files = [f"{i}.png" for i in range(600)]

    def make(right, seed=0, skip=0, **choices):
        folder = tmp_path / "-".join(map(str, [*choices.values(), seed]))
        folder.mkdir()
        predicted = np.where(rng.random(600) < right, labels, 1 - labels)
        started = len(list(tmp_path.iterdir()))
        write_status(folder, "done", choices=choices | {"seed": seed}, started=started)
        write_json(folder / METRICS, {"classes": CLASSES, "test": {"f1_macro": 1}, "shortcuts": {}, "train": {}})
        write_predictions(folder / PREDICTIONS, files[skip:], CLASSES, labels[skip:], np.eye(2)[predicted[skip:]])
        write_table(folder / "split.csv", ("file", "group"), [(file, i // 2) for i, file in enumerate(files)])

    return make


def test_recipes_that_differ_in_one_choice(add, tmp_path):
    for model, aug, right in (("cnn", "on", 0.8), ("cnn", "off", 0.8), ("net", "on", 0.95), ("net", "off", 0.8)):
        add(right, model=model, aug=aug)
    found = comparison.compare(tmp_path)
    assert found["comparisons"] == 8
    pairs = {(p["option"], p["ours"], p["theirs"], *p["where"].values()): p for p in found["pairs"]}
    assert pairs.keys() == {
        *(("aug", "on", "off", model) for model in ("cnn", "net")),
        *(("model", "net", "cnn", aug) for aug in ("on", "off")),
    }
    assert (
        pairs["aug", "on", "off", "net"]["accuracy"]["shown"]
        and pairs["model", "net", "cnn", "on"]["f1_macro"]["shown"]
    )
    assert not pairs["aug", "on", "off", "cnn"]["f1_macro"]["shown"]
    lines = comparison.sentences(found)
    assert any(line.startswith("aug=on against off (net): +0.1") for line in lines)
    assert any("no difference in macro F1 shown" in line for line in lines)
    assert "corrected for 8 comparisons" in lines[-1] and "one seed per recipe" in lines[-1]


def test_seeds_are_paired_and_other_test_images_are_not_compared(add, tmp_path):
    for seed in (0, 1, 2):
        add(0.9, model="cnn", aug="on", seed=seed)
        add(0.8, model="cnn", aug="off", seed=seed)
    add(0.9, model="cnn", aug="strong", skip=10)
    (pair,) = comparison.compare(tmp_path)["pairs"]
    assert pair["seeds"] == 3 and pair["images"] == 600 and pair["accuracy"]["shown"]
    assert "patients and seeds" in comparison.sentences({"comparisons": 2, "pairs": [pair]})[-1]


def test_one_recipe_is_compared_with_nothing(add, tmp_path):
    add(0.9, model="cnn", aug="on")
    assert comparison.write_comparisons(tmp_path) == []
