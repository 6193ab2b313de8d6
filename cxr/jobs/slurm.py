"""Runs as jobs of Slurm, through submitit: how they are queued, what happens at their time limit and at their end."""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from cxr.errors import UserError
from cxr.files import slurm_queue
from cxr.training import signals

log = logging.getLogger(__name__)

JOBS = ".submitit"  # in a sweep's folder: a folder for each job, with its log
POLL = 10  # seconds


# submitit's handler of SIGUSR2 in a job, which requeues it; signals belong to a process, so there is one.
_requeue: Callable | None = None


def job_id() -> str:
    """The Slurm job of this process, as squeue names it (12, or 12_0 in an array); "" outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def jobs_of(sweep: Path) -> list[str]:
    """All jobs that were ever submitted for a sweep, sorted by number."""
    names = [path.name for path in (sweep / JOBS).glob("*") if re.fullmatch(r"\d+(_\d+)?", path.name)]
    return sorted(names, key=lambda name: [int(part) for part in name.split("_")])


def running_jobs(sweep: Path) -> list[str]:
    """The jobs of a sweep that still wait or run."""
    jobs = jobs_of(sweep)
    return [job for job in jobs if job in (slurm_queue.queue(age=0) or ())] if jobs else []


def states(jobs: Sequence[str]) -> list[str]:
    """The state of jobs and the reason for it, as squeue prints them: 12_0 PENDING (Resources)."""
    command = ["squeue", "--noheader", "--array", f"--jobs={','.join(jobs)}", "--format=%i %T (%r)"]
    listing = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return listing.stdout.replace(" (None)", "").splitlines()


def check_free(sweep: Path) -> None:
    """Raise UserError if jobs of a sweep still wait or run: two jobs would work in one folder."""
    if jobs := running_jobs(sweep):
        raise UserError(
            f"{sweep}: Slurm still has jobs of this sweep ({', '.join(jobs)}); wait for them (python -m "
            f"cxr.leaderboard {sweep} shows their progress), or scancel them: the same command then resumes the sweep"
        )


def listen() -> None:
    """In a job, record Slurm's signals, see signals.listen(). submitit's own handler would leave at once at the time
    limit; requeue() calls it when everything is saved."""
    global _requeue
    _requeue = signal.getsignal(signal.SIGUSR2)
    signals.listen()


def at_time_limit() -> bool:
    """Whether this process is a job that has reached its time limit."""
    return signals.asked() == signal.SIGUSR2 and callable(_requeue)


def requeue() -> str:
    """Put the job of this process back into the queue, and end the process. Returns why that was impossible."""
    from submitit.core.utils import UncompletedJobError

    try:
        _requeue(signal.SIGUSR2, None)  # writes what resuming needs, calls scontrol requeue and exits
    except UncompletedJobError:
        return "at its time limit, after slurm.requeues requeues: the same command resumes it"
    except (OSError, subprocess.SubprocessError) as error:
        return f"at its time limit, but could not be requeued ({error}): the same command resumes it"
    raise AssertionError("submitit did not end this process")
