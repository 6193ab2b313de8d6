"""One run from beginning to end: fit, test once, write the run folder."""

import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from cxr.data.cache import fingerprint
from cxr.data.class_names import class_name
from cxr.data.datamodule import CXRDataModule
from cxr.data.fingerprints import check_unchanged, write_fingerprints
from cxr.data.run_tables import write_tables
from cxr.errors import UserError
from cxr.evaluation.evaluation import Evaluation, screen
from cxr.evaluation.screening import screening_parts
from cxr.files.predictions import write_predictions
from cxr.files.run_folder import (
    AUDIT,
    CHECKPOINTS,
    INSIDE_PREDICTIONS,
    METRICS,
    PREDICTIONS,
    SIDE_FILE,
    VAL_PREDICTIONS,
)
from cxr.files.status import explained, is_done, write_status
from cxr.files.writing import read_json, write_json
from cxr.jobs.heatmap_results import heatmap_results
from cxr.jobs.hospital_figures import hospital_figures, transfer_figures
from cxr.jobs.plan import Plan
from cxr.jobs.sweep_precision import precision_of
from cxr.models.classifier import Classifier, load_classifier
from cxr.models.cost import cost
from cxr.models.gathering import rank
from cxr.options.rules import flatten
from cxr.reporting import tensorboard
from cxr.reporting.console import run_summary
from cxr.reporting.model_card import write_model_card
from cxr.training import distributed, signals
from cxr.training.build import TrainingRun, build_data, build_model, build_run, fit
from cxr.training.checkpoints import BEFORE, BEST, LAST, Start, check_room, clear, find_start
from cxr.training.environment import device_name, versions
from cxr.training.familiar import familiar_path, keep_familiar
from cxr.training.memory import enough_memory
from cxr.training.predicting import predict, predict_masked, predict_with_features

log = logging.getLogger(__name__)

TESTED_ON = {"val": VAL_PREDICTIONS, "inside": INSIDE_PREDICTIONS, "test": PREDICTIONS}  # splits and their predictions


def train_and_test(plan: Plan) -> None:
    """Train and test a run, or what is left of it: a stopped run resumes from its last checkpoint, with
    bit-identical results; for a finished run, only check that its images are unchanged.

    Raises:
        UserError: the images, the weights or the hardware do not fit the options, or have changed since the run began;
            the disk or the memory is full. Diverged: training did.
        Stopped: the process was asked to stop.
    """
    with explained(plan.folder), enough_memory(plan.options["data"]["batch_size"]):
        data = build_data(plan.options)
        if (plan.folder / CHECKPOINTS / SIDE_FILE).exists():
            check_unchanged(data, plan.folder)
        if is_done(plan.folder, plan.options.get("trial")):
            log.info("%s is already complete", plan.folder)
        else:
            train(plan, data)


def train(plan: Plan, data: CXRDataModule) -> None:
    """Train, then test the best network; a trial of a search is validated instead."""
    checkpoints, first = plan.folder / CHECKPOINTS, rank() == 0  # of several ranks, one reads and writes the folder
    precision = distributed.agree(precision_of(plan) if first else None)
    options = {**plan.options, "trainer": {**plan.options["trainer"], "precision": precision}}
    model = build_model(options, data)
    reporters = plan.trial.callbacks() if plan.trial else []
    by_steps = options["trainer"].get("max_steps", -1) != -1
    start = distributed.agree(find_start(checkpoints, dict(model.hparams), by_steps) if first else None)
    run = build_run(options, plan.folder, data, model, start, plan.shared_console, reporters)
    if first:
        prepare_folder(run, start, plan)
    with signals.patient():
        signals.stop_if_asked()
        fit(run, start, options)
        distributed.leave()
        if not first:
            return
        # Without validation images, the last epoch counts.
        chosen = checkpoints / (BEST if run.has_val else LAST)
        if not chosen.exists():
            raise UserError("trainer.*: no validation ran with these options, so there is no best checkpoint to test")
        step = torch.load(chosen, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        best = load_classifier(chosen)
        if plan.trial:
            validate_trial(run, best, plan, pruned=any(reporter.pruned for reporter in reporters))
        else:
            test_run(run, best, step, plan)
    (checkpoints / BEFORE).unlink(missing_ok=True)  # the run cannot be resumed any more


def is_first(folder: Path, sweep: Path | None, options: Mapping[str, Any], *parts: str) -> bool:
    """Whether a run is the first of its sweep with these parts of its options: it shows in TensorBoard what depends on
    them, and the others would show the same."""
    if not sweep:
        return True
    shown = sweep / ".shown" / fingerprint(sorted(flatten({key: options[key] for key in parts})))
    shown.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError), shown.open("x", encoding="utf-8") as file:
        file.write(folder.name)
    return shown.read_text(encoding="utf-8") in ("", folder.name)


def prepare_folder(run: TrainingRun, start: Start | None, plan: Plan) -> None:
    """Write the files that a run folder has from the beginning; a resumed run has most of them."""
    folder, sweep, options = plan.folder, plan.sweep, plan.options
    write_status(folder, "running", precision=str(run.trainer.precision))
    if not start:
        clear(folder)
        write_tables(run.data, folder)
    write_fingerprints(run.data, folder / CHECKPOINTS)
    check_room(folder / CHECKPOINTS, run.model)
    if not start and is_first(folder, sweep, options, "data"):
        tensorboard.show_counts(run.trainer.logger, run.data)
    if not start and is_first(folder, sweep, options, "data", "aug"):
        tensorboard.show_augmentation(run.trainer.logger, run.data)


