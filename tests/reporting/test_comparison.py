"""Which recipes are compared, and in which words."""

import numpy as np
import pytest

from cxr.files.predictions import write_predictions
from cxr.files.run_folder import METRICS, PREDICTIONS
from cxr.files.status import write_status
from cxr.files.writing import read_json, write_json, write_table
from cxr.reporting import comparison
from cxr.reporting.leaderboard import overview, write_leaderboard

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


def test_the_same_network_twice_is_no_comparison(add, tmp_path):
    """Two ways to choose the epoch chose the same one: that neither is better is not a finding."""
    for select in ("f1_macro", "worst_hospital"):
        add(1.0, model="cnn", aug="on", select=select)
    add(0.8, model="net", aug="on", select="f1_macro")
    found = comparison.compare(tmp_path)
    pairs = {pair["option"]: pair for pair in found["pairs"]}
    assert pairs["select"]["same"] and not pairs["model"]["same"] and found["comparisons"] == 2
    lines = comparison.sentences(found)
    assert "the same predictions in every digit" in next(line for line in lines if line.startswith("select="))
    assert "corrected for 2 comparisons" in lines[-1]


def test_too_few_seeds_say_how_many_would_do(add, tmp_path):
    """Seeds that differ by much: two of each show nothing, and the sentence says what would."""
    for seed, (on, off) in enumerate([(0.9, 0.8), (0.8, 0.82)]):
        add(on, model="cnn", aug="on", seed=seed)
        add(off, model="cnn", aug="off", seed=seed)
    (pair,) = comparison.compare(tmp_path)["pairs"]
    needed = pair["f1_macro"]["seeds_needed"]
    assert not pair["f1_macro"]["shown"] and needed > 2
    first, note = comparison.sentences({"comparisons": 2, "pairs": [pair]})
    assert f"; {needed} seeds of each would show a difference of 0.05 in four of five sweeps" in first
    assert "patients and seeds" in note


def test_folds_are_pooled_to_one_recipe_and_seeds_to_an_ensemble(tmp_path):
    """Every image is tested once, by one of three networks that are equally good; each of three seeds."""
    rng = np.random.default_rng(3)
    labels, files, group = rng.integers(2, size=300), np.array([f"{i:03}.png" for i in range(300)]), np.arange(300) // 2
    for aug, right in (("on", 0.9), ("off", 0.7)):
        for seed in (0, 1, 2):
            for fold in range(3):
                folder = tmp_path / f"{aug}-{seed}-{fold}"
                folder.mkdir()
                choices = {"model": "cnn", "aug": aug, "seed": seed, "data.fold": fold}
                write_status(folder, "done", choices=choices, started=len(list(tmp_path.iterdir())))
                write_json(
                    folder / METRICS, {"classes": CLASSES, "test": {"f1_macro": 1}, "shortcuts": {}, "train": {}}
                )
                mine = group % 3 == fold
                sure = np.where(rng.random(mine.sum()) < right, labels[mine], 1 - labels[mine])
                write_predictions(
                    folder / PREDICTIONS, files[mine].tolist(), CLASSES, labels[mine], 0.2 + 0.6 * np.eye(2)[sure]
                )
                write_table(folder / "split.csv", ("file", "group"), zip(files, group, strict=True))
    lines = comparison.write_comparisons(tmp_path)
    compared = read_json(tmp_path / "comparisons.json")
    (pair,) = compared["pairs"]
    assert (pair["images"], pair["seeds"], pair["accuracy"]["shown"]) == (300, 3, True)
    assert lines[0].startswith("aug=on against off (cnn): +0.")
    on = compared["recipes"][0]
    assert (on["recipe"], on["seeds"], on["folds"], on["images"], len(on["runs"])) == (
        {"model": "cnn", "aug": "on"},
        *(3, 3, 300, 9),
    )
    low, high = on["accuracy"]["ci95"]
    assert low < on["accuracy"]["mean"] < high and abs(on["accuracy"]["mean"] - 0.9) < 0.05
    assert on["ensemble"]["accuracy"]["ci95"][0] < on["ensemble"]["accuracy"]["mean"]
    board = (tmp_path / "leaderboard.md").read_text()
    assert f"{on['f1_macro']['mean']:.4f} ± {on['f1_macro']['sd']:.4f} [" in board and "(3 seeds, 3 folds)" in board
    assert "ensemble of 3 seeds, 3 folds" in board
    gain = on["ensemble"]["gain"]["accuracy"]  # of three networks that err independently, two are seldom both wrong
    assert np.isclose(gain["difference"], on["ensemble"]["accuracy"]["mean"] - on["accuracy"]["mean"])
    assert gain["shown"]
    line = next(line for line in board.splitlines() if "ensemble less the mean of 3 seeds, 3 folds" in line)
    assert line.split("|")[4].strip().startswith(f"+{gain['difference']:.3f} [+0.")
    add_row = tmp_path / "on-3-0"  # a new seed, which diverged: it counts as 0
    add_row.mkdir()
    choices = {"model": "cnn", "aug": "on", "seed": 3, "data.fold": 0}
    write_status(add_row, "failed", "training diverged", choices=choices, diverged=True, started=99)
    assert "ensemble" not in overview(tmp_path, write_leaderboard(tmp_path)).split("cnn, aug=off")[0]


def test_one_recipe_is_compared_with_nothing(add, tmp_path):
    add(0.9, model="cnn", aug="on")
    (line,) = comparison.write_comparisons(tmp_path)
    assert line.startswith("Not a medical device"), "and no difference"
