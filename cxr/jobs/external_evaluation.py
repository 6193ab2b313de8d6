"""Score one or several trained networks on images from elsewhere, and compare with their runs' test images."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from cxr.data.run_tables import load_audit
from cxr.data.seen_in_training import ExternalImages
from cxr.errors import UserError
from cxr.evaluation.averaging import average
from cxr.evaluation.by_hospital import scores_by_hospital
from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.familiarity import mean_unfamiliar
from cxr.evaluation.gap_parts import gap_parts
from cxr.evaluation.intervals import headline
from cxr.evaluation.recalibration import draw_images, recalibrate
from cxr.evaluation.screening import screening, screening_parts
from cxr.evaluation.transfer import of_common_classes, transfer
from cxr.files.predictions import write_predictions
from cxr.files.run_folder import AUDIT, INSIDE_PREDICTIONS, PREDICTIONS, SIDE_FILE
from cxr.files.writing import write_json, write_table
from cxr.jobs.members import Networks, Unknown, load_networks, read_together, thresholds
from cxr.models.ensemble import Ensemble
from cxr.options.checkpoint_paths import paths_in
from cxr.reporting import tensorboard
from cxr.reporting.external_report import EVALUATION, write_external_report
from cxr.training.environment import versions
from cxr.training.familiar import unfamiliar_figures, unfamiliar_images
from cxr.training.predicting import predict_masked, predict_with_features


def evaluate(options: Mapping[str, Any], folder: Path) -> str:
    """Score the networks of `ckpt` on the images that the options name, and write evaluation.json and all that belongs
    to it (cxr/evaluation/README.md lists the files).

    Returns:
        The summary for the console.

    Raises:
        UserError: a checkpoint or the images cannot be used, or data.on_leak is fail and a network has seen some.
    """
    networks = load_networks(paths_in(options["ckpt"]))
    model, cache = networks.model, Path(options["cache_dir"]).expanduser()
    fingerprints = {str(path): path.with_name(SIDE_FILE) for path in networks.checkpoints}
    data = ExternalImages(options["data"], model.sizes, model.classes, fingerprints, cache)
    data.setup()
    predicted, masked, unfamiliar = predict_all(model, data, options["trainer"])
    scored, unknown = split_unknown(predicted, data)
    scored, fitted_on = set_apart(scored, options["calibrate_on"])
    rules = {"majority_class": np.full(len(scored), np.bincount(scored.labels).argmax())}
    compared, remarks = compare_with_runs(scored, networks)
    result = {
        **about_images(options, networks, data, len(fitted_on) if fitted_on else 0),
        **scored.figures(data.images.slices, rules, masked),
        **compared,
        "unfamiliar": about_unfamiliar(scored, unfamiliar, data),
        "recalibrated": recalibrate(fitted_on, scored, options["calibrate_on"]) if fitted_on else None,
        "by_hospital": scores_by_hospital(scored, data.images.slices["hospital"][scored.index])
        if "hospital" in data.images.slices
        else {},
        "remarks": [*networks.remarks, *remarks],
        "classes_without_images": [name for name, s in scored.scores["per_class"].items() if not s["support"]],
        "unknown_classes": unknown,
    }
    write_json(folder / EVALUATION, result)
    files = data.images.file[scored.index].tolist()
    of_scored = None if unfamiliar is None else unfamiliar[scored.index]
    write_predictions(folder / PREDICTIONS, files, scored.classes, scored.labels, scored.probabilities, of_scored)
    apart = data.images.file[fitted_on.index].tolist() if fitted_on else []
    reason = f"used for calibration: calibrate_on={options['calibrate_on']}"
    write_table(folder / "rejected.csv", ("file", "reason"), data.left_out() + [(file, reason) for file in apart])
    write_json(folder / AUDIT, load_audit(data))
    draw_evaluation(folder, data, scored)
    return write_external_report(folder, result)


def predict_all(
    model: Ensemble, data: ExternalImages, options: Mapping[str, Any]
) -> tuple[Evaluation, dict[str, Evaluation], np.ndarray | None]:
    """Predict all images with all networks together: as they are, and in each way in which predict_masked() hides a
    part of them; and say how unfamiliar each row of the table is, float (N,), None where that is not known."""
    whole, masked, unfamiliar = [], [], []
    for member, familiar in zip_longest(model.members, model.familiar):
        data.use_size(member.hparams.image_size)
        evaluation, features = predict_with_features(member, data, "test", options)
        whole.append(evaluation)
        if familiar:
            unfamiliar.append(unfamiliar_images([familiar], [features], data, evaluation.index))
        masked.append(predict_masked(member, data, options))
    parts = {name: average([of_member[name] for of_member in masked], model.temperature) for name in masked[0]}
    by_row = None
    if unfamiliar:
        by_row = np.full(len(data.images), np.nan)
        by_row[whole[0].index] = mean_unfamiliar(unfamiliar)
    return average(whole, model.temperature), parts, by_row


def about_unfamiliar(scored: Evaluation, unfamiliar: np.ndarray | None, data: ExternalImages) -> dict[str, Any] | None:
    """The part "unfamiliar" of evaluation.json: see unfamiliar_figures(); "example", the file that is most unlike the
    training images; and, if there are any, "f1_macro" and "ci95" of the others. `unfamiliar` as of predict_all()."""
    if unfamiliar is None:
        return None
    of_scored = unfamiliar[scored.index]
    others = scored.where(of_scored <= 1)
    figures = {
        **unfamiliar_figures(of_scored),
        "example": str(data.images.file[scored.index[of_scored.argmax()]]),
    }
    if 0 < len(others) < len(scored):
        scores = headline(others.labels, others.predicted, others.group, len(others.classes))
        figures |= {"f1_macro": scores["f1_macro"], "ci95": {"f1_macro": scores["ci95"]["f1_macro"]}}
    return figures


def split_unknown(evaluation: Evaluation, data: ExternalImages) -> tuple[Evaluation, dict[str, dict[str, Any]]]:
    """Set images of classes that the network does not know apart.

    Returns:
        The evaluation of the others; and the part "unknown_classes" of evaluation.json: for each such class, its
        "images" and how many are "predicted" to be of each class of the network.
    """
    classes, unknown = len(evaluation.classes), {}
    for label in range(classes, len(data.images.classes)):
        predicted = evaluation.predicted[evaluation.labels == label]
        counts = np.bincount(predicted, minlength=classes).tolist()
        predictions = dict(zip(evaluation.classes, counts, strict=True))
        unknown[data.images.classes[label]] = {"images": len(predicted), "predicted": predictions}
    return evaluation.where(evaluation.labels < classes), unknown


def set_apart(scored: Evaluation, number: int | None) -> tuple[Evaluation, Evaluation | None]:
    """The images to score; and the `number` of them to calibrate on, with their patients' others, None for none.

    Raises:
        UserError: there are no others, or these images are of one class: nothing can be fitted on them.
    """
    if number is None:
        return scored, None
    drawn = draw_images(scored.group, number)
    if drawn.all():
        raise UserError(f"calibrate_on={number}: no images are left to score; there are {len(scored):,}")
    if len(classes := np.unique(scored.labels[drawn])) == 1:
        raise UserError(
            f"calibrate_on={number}: the images drawn are all {scored.classes[classes[0]]}; calibration needs images "
            "of every class that the network will meet: give a larger number, or more images"
        )
    return scored.where(~drawn), scored.where(drawn)


def about_images(
    options: Mapping[str, Any], networks: Networks, data: ExternalImages, calibrated_on: int
) -> dict[str, Any]:
    """The parts of evaluation.json about the networks and the images. "matches" names images that their runs have used;
    "networks" counts them by checkpoint, None where images.npz is missing."""
    files, model = data.images.file.tolist(), networks.model
    matches = {kind: [files[row] for row in rows] for kind, rows in (data.matches or {}).items()}
    counts = {
        name: {kind: len(rows) for kind, rows in data.by_network[name].items()} if name in data.by_network else None
        for name in data.fingerprints
    }
    return {
        "ckpt": str(options["ckpt"]),
        "networks": counts,
        "root": str(data.images.root),
        "classes": list(model.classes),
        "note": "; ".join(dict.fromkeys(note for note in (model.note, data.note) if note)),
        "on_leak": options["data"]["on_leak"],
        "matches": None if data.matches is None else matches,
        "left_out": len(data.left_out()) + calibrated_on,
        "versions": versions(),
    }


def compare_with_runs(scored: Evaluation, networks: Networks) -> tuple[dict[str, Any], list[str]]:
    """The parts "internal", "difference" and "screening" (or "screenings") of evaluation.json, which need the run
    folders; and remarks on what these do not tell."""
    missing: dict[str, list[str]] = {}  # by reason
    internal, screenings, every_class = None, {}, False
    try:
        # Networks that held a hospital out have tested inside too.
        held_out = all((path.parent.parent / INSIDE_PREDICTIONS).exists() for path in networks.checkpoints)
        name = INSIDE_PREDICTIONS if held_out else PREDICTIONS
        internal = read_together(networks.checkpoints, scored.classes, name)
        internal = replace(internal, temperature=networks.model.temperature)
    except Unknown as why:
        missing.setdefault(str(why), []).append("no internal figures")
    try:
        screenings, every_class = screen_elsewhere(scored, networks)
    except Unknown as why:
        missing.setdefault(str(why), []).append("no screening thresholds")
    parts = {"internal": None, "gap_parts": None, **screening_parts(screenings, every_class)}
    if internal:
        internal = of_common_classes(internal, scored)
        both = of_common_classes(scored, internal)  # a held-out hospital may have all images of a class
        points = {
            name: {"class": name, **internal.operating_point(name, chosen["threshold"])}
            for name, chosen in screenings.items()
        }
        figures, difference = transfer(internal, both)
        parts |= {"internal": figures | screening_parts(points, every_class), "difference": difference}
        parts |= {"gap_parts": gap_parts(internal, both), "keeping": keeping_thresholds(scored, points)}
    remarks = []
    if internal and len(both) < len(scored):
        lacking = [scored.classes[label] for label in set(scored.labels.tolist()) - set(both.labels.tolist())]
        classes = ", ".join(lacking)
        remarks.append(
            f"the run's own test images have no {classes}: the transfer gap leaves it out, the table does not"
        )
    return parts, remarks + [f"there are {' and '.join(lacking)}: {why}" for why, lacking in missing.items()]


def keeping_thresholds(scored: Evaluation, points: Mapping[str, Any]) -> dict[str, Any]:
    """By class, the thresholds that keep on these images the sensitivity of `points`, those of the runs' own test
    images; only of classes that both have images of."""
    return {
        name: scored.keeping_threshold(name, point["sensitivity"])
        for name, point in points.items()
        if point["sensitivity"] and (scored.labels == scored.classes.index(name)).any()
    }


def screen_elsewhere(scored: Evaluation, networks: Networks) -> tuple[dict[str, Any], bool]:
    """The part "screening" by class, and whether the runs screen for every class; Unknown as in thresholds()."""
    chosen, every_class = thresholds(networks)
    points = {name: scored.operating_point(name, of_class["threshold"]) for name, of_class in chosen.items()}
    return {name: screening(of_class, points[name]) for name, of_class in chosen.items()}, every_class


def draw_evaluation(folder: Path, data: ExternalImages, scored: Evaluation) -> None:
    """Write TensorBoard's pictures."""
    logger = TensorBoardLogger(folder, name="", version="")
    tensorboard.show_evaluation(logger, data, "external", scored, 0)
    tensorboard.show_calibration(logger, data, "external", scored.calibration, 0)
    logger.finalize("success")
