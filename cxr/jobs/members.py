"""The networks that the option `ckpt` names, and what their run folders tell of all of them together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxr.data.fingerprints import read_fingerprints
from cxr.errors import UserError
from cxr.evaluation.averaging import log_mean
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.evaluation import Evaluation, screen
from cxr.evaluation.screening import screenings_of
from cxr.files.predictions import read_predictions
from cxr.files.run_folder import CHECKPOINTS, METRICS, PREDICTIONS, SIDE_FILE, SPLIT, VAL_PREDICTIONS
from cxr.files.writing import as_text, read_json
from cxr.models.classifier import Classifier, load_classifier
from cxr.models.ensemble import Ensemble
from cxr.options.checkpoint_paths import is_run
from cxr.reporting.recipes import recipes_of
from cxr.reporting.rows import REPEATED, choices, collect
from cxr.training.checkpoints import BEST, LAST
from cxr.training.familiar import familiar_path, read_familiar


class Unknown(Exception):
    """The run folders do not tell something of all networks. The message is a clause that says why."""


class Networks(NamedTuple):
    """What the option `ckpt` names.

    Attributes:
        checkpoints: one for each network.
        model: the networks, ready to predict.
        val: the ensemble on the images that all of its networks validated on; None of one network, or without such
            images.
        remarks: clauses for the user.
    """

    checkpoints: Sequence[Path]
    model: Ensemble
    val: Evaluation | None
    remarks: Sequence[str]


def load_networks(paths: Sequence[str | Path], accelerator: str = "cpu") -> Networks:
    """Load the networks of all checkpoints, and calibrate the mean of their probabilities.

    Args:
        paths: of the option `ckpt`: checkpoints, and folders of runs and of sweeps.

    Raises:
        UserError: as find_checkpoints() and load_classifier() do; two networks have different classes; or a file of a
            run folder is damaged.
    """
    checkpoints, remarks = find_checkpoints(paths)
    members = [load_classifier(path, accelerator) for path in checkpoints]
    check_classes(checkpoints, members)
    of_runs = (read_json(path.resolve().parent.parent / METRICS) for path in checkpoints)
    remarks += [f"no training image was of {name}: do not expect it to be predicted" for name in not_learnt(of_runs)]
    familiar = [read_familiar(familiar_path(path)) for path in checkpoints]
    if None in familiar:
        lacking = next(path for path, of_path in zip(checkpoints, familiar, strict=True) if of_path is None)
        remarks.append(f"unfamiliar images will not be marked: {familiar_path(lacking)} is missing; training writes it")
        familiar = []
    if len(members) == 1:
        return Networks(checkpoints, Ensemble(members, None, familiar), None, remarks)
    ensemble = f"ensemble of {len(members)} networks"
    try:
        val = read_together(checkpoints, members[0].classes, VAL_PREDICTIONS)
    except Unknown as why:
        remarks.append(f"{ensemble}, not calibrated again: {why}")
        return Networks(checkpoints, Ensemble(members, None, familiar), None, remarks)
    temperature = fit_temperature(val.logits, val.labels)
    images = "the image" if len(val) == 1 else f"the {len(val):,} images"
    remarks.append(f"{ensemble}, calibrated again on {images} that all validated on (temperature {temperature:.3g})")
    model = Ensemble(members, temperature, familiar)
    return Networks(checkpoints, model, replace(val, temperature=temperature), remarks)


def find_checkpoints(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The checkpoints that the paths of the option `ckpt` name, and remarks on runs that have none.

    Raises:
        UserError: a run has no checkpoint, a sweep no finished run or several recipes, or a checkpoint is named twice.
    """
    checkpoints, remarks = [], []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_file():
            checkpoints.append(path)
        else:
            runs = [path] if is_run(path) else runs_of_recipe(path, remarks)
            checkpoints += [tested_checkpoint(run) for run in runs]
    for number, path in enumerate(checkpoints):
        if not path.is_file():
            raise UserError(f"ckpt={path}: there is no such checkpoint; wait until this run has written it")
        if path.resolve() in (other.resolve() for other in checkpoints[:number]):
            raise UserError(f"ckpt={path}: this checkpoint is named twice; name each one once")
    return checkpoints, remarks


def runs_of_recipe(sweep: Path, remarks: list[str]) -> list[Path]:
    """The folders of a sweep's finished runs, which must be of one recipe; `remarks` names the others."""
    rows = collect(sweep)
    finished = [row for row in rows if row["status"] == "done"]
    if not finished:
        raise UserError(f"ckpt={sweep}: no run of this sweep is finished")
    recipes = recipes_of(finished)
    if len(recipes) > 1:
        values = {key: {str(row.get(key, "")) for row in finished} for key in choices(finished) if key not in REPEATED}
        differing = ", ".join(key for key, of_key in values.items() if len(of_key) > 1)
        first = [str(sweep / row["run"]) for of_seed in next(iter(recipes.values())).values() for row in of_seed]
        raise UserError(
            f"ckpt={sweep}: this sweep has {len(recipes)} recipes, which differ in {differing}; name the runs of one, "
            f"such as ckpt={','.join(first)}"
        )
    if left_out := [f"{row['run']} ({row['status']})" for row in rows if row["status"] != "done"]:
        remarks.append(f"without runs that are not finished: {', '.join(left_out)}")
    return [sweep / row["run"] for row in finished]


