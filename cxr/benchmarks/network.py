"""The network alone: its loss and optimizer, fed a batch that never changes."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn import functional as F

from cxr.benchmarks.stopwatch import Stopwatch, gpu_memory
from cxr.models.classifier import Classifier
from cxr.models.cost import count_flops
from cxr.models.precision import MIXED, best_device, best_precision
from cxr.training.memory import keep_freed_memory


class Step:
    """A training step of a network on a batch that never changes; call it to take one.

    Args:
        config: the options of a run.
        spec: see network_alone().
    """

    def __init__(self, config: dict[str, Any], spec: dict[str, Any]) -> None:
        accelerator, precision = config["trainer"]["accelerator"], config["trainer"]["precision"]
        if precision == "auto":
            precision = best_precision(accelerator)
        self.dtype = MIXED.get(precision)
        self.device = torch.device(best_device() if accelerator != "cpu" else "cpu")
        self.cache_casts = "graph" not in spec  # a graph would keep the tensors of the cache
        size, self.batch = config["data"]["image_size"], config["data"]["batch_size"]
        self.model = Classifier(config["model"], config["optim"], [str(i) for i in range(4)], size)
        self.model.to(self.device).train()
        self.model.net.to(memory_format=getattr(torch, spec.get("layout", "channels_last")))
        if config["compile"]:
            self.model.net.compile(mode=spec.get("mode"))
        self.optimizer = self.model.build_optimizer()
        self.images = torch.rand(self.batch, 1, size, size, device=self.device)
        self.labels = torch.randint(0, 4, (self.batch,), device=self.device)

    def autocast(self) -> AbstractContextManager:
        dtype = self.dtype or torch.bfloat16
        return torch.autocast(self.device.type, dtype, self.dtype is not None, cache_enabled=self.cache_casts)

    def __call__(self) -> None:
        with self.autocast():
            loss = F.cross_entropy(self.model(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def network_alone(spec: dict[str, Any]) -> dict[str, Any]:
    """The rate of a network's training steps on a batch that never changes, and what the device can do at most.

    A spec may ask for more: `graph`, on a GPU, "network" (its forward and backward passes as CUDA graphs) or "step"
    (the whole step as one); `mode` of torch.compile; `tf32`, whether fp32 may be computed so; `layout`, one of torch's
    memory formats by name; `search`, whether cuDNN tries its algorithms and takes the fastest.
    """
    keep_freed_memory()
    config = spec["config"]
    if (tf32 := spec.get("tf32")) is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = spec.get("search", False)
    step = Step(config, spec)
    begin = time.perf_counter()
    if spec.get("graph") == "network":
        with step.autocast():
            images = step.images.contiguous(memory_format=torch.channels_last)
            torch.cuda.make_graphed_callables(step.model.net, (images,))
    take_step = captured(step) if spec.get("graph") == "step" else step
    take_step()
    watch = Stopwatch(spec["warm_up"], spec["seconds"])
    first_step = watch.now() - begin
    watch.begin_epoch()
    while True:
        take_step()
        if watch.step(step.batch):
            break
    watch.end_epoch()
    result = watch.result() | gpu_memory() | {"first_step_s": first_step}
    if not (config["compile"] or "graph" in spec):  # of these, nothing can be counted
        result["gflop_per_s"] = count_flops(step) / step.batch * result["images_per_s"] / 1e9
    dtypes = [torch.float32, step.dtype] if step.dtype else [torch.float32]
    products = {str(dtype).removeprefix("torch."): matrix_product(dtype, step.device) for dtype in dtypes}
    return result | {"matrix_product_gflop_per_s": products}


def captured(step: Step) -> Callable[[], None]:
    """A training step as one CUDA graph, as torch's notes on CUDA semantics describe it; returns its replay."""
    for group in step.optimizer.param_groups:
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
