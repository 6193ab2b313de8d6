"""What Hydra calls around the cells of a sweep: it keeps status.json and the leaderboard. No torch here."""

import gc
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cxr.errors import Diverged, UserError, printable
from cxr.files.run_folder import STATUS, STOP
from cxr.files.status import is_done, keep_traceback, write_status
from cxr.files.writing import read_json
from cxr.jobs import signals, slurm
from cxr.options.grammar import PATHS
from cxr.options.ranks import node
from cxr.options.search_space import asked_for, is_search
from cxr.reporting import leaderboard


def folder_text(value: Any) -> str:
    """An option's value as a part of a folder's name: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-") or "empty"


def gpus_wanted(accelerator: str, devices: Any) -> int | None:
    """GPUs that a job asks Slurm for on each node: as many as the trainer uses. None, and not 0, where it wants none:
    a cluster without GPUs knows no such resource."""
    if accelerator not in ("gpu", "cuda"):
        return None
    return devices if isinstance(devices, int) else len(devices)


OmegaConf.register_new_resolver("folder_text", folder_text, replace=True)
OmegaConf.register_new_resolver("gpus_wanted", gpus_wanted, replace=True)


def swept(overrides: Sequence[Override]) -> list[str]:
    """The options that a sweep varies, in the order of the command line."""
    return [o.key_or_group for o in overrides if o.is_sweep_override()]


class Unfinished:
    """What a search gets of a trial that was stopped. Of any number, and of none, it would make an ended trial."""

    def __float__(self) -> float:
        raise KeyboardInterrupt


def cell_folder(options: Sequence[str], groups: Sequence[str]) -> str:
    """The interpolation that names a sweep's run folders: model, aug, seed and every other swept option."""
    names = ["${hydra.runtime.choices.model}", "aug-${hydra.runtime.choices.aug}", "seed-${seed}"]
    for option in options:
        if option not in ("model", "aug", "seed"):
            value = f"hydra.runtime.choices.{option}" if option in groups else option
            names.append(f"{option.replace('/', '.')}-${{folder_text:${{{value}}}}}")
    return "_".join(names)


def command(config: DictConfig, *flags: str) -> str:
    """What a person typed, but for the output folder."""
    typed = []
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        # Paths were quoted for Hydra's grammar, see quote_path().
        is_path = override.key_or_group in PATHS and isinstance(override.value(), str)
        typed.append(f"{override.get_key_element()}={override.value()}" if is_path else override.input_line)
    return shlex.join(["python", "-m", "cxr.train", *flags, *typed])


def is_stopped(config: DictConfig) -> bool:
    """Whether a cell shall not begin any more: this process was asked to stop, or the sweep that it belongs to."""
    sweep = Path(config.hydra.sweep.dir) if config.hydra.mode == RunMode.MULTIRUN else None
    return bool(signals.asked() or (sweep and (sweep / STOP).exists()))


class KeepLeaderboard(Callback):
    """Writes what the README says of status.json and the leaderboard.

    The callback's attributes travel to the workers of every launcher, so `swept` and `launched_by` are known there too.
    """

    def __init__(self) -> None:
        self.swept: list[str] = []
        self.launched_by = 0
        self.command = ""
        self.started, self.written = 0.0, False  # when this cell began; whether its status.json is ours to write

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.launched_by = os.getpid()
        self.command = command(config, "-m")
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        search = asked_for(config.hydra, overrides)
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
        if is_done(folder) or is_stopped(config) or node(config.trainer):
            return
        choices = {"model": runtime.choices.model, "aug": runtime.choices.aug, "seed": config.seed}
        for option in self.swept:
            if option not in choices:
                value = runtime.choices[option] if option in runtime.choices else OmegaConf.select(config, option)
                choices[option] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        told = {"choices": choices, "started": self.started, "command": self.command or command(config)}
        # Where a run goes on, what was said of its beginning stays.
        told |= {key: value for key, value in read_json(folder / STATUS).items() if key in told}
        write_status(folder, "running", **told, diverged=False, job=slurm.job_id())
        self.written = True
        self.rewrite(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        # The property would raise it.
        error = None if job_return.status == JobStatus.COMPLETED else job_return._return_value
        said = isinstance(error, UserError | signals.Stopped)
        line = printable(" ".join(f"{error}".split()) if said else f"{type(error).__name__}: {error}".split("\n")[0])
        log = folder / f"{config.hydra.job.name}.log"
        if isinstance(error, signals.Stopped) and slurm.at_time_limit() and not node(config.trainer):
            with suppress(OSError):
                write_status(folder, "running", "at its time limit: goes on when Slurm starts its job again")
                self.rewrite(config)
            line = slurm.requeue()  # does not come back, unless that cannot be
        with suppress(OSError):  # a full disk, a folder that is gone: what can be said is said on the console
            if self.written:
                spent = read_json(folder / STATUS).get("seconds", 0) + time.time() - self.started
                told = {"seconds": round(spent, 2), "diverged": isinstance(error, Diverged)}
                write_status(folder, "failed" if error else "done", line if error else "", **told)
            if error and not isinstance(error, signals.Stopped):
                keep_traceback(log, error)
            self.rewrite(config)
        searches = is_search(config)
        if isinstance(error, signals.Stopped):  # no failure, of which Hydra would say its own words
            job_return.status, job_return.return_value = JobStatus.COMPLETED, Unfinished() if searches else None
        elif error and searches:
            # A sweeper that searches gets the worst score that there is of a recipe that diverged, and none of a trial
            # that failed: an error would be shown with Hydra's own words.
            diverged = isinstance(error, Diverged)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, 0.0 if diverged else None
        if error is None or isinstance(error, signals.Stopped):
            return
        if config.hydra.mode == RunMode.MULTIRUN:
            # Hydra keeps the error until the sweep ends, and with it all that its frames hold: the network, the images.
            traceback.clear_frames(error.__traceback__)
            gc.collect()
            print(f"cxr: {folder.name} failed: {line} (traceback in {log})", file=sys.stderr)
        elif isinstance(error, UserError):
            # Before Hydra adds lines of its own to the one that tells the user what to do.
            print(f"cxr: {line}", file=sys.stderr)
            raise SystemExit(1)

    def rewrite(self, config: DictConfig) -> None:
        """The leaderboard of the sweep that a cell belongs to."""
        if config.hydra.mode == RunMode.MULTIRUN:
            leaderboard.write(Path(config.hydra.sweep.dir))