def not_learnt(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    """The classes that a network has never seen, because the hospital held out alone has them, by each metrics.json."""
    return [*{name: None for of_run in metrics for name in (of_run.get("transfer") or {}).get("not_learnt", ())}]


def tested_checkpoint(run: Path) -> Path:
    """The checkpoint that a run tests: best.ckpt, or last.ckpt where it has no validation images."""
    return run / CHECKPOINTS / (LAST if read_json(run / METRICS).get("val", BEST) is None else BEST)


def check_classes(checkpoints: Sequence[Path], members: Sequence[Classifier]) -> None:
    """Raise UserError where networks have different classes."""
    for path, member in zip(checkpoints, members, strict=True):
        if member.classes != members[0].classes:
            raise UserError(
                f"ckpt: these networks have different classes: {checkpoints[0]} ({', '.join(members[0].classes)}) and "
                f"{path} ({', '.join(member.classes)})"
            )


def run_of(ckpt: Path, classes: Sequence[str], needed: Sequence[str]) -> Path:
    """The run folder that a checkpoint lies in, whose files `needed` tell of its network.

    Raises:
        Unknown: it is not there, lacks a file, or is that of another network.
    """
    ckpt = ckpt.resolve()
    run = ckpt.parent.parent
    if missing := [name for name in (METRICS, *needed) if not (run / name).is_file()]:
        raise Unknown(f"{ckpt} is not in its run folder, or this lacks {', '.join(missing)}")
    if tested_checkpoint(run) != ckpt:
        raise Unknown(f"{ckpt} is not the checkpoint that its run has tested, {tested_checkpoint(run).name}")
    if read_json(run / METRICS).get("classes") != list(classes):
        raise Unknown(f"{run / METRICS} has other classes than {ckpt}")
    return run


def find_run(ckpt: Path, classes: Sequence[str], needed: Sequence[str] = ()) -> Path | None:
    """run_of(); None where that is unknown."""
    try:
        return run_of(ckpt, classes, needed)
    except Unknown:
        return None


def thresholds(networks: Networks) -> tuple[dict[str, Any], bool]:
    """The part "screening" of metrics.json by class, whose threshold is chosen on validation images, and whether the
    runs screen for every class. One network has its run's. Those of several do not hold for their mean: it gets its
    own, for the promises that all runs make, from the images that all of them validated on; these are its test images
    here too.

    Raises:
        Unknown: the run folders do not tell.
    """
    several, classes = len(networks.checkpoints) > 1, networks.model.classes
    if several and not networks.val:
        raise Unknown("they need images that all networks validated on")
    runs = [run_of(path, classes, (PREDICTIONS, SPLIT)) for path in networks.checkpoints]
    metrics = [read_json(run / METRICS) for run in runs]
    every_class = all("screenings" in of_run for of_run in metrics)
    first, *others = [screenings_of(of_run) for of_run in metrics]
    if not several:
        return dict(first), every_class
    val, validated = networks.val, {classes[label] for label in networks.val.labels}
    shared = [
        name for name in first if name in validated and all(promise(o, name) == promise(first, name) for o in others)
    ]
    return {name: screen(val, val, name, *promise(first, name)) for name in shared}, every_class


def promise(screenings: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The sensitivity and the confidence that a run asked for, or None where it does not screen for this class."""
    asked = screenings.get(name)
    return asked and (asked["sensitivity_asked"], asked["confidence"])


def read_together(checkpoints: Sequence[Path], classes: tuple[str, ...], name: str) -> Evaluation:
    """What all networks together have predicted for the images that the file `name` of each of their runs has, not
    calibrated again. `index` counts these images.

    Raises:
        Unknown: a run folder lacks a file, or no image is in all of them, or, of test images, not each one is.
        UserError: a file is damaged.
    """
    several = len(checkpoints) > 1
    needed = (name, SPLIT, *((f"{CHECKPOINTS}/{SIDE_FILE}",) if several else ()))
    runs = [read_run(run_of(ckpt, classes, needed), name) for ckpt in checkpoints]
    rows = [{key: row for row, key in enumerate(image_keys(run) if several else run["files"])} for run in runs]
    common = [key for key in rows[0] if all(key in of_run for of_run in rows)]
    if name != VAL_PREDICTIONS and any(len(common) < len(of_run) for of_run in rows):
        raise Unknown("the networks were not tested on the same images")
    if not common:
        raise Unknown("no image was validated by all of them")
    first = [rows[0][key] for key in common]
    parts = [run["probabilities"][[of_run[key] for key in common]] for run, of_run in zip(runs, rows, strict=True)]
    labels = np.array([classes.index(runs[0]["labels"][row]) for row in first])
    return Evaluation(np.arange(len(first)), labels, log_mean(parts), runs[0]["group"][first], classes, None)


def read_run(run: Path, name: str) -> dict[str, Any]:
    """read_predictions(). Raises UserError if a file is damaged."""
    try:
        predictions = read_predictions(run, name)
        if not len(predictions["files"]) or not np.isfinite(predictions["probabilities"]).all():
            raise ValueError("no images, or no numbers")
        if unknown := {*predictions["labels"]} - {*predictions["classes"]}:
            raise ValueError(f"label {min(unknown)!r}")
        return predictions
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run}: {name}, {SPLIT} or {METRICS} is damaged ({error})") from error


def image_keys(run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """File, label and SHA-256 of each image of read_predictions(): other folders have files of the same names."""
    kept = read_fingerprints(run["run"] / CHECKPOINTS / SIDE_FILE)
    sha256 = dict(zip(map(as_text, kept["files"].tolist()), kept["sha256"].tolist(), strict=True))
    return [(file, label, sha256.get(file, "")) for file, label in zip(run["files"], run["labels"], strict=True)]
