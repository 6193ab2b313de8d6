"""Train one cell of the grid: fit, test once, write the run folder."""

import logging
import os
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytorch_lightning as pl
import torch
import torchmetrics
import torchvision
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, TQDMProgressBar

import cxr
from cxr.data.datamodule import CXRDataModule
from cxr.data.fingerprints import check_unchanged, write_fingerprints
from cxr.data.image_table import check_screened
from cxr.errors import UserError
from cxr.files.run_folder import AUDIT, CHECKPOINTS, METRICS, PREDICTIONS, SIDE_FILE, STATUS, write_predictions
from cxr.files.status import explained, is_done, write_status
from cxr.files.writing import read_json, write_json
from cxr.jobs import signals
from cxr.models.classifier import Classifier, load_classifier
from cxr.models.cost import cost
from cxr.reporting import dashboard, model_card
from cxr.reporting.console import run_summary
from cxr.training import distributed
from cxr.training.callbacks import CURVES, EpochLine, EpochTimer, SeedSteps, StopDiverged, StopWhenAsked
from cxr.training.checkpoints import BEFORE, BEST, LAST, Checkpoints, check_room, clear, to_go_on_from
from cxr.training.cuda_graphs import ReplayGraphs
from cxr.training.logger import Board
from cxr.training.memory import enough_memory, keep_freed_memory
from cxr.training.scoring import calibrate, predict, score, screen, shortcuts, slices
from cxr.training.trainer import build_trainer, precision_of

log = logging.getLogger(__name__)

# Lightning's own lines on devices and products are for its developers; its warnings stay.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
# Of Lightning's own code, against a newer torch.
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
# Lightning's advice to add workers is wrong for images that lie decoded in memory.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
# Our order of images is resumable: CXRDataModule keeps its position.
warnings.filterwarnings("ignore", message=".*ended before the epoch ended and your dataloader is not resumable.*")
# Every rank has the figures of all images, see Classifier.
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
# Lightning looks for Slurm, though nothing of it is Lightning's to do here.
warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
# The first backward pass of a process on a GPU; what torch attempts then, succeeds.
warnings.filterwarnings("ignore", message=".*no current CUDA context.*")
# An epoch of fewer than 50 batches is nothing to warn of: nothing is logged by the step.
warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")


class Cell(NamedTuple):
    """A cell of the grid, ready to be trained with `trainer.fit(model, data)`."""

    data: CXRDataModule
    model: Classifier
    trainer: pl.Trainer
    timer: EpochTimer
    has_val: bool


class Trial(Protocol):
    """The trial of a search, see cxr.search.trial.TrialRun."""

    def callbacks(self) -> list[Any]:
        """What reports to the search; has `pruned`, whether it ended training."""


def train_cell(
    config: Mapping[str, Any],
    choices: Mapping[str, Any],
    folder: Path,
    shared_console: bool,
    trial: Trial | None = None,
) -> None:
    """Do what one cell of the grid asks for, or what is left of it: a run that was stopped goes on from its last
    checkpoint, to the same bits; of a run that is done it is only seen to that its images are the same.

    Args:
        config: the resolved options, plain data.
        choices: what tells this run from its neighbours: model, aug, seed, every other swept option.
        folder: the run folder, which gets all that the README lists.
        shared_console: other cells write to the console at the same time.
        trial: the trial of a search that this run is, if any. Its test images stay unopened.

    Raises:
        UserError: the images, the weights or the hardware are not what the options say, or not what they were when the
            run began; the disk or the memory has no room. Diverged: training did.
        Stopped: the process was asked to stop.
    """
    with explained(folder), enough_memory(config["data"]["batch_size"]):
        _train_cell(config, choices, folder, shared_console, trial)


