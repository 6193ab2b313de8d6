"""The checkpoints of a run: when they are written, and from which one, and which batch, a stopped run resumes."""

import errno
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from cxr.data.datamodule import CXRDataModule
from cxr.errors import UserError
from cxr.evaluation.by_hospital import lowest_f1
from cxr.files.run_folder import CHECKPOINTS, INSIDE_PREDICTIONS, METRICS, PREDICTIONS, VAL_PREDICTIONS
from cxr.files.status import MEND
from cxr.files.writing import sync_folder
from cxr.models.classifier import Classifier
from cxr.training import signals
from cxr.training.distributed import stop_or_due

log = logging.getLogger(__name__)

BEST, LAST, BEFORE = "best.ckpt", "last.ckpt", "last.previous.ckpt"
MEAN, WORST = "val/f1_macro", "val/f1_worst_hospital"
TIE = 1e-6  # of the mean over hospitals, in the score by the worst: less than one image can change


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt: the weights with the highest validation macro F1, all that predicting needs.

    Args:
        folder: for the file.
        hospital: strings (N,), the hospital of each image of the table, for `select=worst_hospital`: then the highest
            of the lowest macro F1 of a hospital counts, and the mean over hospitals where that is equal.
    """

    def __init__(self, folder: Path, hospital: np.ndarray | None = None) -> None:
        self.hospital = hospital
        super().__init__(
            folder,
            filename=Path(BEST).stem,
            monitor=MEAN if hospital is None else WORST,
            mode="max",
            save_weights_only=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def on_validation_end(self, trainer: pl.Trainer, module: Classifier) -> None:
        if self.hospital is not None:  # only now has the network the predictions of all ranks
            rows, labels, logits = (column.cpu().numpy() for column in module.evaluation())
            lowest, mean = lowest_f1(labels, logits.argmax(1), self.hospital[rows], len(module.classes))
            trainer.callback_metrics[WORST] = torch.tensor(lowest + TIE * mean, dtype=torch.float64)
            if not trainer.sanity_checking and trainer.logger:
                trainer.logger.log_metrics({WORST: lowest}, max(trainer.global_step - 1, 0))
        super().on_validation_end(trainer, module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the best score, also in a run folder that was moved: ModelCheckpoint forgets it where the path differs.
        The paths in a checkpoint are not trusted either: ModelCheckpoint would delete these after a better epoch."""
        best = str(Path(self.dirpath) / BEST)
        paths = {"best_model_path": best, "kth_best_model_path": best, "last_model_path": "", "dirpath": self.dirpath}
        score = state_dict["best_model_score"]
        scores = {"best_k_models": {best: score}, "kth_value": score} if score is not None else {"best_k_models": {}}
        super().load_state_dict({**state_dict, **paths, **scores})


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt, all that training resumes from: after the last epoch, and after other epochs and between
    steps only as often as it pays (on a GPU, an epoch can take less time than writing its state). Stops the run at the
    next batch when asked to.

    (ModelCheckpoint writes either after epochs or at intervals of time, and never on request.)
    """

    EPOCH_SECONDS, STEP_SECONDS = 10, 600  # between two writings: at the end of an epoch, within one

    def __init__(self, folder: Path) -> None:
        self.folder, self.finished, self.written = folder, False, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"finished": self.finished}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.finished = state_dict["finished"]

    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)  # now, and never again: a folder that goes away is an error
        trainer.should_stop = trainer.should_stop or self.finished  # also where it was not max_epochs that ended it

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        done = arguments[-1] + 1
        if trainer.is_last_batch or trainer.global_step == trainer.max_steps:  # the end of the epoch comes at once
            return
        # Between two steps of the optimizer, and not where a validation is due: a resumed run would skip it.
        if done % trainer.accumulate_grad_batches or (trainer.val_check_batch and done % trainer.val_check_batch == 0):
            return
        stop, due = stop_or_due(time.monotonic() - self.written > self.STEP_SECONDS)
        if stop or due:
            self.write(trainer)
        signals.stop_if_asked(stop)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.finished = (
            trainer.should_stop
            or trainer.current_epoch + 1 == trainer.max_epochs
            or trainer.global_step == trainer.max_steps
        )
        stop, due = stop_or_due(time.monotonic() - self.written >= self.EPOCH_SECONDS)
        if self.finished or stop or due:
            self.write(trainer)
        signals.stop_if_asked(stop)

    def write(self, trainer: pl.Trainer) -> None:
        trainer.logger.experiment.flush()  # a resumed run logs nothing from before its checkpoint again
        trainer.save_checkpoint(self.folder / LAST)
        self.written = time.monotonic()


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it back before it replaces the one before.

    (Lightning's own way, through two copies in memory, takes two to three times as long.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if why := damage(part):
                raise OSError(errno.EIO, f"it reads back differently ({why})", str(path))
            if path.name == LAST and path.exists():
                os.replace(path, path.with_name(BEFORE))
            os.replace(part, path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of what its file raised
            part.unlink(missing_ok=True)
            raise no_room(path, error) from error


def no_room(path: Path, error: BaseException) -> UserError:
    """The error for a checkpoint that could not be written."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    why = (cause.strerror or cause) if cause else str(error).splitlines()[0]
    return UserError(f"{path}: cannot be written ({why}); earlier checkpoints are unchanged; {MEND}")


