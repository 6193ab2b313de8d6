"""One run on several devices: two processes of a CPU, which talk through gloo."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from cxr.data.batches import Batches, SeededOrder
from cxr.files.writing import read_json, read_table
from cxr.jobs.output_folder import read_config
from cxr.models.classifier import load_classifier
from cxr.train import main
from cxr.training.build import build_data
from cxr.training.checkpoints import BEST, LAST

DDP = ("trainer=ddp", "trainer.accelerator=cpu")
# SGD: Adam makes whole steps of gradients that are nothing but rounding. 115 images: five batches of 20, one of 15.
TRAINED = ("trainer.max_epochs=4", "optim=sgd", "optim.lr=0.05", "data.batch_size=20")


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """The same run on one device and on two, the second as a sweep."""
    folder = tmp_path_factory.mktemp("ddp")
    with pytest.MonkeyPatch.context() as patch:
        for name, words in (("one", ()), ("two", ("-m", "aug=on", *DDP))):
            place = f"hydra.{'sweep' if '-m' in words else 'run'}.dir={folder / name}"
            patch.setattr("sys.argv", ["train", *words, *small, *TRAINED, place])
            main()
    return folder / "one", folder / "two" / "cnn_aug-on_seed-0"


def state_of(run, name=LAST):
    return torch.load(run / "checkpoints" / name, weights_only=True)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("images", [48, 49, 50, 51, 63, 64, 65, 100, 9])
def test_each_image_once_in_the_same_steps(images, ranks):
    def epoch(rank, of):
        batches = Batches(order := SeededOrder(images, seed=1), 16, True, rank, of)
        order.set_epoch(3)
        return list(batches)

    one, parts = epoch(0, 1), [epoch(rank, ranks) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(one)}
    seen = np.concatenate([drawn.positions for part in parts for drawn in part])
    assert sorted(seen.tolist()) == (list(range(images)) if ranks > 1 or images % 16 != 1 else sorted(seen.tolist()))
    assert len(set(seen.tolist())) == len(seen) >= images - 1
    for step in zip(*parts, strict=True):
        assert sum(len(drawn.positions) for drawn in step) == step[0].total
        if images > 16 and ranks > 1:
            assert min(len(drawn.positions) for drawn in step) >= 2


def test_two_processes_train_as_one(runs):
    one, two = runs
    assert (one / "split.csv").read_bytes() == (two / "split.csv").read_bytes()
    states = [state_of(run) for run in runs]
    assert states[0]["global_step"] == states[1]["global_step"] > 0
    # Without batch normalisation, sums of gradients are all that differs: by the last bits of a float.
    for name, weights in states[0]["state_dict"].items():
        torch.testing.assert_close(weights, states[1]["state_dict"][name], rtol=1e-5, atol=1e-6)
    first, second = (read_json(run / "metrics.json")["train"]["history"] for run in runs)
    np.testing.assert_allclose(first["train_loss"], second["train_loss"], rtol=1e-4)
    assert first["val_f1_macro"] == pytest.approx(second["val_f1_macro"], abs=0.03)
    assert len({len(list(run.glob("events.out.tfevents.*"))) for run in runs}) == 1  # one process writes


def test_test_figures_are_those_of_one_process(runs):
    _, two = runs
    data = build_data(read_config(two / "config.yaml"))
    rows, model = data.rows("test"), load_classifier(two / "checkpoints" / BEST)
    with torch.no_grad():
        said = model.probabilities(torch.from_numpy(data.store[rows])[:, None].float() / 255).argmax(1)
    assert [row["file"] for row in read_table(two / "predictions.csv")] == data.images.file[rows].tolist()
    test, right = read_json(two / "metrics.json")["test"], said.numpy() == data.images.label[rows]
    assert test["accuracy"] == pytest.approx(right.mean())
    assert np.sum(test["confusion_matrix"]) == len(rows)


def start(small, folder):
    command = [sys.executable, "-m", "cxr.train", *DDP, *small, *TRAINED, "aug=on", f"hydra.run.dir={folder}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def until_it_trains(run):
    end = time.monotonic() + 90
    while not (run / "checkpoints" / BEST).exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.long
def test_stopped_and_gone_on(runs, small, tmp_path):
    """The same bits as a run that nobody stopped."""
    run = tmp_path / "run"
    process = start(small, run)
    until_it_trains(run)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not read_json(run / "metrics.json")
    process = start(small, run)
    assert process.wait(120) == 0, process.stderr.read()
    for name, weights in state_of(runs[1])["state_dict"].items():
        assert torch.equal(weights, state_of(run)["state_dict"][name]), name


@pytest.mark.long
def test_process_that_is_killed_takes_the_run_along_in_one_line(small, tmp_path):
    process = start(small, tmp_path / "run")
    until_it_trains(tmp_path / "run")
    chief = read_json(tmp_path / "run" / "status.json")["pid"]
    server = subprocess.check_output(["ps", "-o", "ppid=", "-p", str(chief)], text=True).strip()
    ranks = [int(line) for line in subprocess.check_output(["pgrep", "-P", server], text=True).split()]
    (other,) = set(ranks) - {chief}
    os.kill(other, signal.SIGKILL)
    assert process.wait(60) == 1
    (line,) = process.stderr.read().splitlines()[-1:]
    assert line.startswith("cxr: ") and "SIGKILL" in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("trainer.devices=2",), "need trainer=ddp"),
        (("trainer=ddp", "data.batch_size=33"), "multiple"),
        (("trainer=ddp", "trainer.devices=[1,1]"), "list of numbers of GPUs"),
        (("trainer=ddp", "trainer.num_nodes=2", "data.batch_size=16", "name=x"), "MASTER_ADDR"),
    ],
)
def test_refused(run, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, _, said = run(main, *words)
    assert code == 2 and line in said and len(said.splitlines()) == 1


@pytest.mark.long
def test_two_machines(small, tmp_path):
    """Two commands, which stand for two machines."""
    port = str(20000 + os.getpid() % 20000)
    words = [*small, *TRAINED, "aug=on", f"hydra.run.dir={tmp_path / 'run'}", *DDP]
    command = [sys.executable, "-m", "cxr.train", *words, "trainer.devices=1", "trainer.num_nodes=2"]
    meeting = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    nodes = [
        subprocess.Popen(command, env={**meeting, "NODE_RANK": str(number)}, stderr=subprocess.PIPE, text=True)
        for number in (0, 1)
    ]
    assert [node.wait(120) for node in nodes] == [0, 0], [node.stderr.read() for node in nodes]
    assert read_json(tmp_path / "run" / "status.json")["status"] == "done"
    with (tmp_path / "run" / "predictions.csv").open() as file:
        assert len(list(csv.reader(file))) > 10
