"""The runs of a sweep: the leaderboard, failed and interrupted runs, and several at a time."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from same import assert_same_run

import cxr.train
from cxr.data.sources import read_folder
from cxr.data.store import open_store
from cxr.errors import UserError
from cxr.files.status import alive, read_status
from cxr.files.writing import read_json, read_table, write_json
from cxr.jobs import run as run_module
from cxr.jobs import sweep_precision
from cxr.jobs.plan import Plan
from cxr.models.classifier import Classifier
from cxr.models.precision import best_precision, possible
from cxr.options.command_line import CommandLine
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


def test_a_failed_run_is_a_row_and_the_others_continue(run, tmp_path, monkeypatch, small):
    def break_one(plan, train=run_module.train_and_test):
        if plan.choices["aug"] == "on":
            raise ZeroDivisionError("a bug of ours")
        train(plan)

    monkeypatch.setattr(run_module, "train_and_test", break_one)
    words = ("-m", "aug=on,off", "trainer.max_epochs=1", *small)
    code, out, err = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    assert code == 1
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [(r["status"], r["error"]) for r in rows] == [("failed", "ZeroDivisionError: a bug of ours"), ("done", "")]
    log = (tmp_path / "s" / rows[0]["run"] / "train.log").read_text()
    assert "Traceback" in log and "break_one" in log
    assert "1 of 2 runs did not finish" in out and "train.log" in err


def test_a_signal_stops_a_sweep_and_the_same_command_goes_on(run, tmp_path, monkeypatch, small, sweep):
    """In the middle of an epoch; every bit is that of the sweep that was never stopped."""
    words = ("-m", "aug=on,off", "trainer.max_epochs=2", "optim.lr=0.003", *small, f"hydra.sweep.dir={tmp_path}/s")

    def send(self, batch, batch_idx, step=Classifier.training_step):
        if self.current_epoch == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)  # a second signal does no harm
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", send)
        code, _, err = run(main, *words)
    assert code == 143 and err.splitlines()[-1].startswith("cxr: stopped by SIGTERM; completed work is in ")
    assert err.endswith("the same command resumes it\n")
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [(r["status"], r["error"]) for r in rows] == [("failed", "stopped by SIGTERM")], "the other never began"
    run_folder = tmp_path / "s" / rows[0]["run"]
    state = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["CXRDataModule"]["position"] == (1, 2)
    assert run(main, *words)[0] == 0
    assert_same_run(run_folder, sweep / run_folder.name)
    before = (run_folder / "metrics.json").stat().st_mtime_ns
    assert run(main, *words)[0] == 0, "what is done is left alone"
    assert (run_folder / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.long
def test_all_runs_of_a_sweep_have_the_precision_of_the_first(run, tmp_path, monkeypatch, small):
    """Also those of later starts and in processes of their own, which would choose another one themselves."""
    other = "32-true" if best_precision("cpu") == "bf16-mixed" else "bf16-mixed"
    words = [word for word in small if not word.startswith("trainer.precision=")]
    words += ["trainer=cpu", "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}/s"]
    with monkeypatch.context() as patch:
        patch.setattr(sweep_precision, "best_precision", lambda accelerator: other)
        assert run(main, "-m", "aug=on", *words)[0] == 0
    assert run(main, "-m", "aug=on,off", "isolate=true", *words)[0] == 0
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [(row["aug"], row["status"], row["precision"]) for row in rows] == [
        ("on", "done", other),
        ("off", "done", other),
    ]
    assert all(row["device"].startswith("cpu (") and row["torch"] == torch.__version__ for row in rows)
    checkpoints = (tmp_path / "s").glob("*/checkpoints/*.ckpt")
    assert {torch.load(path, weights_only=True)["precision"] for path in checkpoints} == {other}


def test_runs_that_begin_at_once_decide_for_one_precision(tmp_path, monkeypatch):
    asked = itertools.count()
    monkeypatch.setattr(sweep_precision, "best_precision", lambda accelerator: f"precision {next(asked)}")
    with ThreadPoolExecutor(4) as pool:
        decided = list(pool.map(lambda _: sweep_precision.of_sweep(tmp_path, "cpu"), range(8)))
    assert set(decided) == {"precision 0"} and read_json(tmp_path / "sweep.json") == {"precision": "precision 0"}


def test_the_precision_of_a_run(tmp_path, monkeypatch):
    def of(precision, sweep=None):
        options = {"trainer": {"accelerator": "cpu", "precision": precision}}
        return sweep_precision.precision_of(Plan(options, {}, tmp_path / "s" / "run", sweep))

    (tmp_path / "s" / "run").mkdir(parents=True)
    monkeypatch.setattr(sweep_precision, "best_precision", lambda accelerator: "32-true")
    write_json(tmp_path / "s" / "sweep.json", {"precision": "bf16-mixed"})
    assert (of("auto"), of("auto", tmp_path / "s")) == ("32-true", "bf16-mixed"), "alone, and in the sweep"
    assert of("16-mixed", tmp_path / "s") == "16-mixed", "what is asked for"
    monkeypatch.setattr("cxr.models.precision.can_compute", lambda dtype, device: False)
    possible.cache_clear()
    assert of("auto", tmp_path / "s") == "32-true", "on another machine, which cannot"
    possible.cache_clear()
    write_json(tmp_path / "s" / "run" / "status.json", {"precision": "32-true"})
    monkeypatch.undo()
    assert of("auto", tmp_path / "s") == "32-true", "as it began"


@pytest.mark.parametrize(
    ("number", "says"),
    [(signal.SIGKILL, "was killed (SIGKILL)"), (signal.SIGSEGV, "crashed")],
)
@pytest.mark.long
def test_a_run_that_is_killed_ends_no_other(run, tmp_path, number, says, small):
    """With isolate=true; the last one runs in a thread that waits for the first run's process to kill it."""
    words = ("-m", "isolate=true", "aug=on,off", "trainer.max_epochs=1", *small, f"hydra.sweep.dir={tmp_path}/s")

    def kill():
        status = tmp_path / "s" / "cnn_aug-on_seed-0" / "status.json"
        while (pid := read_json(status).get("pid", os.getpid())) == os.getpid():
            time.sleep(0.01)
        os.kill(pid, number)

    killer = threading.Thread(target=kill)
    killer.start()
    code, _, err = run(main, *words)
    killer.join()
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert code == 1 and [r["status"] for r in rows] == ["failed", "done"]
    assert says in rows[0]["error"] and "Traceback" not in err
    log = (tmp_path / "s" / rows[0]["run"] / "train.log").read_text()
    assert (number == signal.SIGSEGV) == ("Fatal Python error: Segmentation fault" in log)


