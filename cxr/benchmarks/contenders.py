"""What bench compares, each in a process of its own: the network alone, cxr's loop, a student's loop.

python -m cxr.benchmarks.contenders SPEC, a JSON object: `run` (a name in RUNS), `config` (a cell's options), `warm_up`
(steps), `seconds` (to measure for), `folder` (a folder to write to). The last line printed is the result, as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cxr.benchmarks.repeated import repeat_images
from cxr.benchmarks.trace import Profiled, read_trace
from cxr.jobs.run import Cell, build_cell, build_data, build_model, device_name
from cxr.models.classifier import Classifier, best_device
from cxr.models.cost import count_flops
from cxr.training.memory import keep_freed_memory
from cxr.training.trainer import best_precision

Spec = dict[str, Any]


class Stopwatch:
    """Times training steps: from the end of the warm-up on, whole steps and the beginnings of epochs, without what
    stands between two epochs.

    Args:
        warm_up: steps that do not count.
        seconds: how long to measure, at least; and at least three steps.
    """

    def __init__(self, warm_up: int, seconds: float) -> None:
        self.warm_up, self.seconds = warm_up, seconds
        self.steps, self.images, self.spent = 0, 0, 0.0

    def now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def begin_epoch(self) -> None:
        self.mark = self.now()

    def end_epoch(self) -> None:
        if self.steps > self.warm_up:
            self.spent += self.now() - self.mark

    def step(self, images: int) -> bool:
        """Count a step; True where it was the last one wanted."""
        self.steps += 1
        if self.steps <= self.warm_up:
            if self.steps == self.warm_up:
                self.mark = self.now()
            return False
        self.images += images
        waited = self.spent + time.perf_counter() - self.mark  # of steps that are perhaps only queued on a GPU
        return waited >= self.seconds and self.steps >= self.warm_up + 3

    def result(self) -> dict[str, Any]:
        return {"images_per_s": self.images / self.spent, "steps": self.steps - self.warm_up}


def alone(spec: Spec) -> dict[str, Any]:
    """The network with its loss and optimizer, fed a batch that never changes.

    A spec may ask for more: `graph`, on a GPU, "network" (its forward and backward passes as CUDA graphs) or "step"
    (the whole step as one); `mode` of torch.compile; `tf32`, whether fp32 may be computed so; `layout`, one of torch's
    memory formats by name; `search`, whether cuDNN tries its algorithms and takes the fastest.
    """
    keep_freed_memory()
    config = spec["config"]
    if (tf32 := spec.get("tf32")) is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = spec.get("search", False)
    precision, size, batch = config["trainer"]["precision"], config["data"]["image_size"], config["data"]["batch_size"]
    if precision == "auto":
        precision = best_precision(config["trainer"]["accelerator"])
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    device = torch.device(best_device() if config["trainer"]["accelerator"] != "cpu" else "cpu")
    model = Classifier(config["model"], config["optim"], [str(i) for i in range(4)], size).to(device).train()
    model.net.to(memory_format=getattr(torch, spec.get("layout", "channels_last")))
    begin = time.perf_counter()
    if config["compile"]:
        model.net.compile(mode=spec.get("mode"))
    optimizer = model.build_optimizer()
    images = torch.rand(batch, 1, size, size, device=device)
    labels = torch.randint(0, 4, (batch,), device=device)
    cast = partial(
        torch.autocast,
        device.type,
        dtype or torch.bfloat16,
        enabled=dtype is not None,
        cache_enabled="graph" not in spec,  # a graph would keep the cache's tensors
    )

    def step() -> None:
        with cast():
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if spec.get("graph") == "network":
        with cast():
            torch.cuda.make_graphed_callables(model.net, (images.contiguous(memory_format=torch.channels_last),))
    run = captured(step, optimizer) if spec.get("graph") == "step" else step
    run()
    watch = Stopwatch(spec["warm_up"], spec["seconds"])
    first_step = watch.now() - begin
    watch.begin_epoch()
    while True:
        run()
        if watch.step(batch):
            break
    watch.end_epoch()
    found = watch.result() | gpu_memory() | {"first_step_s": first_step}
    if not (config["compile"] or "graph" in spec):  # of these, nothing can be counted
        found["gflop_per_s"] = count_flops(step) / batch * found["images_per_s"] / 1e9
    products = {
        str(kind).removeprefix("torch."): matrix_product(kind, device) for kind in (torch.float32, dtype) if kind
    }
    return found | {"matrix_product_gflop_per_s": products}


def captured(step: Callable[[], None], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """A training step as one CUDA graph, as torch's notes on CUDA semantics describe it; returns its replay."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def matrix_product(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """GFLOP/s of large matrix products, which no network on this machine can pass by much."""
    a = torch.rand(side, side, device=device).to(dtype)
    watch = Stopwatch(warm_up=3, seconds=0.5)
    watch.begin_epoch()
    while not watch.step(1):
        a @ a
    watch.end_epoch()
    return 2 * side**3 * watch.result()["images_per_s"] / 1e9


