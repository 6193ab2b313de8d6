"""A real `cxr.train` that something happens to: a signal, at a random moment of a phase, or a disk that fills up.

The process that does the work is forked from one that has imported all of cxr, which saves five seconds a fault; only
for the phase "imports" is it started from nothing.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cxr.data.opening
import cxr.data.store
import cxr.jobs.run
import cxr.jobs.task
import cxr.reporting.comparison
import cxr.reporting.report
import cxr.train
import cxr.training.checkpoints
from cxr.models.classifier import Classifier
from cxr.training.checkpoints import DurableCheckpointIO, LastCheckpoint

# Where a phase is: the function whose call begins it, on which of its calls (1 to …) and for how many seconds at most.
PHASES: dict[str, tuple[Any, str, int, float]] = {
    "start-up": (cxr.train, "read_command", 1, 0.5),
    "store build": (cxr.data.store, "fill_store", 2, 0.3),
    "search for copies": (cxr.data.opening, "load_copies", 1, 0.4),
    "training": (cxr.jobs.run, "fit", 2, 0.4),
    "validation": (Classifier, "validation_step", 6, 0.005),
    "checkpoint write": (DurableCheckpointIO, "save_checkpoint", 6, 0.004),
    "test": (cxr.jobs.run, "test_run", 2, 1.5),
    "leaderboard write": (cxr.jobs.task, "write_leaderboard", 4, 0.002),
    "report": (cxr.reporting.report, "write_report", 1, 0.5),
}


@dataclass
class Fault:
    """What happens: a signal, how often, on which call of a phase's function and how many seconds into it."""

    phase: str
    number: int
    times: int
    call: int
    delay: float

    @classmethod
    def draw(cls, phase: str, number: int, rng: random.Random, times: int = 1) -> "Fault":
        _, _, calls, seconds = PHASES.get(phase, (None, None, 1, 3.0))
        return cls(phase, number, times, rng.randint(1, calls), rng.uniform(0, seconds))


@dataclass
class Outcome:
    """What became of it: the exit code (negative: the signal it died of), what it said, and what the fault hit: the
    phase's function was "inside", or had returned when the signal came ("after"), or the phase never came ("")."""

    code: int
    said: str
    hit: str
    pid: int
    seconds: float


def run(
    words: Sequence[str], log: Path, fault: Fault | None = None, prepare: Callable[[], None] = lambda: None
) -> Outcome:
    """`python -m cxr.train words` in a process of its own, until it ends."""
    record, begin = log.with_suffix(".hit"), time.monotonic()
    record.unlink(missing_ok=True)
    if fault and fault.phase == "imports":
        with log.open("w") as out:
            process = subprocess.Popen([sys.executable, "-m", "cxr.train", *words], stdout=out, stderr=out)
            time.sleep(fault.delay)
            for _ in range(fault.times):
                process.send_signal(fault.number)
            alive = process.poll() is None
            code = process.wait()
        return Outcome(code, log.read_text(), "inside" if alive else "", process.pid, time.monotonic() - begin)
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            prepare()
            if fault:
                arm(fault, record)
            sys.argv = ["train", *words]
            cxr.train.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    hit = json.loads(record.read_text())["hit"] if record.exists() else ""
    return Outcome(os.waitstatus_to_exitcode(status), log.read_text(), hit, pid, time.monotonic() - begin)


def arm(fault: Fault, record: Path) -> None:
    """Let the fault happen in this process."""
    sys.setswitchinterval(1e-4)  # a phase may last a millisecond
    owner, name, _, _ = PHASES[fault.phase]
    function, calls, state = getattr(owner, name), [0], {"inside": False}

    def strike() -> None:
        hit = {**asdict(fault), "pid": os.getpid(), "hit": "inside" if state["inside"] else "after"}
        record.write_text(json.dumps(hit))
        for _ in range(fault.times):
            os.kill(os.getpid(), fault.number)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] != fault.call:
            return function(*arguments, **options)
        state["inside"] = True
        timer = threading.Timer(fault.delay, strike)
        timer.daemon = True
        timer.start()
        try:
            return function(*arguments, **options)
        finally:
            state["inside"] = False

    setattr(owner, name, wrapped)


def save_often(rng: random.Random) -> Callable[[], None]:
    """Sometimes a checkpoint every epoch, or every step: a run of seconds would else have the last one only."""
    epoch, step = rng.choice([(10, 600), (0, 600), (0, 0)])

    def prepare() -> None:
        LastCheckpoint.EPOCH_SECONDS, LastCheckpoint.STEP_SECONDS = epoch, step

    return prepare