@pytest.mark.long
def test_a_store_that_vanishes_under_a_run_is_one_line(run, tmp_path, drawn, tiny):
    """As where the server of a network drive removes it: the system ends the process that reads there."""
    folder, cache = tmp_path / "r", tmp_path / "cache"
    words = ("isolate=true", "trainer.max_epochs=100000", "data=folder", f"data.root={drawn}", *tiny)

    def cut():
        while not (folder / "checkpoints" / "images.npz").exists():
            time.sleep(0.05)
        for path in cache.glob("store-*/*/*.npy"):
            os.truncate(path, 0)

    cutter = threading.Thread(target=cut)
    cutter.start()
    code, _, err = run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={folder}")
    cutter.join()
    assert code == 1 and "crashed (SIGBUS): its decoded images in cache_dir were removed" in err.splitlines()[-1]
    assert len(open_store(read_folder(drawn), 32, cache)[0]) == 160, "decoded again"


@pytest.mark.long
def test_runs_side_by_side_equal_those_one_after_the_other(sweep, tmp_path, small):
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
        # Fewer threads a run add up in another order.
        assert float(theirs["f1_macro"]) == pytest.approx(float(ours["f1_macro"]), abs=0.05)


@pytest.mark.long
def test_runs_side_by_side_end_with_a_killed_sweep(tmp_path, small):
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
        assert time.monotonic() < deadline, "a run still trains, without its parent"
        time.sleep(0.1)
    assert workers and "lost" in {read_status(path.parent)["status"] for path in (tmp_path / "s").glob("*/status.json")}


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Ends a sweep that has a lost run by an error of its launcher."""

    def launch(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(cxr.train, "run_hydra", fail)
        (tmp_path / "cnn").mkdir()
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        lost = {"status": "running", "pid": ended.pid, "host": socket.gethostname()}
        write_json(tmp_path / "cnn" / "status.json", lost)
        cxr.train.sweep(CommandLine([], multirun=True, folder=tmp_path), None)

    return launch


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (BrokenProcessPool("a worker\nwas killed"), "cxr: BrokenProcessPool: a worker was killed\n"),
        (UserError("Slurm refused the jobs"), "cxr: Slurm refused the jobs\n"),
    ],
)
def test_an_error_of_the_launcher_is_one_line_and_the_leaderboard_is_written(
    tmp_path, launched, capsys, error, printed
):
    with pytest.raises(SystemExit) as end:
        launched(error)
    assert end.value.code == 1 and capsys.readouterr().err == printed
    assert "lost" in (tmp_path / "leaderboard.csv").read_text()


@pytest.mark.parametrize("error", [KeyError("a bug of ours"), OSError("a bug of ours")])
def test_a_bug_keeps_its_traceback_also_where_a_run_is_lost(launched, error):
    with pytest.raises(type(error), match="a bug of ours"):
        launched(error)
