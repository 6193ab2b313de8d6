"""The files of a run folder that others read; no torch here, the command line reads them too."""

import csv
import errno
import json
import os
import socket
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr.errors import UserError
from cxr.jobs import slurm

CONFIG, LOCK, STOP = "config.yaml", ".lock", ".stop"  # the last: of a sweep whose cells shall not begin any more
STATUS, METRICS, PREDICTIONS, AUDIT = "status.json", "metrics.json", "predictions.csv", "audit.json"
SEARCH = "search.json"  # in a sweep's folder: the trials of a search
SPLIT, SPLIT_COLUMNS = "split.csv", ("file", "label", "patient", "split", "group")
CHECKPOINTS = "checkpoints"
SIDE_FILE = "images.npz"  # beside the checkpoints: what tells the images of a run again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MEND = "make room, or mend the folder, then give the same command again, with its name=NAME: it goes on from there"
# The figures that stand on the leaderboard and in the HParams tab.
HEADLINES = ("f1_macro", "accuracy", "precision_macro", "recall_macro")


def as_text(value: object) -> str:
    """A value as it reads back from a file in UTF-8; bytes in a file's name that are none are \\udcNN."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


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


def write_text(path: Path, content: str) -> None:
    """Write a file in UTF-8 whole or not at all: others read it while runs go on. Bytes in a file's name that are no
    UTF-8 are written as \\udcNN, which JSON reads back as they were."""
    part = part_of(path)
    try:
        part.write_text(content, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Where this process, on whatever machine, writes a file before it takes its name."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, or {} where there is none yet.

    Raises:
        UserError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found
    except ValueError as error:
        raise UserError(f"{path}: not JSON, so damaged; move its run folder away, or train that run again") from error


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


def write_status(folder: Path, status: str, error: str = "", **more: Any) -> None:
    """Say in status.json where a run stands: running, done or failed. Later calls keep what earlier ones said."""
    told = read_json(folder / STATUS)
    write_json(
        folder / STATUS,
        {**told, "status": status, "error": error, "pid": os.getpid(), "host": socket.gethostname(), **more},
    )


def read_status(folder: Path) -> dict[str, Any]:
    """What status.json says; a run that claims to be running though its process, or its Slurm job, has gone is lost."""
    told = read_json(folder / STATUS)
    if told.get("status") != "running":
        return told
    if job := told.get("job"):  # it runs somewhere else, or waits to go on
        if slurm.has_ended(job) and read_json(folder / STATUS) == told:  # not one that ended well while we asked
            told |= {"status": "lost", "error": slurm.ENDED.format(job=job)}
    elif told["host"] == socket.gethostname() and not alive(told["pid"]):
        told |= {"status": "lost", "error": "its process ended without a word"}
    return told


def is_done(folder: Path) -> bool:
    """Whether a run folder holds a finished run."""
    return read_json(folder / STATUS).get("status") == "done"


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return True


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A block that works in a run folder or a sweep's. Raises UserError where the system does not let it: no room, no
    permission, the folder is gone. (The traceback stands in train.log, where that can still be written.)"""
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder
        if error.errno not in NO_ROOM and not path.is_relative_to(folder):
            raise
        raise UserError(f"{path}: {error.strerror or error}; {MEND}") from error


def close_own(folder: Path, error: str) -> None:
    """Say of the runs in a run folder or of a sweep that this process has left unfinished that they failed."""
    for path in (folder / STATUS, *folder.glob(f"*/{STATUS}")):
        told = read_json(path)
        if told.get("status") == "running" and told["pid"] == os.getpid() and told["host"] == socket.gethostname():
            write_status(path.parent, "failed", error)


def keep_traceback(log: Path, error: BaseException) -> None:
    """Append an error's traceback to a run's own log."""
    with log.open("a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
