"""A hospital is held out by command: what the run, its report and the evaluation of its network say of it."""

import json

import numpy as np
import pytest
from filelock import FileLock

from cxr.evaluate import main as evaluate
from cxr.files.writing import read_json, read_table
from cxr.options.command_line import read_command
from cxr.reporting.report import write_report
from cxr.train import list_hospitals
from cxr.train import main as train


@pytest.fixture(scope="session")
def table(drawn, common):
    """The drawn images, of which patients are in three hospitals; only East has tuberculosis."""
    rng, hospital_of = np.random.default_rng(0), {}
    lines = ["file,label,patient,hospital"]
    for row in read_table(drawn / "manifest.csv"):
        label = row["file"].split("/")[1]
        names = ["East"] if label == "TURBERCULOSIS" else ["North", "South", "East"]
        hospital = hospital_of.setdefault(row["patient"], names[rng.integers(len(names))])
        lines.append(f"{drawn}/{row['file']},{label},{row['patient']},{hospital}")
    path = common / "images of three hospitals.csv"
    with FileLock(common / "table.lock"):
        path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def words(table, drawn, tiny):
    return ("data=table", f"data.table={table}", f"data.root={drawn}", "data.split=hospital", *tiny)


@pytest.fixture(scope="session")
def sweep(words, common):
    folder = common / "held out"
    levers = (
        "data.sampler=balanced",
        "data.balance=[label,hospital]",
        "select=worst_hospital",
        "data.val_fraction=0.4",
    )
    with FileLock(common / "held out.lock"), pytest.MonkeyPatch.context() as patch:
        if (folder / "report.html").exists():
            return folder
        options = ["trainer.max_epochs=2", "optim.lr=0.003", *levers, f"hydra.sweep.dir={folder}"]
        patch.setattr("sys.argv", ["train", "-m", "data.hold_out=North,East", *words, *options])
        train()
    return folder


def test_all_stands_for_each_hospital(words):
    command = read_command(["-m", "data.hold_out=all", *words], "config", list_hospitals)
    assert sorted(options["data"]["hold_out"] for options in command.runs.values()) == ["East", "North", "South"]


def test_each_hospital_is_held_out(sweep):
    rows = {row["data.hold_out"]: row for row in read_table(sweep / "leaderboard.csv")}
    assert set(rows) == {"North", "East"}
    for name, row in rows.items():
        metrics = json.loads((sweep / row["run"] / "metrics.json").read_text())
        outside = {line["file"] for line in read_table(sweep / row["run"] / "predictions.csv")}
        split = {line["file"]: line["split"] for line in read_table(sweep / row["run"] / "split.csv")}
        assert outside == {file for file, part in split.items() if part == "test"}
        inside = {line["file"] for line in read_table(sweep / row["run"] / "inside_predictions.csv")}
        assert inside == {file for file, part in split.items() if part == "inside"}
        transfer = metrics["transfer"]
        assert transfer["hold_out"] == name not in transfer["hospitals"]
        gap = metrics["test"]["f1_macro"] - transfer["inside"]["test"]["f1_macro"]
        assert transfer["difference"]["f1_macro"]["difference"] == pytest.approx(gap, abs=1e-6)
        assert float(row["transfer_gap"]) == pytest.approx(gap, abs=1e-6)
        assert float(row["inside_f1_macro"]) == transfer["inside"]["test"]["f1_macro"]
    east = json.loads((sweep / rows["East"]["run"] / "metrics.json").read_text())
    assert list(east["transfer"]["not_learnt"]) == ["TUBERCULOSIS"]
    assert "transfer_gap" in (sweep / "leaderboard.md").read_text()


def test_console_card_and_report_say_the_gap(sweep):
    run = next(path for path in sweep.iterdir() if "hold_out-East" in path.name)
    card, report = (run / "MODEL_CARD.md").read_text(), write_report(run, "en").read_text()
    for text in (card, report):
        assert "East held out: macro F1" in text and "transfer gap" in text and "Parts of this loss" in text
        assert "TUBERCULOSIS: only East has it" in text
        assert "North (inside)" in text and "East (outside)" in text


