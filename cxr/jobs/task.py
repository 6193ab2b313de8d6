"""What Hydra calls for each run of a command: its status, its options, training, and the leaderboard. No torch here."""

import gc
import os
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cxr.errors import Diverged, UserError, one_line, printable
from cxr.files.run_folder import CONFIG, LOCK, METRICS, STATUS, STOP
from cxr.files.status import Outcome, explained, is_done, keep_traceback, write_status
from cxr.files.writing import read_json, write_text
from cxr.jobs import slurm
from cxr.jobs.child_process import train_isolated
from cxr.jobs.plan import Plan
from cxr.options import run_folder_name  # noqa: F401 (conf needs its interpolations in every worker)
from cxr.options.command_line import CommandLine
from cxr.options.grammar import read_mappings
from cxr.options.ranks import node, ranks
from cxr.reporting.leaderboard import write_leaderboard
from cxr.search.trial import trial_of
from cxr.training import signals

Options = Mapping[str, Any]


class Task:
    """Trains the runs of a command, one per call. Hydra's launchers pickle it for their workers.

    A call raises no error of its run, so that a sweep continues with the next one. The error is in status.json and
    train.log; `error` holds that of a single run.

    Args:
        words: the command line as typed.
    """

    def __init__(self, command: CommandLine, words: Sequence[str]) -> None:
        self.sweep = command.folder if command.multirun else None
        self.swept, self.launcher, self.searches = command.swept, command.launcher, bool(command.search)
        elsewhere = ("hydra.run.dir=", "hydra.sweep.dir=")  # a folder of this machine is no part of a recipe
        self.command = shlex.join(["python", "-m", "cxr.train", *(w for w in words if not w.startswith(elsewhere))])
        self.launched_by = os.getpid()
        self.error: Exception | None = None

    def __call__(self, config: DictConfig) -> Outcome:
        self.listen()
        if self.is_stopped():
            return Outcome("stopped")
        hydra, began, error = HydraConfig.get(), time.time(), None
        read_mappings(config)  # Hydra has composed it, not composing.py
        folder, options = Path(hydra.runtime.output_dir), OmegaConf.to_container(config, resolve=True)
        # Other machines that train the same run write nothing, nor does a run that was done before.
        writes = not (node(options["trainer"]) or is_done(folder, options.get("trial")))
        try:
            with explained(folder):
                choices = self.choices_of(options, hydra)
                if writes:
                    self.begin(folder, options, choices, began)
                elif node(options["trainer"]):
                    wait_for(folder / STATUS)
            trial = trial_of(options, self.sweep) if self.searches else None
            self.train(Plan(options, choices, folder, self.sweep, self.launcher != "basic", trial), hydra)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
            if not signals.asked():
                raise
            error = signals.stopped()
        except Exception as raised:
            error = raised
        outcome = outcome_of(error, folder)
        self.end(folder, outcome, error, began if writes else None)
        return outcome

    def listen(self) -> None:
        """In a worker of a launcher, record signals, and end with the process that launched it."""
        if self.launched_by == os.getpid():
            return
        if self.launcher == "slurm":
            slurm.listen()
        else:
            signals.listen()
            signals.end_with_parent(self.launched_by)

    def is_stopped(self) -> bool:
        """Whether no further run may begin, because this process or the sweep was asked to stop."""
        return bool(signals.asked() or (self.sweep and (self.sweep / STOP).exists()))

    def choices_of(self, options: Options, hydra: DictConfig) -> dict[str, Any]:
        """What tells this run from the others: model, aug, seed and every other swept option."""
        groups, choices = hydra.runtime.choices, {}
        for option in dict.fromkeys(("model", "aug", "seed", *self.swept)):
            value = groups[option] if option in groups else OmegaConf.select(OmegaConf.create(options), option)
            choices[option] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        return choices

    def begin(self, folder: Path, options: Options, choices: Options, began: float) -> None:
        """Write status.json and config.yaml. A resumed run keeps the record of its beginning."""
        fields = {"choices": choices, "started": began, "command": self.command}
        fields |= {key: value for key, value in read_json(folder / STATUS).items() if key in fields}
        write_status(folder, "running", **fields, diverged=False, job=slurm.job_id())
        write_text(folder / CONFIG, OmegaConf.to_yaml({"choices": choices, **options}))
        self.rewrite_leaderboard()

    def train(self, plan: Plan, hydra: DictConfig) -> None:
        """Train and test, in this process or, with isolate=true or several devices, in child processes. (A process of
        its own costs each run of a sweep some 0.7 s: its threads, fonts and caches begin cold.)"""
        # Trials of a search with the same options share a folder, one after the other.
        with FileLock(plan.folder / LOCK) if self.searches else nullcontext():
            if plan.options["isolate"] or ranks(plan.options["trainer"]) > 1:
                train_isolated(plan, OmegaConf.to_container(hydra.job_logging, resolve=True))
                return
            from cxr.jobs.run import train_and_test

            # Imported objects live until the end: the garbage collector need not walk them each time.
            if not gc.get_freeze_count():
                gc.freeze()
            train_and_test(plan)

    def end(self, folder: Path, outcome: Outcome, error: Exception | None, began: float | None) -> None:
        """Record how a run ended, and announce a failure.

        Args:
            began: seconds since 1970, or None where this process does not write status.json.
        """
        line, log = error_line(error) if error else "", folder / "train.log"
        with suppress(OSError):  # a full disk, or a folder that is gone: the console still shows the error
            if began is not None:
                if outcome.state == "stopped" and slurm.at_time_limit():
                    line = self.requeue(folder)
                seconds = round(read_json(folder / STATUS).get("seconds", 0) + time.time() - began, 2)
                state = "failed" if outcome.state == "stopped" else outcome.state
                write_status(folder, state, line, seconds=seconds, diverged=isinstance(error, Diverged))
            if outcome.state == "failed":
                keep_traceback(log, error)
            self.rewrite_leaderboard()
        if outcome.state != "failed":
            return
        if not self.sweep:
            self.error = error
            return
        print(f"cxr: {folder.name} failed: {line} (traceback in {log})", file=sys.stderr)
        # The frames of an error hold the network and the images, which the next run's memory must not wait for.
        traceback.clear_frames(error.__traceback__)
        gc.collect()

    def requeue(self, folder: Path) -> str:
        """Requeue this job of Slurm, which ends the process. Returns why that was impossible."""
        with suppress(OSError):
            write_status(folder, "running", "at its time limit: resumes when Slurm starts its job again")
            self.rewrite_leaderboard()
        return slurm.requeue()

    def rewrite_leaderboard(self) -> None:
        """Rewrite the leaderboard of the sweep, if there is one."""
        if self.sweep:
            write_leaderboard(self.sweep)


def wait_for(path: Path, seconds: float = 300) -> None:
    """Wait until the first machine of a run has begun it (its status.json exists), or time is up."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        signals.stop_if_asked()
        time.sleep(0.2)


def outcome_of(error: Exception | None, folder: Path) -> Outcome:
    """The outcome of a run that ended with this error, or without one."""
    if isinstance(error, signals.Stopped):
        return Outcome("stopped")
    if error:
        return Outcome("failed", 0.0 if isinstance(error, Diverged) else None)
    metrics = read_json(folder / METRICS)
    state = "pruned" if metrics.get("train", {}).get("pruned") else "done"
    return Outcome(state, (metrics.get("val") or {}).get("f1_macro"))


def error_line(error: Exception) -> str:
    """An error in one line; its type too, unless the text was written for the user."""
    if isinstance(error, UserError | signals.Stopped):
        return printable(one_line(error))
    return printable(f"{type(error).__name__}: {error}".split("\n")[0])
