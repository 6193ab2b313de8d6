"""The names of the files in a run folder that others read, and predictions.csv."""

from collections.abc import Sequence
from pathlib import Path

from cxr.files.writing import write_table

CONFIG, LOCK, STOP = "config.yaml", ".lock", ".stop"  # the last: tells a sweep to start no further run
STATUS, METRICS, PREDICTIONS, AUDIT = "status.json", "metrics.json", "predictions.csv", "audit.json"
SEARCH = "search.json"  # in a sweep's folder: the trials of a search
SPLIT, SPLIT_COLUMNS = "split.csv", ("file", "label", "patient", "split", "group")
CHECKPOINTS = "checkpoints"
SIDE_FILE = "images.npz"  # beside the checkpoints: recognises the images of a run again
# The figures that stand on the leaderboard and in the HParams tab.
HEADLINES = ("f1_macro", "accuracy", "precision_macro", "recall_macro")


def write_predictions(
    path: Path,
    files: Sequence[str],
    classes: Sequence[str],
    labels: Sequence[int],
    probabilities: Sequence[Sequence[float]],
) -> None:
    """Write predictions.csv: file,label,prediction,prob_<class>,… one row an image. Probabilities are (N, C)."""
    rows = (
        (file, classes[label], *prediction(p, classes))
        for file, label, p in zip(files, labels, probabilities, strict=True)
    )
    write_table(path, ("file", "label", "prediction", *probability_columns(classes)), rows)


def probability_columns(classes: Sequence[str]) -> list[str]:
    return [f"prob_{name}" for name in classes]


def prediction(probabilities: Sequence[float], classes: Sequence[str]) -> tuple[str, ...]:
    """The most probable class and all probabilities, as a row of a table has them."""
    best = max(range(len(classes)), key=lambda i: probabilities[i])
    return (classes[best], *(f"{p:.8f}" for p in probabilities))
