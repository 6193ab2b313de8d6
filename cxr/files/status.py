"""status.json: a run's state, and the decision that it is lost because its process or job vanished."""

import errno
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cxr.errors import UserError
from cxr.files import slurm_queue
from cxr.files.run_folder import METRICS, STATUS
from cxr.files.writing import read_json, write_json

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MEND = "free space or repair the folder, then give the same command with its name=NAME to resume"
LOST_JOB = "its Slurm job {job} ended without an error message (memory, a time limit, scancel, a lost node?)"


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        state: done, pruned, failed or stopped.
        score: macro F1 on validation images, 0 where training diverged; None where there is none.
    """

    state: str
    score: float | None = None


def write_status(folder: Path, status: str, error: str = "", **more: Any) -> None:
    """Write the state of a run (running, done or failed) and `more` to status.json; keep its other keys."""
    record = read_json(folder / STATUS)
    write_json(
        folder / STATUS,
        {**record, "status": status, "error": error, "pid": os.getpid(), "host": socket.gethostname(), **more},
    )


def read_status(folder: Path) -> dict[str, Any]:
    """The content of status.json; a run that is running there though its process or Slurm job has gone is lost."""
    record = read_json(folder / STATUS)
    if record.get("status") != "running":
        return record
    if job := record.get("job"):  # perhaps on another machine, perhaps waiting for its next start
        if slurm_queue.has_ended(job) and read_json(folder / STATUS) == record:  # it may have ended well meanwhile
            record |= {"status": "lost", "error": LOST_JOB.format(job=job)}
    elif record["host"] == socket.gethostname() and not alive(record["pid"]):
        record |= {"status": "lost", "error": "its process ended without an error message"}
    return record


def is_done(folder: Path, trial: int | None = None) -> bool:
    """Whether a run folder holds a finished run. A trial of a search, which is named by its number, needs no test."""
    if read_json(folder / STATUS).get("status") not in ("done", "pruned"):
        return False
    metrics = read_json(folder / METRICS)
    return trial is not None or "val" not in metrics or "test" in metrics


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user, but alive
    return True


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A block that works in a run folder or a sweep's. Raises UserError where the system prevents that: no room, no
    permission, the folder is gone. (The traceback stands in train.log, where that can still be written.)"""
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder
        if error.errno not in NO_ROOM and not path.is_relative_to(folder):
            raise
        raise UserError(f"{path}: {error.strerror or error}; {MEND}") from error


def mark_unfinished(folder: Path, error: str) -> None:
    """Mark the runs that this process left unfinished in a run folder, or in a sweep's, as failed."""
    for path in (folder / STATUS, *folder.glob(f"*/{STATUS}")):
        record = read_json(path)
        ours = (record.get("pid"), record.get("host")) == (os.getpid(), socket.gethostname())
        if ours and record["status"] == "running":
            write_status(path.parent, "failed", error)


def keep_traceback(log: Path, error: BaseException) -> None:
    """Append an error's traceback to a run's own log."""
    with log.open("a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
