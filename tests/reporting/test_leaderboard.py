import os
import socket

import pytest

from cxr.files.run_folder import METRICS
from cxr.files.status import read_status, write_status
from cxr.files.writing import read_json, read_table, write_json
from cxr.leaderboard import main
from cxr.reporting.leaderboard import as_markdown, grid_sentence, overview, write_leaderboard
from cxr.reporting.markdown import in_short, value_text
from cxr.reporting.rows import collect
from cxr.reporting.words import words


def add(sweep, model, aug, seed, f1=None, status="done", error="", note=""):
    folder = sweep / f"{model}_aug-{aug}_seed-{seed}"
    folder.mkdir(parents=True)
    choices = {"model": model, "aug": aug, "seed": seed}
    write_status(folder, status, error, choices=choices, started=len(list(sweep.iterdir())), seconds=3.5)
    if f1 is not None:
        test = {
            "f1_macro": f1,
            "ci95": {"f1_macro": [f1 - 0.1, f1 + 0.1]},
            "accuracy": 0.9,
            "precision_macro": 0.8,
            "recall_macro": 0.7,
        }
        write_json(
            folder / METRICS,
            {"test": test, "train": {"epochs": 2, "images_per_s": 50.0}, "note": note, "shortcuts": {}},
        )
    return folder


def test_rows_and_grid(tmp_path):
    for model, aug, seed, f1 in [
        ("cnn", "on", 0, 0.5),
        ("cnn", "off", 0, 0.6),
        ("net", "on", 0, 0.7),
        ("net", "on", 1, 0.8),
    ]:
        add(tmp_path, model, aug, seed, f1)
    add(tmp_path, "net", "off", 0, status="failed", error="ValueError: a|b")
    write_leaderboard(tmp_path)
    rows = read_table(tmp_path / "leaderboard.csv")
    assert [row["run"] for row in rows][:2] == ["cnn_aug-on_seed-0", "cnn_aug-off_seed-0"]
    assert list(rows[0]) == [
        *("model", "aug", "seed", "status", "error", "f1_macro", "accuracy", "precision_macro", "recall_macro"),
        *("epochs", "seconds", "images_per_s", "run", "f1_macro_low", "f1_macro_high", "val_f1_spread", "note"),
        *("val_f1_macro", "parameters", "flops", "precision", "device", "torch"),
        *("inside_f1_macro", "transfer_gap", "transfer_gap_low", "transfer_gap_high"),
    ]
    assert (rows[0]["f1_macro"], rows[0]["seconds"], rows[0]["epochs"]) == ("0.5", "3.5", "2")
    assert (rows[4]["status"], rows[4]["error"], rows[4]["f1_macro"]) == ("failed", "ValueError: a|b", "")
    text = (tmp_path / "leaderboard.md").read_text()
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["macro F1", "aug=on", "aug=off"]
    assert lines[2] == ["cnn", "0.5000 [0.400, 0.600]", "0.6000 [0.500, 0.700]"]
    assert lines[3] == ["net", "0.7500 ± 0.0707 (2 seeds)", "failed"]
    assert "1 of 5 runs did not finish" in text and "a\\|b" in text


def test_costs_stand_behind_the_rest(tmp_path):
    """Failed runs have none."""
    folders = [add(tmp_path, model, "on", 0, 0.5) for model in ("cnn", "net")]
    assert "flops" not in as_markdown(write_leaderboard(tmp_path), "")
    write_json(
        folders[1] / METRICS, read_json(folders[1] / METRICS) | {"network": {"parameters": 11172292, "flops": 3}}
    )
    failed, done = write_leaderboard(tmp_path)
    assert (failed["parameters"], failed["flops"], done["parameters"], done["flops"]) == ("", "", 11172292, 3)
    assert [row["parameters"] for row in read_table(tmp_path / "leaderboard.csv")] == ["", "11172292"]
    lines = [line for line in (tmp_path / "leaderboard.md").read_text().splitlines() if "_seed-" in line]
    assert [[cell.strip() for cell in line.split("|")][-3:-1] for line in lines] == [["", ""], ["11.2 M", "3"]]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999, "999"),
        (283250688, "283 M"),
        (3469774848, "3.47 G"),
        (999_600, "1.00 M"),
        (999_400, "999 k"),
        (2e13, "20.0 T"),
    ],
)
def test_in_short(number, text):
    assert in_short(number) == text


