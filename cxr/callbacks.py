"""What a cell does between the steps of Lightning's Trainer: take the time, and say how it goes."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

CURVES = ("train/loss", "val/loss", "train/f1_macro", "val/f1_macro")


def now(trainer: pl.Trainer) -> float:
    """Seconds on a clock that only goes forward, once the device has done what it was told: steps are only queued."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class EpochTimer(Callback):
    """How training went: how fast, where the time of a cell was spent, and how validation wandered."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.epochs: list[tuple[int, float]] = []  # films and seconds of each epoch's training steps
        self.validation = self.test = 0.0  # seconds
        self.history: dict[str, list[float]] = {}  # figures of each epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.films, self.epoch_begin = 0, now(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.films += len(batch.labels)
        self.epoch_end = now(trainer) if trainer.is_last_batch else time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.epochs.append((self.films, self.epoch_end - self.epoch_begin))
        for key in CURVES:
            if key in trainer.callback_metrics:
                self.history.setdefault(key.replace("/", "_"), []).append(trainer.callback_metrics[key].item())

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.side_begin = now(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.validation += now(trainer) - self.side_begin

    on_test_start = on_validation_start

    def on_test_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.test += now(trainer) - self.side_begin

    def report(self) -> dict[str, Any]:
        """Of the part "train" of metrics.json: epochs, images_per_s (the first epoch, which warms up, left out where
        there are more) and seconds since the callback was made; of these, seconds spent in the steps of training,
        validation and test; and history: loss and macro F1 of each epoch."""
        films, seconds = zip(*(self.epochs[1:] or self.epochs), strict=True)
        return {
            "epochs": len(self.epochs),
            "images_per_s": round(sum(films) / sum(seconds), 1),
            "seconds": round(time.perf_counter() - self.begin, 2),
            "seconds_in": {
                "training": round(sum(seconds for _, seconds in self.epochs), 3),
                "validation": round(self.validation, 3),
                "test": round(self.test, 3),
            },
            "history": self.history,
        }


class EpochLine(Callback):
    """One line an epoch, where the console is a file or a pipe and a bar would be noise, or where several cells share
    it and their bars would overwrite each other.

    Args:
        prefix: what each line begins with.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        figures = {key: trainer.callback_metrics[key].item() for key in CURVES if key in trainer.callback_metrics}
        line = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        print(f"{self.prefix}epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {line}", flush=True)
