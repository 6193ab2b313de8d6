"""Callbacks of a run: time, progress lines, seeds of steps, and stops (on request, or when training diverges)."""

import logging
import time
from collections import deque
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from cxr.data.batches import Batch
from cxr.errors import Diverged
from cxr.models.classifier import CURVES
from cxr.training import signals

log = logging.getLogger(__name__)


def now(trainer: pl.Trainer) -> float:
    """Seconds on a monotonic clock, after the device has finished its queued steps."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class EpochTimer(Callback):
    """Measures how fast training is, and where the time of a run goes."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.epochs: list[tuple[int, float]] = []  # images and seconds of the training steps of each epoch
        self.validation = self.test = 0.0  # seconds
        self.before = 0.0  # seconds that earlier processes spent on this run, up to their last checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "validation": self.validation, "before": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = [tuple(epoch) for epoch in state["epochs"]]
        self.validation, self.before = state["validation"], state["before"]

    def seconds(self) -> float:
        """Seconds since the callback was made, and of earlier processes of the same run."""
        return self.before + time.perf_counter() - self.begin

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.images, self.epoch_begin = 0, now(trainer)  # a resumed run may begin within an epoch

    on_train_epoch_start = on_train_start

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += batch.total
        self.epoch_end = now(trainer) if trainer.is_last_batch else time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.epochs.append((self.images, self.epoch_end - self.epoch_begin))

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.side_begin = now(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.validation += now(trainer) - self.side_begin

    on_test_start = on_validation_start

    def on_test_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.test += now(trainer) - self.side_begin

    def report(self) -> dict[str, Any]:
        """The key "train" of metrics.json: epochs; images_per_s (without the first epoch, which warms up, if there are
        more); seconds, see seconds(); and the seconds in the steps of training, validation and test."""
        images, seconds = zip(*(self.epochs[1:] or self.epochs), strict=True)
        return {
            "epochs": len(self.epochs),
            "images_per_s": round(sum(images) / sum(seconds), 1),
            "seconds": round(self.seconds(), 2),
            "seconds_in": {
                "training": round(sum(seconds for _, seconds in self.epochs), 3),
                "validation": round(self.validation, 3),
                "test": round(self.test, 3),
            },
        }


class EpochLine(Callback):
    """Logs one line per epoch in place of the progress bar, where the console is a file or a pipe, or is shared by
    several runs.

    Args:
        prefix: the beginning of each line.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not trainer.is_global_zero:
            return
        figures = {key: trainer.callback_metrics[key].item() for key in CURVES if key in trainer.callback_metrics}
        line = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        log.info("%sepoch %d/%s  %s", self.prefix, trainer.current_epoch + 1, trainer.max_epochs, line)


class SeedSteps(Callback):
    """Seeds torch's generator (dropout, drop path) before each step from (seed, epoch, number of the batch), so that a
    resumed run draws the same numbers as an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        rank = (trainer.global_rank,) if trainer.global_rank else ()  # else all ranks would drop out the same
        source = np.random.SeedSequence((self.seed, trainer.current_epoch, batch_idx, *rank))
        drawn = int(source.generate_state(1, np.uint64)[0])
        # The generators that a step can use. (torch.manual_seed also queues a call, with the text of the whole stack,
        # for every kind of device that is not there: a fifth of a small step, and memory that is never given back.)
        torch.default_generator.manual_seed(drawn)
        device = trainer.strategy.root_device.type
        if device == "cuda":
            torch.cuda.manual_seed(drawn)
        elif device == "mps":
            torch.mps.manual_seed(drawn)


class StopWhenAsked(Callback):
    """Ends a validation or test at the next batch when the process is asked to stop.

    A validation within training is completed: a stop there would lose the epoch, and LastCheckpoint saves and stops
    right after it.
    """

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.state.fn != "fit":
            signals.stop_if_asked()

    on_test_batch_end = on_validation_batch_end


class StopDiverged(Callback):
    """Ends a run whose loss or gradient becomes NaN or infinite, before a checkpoint can hold its weights.

    On a CPU, in the same step. The host does not wait for a GPU: it looks at the result of a step as soon as it is
    available, a few queued steps later, and always before a checkpoint is written.
    """

    def __init__(self) -> None:
        self.gradient: torch.Tensor | None = None
        self.pending: deque[tuple[torch.Tensor, Any, Batch, int]] = deque()  # finite?, ready?, the batch and its number

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if trainer.scaler is None:  # with 16-mixed, the first gradients are infinite by intention, and skipped
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self.gradient = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        finite = outputs["loss"].detach().isfinite()
        if self.gradient is not None:
            finite, self.gradient = finite & self.gradient.isfinite(), None
        ready = None
        if finite.device.type == "cuda":
            finite, ready = finite.to("cpu", non_blocking=True), torch.cuda.Event()
            ready.record()
        self.pending.append((finite, ready, batch._replace(images=None), batch_idx))
        while self.pending and (ready is None or self.pending[0][1].query()):
            self.look(trainer)
        if trainer.is_last_batch:
            self.settle(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        self.settle(trainer)

    def settle(self, trainer: pl.Trainer) -> None:
        """Check all pending steps, and wait for them. Raises Diverged as look() does."""
        while self.pending:
            self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """Check the oldest pending step. Raises Diverged where it was not finite."""
        finite, ready, batch, batch_idx = self.pending.popleft()
        if ready is not None and not ready.query():
            ready.synchronize()
        if not finite:
            names = [repr(str(name)) for name in trainer.datamodule.images.file[batch.index.cpu().numpy()]]
            error = Diverged(
                f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}: the loss or its gradient is not finite: "
                f"training diverged; try a smaller optim.lr, or look at the batch's images: {', '.join(names[:3])}"
                + (f" and {len(names) - 3} more (all in train.log)" if len(names) > 3 else "")
            )
            error.add_note(f"the images of this batch: {', '.join(names)}")  # train.log has it below the traceback
            raise error
