"""Build a run from its options: images, network and Trainer; and fit it."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, TQDMProgressBar

from cxr.data.class_names import check_screened
from cxr.data.datamodule import CXRDataModule
from cxr.data.hospitals import named_hospitals
from cxr.errors import UserError
from cxr.evaluation.by_hospital import FEW, large_hospitals
from cxr.files.run_folder import CHECKPOINTS
from cxr.models.classifier import Classifier
from cxr.training.callbacks import EpochLine, EpochTimer, SeedSteps, StopDiverged, StopWhenAsked
from cxr.training.checkpoints import BestCheckpoint, LastCheckpoint, Start
from cxr.training.cuda_graphs import ReplayGraphs
from cxr.training.logger import RunLogger
from cxr.training.memory import keep_freed_memory
from cxr.training.trainer import build_trainer

log = logging.getLogger(__name__)


class TrainingRun(NamedTuple):
    """A run, ready to be trained with `trainer.fit(model, data)`."""

    data: CXRDataModule
    model: Classifier
    trainer: pl.Trainer
    timer: EpochTimer
    has_val: bool


def build_data(config: Mapping[str, Any]) -> CXRDataModule:
    """Read and split the images of a run. Raises UserError where they cannot be used."""
    data = CXRDataModule(config["data"], config["aug"], config["seed"], Path(config["cache_dir"]).expanduser())
    data.setup()
    check_screened(config["screen"]["class"], data.images.classes)
    return data


def build_model(config: Mapping[str, Any], data: CXRDataModule) -> Classifier:
    """The network of a run, its weights drawn from the seed."""
    keep_freed_memory()
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    arguments = config["model"], config["optim"], data.images.classes, config["data"]["image_size"], data.note
    weights = data.class_weights() if config["loss"]["weights"] == "balanced" else None
    model = Classifier(*arguments, weights)
    if config["compile"]:
        model.net.compile()  # in place, so that weights keep their names
    return model


def build_run(
    config: Mapping[str, Any],
    folder: Path,
    data: CXRDataModule,
    model: Classifier,
    start: Start | None = None,
    shared_console: bool = False,
    reporters: Sequence[Callback] = (),
) -> TrainingRun:
    """Build the Trainer of a run around its images and its network.

    Args:
        folder: the run folder.
        start: where training resumes; None: at the beginning.
        shared_console: other runs write to the console at the same time.
        reporters: callbacks that report to a search.

    Raises:
        UserError: Lightning refuses the options `trainer.*`, or no hospital is known to select an epoch by.
    """
    has_val, timer = bool((data.split == "val").any()), EpochTimer()
    options = config["trainer"] if has_val else {**config["trainer"], "limit_val_batches": 0}
    console = (
        EpochLine(f"{folder.name}: " if shared_console else "")
        if shared_console or not sys.stderr.isatty()
        else TQDMProgressBar(refresh_rate=20 if torch.cuda.is_available() else 1)  # every update waits for the GPU
    )
    graphs = ReplayGraphs(
        config["cuda_graphs"], config["data"]["batch_size"], config["data"]["image_size"], config["compile"]
    )
    callbacks = [timer, LearningRateMonitor("epoch"), SeedSteps(config["seed"]), StopDiverged()]
    callbacks += [StopWhenAsked(), *reporters, graphs, console]
    # Best before last: a checkpoint to resume from has to know the best score.
    hospital = hospitals_to_choose_by(data) if config["select"] == "worst_hospital" and has_val else None
    callbacks += [BestCheckpoint(folder / CHECKPOINTS, hospital)] * has_val + [LastCheckpoint(folder / CHECKPOINTS)]
    trainer = build_trainer(options, folder, RunLogger(folder, start.step if start else None), callbacks)
    return TrainingRun(data, model, trainer, timer, has_val)


def hospitals_to_choose_by(data: CXRDataModule) -> np.ndarray:
    """The hospital of each of the N images, strings (N,), for `select=worst_hospital`. Raises UserError if none has
    enough validation images."""
    hospital = named_hospitals(data.images, "select=worst_hospital")
    names, images = np.unique(hospital[data.rows("val")], return_counts=True)
    large = large_hospitals(hospital[data.rows("val")])
    if not large:
        raise UserError(
            f"select=worst_hospital: no hospital has {FEW} validation images; use a larger data.val_fraction, or "
            "select=f1_macro"
        )
    few = [f"{name} ({n})" for name, n in zip(names.tolist(), images.tolist(), strict=True) if name not in ("", *large)]
    without = f"; not {', '.join(few)}: fewer than {FEW} validation images" if few else ""
    log.info("the best epoch is chosen by %s%s", ", ".join(large), without)
    return hospital


def fit(run: TrainingRun, start: Start | None, config: Mapping[str, Any]) -> None:
    """Train from a checkpoint, or from the beginning."""
    if start:
        log.info("resuming from %s", start.path)
    try:
        run.trainer.fit(run.model, run.data, ckpt_path=start and start.path, weights_only=True)
    except RuntimeError as error:  # the error of torch's compiler is in a private module
        if config["compile"] and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(f"compile=true: torch cannot compile here: {str(error).splitlines()[0]}") from error
        raise
    except ValueError as error:  # torch refuses one image whose last feature map is one pixel
        if config["data"]["batch_size"] == 1 and "Expected more than 1 value per channel" in str(error):
            raise UserError("data.batch_size=1: batch normalisation needs two images, or larger images") from error
        raise