def _train_cell(
    config: Mapping[str, Any], choices: Mapping[str, Any], folder: Path, shared_console: bool, trial: Trial | None
) -> None:
    checkpoints = folder / CHECKPOINTS
    data = build_data(config)
    if (checkpoints / SIDE_FILE).exists():
        check_unchanged(data, folder)
    if is_done(folder, config.get("trial")):
        log.info("%s is done already", folder)
        return
    model = build_model(config, data)
    reporters = trial.callbacks() if trial else []
    cell = build_cell(config, folder, data, model, shared_console, reporters)
    # Of several ranks, one looks what is there and writes.
    start = distributed.agree(prepare(cell, config, folder) if distributed.rank() == 0 else None)
    with signals.patient():
        signals.stop_if_asked()
        fit(cell, start, config)
        rank = distributed.rank()
        distributed.leave()
        if rank:
            return
        # Without validation images there is nothing to choose an epoch by: the last one counts.
        chosen = checkpoints / (BEST if cell.has_val else LAST)
        if not chosen.exists():
            raise UserError("trainer.*: with these options no epoch was validated, so there is no best one to test")
        step = torch.load(chosen, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        best = load_classifier(chosen)
        if trial:
            validate_trial(cell, best, config, folder, pruned=any(reporter.pruned for reporter in reporters))
        else:
            test_cell(cell, best, step, config, choices, folder)
    (checkpoints / BEFORE).unlink(missing_ok=True)  # nobody goes on from it any more


def prepare(cell: Cell, config: Mapping[str, Any], folder: Path) -> Path | None:
    """Write what a run folder has from the beginning; the checkpoint to go on from, or None."""
    checkpoints = folder / CHECKPOINTS
    by_steps = config["trainer"].get("max_steps", -1) != -1
    start = to_go_on_from(checkpoints, dict(cell.model.hparams), by_steps)
    write_status(folder, "running", precision=str(cell.trainer.precision))
    if not start:
        clear(folder)
        cell.data.write_tables(folder)
    write_fingerprints(cell.data, checkpoints)
    check_room(checkpoints, cell.model)
    dashboard.show_images(cell.trainer.logger, cell.data)
    return start[0] if start else None


def fit(cell: Cell, start: Path | None, config: Mapping[str, Any]) -> None:
    """Train, from a checkpoint or from the beginning."""
    if start:
        log.info("going on from %s", start)
    try:
        cell.trainer.fit(cell.model, cell.data, ckpt_path=start, weights_only=True)
    except RuntimeError as error:  # that of torch's compiler stands in a private module
        if config["compile"] and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(f"compile=true: torch cannot compile here: {str(error).splitlines()[0]}") from error
        raise
    except ValueError as error:  # torch's, of one image whose last feature map is one pixel
        if config["data"]["batch_size"] == 1 and "Expected more than 1 value per channel" in str(error):
            raise UserError("data.batch_size=1: batch normalisation needs two images or larger ones") from error
        raise


def validate_trial(cell: Cell, best: Classifier, config: Mapping[str, Any], folder: Path, pruned: bool) -> None:
    """Write metrics.json of a trial of a search, without test images: its network on the validation images.

    Args:
        pruned: training ended early, because others were better by then.
    """
    data, options = cell.data, {**config["trainer"], "precision": cell.trainer.precision}
    classes, val = data.images.classes, predict(best, data, "val", options, cell.timer)
    metrics = {
        "classes": list(classes),
        "network": cost(best.net, config["data"]["image_size"]),
        "note": data.note,
        "val": score(val.labels, val.probabilities(best.temperature.item()), data.group[val.index], classes),
        "train": training_metrics(cell) | ({"pruned": True} if pruned else {}),
        "versions": versions(),
    }
    write_json(folder / METRICS, metrics)
    cell.trainer.logger.finalize("success")


def training_metrics(cell: Cell) -> dict[str, Any]:
    """The part "train" of metrics.json."""
    hardware = {"device": device_name(cell.trainer), "precision": str(cell.trainer.precision)}
    return cell.timer.report() | {"history": cell.trainer.logger.history(CURVES)} | hardware


def test_cell(
    cell: Cell, best: Classifier, step: int, config: Mapping[str, Any], choices: Mapping[str, Any], folder: Path
) -> None:
    """Open the test images, once, and write what there is to say of the network `best`, that of a training step.

    The other arguments are those of train_cell().
    """
    data, timer, logger = cell.data, cell.timer, cell.trainer.logger
    sides = ("val", "test") if cell.has_val else ("test",)
    options = {
        **config["trainer"],
        "precision": cell.trainer.precision,
    }  # that of training, should it be a measured one
    said = {side: predict(best, data, side, options, timer) for side in sides}
    val, test, classes = said.get("val"), said["test"], data.images.classes
    temperature = best.temperature.item() if val else None
    calibrated = calibrate(test, data.group[test.index], temperature)
    probabilities = {side: p.probabilities(temperature or 1.0) for side, p in said.items()}
    scores = {side: score(p.labels, probabilities[side], data.group[p.index], classes) for side, p in said.items()}
    files = data.images.file[test.index].tolist()
    write_predictions(folder / PREDICTIONS, files, classes, test.labels.tolist(), probabilities["test"].tolist())

    def draw() -> None:
        for side, p in said.items():
            predicted = p.index, p.labels, probabilities[side]
            dashboard.show_evaluation(logger, data, side, scores[side], predicted, classes, step)
        dashboard.show_calibration(logger, data, "test", calibrated, step)

    # Drawing takes one core a second: the others need not wait for it.
    with ThreadPoolExecutor(1) as artist:
        drawn = artist.submit(draw)
        without_lungs = shortcuts(best, data, options, timer, test, data.shortcut_predictions(test.index))
    drawn.result()  # raises what drawing raised
    metrics = {
        "classes": list(classes),
        "n_test": len(test.labels),
        "network": cost(best.net, config["data"]["image_size"]),
        "note": data.note,
        "test": scores["test"],
        "val": scores.get("val"),
        "calibration": calibrated,
        "screening": screen(config["screen"], data, val, test, temperature) if val else None,
        "slices": slices(data, test),
        "leaks": data.leak_counts(),
        "shortcuts": without_lungs,
        "train": training_metrics(cell),
        "versions": versions(),
    }
    write_json(folder / METRICS, metrics)
    model_card.write(folder, metrics, config, read_json(folder / AUDIT))
    dashboard.show_choices(logger, choices, config, scores["test"], step)
    logger.finalize("success")
    print(run_summary(folder, metrics), flush=True)


def build_data(config: Mapping[str, Any]) -> CXRDataModule:
    """The images of a cell, read and split. Raises UserError as train_cell does."""
    data = CXRDataModule(config["data"], config["aug"], config["seed"], Path(config["cache_dir"]).expanduser())
    data.setup()
    check_screened(config["screen"]["class"], data.images.classes)
    return data


def build_model(config: Mapping[str, Any], data: CXRDataModule) -> Classifier:
    """The network of a cell, its weights drawn from the seed."""
    keep_freed_memory()
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    told = config["model"], config["optim"], data.images.classes, config["data"]["image_size"], data.note
    model = Classifier(*told, data.class_weights() if config["loss"]["weights"] == "balanced" else None)
    if config["compile"]:
        model.net.compile()  # in place: the names of the weights stay
    return model


def build_cell(
    config: Mapping[str, Any],
    folder: Path,
    data: CXRDataModule,
    model: Classifier,
    shared_console: bool = False,
    reporters: Sequence[Callback] = (),
) -> Cell:
    """The Trainer of a cell around its images and its network, with callbacks that report to a search.

    Raises UserError as train_cell does.
    """
    board = Board(folder)
    has_val, timer = bool((data.split == "val").any()), EpochTimer()
    options = config["trainer"] if has_val else {**config["trainer"], "limit_val_batches": 0}
    if options["precision"] == "auto":  # where it was measured when the run began, it may not change on the way
        precision = read_json(folder / STATUS).get("precision", "auto")
        options = {**options, "precision": distributed.agree(precision_of({**options, "precision": precision}))}
    console = (
        EpochLine(f"{folder.name}: " if shared_console else "")
        if shared_console or not sys.stderr.isatty()
        else TQDMProgressBar(refresh_rate=20 if torch.cuda.is_available() else 1)  # each time it waits for the GPU
    )
    watch = StopDiverged()
    checkpoints = Checkpoints(folder / CHECKPOINTS, data, board, watch)
    callbacks = [timer, LearningRateMonitor("epoch"), SeedSteps(config["seed"]), watch, StopWhenAsked()]
    graphs = ReplayGraphs(
        config["cuda_graphs"], config["data"]["batch_size"], config["data"]["image_size"], config["compile"]
    )
    callbacks += [*reporters, graphs, checkpoints, console]
    return Cell(data, model, build_trainer(options, folder, board, callbacks), timer, has_val)


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
