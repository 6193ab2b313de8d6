"""The LightningModule around a network: loss and its class weights, optimizer, schedule and torchmetrics."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from torch import Tensor
from torch.nn import functional as F

from cxr.data.batches import Batch
from cxr.errors import Diverged, UserError, one_line
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.metrics import compute, evaluation_metrics, training_metrics
from cxr.models.batch_norm import average_longer
from cxr.models.gathering import gather, rank
from cxr.models.precision import FULL, MIXED, computing_in, device_of
from cxr.options.allowed_code import check_objects

CURVES = ("train/loss", "val/loss", "train/f1_macro", "val/f1_macro")


class Classifier(pl.LightningModule):
    """A network that predicts the class of an image.

    Every argument is plain data and goes into the checkpoint, so that a checkpoint holds all that predicting needs and
    loads with weights_only=True.

    Args:
        model: the options `model.*`: `_target_`, a function or class that takes n_classes and image_size, and its other
            arguments.
        optim: the options `optim.*`: `_target_`, an optimizer, its arguments, and `schedule`: constant, or onecycle,
            which rises to `lr` over the first three tenths of the steps and falls to zero (Smith & Topin 2018); with
            it, batch normalisation averages over more batches (cxr.models.batch_norm).
        classes: class names in the order of the logits.
        image_size: side of the images in pixels.
        note: a caveat to print beside every figure of this network, or "".
        class_weights: the weight of each class in the training loss, or None. The mean is over images, not over their
            weights, so that it does not depend on how images are spread over devices.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        optim: Mapping[str, Any],
        classes: Sequence[str],
        image_size: int,
        note: str = "",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.classes, self.note = tuple(classes), note
        self.net = build("model", model, n_classes=len(classes), image_size=image_size)
        self.net.to(memory_format=torch.channels_last)
        self.train_metrics = training_metrics(len(classes)).clone(prefix="train/")
        self.metrics = evaluation_metrics(len(classes))
        self.register_buffer("temperature", torch.ones(()))  # fitted on the validation images of each epoch
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)  # the hyperparameters have them
        self.precision = FULL  # of a checkpoint's network, that of its training; in training, the Trainer has one
        # Where training replays CUDA graphs: the shape of the batches that they are for, and what replays them.
        self.graphed: tuple[tuple[int, ...], Callable[[Tensor], Tensor]] | None = None
        # Results of the steps of an epoch stay on the device, so that no step waits for it or computes metrics.
        self.trained: list[tuple[Tensor, Tensor, Tensor]] = []  # loss, predicted classes (B,), labels (B,)
        self.evaluated: list[tuple[Tensor, Tensor, Tensor]] = []  # rows (B,), labels (B,), logits (B, C)
        self.curves: dict[str, dict[int, float]] = {tag: {} for tag in CURVES}  # by epoch

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C), float32, of images (B, 1, S, S) from 0 to 1."""
        images = images.contiguous(memory_format=torch.channels_last)
        replayed = self.training and self.graphed is not None and images.shape == self.graphed[0]
        with computing_in(self.precision, self.device.type):
            return (self.graphed[1] if replayed else self.net)(images).float()

    def probabilities(self, images: Tensor) -> Tensor:
        """Calibrated probabilities (B, C) of images (B, 1, S, S) from 0 to 1."""
        return (self(images) / self.temperature).softmax(1)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The results of all ranks are in the checkpoint; one rank counts them.
        self.trained = [tuple(tensors) for tensors in checkpoint.get("trained", ())] if rank() == 0 else []
        self.curves = checkpoint.get("curves", self.curves)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["precision"] = str(self.trainer.precision)  # predicting computes in it too
        if "optimizer_states" in checkpoint:  # not best.ckpt, but one to resume from, perhaps within an epoch
            checkpoint |= {"trained": gather(self.trained), "curves": self.curves}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self(batch.images)
        if self.class_weights is None:
            loss = F.cross_entropy(logits, batch.labels)
        else:
            loss = F.cross_entropy(logits, batch.labels, self.class_weights, reduction="sum") / len(batch.labels)
        self.trained.append((loss.detach(), logits.detach().argmax(1), batch.labels))
        if self.trainer.is_last_batch:  # now, so that Lightning's bar and every callback see it in time
            self.log_training(self.global_step)
        if self.trainer.world_size == 1:
            return loss
        # Gradients are averaged over ranks, whose parts of a batch may differ by an image.
        return loss * (len(batch.labels) * self.trainer.world_size / batch.total)

    def on_train_epoch_end(self) -> None:
        if self.trained:  # the epoch was cut short, by max_steps or a callback
            self.log_training(self.global_step - 1)

    def log_training(self, step: int) -> None:
        """Loss and metrics over the images of an epoch, whose last step of the optimizer is `step`."""
        steps = ([tensor.to(self.device) for tensor in step] for step in gather(self.trained))
        losses, predicted, labels = zip(*steps, strict=True)
        self.trained = []
        images = torch.tensor([len(batch) for batch in labels], device=losses[0].device)
        self.train_metrics.update(torch.cat(predicted), torch.cat(labels))
        loss = (torch.stack(losses) * images).sum() / images.sum()
        scores = self.train_metrics.compute()
        self.train_metrics.reset()
        # To the logger at once: Lightning does so after this epoch's checkpoint, and a run that stops there loses them.
        options = {"on_step": False, "on_epoch": True, "batch_size": 1, "logger": False}
        self.log("train/loss", loss, prog_bar=True, **options)
        self.log_dict(scores, **options)
        figures = {key: value.item() for key, value in {"train/loss": loss, **scores}.items()}
        self.keep_curves(figures)
        if self.logger:
            self.logger.log_metrics({**figures, "epoch": self.current_epoch}, step)

    def keep_curves(self, figures: Mapping[str, float]) -> None:
        for tag in CURVES:
            if tag in figures:
                self.curves[tag][self.current_epoch] = figures[tag]

    def history(self) -> dict[str, list[float]]:
        """The part "history" of metrics.json: the figures of each epoch that has them, for each tag, with _ for /."""
        return {tag.replace("/", "_"): list(epochs.values()) for tag, epochs in self.curves.items() if epochs}

    def on_validation_epoch_start(self) -> None:
        self.evaluated = []

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluated.append((batch.index, batch.labels, self(batch.images)))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.evaluated = gather(self.evaluated)
        _, labels, logits = self.evaluation()
        if not logits.isfinite().all():  # the weights are finite, but the outputs overflow
            raise Diverged(
                f"epoch {self.current_epoch + 1}: the network's output for validation images is not finite: training "
                "diverged; try a smaller optim.lr"
            )
        scores = self.evaluate()
        loss = F.cross_entropy(logits, labels)
        self.log("val/loss", loss, prog_bar=True)
        self.keep_curves({"val/loss": loss.item(), "val/f1_macro": scores["f1_macro"].item()})
        # The step of the epoch's training metrics. (Lightning's default is the first step of the next epoch, which a
        # resumed run logs again.)
        self.log("step", float(max(self.global_step - 1, 0)))
        # Before a checkpoint is written: each holds its own temperature.
        self.temperature.fill_(fit_temperature(logits.cpu().numpy(), labels.cpu().numpy()))
        for key, value in scores.items():
            if value.ndim == 0:
                self.log(f"val/{key}", value, prog_bar=key == "f1_macro")
        for name, value in zip(self.classes, scores["f1"], strict=True):
            self.log(f"val_f1/{name}", value)

    def evaluation(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the table (N,), labels (N,) and logits (N, C) of the last evaluation, in the order of the rows."""
        index, labels, logits = (torch.cat(column).to(self.device) for column in zip(*self.evaluated, strict=True))
        order = index.argsort()  # ranks had parts of each batch
        return index[order], labels[order], logits[order]

    def evaluate(self) -> dict[str, Tensor]:
        """All metrics of the last evaluation."""
        _, labels, logits = self.evaluation()
        self.metrics.update(logits.softmax(1), labels)
        scores = compute(self.metrics)
        self.metrics.reset()
        return scores

    def build_optimizer(self) -> torch.optim.Optimizer:
        """What the options `optim.*` describe, over all parameters."""
        options = {key: value for key, value in self.hparams.optim.items() if key != "schedule"}
        return build("optim", options, params=list(self.parameters()))

    def configure_optimizers(self) -> Any:
        optimizer = self.build_optimizer()
        if self.hparams.optim.get("schedule", "constant") == "constant":
            return optimizer
        steps, lr = int(self.trainer.estimated_stepping_batches), self.hparams.optim["lr"]
        average_longer(self.net, steps)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def build(part: str, options: Mapping[str, Any], **arguments: Any) -> Any:
    """Make the object that some options describe.

    Raises:
        UserError: the class or function does not exist, options may not name it, or it does not take these arguments.
    """
    if not isinstance(options, Mapping) or "_target_" not in options:
        raise UserError(f"{part}._target_ is missing: name the class or function to build")
    check_objects(options, part)
    try:
        return hydra.utils.instantiate(options, **arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError | RuntimeError):  # the latter: too little memory for it
            raise error.__cause__ from None
        if error.__cause__ is None or isinstance(error.__cause__, TypeError | ImportError):
            raise UserError(f"{part}.*: {one_line(error)}") from error
        raise