def cxr(spec: Spec) -> dict[str, Any]:
    """cxr's training loop as cxr.train runs it, without validation and test."""
    return train(spec, cell_of(spec))


def cell_of(spec: Spec) -> Cell:
    """A cell as cxr.train builds it, but for its validation images."""
    config = without_validation(spec["config"])
    data = build_data(config)
    return build_cell(config, Path(spec["folder"]), data, build_model(config, data))


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


def student(spec: Spec) -> dict[str, Any]:
    """What a student would write: ImageFolder, torchvision's transforms image by image, a DataLoader with as many workers
    as there are cores, three channels, fp32, Adam, and the loss read in every step."""
    config = spec["config"]
    size, aug = config["data"]["image_size"], config["aug"]
    steps: list[Any] = [transforms.Resize((size, size))]
    if aug["flip"] or aug["degrees"] or aug["crop"]:
        steps += [
            transforms.RandomHorizontalFlip(aug["flip"]),
            transforms.RandomRotation(aug["degrees"]),
            transforms.RandomCrop(size, padding=round(aug["crop"] * size)),
        ]
    folder = Path(spec["images_root"])
    folder = folder / "train" if (folder / "train").is_dir() else folder
    dataset = ImageFolder(str(folder), transforms.Compose([*steps, transforms.ToTensor()]))
    loader = DataLoader(dataset, batch_size=config["data"]["batch_size"], shuffle=True, num_workers=os.cpu_count() or 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = STUDENTS_NETWORKS[spec["model"]](len(dataset.classes), size).to(device)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=0.001)
    watch = Stopwatch(spec["warm_up"], spec["seconds"])
    net.train()
    while True:
        running_loss = 0.0
        watch.begin_epoch()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if watch.step(len(labels)):
                watch.end_epoch()
                return watch.result() | gpu_memory()
        watch.end_epoch()


def students_cnn(n_classes: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128 * (size // 8) ** 2, 128), nn.ReLU(), nn.Linear(128, n_classes),
    )  # fmt: skip


STUDENTS_NETWORKS = {
    "cnn": students_cnn,
    "resnet18": lambda n_classes, size: torchvision.models.resnet18(num_classes=n_classes),
}


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
    found = {"device": device.type, "images": len(index), "epochs": spec["epochs"], "differ": 0}
    found["would differ if drawn there"] = 0
    for epoch in range(spec["epochs"]):
        here = data.draws(epoch, torch.device("cpu")).view(torch.int32)
        found["differ"] += int((data.draws(epoch, device).cpu().view(torch.int32) != here).sum())
        there = data.augment.draw(index.to(device), size, data.seed, epoch).cpu().view(torch.int32)
        found["would differ if drawn there"] += int((there != here).sum())
    return found


RUNS = {"alone": alone, "cxr": cxr, "student": student, "scale": scale, "trace": trace, "draws": draws}


def gpu_memory() -> dict[str, float]:
    """Peak of what torch held on the GPU, where there is one."""
    return {"gpu_MB": torch.cuda.max_memory_allocated() / 1e6} if torch.cuda.is_available() else {}


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    print(json.dumps(RUNS[told["run"]](told)))