def test_notes_and_single_seed_are_said(tmp_path):
    add(tmp_path, "cnn", "on", 0, 0.5, note="drawn images (phantom): say nothing about patients")
    text = overview(tmp_path, collect(tmp_path))
    assert "Drawn images (phantom): say nothing about patients" in text
    assert "another seed would have given another network" in text


def computed(sweep, *how, aug="on", status="done"):
    """Add a run for each (precision, device, version of torch)."""
    for seed, (precision, device, torch) in enumerate(how):
        folder = add(sweep, "cnn", aug, seed, 0.5, status)
        metrics = read_json(folder / METRICS)
        train = metrics["train"] | {"precision": precision, "device": device}
        write_json(folder / METRICS, metrics | {"train": train, "versions": {"torch": torch}})


def test_runs_that_were_computed_in_different_ways_are_named(tmp_path):
    alike, gpu = ("bf16-mixed", "cpu", "2.11.0"), ("bf16-mixed", "GPU", "2.11.0")
    computed(tmp_path / "alike", alike, alike)
    computed(tmp_path / "alike", ("32-true", "GPU", "2.12.0"), aug="off", status="failed")
    assert "differ" not in overview(tmp_path / "alike", write_leaderboard(tmp_path / "alike"))
    computed(tmp_path / "mixed", alike, alike, alike, ("32-true", "cpu", "2.11.0"))
    rows = write_leaderboard(tmp_path / "mixed")
    sentence = "**These runs differ in precision (bf16-mixed: 3 runs, 32-true: 1 run): this alone can change"
    assert overview(tmp_path / "mixed", rows).count(sentence) == 1
    assert (tmp_path / "mixed" / "leaderboard.md").read_text().count(sentence) == 1
    assert "연산 정밀도 (bf16-mixed: 실행 3개, 32-true: 실행 1개)" in grid_sentence(rows, words("ko"))
    assert [row["precision"] for row in read_table(tmp_path / "mixed" / "leaderboard.csv")][2:] == [
        "bf16-mixed",
        "32-true",
    ]
    asked = [row | {"trainer.precision": row["precision"]} for row in rows]
    assert "differ" not in grid_sentence(asked, words("en")), "the sweep compares precisions"
    computed(tmp_path / "nodes", alike, gpu, ("bf16-mixed", "GPU", "2.12.0"))
    text = overview(tmp_path / "nodes", collect(tmp_path / "nodes"))
    assert "differ in device (cpu: 1 run, GPU: 2 runs), version of torch (2.11.0: 2 runs, 2.12.0: 1 run): " in text


def test_a_lottery_is_called_one(tmp_path):
    folder = add(tmp_path, "cnn", "on", 0, 0.5)
    for figures, wide in (
        ([0.1, 0.5, 0.8, 0.8, 0.81, 0.8], False),
        ([0.8, 0.8, 0.8, 0.8, 0.9, 0.62], True),
        ([0.2, 0.9], False),
    ):
        metrics = read_json(folder / METRICS)
        write_json(folder / METRICS, metrics | {"train": {"history": {"val_f1_macro": figures}}})
        assert ("varied by 0.280" in overview(tmp_path, collect(tmp_path))) == wide


def test_a_run_whose_process_has_gone_is_lost(tmp_path):
    folder = add(tmp_path, "cnn", "on", 0, status="running")
    assert read_status(folder)["status"] == "running", "this process is there"
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    told = read_status(folder) | {"pid": pid, "host": socket.gethostname()}
    write_json(folder / "status.json", told)
    assert read_status(folder)["status"] == "lost"
    write_json(folder / "status.json", told | {"host": "another machine"})
    assert read_status(folder)["status"] == "running", "nobody here can know"


def test_by_hand(tmp_path, run):
    add(tmp_path / "sweep", "cnn", "on", 0, 0.5)
    code, out, _ = run(main, tmp_path / "sweep")
    assert code == 0 and "0.5000" in out and (tmp_path / "sweep" / "leaderboard.csv").exists()
    for wrong in ([tmp_path / "nope"], [], [tmp_path]):
        code, _, err = run(main, *wrong)
        assert code == 2 and err.startswith("cxr: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (1234.5, "1234"), ("", ""), (3, "3"), ("a\nb", "a b")]
)
def test_value_text(value, text):
    assert value_text(value) == text
