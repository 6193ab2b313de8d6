"""The files of a run folder that others read; no torch here, the command line reads them too."""

import csv
import json
import os
import socket
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.errors import UserError

STATUS, METRICS, PREDICTIONS, AUDIT = "status.json", "metrics.json", "predictions.csv", "audit.json"
SIDE_FILE = "films.npz"  # beside the checkpoints: what tells the films of a run again
# The figures that stand on the leaderboard and in the HParams tab.
HEADLINES = ("f1_macro", "accuracy", "precision_macro", "recall_macro")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in UTF-8; bytes in a file's name that are none are written as \\udcNN."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all: others read it while runs go on. Bytes in a file's name that are no UTF-8
    are written as JSON writes them, \\udcNN, and come back as they were."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    part.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, or {} where there is none yet.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: not JSON, so damaged; move its run folder away, or train that run again") from error


def write_predictions(
    path: Path,
    files: Sequence[str],
    classes: Sequence[str],
    labels: Sequence[int],
    probabilities: Sequence[Sequence[float]],
) -> None:
    """Write predictions.csv: file,label,prediction,prob_<class>,… one row a film. Probabilities are (N, C)."""
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


def write_status(folder: Path, status: str, error: str = "", **more: Any) -> None:
    """Say in status.json where a run stands: running, done or failed. Later calls keep what earlier ones said."""
    told = read_json(folder / STATUS)
    write_json(
        folder / STATUS,
        {**told, "status": status, "error": error, "pid": os.getpid(), "host": socket.gethostname(), **more},
    )


def read_status(folder: Path) -> dict[str, Any]:
    """What status.json says; a run that claims to be running though its process has gone is lost."""
    told = read_json(folder / STATUS)
    if told.get("status") == "running" and told["host"] == socket.gethostname() and not alive(told["pid"]):
        told |= {"status": "lost", "error": "its process ended without a word"}
    return told


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return True


def keep_traceback(log: Path, error: BaseException) -> None:
    """Append an error's traceback to a run's own log."""
    with log.open("a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
