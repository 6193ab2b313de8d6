"""The LightningModule around a network: loss, optimizer, schedule and torchmetrics."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from torch import Tensor
from torch.nn import functional as F

from cxr.data.datamodule import Batch
from cxr.errors import UserError
from cxr.results.metrics import evaluation_metrics, training_metrics


class Classifier(pl.LightningModule):
    """A network that says the class of a film.

    Every argument is plain data and goes into the checkpoint, so that a checkpoint says all that predicting needs and
    loads with weights_only=True.

    Args:
        model: the options `model.*`: `_target_`, a function or class that takes n_classes and image_size, and its other
            arguments.
        optim: the options `optim.*`: `_target_`, an optimizer, its arguments, and `schedule`: constant, or onecycle,
            which rises to `lr` over the first three tenths of the steps and falls to nothing (Smith & Topin 2018).
        classes: class names in the order of the logits.
        image_size: side of the films in pixels.
        note: what has to be said wherever this network's figures stand, or "".
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        optim: Mapping[str, Any],
        classes: Sequence[str],
        image_size: int,
        note: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.classes, self.note = tuple(classes), note
        self.net = build("model", model, n_classes=len(classes), image_size=image_size)
        self.net.to(memory_format=torch.channels_last)
        self.train_metrics = training_metrics(len(classes)).clone(prefix="train/")
        self.val_metrics = evaluation_metrics(len(classes))
        self.test_metrics = evaluation_metrics(len(classes))
        self.scores: dict[str, Tensor] = {}
        self.predictions: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, films: Tensor) -> Tensor:
        """Logits (B, C), float32, of films (B, 1, S, S) from 0 to 1."""
        return self.net(films.contiguous(memory_format=torch.channels_last)).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self(batch.films)
        loss = F.cross_entropy(logits, batch.labels)
        self.train_metrics.update(logits.detach(), batch.labels)
        options = {"on_step": False, "on_epoch": True, "batch_size": len(logits)}
        self.log("train/loss", loss.detach(), prog_bar=True, **options)
        self.log_dict(self.train_metrics, **options)  # computed and reset by Lightning when the epoch ends
        return loss

    def on_validation_epoch_start(self) -> None:
        self.predictions = []

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, self.test_metrics, "test")

    def evaluate(self, batch: Batch, metrics: Any, side: str) -> None:
        logits = self(batch.films)
        probabilities = logits.softmax(1)
        metrics.update(probabilities, batch.labels)
        self.predictions.append((batch.index, batch.labels, probabilities))
        if side == "val":
            self.log("val/loss", F.cross_entropy(logits, batch.labels), prog_bar=True, batch_size=len(logits))

    def on_validation_epoch_end(self) -> None:
        self.scores = self.val_metrics.compute()
        self.val_metrics.reset()
        for key, value in self.scores.items():
            if value.ndim == 0:
                self.log(f"val/{key}", value, prog_bar=key == "f1_macro")
        for name, value in zip(self.classes, self.scores["f1"], strict=True):
            self.log(f"val_f1/{name}", value)

    def on_test_epoch_end(self) -> None:
        self.scores = self.test_metrics.compute()
        self.test_metrics.reset()

    def predicted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the table (N,), labels (N,) and probabilities (N, C) of the last evaluation, on the CPU."""
        index, labels, probabilities = zip(*self.predictions, strict=True)
        return torch.cat(index).cpu(), torch.cat(labels).cpu(), torch.cat(probabilities).cpu()

    def configure_optimizers(self) -> Any:
        options = dict(self.hparams.optim)
        schedule = options.pop("schedule", "constant")
        optimizer = build("optim", options, params=list(self.parameters()))
        if schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=options["lr"], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def build(part: str, options: Mapping[str, Any], **arguments: Any) -> Any:
    """Make what the options of a part of conf describe.

    Raises:
        UserError: there is no such class or function, or it does not take these options.
    """
    try:
        return hydra.utils.instantiate(options, **arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        if error.__cause__ is None or isinstance(error.__cause__, TypeError | ImportError):
            raise UserError(f"{part}.*: {' '.join(str(error).split())}") from error
        raise


def load_classifier(path: Path, accelerator: str = "cpu") -> Classifier:
    """Return the network of a checkpoint, ready to predict. Its file is read as data: torch runs no code from it.

    Args:
        accelerator: cpu, gpu (or cuda), mps, or auto for the best that is there.

    Raises:
        UserError: the file is no checkpoint of cxr, or the device is not there.
    """
    device = {"auto": best_device(), "gpu": "cuda"}.get(accelerator, accelerator)
    try:
        model = Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"ckpt={path}: not a checkpoint that cxr wrote, or a damaged one") from error
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch raises either where a device is missing
        raise UserError(f"trainer.accelerator={accelerator}: there is none here; use auto or cpu") from error


def best_device() -> str:
    """cuda, mps or cpu."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
