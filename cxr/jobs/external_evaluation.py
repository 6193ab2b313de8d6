"""Score a trained network on images from elsewhere, and compare with the test images of its own run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from cxr.data.run_tables import load_audit
from cxr.data.seen_in_training import ExternalImages
from cxr.errors import UserError
from cxr.evaluation.calibration import calibration
from cxr.evaluation.differences import unpaired_difference
from cxr.evaluation.evaluation import Evaluation, scores_of
from cxr.evaluation.intervals import counts_by_group
from cxr.evaluation.screening import operating_point, screening, screening_parts, screenings_of
from cxr.files.predictions import read_predictions, write_predictions
from cxr.files.run_folder import AUDIT, METRICS, PREDICTIONS, SIDE_FILE, SPLIT
from cxr.files.writing import read_json, write_json, write_table
from cxr.models.classifier import Classifier, load_classifier
from cxr.reporting import tensorboard
from cxr.reporting.external_report import EVALUATION, write_external_report
from cxr.training.environment import versions
from cxr.training.predicting import predict, predict_masked


def evaluate(options: Mapping[str, Any], folder: Path) -> str:
    """Score the network of `ckpt` on the images that the options name, and write evaluation.json and all that belongs
    to it (cxr/evaluation/README.md lists the files).

    Returns:
        The summary for the console.

    Raises:
        UserError: the checkpoint or the images cannot be used, or data.on_leak is fail and the network has seen some.
    """
    ckpt, cache = (Path(options[key]).expanduser() for key in ("ckpt", "cache_dir"))
    model = load_classifier(ckpt)
    size = {"image_size": model.hparams.image_size}
    data = ExternalImages(options["data"] | size, model.classes, ckpt.with_name(SIDE_FILE), cache)
    data.setup()
    scored, unknown = predict_known(model, data, options["trainer"])
    run = read_run(ckpt.resolve().parents[1], model.classes)
    rules = {"majority_class": np.full(len(scored), np.bincount(scored.labels).argmax())}
    result = {
        **about_images(options, model, data),
        **scored.figures(data.images.slices, rules, predict_masked(model, data, options["trainer"])),
        **(compare_with_run(scored, run) if run else {"internal": None, "screening": None}),
        "classes_without_images": [name for name, s in scored.scores["per_class"].items() if not s["support"]],
        "unknown_classes": unknown,
    }
    write_json(folder / EVALUATION, result)
    files = data.images.file[scored.index].tolist()
    write_predictions(folder / PREDICTIONS, files, scored.classes, scored.labels, scored.probabilities)
    write_table(folder / "rejected.csv", ("file", "reason"), data.left_out())
    write_json(folder / AUDIT, load_audit(data))
    draw_evaluation(folder, data, scored)
    return write_external_report(folder, result)


def predict_known(
    model: Classifier, data: ExternalImages, options: Mapping[str, Any]
) -> tuple[Evaluation, dict[str, dict[str, Any]]]:
    """Predict all images.

    Returns:
        The evaluation of those whose class the network knows; and the part "unknown_classes" of evaluation.json: for
        each other class, its "images" and how many are "predicted" to be of each class of the network.
    """
    evaluation, unknown = predict(model, data, "test", options), {}
    for label in range(len(model.classes), len(data.images.classes)):
        predicted = evaluation.predicted[evaluation.labels == label]
        counts = np.bincount(predicted, minlength=len(model.classes)).tolist()
        predictions = dict(zip(model.classes, counts, strict=True))
        unknown[data.images.classes[label]] = {"images": len(predicted), "predicted": predictions}
    return evaluation.where(evaluation.labels < len(model.classes)), unknown


def about_images(options: Mapping[str, Any], model: Classifier, data: ExternalImages) -> dict[str, Any]:
    """The parts of evaluation.json about the network and the images. "matches" names images that the run has used."""
    files = data.images.file.tolist()
    matches = {kind: [files[row] for row in rows] for kind, rows in (data.matches or {}).items()}
    return {
        "ckpt": str(options["ckpt"]),
        "root": str(data.images.root),
        "classes": list(model.classes),
        "note": "; ".join(dict.fromkeys(note for note in (model.note, data.note) if note)),
        "on_leak": options["data"]["on_leak"],
        "matches": None if data.matches is None else matches,
        "left_out": len(data.left_out()),
        "versions": versions(),
    }


def read_run(folder: Path, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """The test predictions of the checkpoint's own run, see read_predictions(), and its "metrics"; None if the
    checkpoint is not in its run folder any more.

    Raises:
        UserError: a file of the run folder is damaged.
    """
    if not all((folder / name).is_file() for name in (METRICS, PREDICTIONS, SPLIT)):
        return None
    try:
        run = {**read_predictions(folder), "metrics": read_json(folder / METRICS)}
        if not len(run["files"]):
            raise ValueError("no images")
    except (KeyError, ValueError) as error:
        raise UserError(f"{folder}: {PREDICTIONS}, split.csv or {METRICS} is damaged ({error})") from error
    return run if run["classes"] == list(classes) else None


def compare_with_run(scored: Evaluation, run: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of evaluation.json that need the run: "internal", the same figures for its own test images, restricted
    to the classes of the images from elsewhere, because means over other classes could not be compared; "difference";
    and "screening" or "screenings" with the run's thresholds."""
    classes = scored.classes
    labels = np.array([classes.index(name) for name in run["labels"]])
    common = np.isin(labels, scored.labels)
    labels, probabilities = labels[common], run["probabilities"][common]
    _, group = np.unique(run["group"][common], return_inverse=True)
    _, elsewhere = np.unique(scored.group, return_inverse=True)
    counts = counts_by_group(labels, probabilities.argmax(1), group, len(classes))
    counts_elsewhere = counts_by_group(scored.labels, scored.predicted, elsewhere, len(classes))
    points, screenings, every_class = {}, {}, "screenings" in run["metrics"]
    for name, chosen in screenings_of(run["metrics"]).items():
        label, threshold = classes.index(name), chosen["threshold"]
        points[name] = {"class": name, **operating_point(labels == label, probabilities[:, label], threshold)}
        screenings[name] = screening(chosen, scored.operating_point(name, threshold))
    return {
        "internal": {
            "run": str(run["run"]),
            "n_test": len(labels),
            "test": scores_of(labels, probabilities, group, classes),
            "calibration": calibration(labels, probabilities, group),
            **screening_parts(points, every_class),
        },
        "difference": unpaired_difference(counts_elsewhere, counts),
        **screening_parts(screenings, every_class),
    }


def draw_evaluation(folder: Path, data: ExternalImages, scored: Evaluation) -> None:
    """Write TensorBoard's pictures."""
    logger = TensorBoardLogger(folder, name="", version="")
    tensorboard.show_evaluation(logger, data, "external", scored, 0)
    tensorboard.show_calibration(logger, data, "external", scored.calibration, 0)
    logger.finalize("success")
