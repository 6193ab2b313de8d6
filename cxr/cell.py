"""Train one cell of the grid: fit, test once, write the run folder."""

import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torchmetrics
import torchvision
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import cxr
from cxr import dashboard
from cxr.data.datamodule import CXRDataModule
from cxr.errors import UserError
from cxr.models.classifier import Classifier, load_classifier
from cxr.results.metrics import as_plain, per_class_table
from cxr.results.run_folder import METRICS, write_json, write_predictions

log = logging.getLogger(__name__)

# Lightning's own lines on devices and products are for its developers; its warnings stay.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
# Of Lightning's own code, against a newer torch.
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
# Lightning's advice to add workers is wrong for films that lie decoded in memory.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
# An epoch of fewer than 50 batches is nothing to warn of: nothing is logged by the step.
warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")


def train_cell(config: Mapping[str, Any], choices: Mapping[str, Any], folder: Path) -> None:
    """Do what one cell of the grid asks for.

    Args:
        config: the resolved options, plain data.
        choices: what tells this run from its neighbours: model, aug, seed, every other swept option.
        folder: the run folder, which gets all that the README lists.

    Raises:
        UserError: the films, the weights or the hardware are not what the options say.
    """
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = CXRDataModule(config["data"], config["aug"], config["seed"], Path(config["cache_dir"]).expanduser())
    data.setup()
    data.write_tables(folder)
    model = Classifier(config["model"], config["optim"], data.films.classes, config["data"]["image_size"], data.note)
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    dashboard.show_films(logger, data)

    has_val = bool((data.split == "val").any())
    checkpoint = checkpoints(folder / "checkpoints", has_val)
    timer = EpochTimer()
    options = config["trainer"] if has_val else {**config["trainer"], "limit_val_batches": 0}
    trainer = build_trainer(options, folder, logger, [checkpoint, timer, LearningRateMonitor("epoch")])
    trainer.fit(model, data)

    # Without validation films there is nothing to choose an epoch by: the last one counts.
    chosen = checkpoint.best_model_path if has_val else checkpoint.last_model_path
    if not chosen:
        raise UserError("trainer.*: with these options no epoch was validated, so there is no best one to test")
    best = load_classifier(Path(chosen))
    step = torch.load(chosen, map_location="cpu", weights_only=True)["global_step"]
    sides = ("val", "test") if has_val else ("test",)
    results = {side: evaluate(best, data, side, config["trainer"]) for side in sides}
    scores, (index, labels, probabilities) = results["test"]
    files = data.films.file[index].tolist()
    write_predictions(folder / "predictions.csv", files, data.films.classes, labels.tolist(), probabilities.tolist())
    metrics = {
        "classes": list(data.films.classes),
        "n_test": len(labels),
        "note": data.note,
        "test": scores,
        "val": results["val"][0] if has_val else None,
        "train": timer.report() | {"device": device_name(trainer), "precision": str(trainer.precision)},
        "versions": versions(),
    }
    write_json(folder / METRICS, metrics)
    for side, (figures, predicted) in results.items():
        dashboard.show_evaluation(logger, data, side, figures, predicted, step)
    dashboard.show_choices(logger, choices, config, scores, step)
    logger.finalize("success")
    print(report(folder, metrics), flush=True)


def build_trainer(options: Mapping[str, Any], folder: Path, logger: Any, callbacks: list[Callback]) -> pl.Trainer:
    """Lightning's Trainer with the options `trainer.*`."""
    options = dict(options)
    if options["precision"] == "auto":
        options["precision"] = best_precision(options["accelerator"])
    console = TQDMProgressBar() if sys.stderr.isatty() else EpochLine()
    try:
        return pl.Trainer(
            **options,
            default_root_dir=folder,
            logger=logger,
            callbacks=[*callbacks, console] if logger else [],
            enable_progress_bar=isinstance(console, TQDMProgressBar) and bool(logger),
            enable_checkpointing=bool(logger),
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer.*: Lightning refuses these options: {' '.join(str(error).split())}") from error


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware that will be used multiplies bf16 faster than fp32, else 32-true."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        # torch has no public question for it; where this one is missing, fp32 is right if slow.
        fast = (
            getattr(torch.cpu, "_is_amx_tile_supported", bool)()
            or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        )
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"


def checkpoints(folder: Path, has_val: bool) -> ModelCheckpoint:
    """best.ckpt (highest validation macro F1) and last.ckpt."""
    choice: dict[str, Any] = (
        {"monitor": "val/f1_macro", "mode": "max", "filename": "best"} if has_val else {"save_top_k": 0}
    )
    return ModelCheckpoint(
        folder, save_last=True, auto_insert_metric_name=False, enable_version_counter=False, **choice
    )


def evaluate(
    model: Classifier, data: CXRDataModule, side: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Figures as in metrics.json, and rows (N,), labels (N,) and probabilities (N, C), of the val or test films."""
    kept = {key: options[key] for key in ("accelerator", "devices", "precision")}
    trainer = build_trainer(kept, data.cache, None, [])
    evaluation = trainer.validate if side == "val" else trainer.test
    evaluation(model, datamodule=data, verbose=False)
    index, labels, probabilities = (t.numpy() for t in model.predicted())
    return as_plain({k: v.cpu() for k, v in model.scores.items()}, data.films.classes), (index, labels, probabilities)


class EpochTimer(Callback):
    """How fast training went: films over time spent in training steps, validation left out."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.epochs: list[tuple[int, float]] = []  # films and seconds of each epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.films, self.epoch_begin = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.films += len(batch.labels)
        if trainer.is_last_batch:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()  # the last steps are queued, not done
            self.epochs.append((self.films, time.perf_counter() - self.epoch_begin))

    def report(self) -> dict[str, Any]:
        """The part "train" of metrics.json: epochs, images_per_s (the first epoch, which warms up, left out where there
        are more) and seconds since the callback was made."""
        films, seconds = zip(*(self.epochs[1:] or self.epochs), strict=True)
        return {
            "epochs": len(self.epochs),
            "images_per_s": round(sum(films) / sum(seconds), 1),
            "seconds": round(time.perf_counter() - self.begin, 2),
        }


class EpochLine(Callback):
    """One line an epoch, where the console is a file or a pipe and a bar would be noise."""

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        shown = ("train/loss", "val/loss", "train/f1_macro", "val/f1_macro")
        figures = {key: trainer.callback_metrics[key].item() for key in shown if key in trainer.callback_metrics}
        line = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {line}", flush=True)


def device_name(trainer: pl.Trainer) -> str:
    """The name of what trained, as a person knows it."""
    device = trainer.strategy.root_device.type
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device != "cpu":
        return device
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores)"


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    modules = {
        "torch": torch,
        "torchvision": torchvision,
        "pytorch_lightning": pl,
        "torchmetrics": torchmetrics,
        "cxr": cxr,
    }
    return {"python": platform.python_version()} | {name: module.__version__ for name, module in modules.items()}


def report(folder: Path, metrics: Mapping[str, Any]) -> str:
    """What the console says of a finished run."""
    test, chosen = metrics["test"], "best epoch by validation macro F1" if metrics["val"] else "last epoch"
    lines = [
        "",
        f"{folder.name}: {metrics['n_test']} test films, opened once, {chosen}",
        per_class_table(test),
        f"accuracy {test['accuracy']:.3f}, macro F1 {test['f1_macro']:.3f} (the plain mean of the classes' F1), "
        f"macro AUROC {test['auroc_macro']:.3f}",
        *([f"{metrics['note']}"] if metrics["note"] else []),
        f"all in {folder}",
    ]
    return "\n".join(lines)
