"""CUDA graphs where there is no GPU to record them, and what else of a step was made for a GPU.

That graphs compute what is computed without them is for `python -m cxr.bench --gpu` to check."""

import pytest
import torch

from cxr.models.classifier import Classifier
from cxr.train import main
from cxr.training.callbacks import SeedSteps


def test_without_a_gpu_graphs_that_are_demanded_are_one_line(run, tmp_path, small):
    code, _, err = run(main, "cuda_graphs=true", "trainer=cpu", *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 1 and err.splitlines()[-1] == "cxr: cuda_graphs=true: no NVIDIA GPU was found; use auto"


def test_only_training_batches_of_the_recorded_size_are_replayed():
    model = Classifier({"_target_": "cxr.models.cnn.CNN", "widths": [2], "hidden": 2}, {}, ["a", "b"], 16)
    model.graphed = (4, 1, 16, 16), lambda images: torch.full((len(images), 2), 7.0)
    images = torch.rand(4, 1, 16, 16)
    assert (model.train()(images) == 7).all()
    assert not (model(images[:3]) == 7).any(), "the last batch of an epoch"
    assert not (model.eval()(images) == 7).any(), "validation"


class Stub:
    """What SeedSteps asks of a Trainer."""

    global_rank, current_epoch = 0, 2

    class strategy:
        root_device = torch.device("cpu")


def test_the_seed_of_a_step_costs_no_memory():
    seeds, queue = SeedSteps(0), torch.cuda._queued_calls
    before, drawn = len(queue), set()
    for step in (0, 1, 0):
        seeds.on_train_batch_start(Stub, None, None, step)
        drawn.add(torch.rand(1).item())
    assert len(drawn) == 2, "the same step draws the same"
    assert len(queue) == before


@pytest.mark.parametrize("option", ["model.hidden=1000000000", "data.batch_size=32"])
def test_too_little_memory_is_one_line(run, tmp_path, small, option, monkeypatch):
    if option == "data.batch_size=32":  # as torch's allocator on a GPU says it

        def full(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr(Classifier, "training_step", full)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    code, _, err = run(main, *small, option, "trainer=cpu", f"hydra.run.dir={tmp_path / 'run'}")
    last = err.splitlines()[-1]
    assert code == 1 and last.startswith("cxr: data.batch_size=32: ") and "too little free memory" in last