def test_a_sweep_has_a_table_of_its_gaps(sweep):
    found = {part["recipe"]["data.hold_out"]: part for part in read_json(sweep / "comparisons.json")["transfers"]}
    assert set(found) == {"North", "East"} and found["East"]["seeds"] == 1
    row = next(row for row in read_table(sweep / "leaderboard.csv") if row["data.hold_out"] == "East")
    gap = found["East"]["gap"]["f1_macro"]
    assert gap["mean"] == pytest.approx(float(row["transfer_gap"]), abs=1e-6)
    assert gap["ci95"][0] <= gap["mean"] <= gap["ci95"][1]
    assert "TUBERCULOSIS" not in found["East"]["classes"]
    for text in ((sweep / "leaderboard.md").read_text(), write_report(sweep, "en").read_text()):
        assert "hospital held out" in text and f"{gap['mean']:+.3f}".replace("-", "−") in text


def test_the_epoch_is_that_of_the_worst_hospital(sweep):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = next(path for path in sweep.iterdir() if "hold_out-North" in path.name)
    events = EventAccumulator(str(run)).Reload()
    lowest = [event.value for event in events.Scalars("val/f1_worst_hospital")]
    assert len(lowest) == 2 and "test/hospitals/text_summary" in events.Tags()["tensors"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["chosen_by"] == "by_worst_hospital"
    kept = [event.value for event in events.Scalars("val/f1_macro")]
    best = np.argmax(lowest) if lowest[0] != lowest[1] else None
    if best is not None:
        assert metrics["val"]["f1_macro"] == pytest.approx(kept[best], abs=1e-6)


def test_evaluate_uses_the_inside_images_and_calibrates_on_some(sweep, run, words, tmp_path):
    network = next(path for path in sweep.iterdir() if "hold_out-North" in path.name) / "checkpoints" / "best.ckpt"
    options = [word for word in words if word.startswith(("data=", "data.table", "data.root", "cache_dir"))]
    call = (evaluate, f"ckpt={network}", *options, "data.on_leak=drop")
    code, out, err = run(*call, "calibrate_on=20", f"hydra.run.dir={tmp_path}/a")
    assert code == 0, err
    found = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    inside = read_table(network.parents[1] / "inside_predictions.csv")
    assert found["internal"]["n_test"] == len(inside), "not the images of the hospital held out"
    used = [row for row in read_table(tmp_path / "a" / "rejected.csv") if "calibrate_on=20" in row["reason"]]
    assert len(used) == found["recalibrated"]["images"] >= 20
    assert not {row["file"] for row in used} & {row["file"] for row in read_table(tmp_path / "a" / "predictions.csv")}
    assert "Calibrated on" in out and "| hospital" in out and "North" in found["by_hospital"]
    code, _, err = run(*call, "calibrate_on=9999", f"hydra.run.dir={tmp_path}/b")
    assert code == 2 and "calibrate_on=9999: no images are left to score" in err


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ((), "data.split=hospital: name the one that tests with data.hold_out=NAME"),
        (("data.hold_out=West",), "data.hold_out=West: no such hospital; there are East ("),
        (("data.hold_out=all",), "data.hold_out=all: trains a run for each hospital, and needs -m"),
        (("data.split=pooled", "data.hold_out=East"), "data.hold_out=East: only with data.split=hospital"),
    ],
)
def test_what_cannot_be_held_out_stops_before_any_run(run, words, tmp_path, more, error):
    code, _, err = run(train, *words, *more, f"hydra.run.dir={tmp_path}/run")
    assert code == 2 and error in err and len(err.splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["select=worst_hospital", "data.balance=[label,hospital]"])
def test_options_about_hospitals_need_some(run, small, tmp_path, option):
    code, _, err = run(train, *small, option, "data.sampler=balanced", f"hydra.run.dir={tmp_path}/run")
    assert code == 2 and f"{option}: no hospital is known; name the column" in err
