"""What a device does within training steps, and whether the host waits for it: torch's profiler, and its trace read."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

LAUNCHES = ("LaunchKernel", "GraphLaunch")  # parts of the names of CUDA's calls that start work
WAITS = ("Synchronize", "cudaMemcpy", "cuMemcpy")  # of those that wait, but for those with Async


class Profiled(Callback):
    """Profiles some steps of Lightning's loop after some others, and ends it.

    Args:
        warm_up: steps before.
        steps: steps to profile.
    """

    def __init__(self, warm_up: int, steps: int) -> None:
        self.warm_up, self.steps, self.done = warm_up, steps, 0
        devices = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *devices])

    def on_train_batch_start(self, *_: Any) -> None:
        if self.done == self.warm_up:
            self.profile.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.done += 1
        if self.done == self.warm_up + self.steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profile.stop()
            trainer.should_stop = True


def read_trace(path: Path, steps: int) -> dict[str, Any]:
    """Shares of the time of `steps` training steps, from a Chrome trace of torch's profiler.

    Returns:
        Without a GPU, the number of profiled calls alone ("host_calls"). Else "step_ms", milliseconds per step from the
        first kernel's start to the last one's end (the profiler itself makes steps longer); shares of that in which
        kernels ("kernels"), copies and nothing ("idle") were at work on the device; kernels and launches per step;
        "waits", {name: number} of the calls that make the host wait for the device, and their ms per step; the
        ten kernels that took longest, as [name, share of the kernels' time].
    """
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", errors="replace") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    if not kernels:
        return {"steps": steps, "host_calls": sum(event.get("cat") == "cpu_op" for event in events)}
    copies = [event for event in events if event.get("cat") in ("gpu_memcpy", "gpu_memset")]
    calls = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    launches = [event for event in calls if any(part in event["name"] for part in LAUNCHES)]
    begin, end = (pick(event["ts"] for event in launches) for pick in (min, max))  # not the profiler's own waiting
    waits = [
        event
        for event in calls
        if begin <= event["ts"] <= end and "Async" not in event["name"] and any(part in event["name"] for part in WAITS)
    ]
    span = max(map(end_of, kernels)) - min(event["ts"] for event in kernels)
    computing, both = busy(kernels), busy([*kernels, *copies])
    longest: Counter[str] = Counter()
    for event in kernels:
        longest[event["name"]] += event["dur"]
    return {
        "steps": steps,
        "step_ms": span / steps / 1e3,
        "kernels": computing / span,
        "copies": (both - computing) / span,
        "idle": 1 - both / span,
        "kernels_per_step": len(kernels) / steps,
        "launches_per_step": len(launches) / steps,
        "launching_ms_per_step": sum(event["dur"] for event in launches) / steps / 1e3,
        "waits": dict(Counter(event["name"] for event in waits)),
        "waiting_ms_per_step": sum(event["dur"] for event in waits) / steps / 1e3,
        "longest": [[name, spent / sum(longest.values())] for name, spent in longest.most_common(10)],
    }


def end_of(event: dict[str, Any]) -> float:
    return event["ts"] + event["dur"]


def busy(events: Iterable[dict[str, Any]]) -> float:
    """Microseconds in which at least one of the events runs."""
    spent = until = 0.0
    for event in sorted(events, key=lambda event: event["ts"]):
        spent += max(0.0, end_of(event) - max(until, event["ts"]))
        until = max(until, end_of(event))
    return spent
