"""The cells of a sweep: the leaderboard, failed and interrupted ones, and several at a time."""

import json
import subprocess
import sys
import time

import pytest

from cxr import cell as cell_module
from cxr.results.run_folder import alive, read_status, read_table
from cxr.train import main


def test_leaderboard_and_grid(sweep):
    rows = read_table(sweep / "leaderboard.csv")
    assert [(r["model"], r["aug"], r["seed"], r["status"]) for r in rows] == [
        ("cnn", a, "0", "done") for a in ("on", "off")
    ]
    for row in rows:
        metrics = json.loads((sweep / row["run"] / "metrics.json").read_text())
        assert float(row["f1_macro"]) == metrics["test"]["f1_macro"]
    text = (sweep / "leaderboard.md").read_text()
    assert "| macro F1 |" in text and "aug=on against off (cnn): " in text


def test_a_failed_cell_is_a_row_and_the_others_run_on(run, tmp_path, monkeypatch, small):
    def break_one(config, choices, folder, shared_console, train=cell_module.train_cell):
        if choices["aug"] == "on":
            raise ZeroDivisionError("a bug of ours")
        train(config, choices, folder, shared_console)

    monkeypatch.setattr(cell_module, "train_cell", break_one)
    words = ("-m", "aug=on,off", "trainer.max_epochs=1", *small)
    code, out, err = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    assert code == 1
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [(r["status"], r["error"]) for r in rows] == [("failed", "ZeroDivisionError: a bug of ours"), ("done", "")]
    log = (tmp_path / "s" / rows[0]["run"] / "train.log").read_text()
    assert "Traceback" in log and "break_one" in log
    assert "1 of 2 runs did not finish" in out and "train.log" in err


def test_an_interrupted_sweep_says_what_is_done(run, tmp_path, monkeypatch, small):
    def stop(*args, **options):
        raise SystemExit(1)  # what Lightning makes of a Ctrl-C during training

    monkeypatch.setattr(cell_module, "train_cell", stop)
    words = ("-m", "aug=on,off", *small)
    code, _, err = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    assert code == 130 and err.splitlines()[-1].startswith("cxr: interrupted")
    assert [(r["status"], r["error"]) for r in read_table(tmp_path / "s" / "leaderboard.csv")] == [
        ("failed", "interrupted")
    ]


def test_cells_side_by_side_are_those_of_one_after_the_other(sweep, tmp_path, small):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra `parallel` is not installed")
    words = ["-m", "launcher=parallel", "n=2", "aug=on,off", "optim.lr=0.003"]
    words += ["trainer.max_epochs=2", *small, f"hydra.sweep.dir={tmp_path}/s"]
    done = subprocess.run([sys.executable, "-m", "cxr.train", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for aug in ("on", "off"):
        assert f"cnn_aug-{aug}_seed-0: epoch 2/2" in done.stdout
        status = json.loads((tmp_path / "s" / f"cnn_aug-{aug}_seed-0" / "status.json").read_text())
        assert status["status"] == "done"
    both = [read_table(folder / "leaderboard.csv") for folder in (sweep, tmp_path / "s")]
    for ours, theirs in zip(*(sorted(rows, key=lambda r: r["run"]) for rows in both), strict=True):
        assert ours["run"] == theirs["run"] and theirs["status"] == "done"
        # Fewer threads a cell add up in another order.
        assert float(theirs["f1_macro"]) == pytest.approx(float(ours["f1_macro"]), abs=0.05)


def test_cells_side_by_side_end_with_a_killed_sweep(tmp_path, small):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra `parallel` is not installed")
    words = ["-m", "launcher=parallel", "n=2", "aug=on,off", "trainer.max_epochs=100000", *small]
    command = [sys.executable, "-m", "cxr.train", *words, f"hydra.sweep.dir={tmp_path}/s"]
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while ": epoch 1/" not in (line := sweep.stdout.readline()):
        assert line, "it ended before it trained"
    sweep.kill()
    workers = [read_status(path.parent)["pid"] for path in (tmp_path / "s").glob("*/status.json")]
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a cell trains on, for nobody"
        time.sleep(0.1)
    assert workers and "lost" in {read_status(path.parent)["status"] for path in (tmp_path / "s").glob("*/status.json")}
