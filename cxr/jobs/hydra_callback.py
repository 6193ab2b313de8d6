"""Hydra's callback around each run: it keeps status.json and the leaderboard. No torch here."""

import gc
import os
import shlex
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cxr.errors import Diverged, UserError, printable
from cxr.files.run_folder import STATUS, STOP
from cxr.files.status import is_done, keep_traceback, write_status
from cxr.files.writing import read_json
from cxr.jobs import signals, slurm
from cxr.options import resolvers  # noqa: F401 (conf needs them in every worker)
from cxr.options.grammar import PATHS, swept
from cxr.options.ranks import node
from cxr.options.search_space import search_from
from cxr.reporting import leaderboard


def command(config: DictConfig, *flags: str) -> str:
    """The command that the user typed, without its output folder."""
    typed = []
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        # Paths were quoted for Hydra's grammar, see quote_path().
        is_path = override.key_or_group in PATHS and isinstance(override.value(), str)
        typed.append(f"{override.get_key_element()}={override.value()}" if is_path else override.input_line)
    return shlex.join(["python", "-m", "cxr.train", *flags, *typed])


def is_stopped(config: DictConfig) -> bool:
    """Whether no further run may begin, because this process or the sweep was asked to stop."""
    sweep = Path(config.hydra.sweep.dir) if config.hydra.mode == RunMode.MULTIRUN else None
    return bool(signals.asked() or (sweep and (sweep / STOP).exists()))


class KeepLeaderboard(Callback):
    """Writes status.json and the leaderboard, as the README documents them.

    Launchers pickle the callback for their workers, which so get `swept` and `launched_by`.
    """

    def __init__(self) -> None:
        self.swept: list[str] = []
        self.launched_by = 0
        self.command = ""
        self.started, self.written = 0.0, False  # when this run began; whether it writes status.json

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.launched_by = os.getpid()
        self.command = command(config, "-m")
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        search = search_from(config, overrides)
        self.swept = search.options if search else swept(overrides)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self.started, self.written = time.time(), False
        runtime = config.hydra.runtime
        folder = Path(runtime.output_dir)
        if runtime.choices.launcher == "slurm":
            slurm.listen()
        elif self.launched_by not in (0, os.getpid()):
            signals.listen()
            signals.end_with_parent(self.launched_by)
        if is_done(folder, config.get("trial")) or is_stopped(config) or node(config.trainer):
            return
        choices = {"model": runtime.choices.model, "aug": runtime.choices.aug, "seed": config.seed}
        for option in self.swept:
            if option not in choices:
                value = runtime.choices[option] if option in runtime.choices else OmegaConf.select(config, option)
                choices[option] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        fields = {"choices": choices, "started": self.started, "command": self.command or command(config)}
        # A resumed run keeps the record of its beginning.
        fields |= {key: value for key, value in read_json(folder / STATUS).items() if key in fields}
        write_status(folder, "running", **fields, diverged=False, job=slurm.job_id())
        self.written = True
        self.rewrite_leaderboard(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        # The property return_value would raise the error.
        error = None if job_return.status == JobStatus.COMPLETED else job_return._return_value
        stopped = isinstance(error, signals.Stopped)
        line = error_line(error)
        if stopped and slurm.at_time_limit() and not node(config.trainer):
            line = self.requeue(config)
        log = Path(config.hydra.runtime.output_dir) / f"{config.hydra.job.name}.log"
        with suppress(OSError):  # a full disk, or a folder that is gone: the console still shows the error
            self.record_end(config, job_return, error, line)
            if error and not stopped:
                keep_traceback(log, error)
            self.rewrite_leaderboard(config)
        answer_sweeper(config, job_return, error)
        if error and not stopped:
            announce_failure(config, error, line, log)

    def requeue(self, config: DictConfig) -> str:
        """Requeue this job of Slurm, which ends the process. Returns why that was impossible."""
        with suppress(OSError):
            message = "at its time limit: goes on when Slurm starts its job again"
            write_status(Path(config.hydra.runtime.output_dir), "running", message)
            self.rewrite_leaderboard(config)
        return slurm.requeue()

    def record_end(self, config: DictConfig, job_return: JobReturn, error: Exception | None, line: str) -> None:
        """Write the end of a run to its status.json, if this process wrote its beginning."""
        if not self.written:
            return
        folder = Path(config.hydra.runtime.output_dir)
        seconds = read_json(folder / STATUS).get("seconds", 0) + time.time() - self.started
        fields = {"seconds": round(seconds, 2), "diverged": isinstance(error, Diverged)}
        pruned = not error and (job_return.return_value or {}).get("pruned")
        state = "failed" if error else "pruned" if pruned else "done"
        write_status(folder, state, line if error else "", **fields)

    def rewrite_leaderboard(self, config: DictConfig) -> None:
        """Rewrite the leaderboard of the sweep that a run belongs to."""
        if config.hydra.mode == RunMode.MULTIRUN:
            leaderboard.write(Path(config.hydra.sweep.dir))


def error_line(error: Exception | None) -> str:
    """An error in one line; its type too, unless the text was written for the user."""
    if isinstance(error, UserError | signals.Stopped):
        return printable(" ".join(f"{error}".split()))
    return printable(f"{type(error).__name__}: {error}".split("\n")[0])


def answer_sweeper(config: DictConfig, job_return: JobReturn, error: Exception | None) -> None:
    """Replace errors that the sweeper shall not see: Hydra would print them in its own words. A search gets the lowest
    score for a recipe that diverged, and none for a trial that failed."""
    if isinstance(error, signals.Stopped):
        job_return.status, job_return.return_value = JobStatus.COMPLETED, None
    elif error and config.get("trial") is not None:
        score = 0.0 if isinstance(error, Diverged) else None
        job_return.status, job_return.return_value = JobStatus.COMPLETED, {"value": score, "pruned": False}


def announce_failure(config: DictConfig, error: Exception, line: str, log: Path) -> None:
    """Print one line about a run that failed. A UserError of a single run ends the process here with exit code 1,
    before Hydra adds lines of its own."""
    if config.hydra.mode == RunMode.MULTIRUN:
        # Hydra keeps the error until the sweep ends, and with it all that its frames hold: the network, the images.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        print(f"cxr: {log.parent.name} failed: {line} (traceback in {log})", file=sys.stderr)
    elif isinstance(error, UserError):
        print(f"cxr: {line}", file=sys.stderr)
        raise SystemExit(1)
