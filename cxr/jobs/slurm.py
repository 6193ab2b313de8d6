"""Runs as jobs of Slurm, through submitit: which jobs are queued, their time limit and their end. No torch."""

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from cxr.errors import UserError
from cxr.files import slurm_queue, status
from cxr.jobs import signals

log = logging.getLogger(__name__)

JOBS = ".submitit"  # in a sweep's folder: a folder for each job, with its log
POLL = 10  # seconds


class _Job:
    """submitit's signal handler for the time limit; signals belong to a process, so there is one."""

    at_time_limit: ClassVar[Callable | None] = None


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
            f"cxr.leaderboard {sweep} says how far they are), or scancel them: the same command then goes on"
        )


def listen() -> None:
    """In a job, record Slurm's signals, see signals.listen(). submitit's own handler would leave at once at the time
    limit; requeue() calls it when everything is saved."""
    _Job.at_time_limit = signal.getsignal(signal.SIGUSR2)
    signals.listen()


def at_time_limit() -> bool:
    """Whether this process is a job that has reached its time limit."""
    return signals.asked() == signal.SIGUSR2 and callable(_Job.at_time_limit)


def requeue() -> str:
    """Put the job of this process back into the queue, and end the process. Returns why that was impossible."""
    from submitit.core.utils import UncompletedJobError

    try:
        _Job.at_time_limit(signal.SIGUSR2, None)  # writes what resuming needs, calls scontrol requeue and exits
    except UncompletedJobError:
        return "at its time limit, and was requeued slurm.requeues times already: the same command goes on"
    except (OSError, subprocess.SubprocessError) as error:
        return f"at its time limit, and could not be requeued ({error}): the same command goes on"
    raise AssertionError("submitit did not end this process")


@contextmanager
def watched(sweep: Path) -> Iterator[None]:
    """A block that waits for a sweep's jobs, and notices those that end without a result.

    submitit asks Slurm's accounting about such a job, and waits for ever on a cluster without accounting. Here a thread
    asks the queue, and writes the job's failure where submitit looks for its result: the other jobs still count.
    """
    from submitit import SlurmJob
    from submitit.core.utils import FailedJobError

    logging.getLogger("submitit").setLevel(logging.ERROR)
    SlurmJob.watcher._make_command = lambda: None  # no calls of sacct, which prints errors without accounting
    over = threading.Event()
    thread = threading.Thread(target=watch_jobs, args=(sweep, over), daemon=True)
    thread.start()
    try:
        yield
    except FailedJobError as error:
        if "sbatch" not in str(error):
            raise
        why = str(error).strip().splitlines()[-1]
        raise UserError(f"launcher=slurm: Slurm refused the jobs ({why}); check the options slurm.*") from error
    finally:
        over.set()
        thread.join()


def watch_jobs(sweep: Path, over: threading.Event) -> None:
    """Until `over` is set, announce new jobs of a sweep and answer for those that ended without a result."""
    gone_before, announced = set[str](), set(jobs_of(sweep))
    while not over.wait(POLL):
        if new := [job for job in jobs_of(sweep) if job not in announced]:
            log.info("Slurm's jobs, whose output is in %s: %s", sweep / JOBS, ", ".join(states(new)))
            announced.update(new)
        queued = slurm_queue.queue(age=0)
        if queued is None:
            continue
        gone = {job for job in jobs_of(sweep) if job not in queued and unanswered(sweep, job)}
        for job in gone & gone_before:  # seen twice: a job that has just ended may still be writing
            answer_for_job(sweep, job)
        gone_before = gone


def unanswered(sweep: Path, job: str) -> list[Path]:
    """The missing result files of a job, one a node, where submitit looks for them."""
    folder = sweep / JOBS / job
    if not (folder / f"{job}_submitted.pkl").exists():  # not submitted yet
        return []
    logs = [re.fullmatch(rf"{job}_(\d+)_log\.\w+", path.name) for path in folder.glob("*_log.*")]
    paths = [folder / f"{job}_{node}_result.pkl" for node in {"0"} | {log[1] for log in logs if log}]
    return [path for path in paths if not path.exists()]


def answer_for_job(sweep: Path, job: str) -> None:
    """Write the result of a lost job, a failure, where submitit looks for it."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import cloudpickle_dump, temporary_save_path

    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = UserError(status.LOST_JOB.format(job=job))
    for path in unanswered(sweep, job):
        with temporary_save_path(path) as part:
            cloudpickle_dump(("success", failed), part)
