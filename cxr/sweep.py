"""What Hydra calls around the cells of a sweep: it keeps status.json and the leaderboard. No torch here."""

import gc
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cxr.errors import UserError, printable
from cxr.overrides import PATHS
from cxr.parent import end_with_parent
from cxr.results import leaderboard
from cxr.results.run_folder import keep_traceback, write_status


def folder_text(value: Any) -> str:
    """An option's value as a part of a folder's name: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-") or "empty"


OmegaConf.register_new_resolver("folder_text", folder_text, replace=True)


def swept(overrides: Sequence[Override]) -> list[str]:
    """The options that a sweep varies, in the order of the command line."""
    return [o.key_or_group for o in overrides if o.is_sweep_override()]


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


class KeepLeaderboard(Callback):
    """Writes what the README says of status.json and the leaderboard.

    The callback's attributes travel to the workers of every launcher, so `swept` and `launched_by` are known there too.
    """

    def __init__(self) -> None:
        self.swept: list[str] = []
        self.launched_by = 0
        self.command = ""
        self.started = 0.0

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.launched_by = os.getpid()
        self.command = command(config, "-m")
        self.swept = swept(OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)))

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self.started = time.time()
        runtime = config.hydra.runtime
        if runtime.choices.launcher == "parallel":
            end_with_parent(self.launched_by)
        choices = {"model": runtime.choices.model, "aug": runtime.choices.aug, "seed": config.seed}
        for option in self.swept:
            if option not in choices:
                value = runtime.choices[option] if option in runtime.choices else OmegaConf.select(config, option)
                choices[option] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        said = self.command or command(config)
        write_status(Path(runtime.output_dir), "running", choices=choices, started=self.started, command=said)
        self.rewrite(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        seconds = round(time.time() - self.started, 2)
        if job_return.status == JobStatus.COMPLETED:
            write_status(folder, "done", seconds=seconds)
            self.rewrite(config)
            return
        error = job_return._return_value  # the property would raise it
        line = printable(
            " ".join(f"{error}".split())
            if isinstance(error, UserError)
            else f"{type(error).__name__}: {error}".split("\n")[0]
        )
        log = folder / f"{config.hydra.job.name}.log"
        keep_traceback(log, error)
        write_status(folder, "failed", line, seconds=seconds)
        self.rewrite(config)
        if config.hydra.mode == RunMode.MULTIRUN:
            # Hydra keeps the error until the sweep ends, and with it all that its frames hold: the network, the films.
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
