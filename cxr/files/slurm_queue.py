"""Which of this user's jobs Slurm's queue holds."""

import getpass
import shutil
import subprocess
import time

_seen: tuple[float, frozenset[str] | None] = float("-inf"), None


def queue(age: float = 2) -> frozenset[str] | None:
    """This user's jobs that wait, run or are about to end, as squeue lists them; None if squeue does not answer.

    Args:
        age: seconds that an earlier answer is good for: a leaderboard has many rows.
    """
    global _seen
    if time.monotonic() - _seen[0] > age:
        _seen = time.monotonic(), _ask()
    return _seen[1]


def _ask() -> frozenset[str] | None:
    if not shutil.which("squeue"):
        return None
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format=%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):  # for example, its controller is down for a moment
        return None
    return frozenset(answer.stdout.split())


def has_ended(job: str) -> bool:
    """Whether a job has left the queue; False if squeue does not answer."""
    queued = queue()
    return queued is not None and job not in queued
