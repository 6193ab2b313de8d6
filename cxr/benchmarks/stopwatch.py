"""The time of training steps, and the memory that they took on a GPU."""

import time
from typing import Any

import torch


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
        """Count a step; True where it was the last one."""
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


def gpu_memory() -> dict[str, float]:
    """Peak of what torch held on the GPU, where there is one."""
    return {"gpu_MB": torch.cuda.max_memory_allocated() / 1e6} if torch.cuda.is_available() else {}
