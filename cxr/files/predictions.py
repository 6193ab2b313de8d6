"""predictions.csv and val_predictions.csv: the probabilities of each test or validation image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxr.files.run_folder import METRICS, PREDICTIONS, SPLIT
from cxr.files.writing import read_json, read_table, write_table


def write_predictions(
    path: Path,
    files: Sequence[str],
    classes: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    unfamiliar: np.ndarray | None = None,
) -> None:
    """Write such a file: file,label,prediction,prob_<class>,… one row per image; the last column is `unfamiliar`, if it
    is given.

    Args:
        labels: int (N,). probabilities: (N, C). unfamiliar: (N,).
    """
    rows = [
        (file, classes[label], *prediction(p, classes))
        for file, label, p in zip(files, labels.tolist(), probabilities.tolist(), strict=True)
    ]
    columns = ["file", "label", "prediction", *probability_columns(classes)]
    if unfamiliar is not None:
        rows = [(*row, f"{score:.3f}") for row, score in zip(rows, unfamiliar.tolist(), strict=True)]
        columns.append("unfamiliar")
    write_table(path, columns, rows)


def probability_columns(classes: Sequence[str]) -> list[str]:
    return [f"prob_{name}" for name in classes]


def prediction(probabilities: Sequence[float], classes: Sequence[str]) -> tuple[str, ...]:
    """The most probable class and all probabilities, as a row of a table has them."""
    best = max(range(len(classes)), key=lambda i: probabilities[i])
    return (classes[best], *(f"{p:.8f}" for p in probabilities))


def read_predictions(run: Path, name: str = PREDICTIONS) -> dict[str, Any]:
    """Predictions of a run for its test images, or those of another file of it: run, classes, files, labels, predicted
    (lists of text), probabilities (float32 (N, C)) and group (int (N,))."""
    group_of = {row["file"]: int(row["group"]) for row in read_table(run / SPLIT)}
    rows, classes = read_table(run / name), read_json(run / METRICS)["classes"]
    probabilities = [[row[column] for column in probability_columns(classes)] for row in rows]
    return {
        "run": run,
        "classes": classes,
        "probabilities": np.array(probabilities, dtype=np.float32),
        "files": [row["file"] for row in rows],
        "labels": [row["label"] for row in rows],
        "predicted": [row["prediction"] for row in rows],
        "group": np.array([group_of[row["file"]] for row in rows]),
    }
