"""Score a trained network on images from elsewhere, beside the test images of its own run."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from cxr.data.external import ExternalImages
from cxr.errors import UserError
from cxr.evaluation.calibration import calibration
from cxr.evaluation.intervals import counts_by_group, unpaired_difference
from cxr.evaluation.screening import operating_point, screening
from cxr.files.run_folder import AUDIT, METRICS, PREDICTIONS, SIDE_FILE, SPLIT, write_predictions
from cxr.files.writing import read_json, write_json, write_table
from cxr.models.classifier import load_classifier
from cxr.reporting import dashboard
from cxr.reporting import external_report as external
from cxr.reporting.comparison import read_predictions
from cxr.training.callbacks import EpochTimer
from cxr.training.environment import versions
from cxr.training.scoring import Predicted, calibrate, predict, score, shortcuts, slices

# A set from elsewhere may lack classes; evaluation.json names them.
warnings.filterwarnings("ignore", message=".*No (positive|negative) samples in targets.*")


def evaluate(options: Mapping[str, Any], folder: Path) -> str:
    """Score the network of `ckpt` on the images that the options name, and write all that the README lists to a folder.

    Returns:
        What the console says.

    Raises:
        UserError: the checkpoint or the images cannot be used, or data.on_leak is fail and the network has seen some.
    """
    ckpt, cache = (Path(options[key]).expanduser() for key in ("ckpt", "cache_dir"))
    model = load_classifier(ckpt)
    classes, told = model.classes, {**options["data"], "image_size": model.hparams.image_size}
    data = ExternalImages(told, classes, ckpt.with_name(SIDE_FILE), cache)
    data.setup()
    timer = EpochTimer()
    every = predict(model, data, "test", options["trainer"], timer)
    known = every.labels < len(classes)
    scored = Predicted(*(column[known] for column in every))
    labels, group, temperature = scored.labels, data.group[scored.index], model.temperature.item()
    probabilities = scored.probabilities(temperature)
    test = score(labels, probabilities, group, classes)
    home = read_home(ckpt.resolve().parents[1], classes)
    screened = home and home["metrics"].get("screening")
    files, left_out = data.images.file.tolist(), data.left_out()
    found = {
        "ckpt": str(ckpt),
        "root": str(data.images.root),
        "classes": list(classes),
        "n_test": len(labels),
        "note": "; ".join(dict.fromkeys(note for note in (model.note, data.note) if note)),
        "on_leak": options["data"]["on_leak"],
        "known": {kind: [files[row] for row in rows] for kind, rows in data.matches.items()} if data.matches else None,
        "left_out": len(left_out),
        "classes_without_images": [name for name, s in test["per_class"].items() if not s["support"]],
        "unknown_classes": said_of_unknown(every, data.images.classes, len(classes)),
        "test": test,
        "calibration": calibrate(scored, group, temperature if temperature != 1 else None),  # 1: never fitted
        "screening": screen(screened, labels, probabilities, classes) if screened else None,
        "slices": slices(data, scored),
        "shortcuts": shortcuts(
            model,
            data,
            options["trainer"],
            timer,
            scored,
            {"majority_class": np.full(len(labels), np.bincount(labels).argmax())},
        ),
        **(beside_home(home, labels, probabilities.argmax(1), group, classes) if home else {"internal": None}),
        "versions": versions(),
    }
    write_json(folder / external.EVALUATION, found)
    named = [files[row] for row in scored.index]
    write_predictions(folder / PREDICTIONS, named, classes, labels.tolist(), probabilities.tolist())
    write_table(folder / "rejected.csv", ("file", "reason"), left_out)
    write_json(folder / AUDIT, data.load_audit())
    logger = TensorBoardLogger(folder, name="", version="")
    dashboard.show_evaluation(logger, data, "external", test, (scored.index, labels, probabilities), classes, 0)
    dashboard.show_calibration(logger, data, "external", found["calibration"], 0)
    logger.finalize("success")
    return external.write(folder, found)


def said_of_unknown(every: Predicted, names: Sequence[str], known: int) -> dict[str, dict[str, Any]]:
    """Of evaluation.json: images of each class that the network does not know, and how many it said to be of which."""
    found = {}
    for label in range(known, len(names)):
        said = every.logits[every.labels == label].argmax(1)
        counts = np.bincount(said, minlength=known).tolist()
        found[names[label]] = {"images": len(said), "said": dict(zip(names[:known], counts, strict=True))}
    return found


def screen(
    at_home: Mapping[str, Any], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Of evaluation.json: the threshold that the run chose on its validation images, on images from elsewhere."""
    of, threshold = classes.index(at_home["class"]), at_home["threshold"]
    point = operating_point(labels == of, probabilities[:, of], threshold)
    return screening(at_home["class"], at_home["sensitivity_asked"], threshold, at_home["val"], point)


def read_home(run: Path, classes: Sequence[str]) -> dict[str, Any] | None:
    """What the checkpoint's own run said of its test images, see read_predictions(), and its "metrics"; None where the
    checkpoint does not lie in its run folder any more.

    Raises:
        UserError: a file of the run folder is damaged.
    """
    if not all((run / name).is_file() for name in (METRICS, PREDICTIONS, SPLIT)):
        return None
    try:
        home = {**read_predictions(run), "metrics": read_json(run / METRICS)}
        if not len(home["files"]):
            raise ValueError("no images")
    except (KeyError, ValueError) as error:
        raise UserError(f"{run}: {PREDICTIONS}, split.csv or {METRICS} is damaged ({error})") from error
    return home if home["classes"] == list(classes) else None


def beside_home(
    home: Mapping[str, Any], labels: np.ndarray, said: np.ndarray, group: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Of evaluation.json: "internal", the same figures of the run's own test images, of those classes that the images
    from elsewhere have, since a mean over other classes could not be held against theirs; and "difference"."""
    own = np.array([classes.index(name) for name in home["labels"]])
    there = np.isin(own, labels)
    own, probabilities = own[there], home["probabilities"][there]
    _, numbers = np.unique(home["group"][there], return_inverse=True)
    _, elsewhere = np.unique(group, return_inverse=True)
    counts = [
        counts_by_group(*images, len(classes))
        for images in ((labels, said, elsewhere), (own, probabilities.argmax(1), numbers))
    ]
    screened = home["metrics"].get("screening")
    of = classes.index(screened["class"]) if screened else 0
    return {
        "internal": {
            "run": str(home["run"]),
            "n_test": len(own),
            "test": score(own, probabilities, numbers, classes),
            "calibration": calibration(own, probabilities, numbers),
            "screening": screened and operating_point(own == of, probabilities[:, of], screened["threshold"]),
        },
        "difference": unpaired_difference(*counts),
    }