def load_classifier(path: Path, accelerator: str = "cpu") -> Classifier:
    """Load the network of a checkpoint, ready to predict. Its file is read as data: torch runs no code from it, and
    build() accepts no code from its options but networks.

    Args:
        accelerator: cpu, gpu (or cuda), mps, or auto for the best one available.

    Raises:
        UserError: the file is not a checkpoint of cxr, or the device is missing.
    """
    device = device_of(accelerator)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        kept, precision = checkpoint["hyper_parameters"], checkpoint.get("precision", FULL)
        options, size, names = kept["model"], kept["image_size"], [*kept["classes"], kept.get("note", "")]
        if "_instantiator" in kept or type(size) is not int or not all(isinstance(name, str) for name in names):
            raise ValueError("hyper_parameters")  # Lightning would call its instantiator; ours have none
        if precision not in (FULL, *MIXED):
            raise ValueError("precision")
        if "weights" in options:  # the checkpoint has all weights; do not fetch the initial ones again
            options = {**options, "weights": None}
        model = Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True, model=options)
        model.precision = precision
    except UserError as error:
        raise UserError(f"ckpt={path}: {error}") from error
    except Exception as error:  # a damaged or hostile file can make torch and Lightning raise anything
        raise UserError(f"ckpt={path}: not a checkpoint that cxr wrote, or a damaged one") from error
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch raises either where a device is missing
        raise UserError(f"trainer.accelerator={accelerator}: no such device was found; use auto or cpu") from error
