"""Cells as jobs of Slurm, through submitit: which of them the queue has, their time limit and their end. No torch."""

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
    """What submitit does with a job at its time limit; signals belong to a process, so there is one."""

    at_time_limit: ClassVar[Callable | None] = None


def job_id() -> str:
    """The job that this process belongs to, as squeue names it (12, or 12_0 of an array); "" outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def jobs_of(sweep: Path) -> list[str]:
    """Every job that Slurm was ever given for a sweep, in the order of their numbers."""
    names = [path.name for path in (sweep / JOBS).glob("*") if re.fullmatch(r"\d+(_\d+)?", path.name)]
    return sorted(names, key=lambda name: [int(part) for part in name.split("_")])


def running_jobs(sweep: Path) -> list[str]:
    """The jobs of a sweep that still wait or run."""
    found = jobs_of(sweep)
    return [job for job in found if job in (slurm_queue.queue(age=0) or ())] if found else []


def states(jobs: Sequence[str]) -> list[str]:
    """How far some jobs are, as squeue says it: 12_0 PENDING (Resources), or whatever keeps it from ever beginning."""
    command = ["squeue", "--noheader", "--array", f"--jobs={','.join(jobs)}", "--format=%i %T (%r)"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return said.stdout.replace(" (None)", "").splitlines()


def check_free(sweep: Path) -> None:
    """Raise UserError where jobs of a sweep still wait or run: others would work in their folders."""
    if jobs := running_jobs(sweep):
        raise UserError(
            f"{sweep}: Slurm still has jobs of this sweep ({', '.join(jobs)}); wait for them (python -m "
            f"cxr.leaderboard {sweep} says how far they are), or scancel them: the same command then goes on"
        )


def listen() -> None:
    """In a job: stop at Slurm's signals as at a person's, see signals.listen(). What submitit would have done at the
    time limit, which is to leave at once, is done by requeue(), when everything is saved."""
    _Job.at_time_limit = signal.getsignal(signal.SIGUSR2)
    signals.listen()


def at_time_limit() -> bool:
    """Whether this process is a job that was told that its time is over."""
    return signals.asked() == signal.SIGUSR2 and callable(_Job.at_time_limit)


def requeue() -> str:
    """Put the job of this process back into the queue, and end the process. Returns why that cannot be."""
    from submitit.core.utils import UncompletedJobError

    try:
        _Job.at_time_limit(signal.SIGUSR2, None)  # writes what to go on with, calls scontrol requeue and exits
    except UncompletedJobError:
        return "at its time limit, and was requeued slurm.requeues times already: the same command goes on"
    except (OSError, subprocess.SubprocessError) as error:
        return f"at its time limit, and could not be requeued ({error}): the same command goes on"
    raise AssertionError("submitit did not end this process")


@contextmanager
def watched(sweep: Path) -> Iterator[None]:
    """A block that waits for a sweep's jobs. submitit asks Slurm's accounting whether a job has ended that left no
    result, and waits for ever where there is no accounting: here, the queue is asked, and the job's failure is put
    where submitit looks for its result, so that the sweep waits for all others."""
    from submitit import SlurmJob
    from submitit.core.utils import FailedJobError

    logging.getLogger("submitit").setLevel(logging.ERROR)
    SlurmJob.watcher._make_command = lambda: None  # it need not ask the accounting, which complains where there is none
    over = threading.Event()

    def watch() -> None:
        before, said = set[str](), set(jobs_of(sweep))
        while not over.wait(POLL):
            if new := [job for job in jobs_of(sweep) if job not in said]:
                log.info("Slurm's jobs, whose output is in %s: %s", sweep / JOBS, ", ".join(states(new)))
                said.update(new)
            queued = slurm_queue.queue(age=0)
            if queued is None:
                continue
            gone = {job for job in jobs_of(sweep) if job not in queued and unanswered(sweep, job)}
            for job in gone & before:  # twice: one that has just ended may be writing
                answer(sweep, job)
            before = gone

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except FailedJobError as error:
        if "sbatch" not in str(error):
            raise
        why = str(error).strip().splitlines()[-1]
        raise UserError(f"launcher=slurm: the jobs are not taken ({why}); look at the options slurm.*") from error
    finally:
        over.set()
        thread.join()


def unanswered(sweep: Path, job: str) -> list[Path]:
    """Where submitit looks for results of a job, one a node, that are not there."""
    folder = sweep / JOBS / job
    if not (folder / f"{job}_submitted.pkl").exists():  # it is only being given to Slurm
        return []
    logs = [re.fullmatch(rf"{job}_(\d+)_log\.\w+", path.name) for path in folder.glob("*_log.*")]
    paths = [folder / f"{job}_{node}_result.pkl" for node in {"0"} | {log[1] for log in logs if log}]
    return [path for path in paths if not path.exists()]


def answer(sweep: Path, job: str) -> None:
    """Say for a job, where submitit looks for it, that its cell failed."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import cloudpickle_dump, temporary_save_path

    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = UserError(status.LOST_JOB.format(job=job))
    for path in unanswered(sweep, job):
        with temporary_save_path(path) as part:
            cloudpickle_dump(("success", failed), part)
