"""What bench compares, each in a process of its own: the network alone, cxr's loop, a student's loop.

python -m cxr.benchmarks.contenders SPEC, a JSON object: `run` (a name in RUNS), `config` (a cell's options), `warm_up`
(steps), `seconds` (to measure for), `folder` (a folder to write to). The last line printed is the result, as JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from cxr.benchmarks.network import network_alone
from cxr.benchmarks.repeated import repeat_images
from cxr.benchmarks.stopwatch import Stopwatch, gpu_memory
from cxr.benchmarks.student import student
from cxr.benchmarks.trace import Profiled, read_trace
from cxr.models.precision import best_device
from cxr.training.build import TrainingRun, build_data, build_model, build_run
from cxr.training.environment import device_name

Spec = dict[str, Any]


def cxr(spec: Spec) -> dict[str, Any]:
    """cxr's training loop as cxr.train runs it, without validation and test."""
    return train(spec, cell_of(spec))


def cell_of(spec: Spec) -> TrainingRun:
    """A cell as cxr.train builds it, but for its validation images."""
    config = without_validation(spec["config"])
    data = build_data(config)
    return build_run(config, Path(spec["folder"]), data, build_model(config, data))


def scale(spec: Spec) -> dict[str, Any]:
    """cxr's training loop on `images` images, the store's repeated; and its loader alone."""
    cell = cell_of(spec)
    repeat_images(cell.data, spec["images"], Path(spec["folder"]))
    result = train(spec, cell)
    loader = cell.data.train_dataloader()
    begin, images = time.perf_counter(), 0
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for batch in batches:
        images += len(batch.labels)
        if time.perf_counter() - begin > spec["seconds"] / 4:
            break
    return result | {
        "loader_images_per_s": images / (time.perf_counter() - begin),
        "first_batch_s": first,
    }


def without_validation(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "trainer": {**config["trainer"], "limit_val_batches": 0, "max_epochs": 10**6}}


def train(spec: Spec, cell: Any) -> dict[str, Any]:
    """Run a cell's Trainer until the watch has seen enough."""
    watch = Stopwatch(spec["warm_up"], spec["seconds"])
    cell.trainer.callbacks.insert(0, Watching(watch))
    cell.trainer.fit(cell.model, cell.data)
    return watch.result() | gpu_memory() | {"device": device_name(cell.trainer), "precision": cell.trainer.precision}


class Watching(Callback):
    """Lets a stopwatch see the steps of Lightning's loop, and end it."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_epoch_start(self, *_: Any) -> None:
        self.watch.begin_epoch()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = self.watch.step(len(batch.labels))
        if trainer.should_stop or trainer.is_last_batch:
            self.watch.end_epoch()


def trace(spec: Spec) -> dict[str, Any]:
    """What device and host do in `steps` steps of cxr's training loop, see cxr.benchmarks.trace; the trace itself goes
    to the file `trace`."""
    cell = cell_of(spec)
    profiled = Profiled(spec["warm_up"], spec["steps"])
    cell.trainer.callbacks.insert(0, profiled)
    cell.trainer.fit(cell.model, cell.data)
    profiled.profile.export_chrome_trace(spec["trace"])
    return read_trace(Path(spec["trace"]), spec["steps"]) | {"device": device_name(cell.trainer)}


def draws(spec: Spec) -> dict[str, Any]:
    """Whether augmentation does the same to an image whatever trains: how many of the numbers that describe it differ
    in any bit between the device and the CPU, in `epochs` epochs; and how many would if the device drew them itself."""
    data, device = build_data(spec["config"]), torch.device(best_device())
    index, size = torch.arange(len(data.images)), data.store.size
    result = {"device": device.type, "images": len(index), "epochs": spec["epochs"], "differ": 0}
    result["would differ if drawn there"] = 0
    for epoch in range(spec["epochs"]):
        here = data.draws(epoch, torch.device("cpu")).view(torch.int32)
        result["differ"] += int((data.draws(epoch, device).cpu().view(torch.int32) != here).sum())
        there = data.augment.draw_maps(index.to(device), size, data.seed, epoch).cpu().view(torch.int32)
        result["would differ if drawn there"] += int((there != here).sum())
    return result


RUNS = {"alone": network_alone, "cxr": cxr, "student": student, "scale": scale, "trace": trace, "draws": draws}


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    print(json.dumps(RUNS[spec["run"]](spec)))
