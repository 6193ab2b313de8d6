"""Which checkpoints a run keeps, and how they are written."""

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

BEST, LAST = "best.ckpt", "last.ckpt"


def best_checkpoint(folder: Path) -> ModelCheckpoint:
    """best.ckpt: the weights of the epoch with the highest validation macro F1, all that predicting needs."""
    return ModelCheckpoint(
        folder,
        filename=Path(BEST).stem,
        monitor="val/f1_macro",
        mode="max",
        save_weights_only=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


class LastCheckpoint(ModelCheckpoint):
    """last.ckpt: all that training could go on from, after the last epoch and after others, but not more often than
    every few seconds: on a GPU an epoch can take less time than writing its state.

    (ModelCheckpoint's own save_last writes only where the best epoch is written too.)
    """

    SECONDS = 10

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, filename=Path(LAST).stem, save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.written = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_last = (
            trainer.should_stop
            or trainer.current_epoch + 1 == trainer.max_epochs
            or trainer.global_step == trainer.max_steps
        )
        if is_last or time.monotonic() - self.written >= self.SECONDS:
            super().on_train_epoch_end(trainer, pl_module)
            self.written = time.monotonic()


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, straight to its file: Lightning's own way through two copies in memory
    takes two to three times as long."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        torch.save(checkpoint, part)
        os.replace(part, path)