def damage(path: Path) -> str:
    """What is wrong with a checkpoint's file by its checksums, which torch's loader ignores, or ""."""
    try:
        with zipfile.ZipFile(path) as file:
            wrong = file.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        return str(error) or type(error).__name__
    return f"bad checksum in {wrong}" if wrong else ""


class Start(NamedTuple):
    """Where training resumes: a checkpoint, and the steps of the optimizer that it has."""

    path: Path
    step: int


def find_start(folder: Path, hparams: Mapping[str, Any], by_steps: bool) -> Start | None:
    """The checkpoint to resume training from; None to train from the beginning.

    A checkpoint that is damaged, or belongs to another network than `hparams`, is skipped with a warning, and the
    previous one is used.

    Args:
        by_steps: training ends after a number of steps. Then Lightning 2.6 takes the end of an epoch for the middle of
            one, and would train a batch too many: such a checkpoint cannot be resumed from.
    """
    for path in (folder / LAST, folder / BEFORE):
        if not path.exists():
            continue
        why = damage(path)
        try:
            if not why:
                checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                why = "" if checkpoint["hyper_parameters"] == hparams else "it belongs to another network"
                states, step = checkpoint["callbacks"], int(checkpoint["global_step"])
                between_epochs = not checkpoint[CXRDataModule.__qualname__]["position"][1]
                finished = states[LastCheckpoint.__qualname__]["finished"]
                has_best = any(key.startswith(BestCheckpoint.__qualname__) for key in states)
        except Exception as error:  # whatever is wrong with the file, training can restart
            why = f"{type(error).__name__}: {error}".splitlines()[0]
        if why:
            log.warning("%s cannot be used (%s): skipped", path, why)
            continue
        if by_steps and between_epochs and not finished:
            log.warning("%s: with trainer.max_steps, training cannot resume from the end of an epoch: skipped", path)
            continue
        if has_best and (lost := damage(folder / BEST)):
            log.warning("%s is damaged (%s): training restarts from the beginning", folder / BEST, lost)
            return None
        return Start(path, step)
    return None


def clear(run: Path) -> None:
    """Remove from a run folder what an earlier attempt left that cannot be resumed."""
    folder = run / CHECKPOINTS
    left = (*folder.glob("*.ckpt"), *folder.glob(".*.part"), *run.glob("events.out.tfevents.*"))
    results = (METRICS, PREDICTIONS, VAL_PREDICTIONS, INSIDE_PREDICTIONS)
    for path in (*left, *(run / name for name in results)):
        path.unlink(missing_ok=True)


def check_room(folder: Path, model: pl.LightningModule) -> None:
    """Raise UserError if the disk has no room for a run's checkpoints: the best, and three of the last (one of them
    being written), each with two moments per weight, as Adam has."""
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    there = sum(path.stat().st_size for path in folder.glob("*.ckpt"))
    needed, free = weights * 10 + 20_000_000 - there, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {free / 1e6:.0f} MB free, but the checkpoints of this network and the other files need about "
            f"{needed / 1e6:.0f} MB; make room, or choose another folder (hydra.run.dir=DIR, hydra.sweep.dir=DIR)"
        )