def validate_trial(run: TrainingRun, best: Classifier, plan: Plan, pruned: bool) -> None:
    """Write metrics.json of a trial of a search, without test images: its network on the validation images.

    Args:
        pruned: training ended early, because others were better by then.
    """
    val = predict(best, run.data, "val", plan.options["trainer"], run.timer)
    keep_predictions(run, plan.folder / VAL_PREDICTIONS, val)
    metrics = {
        **about_network(run, best, plan),
        "val": val.scores,
        "train": training_metrics(run) | ({"pruned": True} if pruned else {}),
    }
    write_json(plan.folder / METRICS, metrics)
    run.trainer.logger.finalize("success")


def about_network(run: TrainingRun, best: Classifier, plan: Plan) -> dict[str, Any]:
    """The parts "classes", "network", "note" and "versions" of metrics.json."""
    network = cost(best.net, plan.options["data"]["image_size"])
    return {"classes": list(best.classes), "network": network, "note": run.data.note, "versions": versions()}


def training_metrics(run: TrainingRun) -> dict[str, Any]:
    """The part "train" of metrics.json."""
    hardware = {"device": device_name(run.trainer), "precision": str(run.trainer.precision)}
    return run.timer.report() | {"history": run.model.history()} | hardware


def test_run(run: TrainingRun, best: Classifier, step: int, plan: Plan) -> None:
    """Open the test images, once, and write the results of the network `best`, which is that of a training step."""
    data, timer, options = run.data, run.timer, plan.options["trainer"]
    predicted = {
        split: predict_with_features(best, data, split, options, timer)
        for split in TESTED_ON
        if (data.split == split).any()
    }
    evaluations = {split: evaluation for split, (evaluation, _) in predicted.items()}
    test, val = evaluations["test"], evaluations.get("val")
    for split, evaluation in evaluations.items():
        keep_predictions(run, plan.folder / TESTED_ON[split], evaluation)
    # Drawing takes one core for a second; the others continue meanwhile.
    with ThreadPoolExecutor(1) as artist:
        drawn = artist.submit(draw_evaluations, run, evaluations, step)
        masked = predict_masked(best, data, options, timer)
    drawn.result()  # raises its errors
    device = run.trainer.strategy.root_device
    unfamiliar = keep_familiar(best, data, *predicted["test"], familiar_path(plan.folder / CHECKPOINTS / BEST), device)
    heatmaps, panels = heatmap_results(best, data, test, plan.options["seed"], device)
    tensorboard.show_heatmaps(run.trainer.logger, heatmaps, panels, step)
    if plan.options["projector"]:
        tensorboard.show_projector(run.trainer.logger, data, *predicted["test"], step)
    metrics = {
        **about_network(run, best, plan),
        **test.figures(data.images.slices, data.shortcut_predictions(test.index), masked),
        "hospitals": hospital_figures(data, {split: predicted[split] for split in predicted if split != "val"}),
        "transfer": transfer_figures(data, evaluations.get("inside"), test),
        "val": val and val.scores,
        "chosen_by": f"by_{plan.options['select']}" if val else "by_last",
        **screen_classes(val, test, plan.options["screen"]),
        "heatmaps": heatmaps,
        "unfamiliar": unfamiliar,
        "leaks": data.leak_counts(),
        "train": training_metrics(run),
    }
    write_results(run, metrics, plan, step)


def keep_predictions(run: TrainingRun, path: Path, of: Evaluation) -> None:
    """Write the predictions for test or validation images to a file of the run folder."""
    write_predictions(path, run.data.images.file[of.index].tolist(), of.classes, of.labels, of.probabilities)


def screen_classes(val: Evaluation | None, test: Evaluation, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parts "screening" and "screenings" of metrics.json, with the options `screen.*`: none without validation
    images, or for a class that the set lacks."""
    every_class, promise = options["class"] == "all", (options["sensitivity"], options["confidence"])
    asked = test.classes if every_class else [class_name(options["class"])]
    # A hospital that is held out may have all images of a class.
    labels = set(val.labels.tolist()) if val else set()
    names = [name for name in asked if name in test.classes and test.classes.index(name) in labels]
    return screening_parts({name: screen(val, test, name, *promise) for name in names}, every_class)


def draw_evaluations(run: TrainingRun, evaluations: Mapping[str, Evaluation], step: int) -> None:
    """The pictures of TensorBoard."""
    logger = run.trainer.logger
    for split, evaluation in evaluations.items():
        tensorboard.show_evaluation(logger, run.data, split, evaluation, step)
    tensorboard.show_calibration(logger, run.data, "test", evaluations["test"].calibration, step)


def write_results(run: TrainingRun, metrics: Mapping[str, Any], plan: Plan, step: int) -> None:
    """Write metrics.json, the model card and TensorBoard's HParams; print the summary."""
    folder = plan.folder
    write_json(folder / METRICS, metrics)
    write_model_card(folder, metrics, plan.options, read_json(folder / AUDIT))
    tensorboard.show_hospitals(run.trainer.logger, metrics, step)
    tensorboard.show_choices(run.trainer.logger, plan.choices, plan.options, metrics["test"], step)
    run.trainer.logger.finalize("success")
    print(run_summary(folder, metrics), flush=True)
