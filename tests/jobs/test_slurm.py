"""Runs as jobs of a real Slurm, of one node."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from one_node_slurm import one_node_slurm, why_not

from cxr.files.writing import read_json
from cxr.jobs.slurm import running_jobs
from cxr.leaderboard import main as leaderboard
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


def trains(run_folder):
    """The job of a run in the middle of its training."""
    record = read_json(run_folder / "status.json")
    return record.get("status") == "running" and (run_folder / "checkpoints" / "best.ckpt").exists() and record["job"]


@pytest.mark.long  # its jobs take both cores for a minute
def test_grid_as_jobs(slurm, submit, run, small, tmp_path):
    """Of four jobs, one meets its time limit, one is killed, one cancelled; in the end all have the figures of a sweep
    without Slurm."""
    folder, words = tmp_path / "jobs", ("model.hidden=8,16", "aug=on,off", "trainer.max_epochs=30", "optim.lr=0.003")
    late, killed, cancelled, calm = (
        folder / f"cnn_aug-{aug}_seed-0_model.hidden-{hidden}" for hidden in (8, 16) for aug in ("on", "off")
    )
    sweep = submit(folder, *words)

    job = until(lambda: trains(late))
    again = submit(folder, *words)
    subprocess.run(["scancel", f"--signal={signal.SIGUSR2.name}", job], env=slurm, check=True)  # as Slurm at the limit
    until(lambda: "time limit" in rows(folder)[late.name]["error"])
    assert rows(folder)[late.name]["status"] == "running"  # it is in the queue
    # A requeued job is held for two minutes; that is Slurm's, and not what is tested.
    state = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    until(lambda: "PENDING" in subprocess.run(state, env=slurm, capture_output=True, text=True).stdout)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=slurm, check=True)

    job = until(lambda: trains(killed))
    os.kill(read_json(killed / "status.json")["pid"], signal.SIGKILL)
    subprocess.run(["scancel", until(lambda: trains(cancelled))], env=slurm, check=True)
    assert again.wait(60) == 2 and "another process is working in it" in again.stderr.read()
    out, said = sweep.communicate(timeout=200)
    assert sweep.returncode == 1 and "| cnn, model.hidden=8" in out
    assert "Traceback" not in said and "sacct" not in said
    found = rows(folder)
    assert {name: row["status"] for name, row in found.items()} == {
        late.name: "done", killed.name: "lost", cancelled.name: "failed", calm.name: "done"
    }  # fmt: skip
    assert job in found[killed.name]["error"] and "SIGTERM" in found[cancelled.name]["error"]
    assert "resuming from" in (late / "train.log").read_text()

    assert run(main, "-m", *small, *words, f"hydra.sweep.dir={folder}")[0] == 0, "it resumes what is left"
    again = [word for word in words if not word.startswith("model.hidden")]
    assert run(main, "-m", *small, *again, "model.hidden=8", f"hydra.sweep.dir={tmp_path / 'basic'}")[0] == 0
    basic = {f"{name}_model.hidden-8": of_run for name, of_run in figures(tmp_path / "basic").items()}
    assert set(basic) == {late.name, killed.name} and basic.items() <= figures(folder).items()


@pytest.mark.long
def test_what_slurm_does_not_take_is_one_line(slurm, submit, tmp_path):
    refused = submit(tmp_path / "jobs", "aug=on,off", "slurm.partition=nosuch")
    assert refused.wait(60) == 1
    (line,) = [line for line in refused.stderr.read().splitlines() if line.startswith("cxr: ")]
    assert "invalid partition" in line.lower()


@pytest.mark.long
def test_jobs_that_wait_are_told_of(slurm, submit, run, monkeypatch, tmp_path):
    sweep = submit(tmp_path / "jobs", "aug=on,off", "slurm.cpus=64")
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    until(lambda: running_jobs(tmp_path / "jobs"))
    code, out, _ = run(leaderboard, tmp_path / "jobs")
    assert code == 0 and "PENDING (" in out
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(60) == 130
    assert "continue in" in sweep.stderr.read()
    code, _, said = run(main, "-m", f"hydra.sweep.dir={tmp_path / 'jobs'}", "aug=on,off")
    assert code == 2 and "Slurm still has jobs of this sweep" in said
    subprocess.run(["scancel", *running_jobs(tmp_path / "jobs")], env=slurm, check=True)


def test_no_gpu_is_asked_for_unless_the_trainer_wants_one():
    from cxr.options.run_folder_name import gpus_wanted

    assert gpus_wanted("auto", 1) is None and gpus_wanted("cpu", 2) is None
    assert gpus_wanted("gpu", 2) == 2 and gpus_wanted("cuda", [3]) == 1
