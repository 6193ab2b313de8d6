"""How the launcher of Slurm (submitit's) learns that a job has ended: from squeue."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.slurm import slurm as submitit

from cxr.errors import UserError
from cxr.files import slurm_queue
from cxr.files.status import Outcome
from cxr.jobs import slurm

log = logging.getLogger(__name__)

POLL = 10  # seconds


class QueueWatcher(submitit.SlurmInfoWatcher):
    """Asks squeue, which every cluster has. submitit's own watcher asks Slurm's accounting, and waits for ever for the
    result of a lost job on a cluster without accounting."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []  # jobs not announced yet

    def register_job(self, job_id: str) -> None:
        super().register_job(job_id)
        self.new.append(job_id)

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """RUNNING, also for a job that waits or where squeue does not answer; else ENDED."""
        if self.new:
            jobs, self.new = self.new, []
            log.info("Slurm's jobs, whose output is in %s: %s", slurm.JOBS, ", ".join(slurm.states(jobs)))
        queued = slurm_queue.queue(age=POLL)
        return "RUNNING" if queued is None or job_id in queued else "ENDED"


class SweepJob(submitit.SlurmJob):
    """A job of a sweep. One that ended without a result is a failed run: the other jobs still count."""

    watcher = QueueWatcher()

    def results(self) -> list[Any]:
        try:
            return super().results()
        except UncompletedJobError:  # status.json shows why, see read_status()
            lost = JobReturn(status=JobStatus.COMPLETED)
            lost.return_value = Outcome("failed")
            return [lost]


@contextmanager
def submitting() -> Iterator[None]:
    """A block in which a launcher submits jobs and waits for them. Raises UserError where Slurm refuses them."""
    logging.getLogger("submitit").setLevel(logging.ERROR)
    # Both names by which submitit makes jobs; it takes no class of jobs as an argument.
    submitit.SlurmJob = submitit.SlurmExecutor.job_class = SweepJob
    try:
        yield
    except FailedJobError as error:
        if "sbatch" not in str(error):
            raise
        why = str(error).strip().splitlines()[-1]
        raise UserError(f"launcher=slurm: Slurm refused the jobs ({why}); check the options slurm.*") from error
