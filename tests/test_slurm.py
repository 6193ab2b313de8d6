"""Cells as jobs of a real Slurm, of one node."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from one_node_slurm import one_node_slurm, why_not

from cxr.results.run_folder import read_json
from cxr.train import main

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
FIGURES = ("f1_macro", "accuracy", "precision_macro", "recall_macro", "epochs")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with one_node_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def submit(slurm, small):
    """Start a sweep of jobs."""

    def start(folder, *words):
        jobs = ("launcher=slurm", "slurm.cpus=1", "slurm.memory=1", f"hydra.sweep.dir={folder}")
        command = [sys.executable, "-m", "cxr.train", "-m", *jobs, *small, *words]
        return subprocess.Popen(command, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def until(holds, seconds=90):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.1)
    return found


def rows(folder):
    with (folder / "leaderboard.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def figures(folder):
    return {name: [row[key] for key in FIGURES] for name, row in rows(folder).items()}


def trains(cell):
    """The job of a cell that is in the middle of its training."""
    told = read_json(cell / "status.json")
    return told.get("status") == "running" and (cell / "checkpoints" / "best.ckpt").exists() and told["job"]


def test_grid_as_jobs_one_of_which_meets_its_time_limit(slurm, submit, run, small, tmp_path):
    words = ("model.hidden=8,16", "aug=on,off", "trainer.max_epochs=20", "optim.lr=0.003")
    sweep = submit(tmp_path / "jobs", *words, "slurm.warning=30", "slurm.time=5")
    stopped = tmp_path / "jobs" / "cnn_aug-on_seed-0_model.hidden-8"
    job = until(lambda: trains(stopped))
    subprocess.run(
        ["scancel", f"--signal={signal.SIGUSR2.name}", job], env=slurm, check=True
    )  # as Slurm does at the limit
    until(lambda: "time limit" in rows(tmp_path / "jobs")[stopped.name]["error"])
    assert rows(tmp_path / "jobs")[stopped.name]["status"] == "running"  # it is in the queue
    # A requeued job is held for two minutes; that is Slurm's, and not what is tested.
    release = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
    until(lambda: subprocess.run(release, env=slurm, capture_output=True).returncode == 0)
    out, said = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, said
    assert "4 jobs" not in said and "sacct" not in said
    assert "going on from" in (stopped / "train.log").read_text()

    assert run(main, "-m", *small, *words, f"hydra.sweep.dir={tmp_path / 'basic'}")[0] == 0
    assert len(rows(tmp_path / "jobs")) == 4
    assert figures(tmp_path / "jobs") == figures(tmp_path / "basic")
    assert "| cnn, model.hidden=8" in out


def test_jobs_that_are_killed_and_cancelled_leave_the_others_and_rows(slurm, submit, tmp_path):
    folder, words = tmp_path / "jobs", ("seed=0,1,2", "trainer.max_epochs=20")
    sweep = submit(folder, *words)
    killed, cancelled, other = (folder / f"cnn_aug-on_seed-{seed}" for seed in (0, 1, 2))
    job = until(lambda: trains(killed))
    again = submit(folder, *words)
    os.kill(read_json(killed / "status.json")["pid"], signal.SIGKILL)
    subprocess.run(["scancel", until(lambda: trains(cancelled))], env=slurm, check=True)
    _, said = sweep.communicate(timeout=200)
    assert sweep.returncode == 1
    assert "Traceback" not in said
    found = rows(folder)
    assert found[killed.name]["status"] == "lost" and job in found[killed.name]["error"]
    assert found[cancelled.name]["status"] == "failed" and "SIGTERM" in found[cancelled.name]["error"]
    assert found[other.name]["status"] == "done"
    assert again.wait() == 2
    assert "another process works in this folder" in again.stderr.read()


def test_no_gpu_is_asked_for_unless_the_trainer_wants_one():
    from cxr.sweep import gpus_wanted

    assert gpus_wanted("auto", 1) is None and gpus_wanted("cpu", 2) is None
    assert gpus_wanted("gpu", 2) == 2 and gpus_wanted("cuda", [3]) == 1
