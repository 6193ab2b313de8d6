"""python -m cxr.train: train one cell of the model × augmentation grid, or with -m all of them."""

import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cxr.errors import UserError
from cxr.files.run_folder import CONFIG, LOCK, METRICS, STATUS, STOP
from cxr.files.status import MEND, close_own, explained, is_done, read_status
from cxr.files.writing import read_json, write_text
from cxr.jobs import signals, slurm
from cxr.jobs.child_process import train_isolated
from cxr.jobs.exit_codes import fail
from cxr.jobs.hydra_callback import is_stopped
from cxr.options.command_line import CommandLine, compose_trial, prepare
from cxr.options.composing import CONF
from cxr.options.ranks import node, ranks
from cxr.options.search_space import is_search
from cxr.reporting import leaderboard
from cxr.search.study import Study


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def cell(config: DictConfig) -> float | None:
    """One cell: its options go to the run folder, then torch is imported and training begins.

    Returns:
        Macro F1 on the validation images, for sweepers that search for the best options; None where there are none.
    """
    hydra_config = HydraConfig.instance().cfg
    if is_stopped(hydra_config):
        raise signals.Stopped("the sweep was asked to stop")
    folder = Path(hydra_config.hydra.runtime.output_dir)
    if follower := node(config.trainer) > 0:
        wait_for(folder / STATUS)
    if not (folder / STATUS).exists():  # of what goes wrong in a callback, Hydra only warns
        raise UserError(f"{folder / STATUS}: could not be written; {MEND}")
    choices = read_json(folder / STATUS)["choices"]
    options = OmegaConf.to_container(config, resolve=True)
    if not (follower or is_done(folder)):
        with explained(folder):
            write_text(folder / CONFIG, OmegaConf.to_yaml({"choices": choices, **options}))
    arguments = options, choices, folder, hydra_config.hydra.runtime.choices.launcher != "basic"
    try:
        # Two trials of a search that are told the same share a folder, one after the other.
        with FileLock(folder / LOCK) if is_search(hydra_config) else nullcontext():
            isolated = options["isolate"] or ranks(options["trainer"]) > 1
            train_here_or_isolated(isolated, hydra_config, *arguments)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        signals.stop_if_asked()
        raise
    val = read_json(folder / METRICS).get("val")
    return val and val["f1_macro"]


def train_here_or_isolated(isolated: bool, hydra_config: DictConfig, *arguments: Any) -> None:
    """train_cell() with its arguments, in this process or in one of its own."""
    if isolated:
        train_isolated(OmegaConf.to_container(hydra_config.hydra.job_logging, resolve=True), *arguments)
        return
    from cxr.jobs.run import train_cell

    # What these imports made stays: the collector need not walk it again and again.
    if not gc.get_freeze_count():
        gc.freeze()
    train_cell(*arguments)


def main() -> None:
    """Exit codes: 0 all well, 1 a run failed, 2 wrong options, 128 + N stopped by the signal of that number."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to Hydra's own many lines
    logging.raiseExceptions = False  # where train.log cannot be written, nothing else can, and that is said
    with signals.listening():
        command = None
        try:
            command = prepare(sys.argv[1:], "config")
            sys.argv[1:] = command.argv
            with command.held, explained(command.folder or Path()):
                run(command)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Where a signal strikes, libraries make whatever error they like of it.
            if not signals.asked():
                if isinstance(error, UserError):
                    fail(error, 1 if command else 2)
                raise
        if signals.asked():
            end(command)


def run(command: CommandLine) -> None:
    """The cell or the sweep that a person asked for."""
    if not (command.multirun and command.folder) or command.follows:
        cell()
    elif command.launcher == "slurm":
        build_stores(command.cells)
        with slurm.watched(command.folder):
            sweep(command)
    elif command.launcher != "basic":
        with signals.patient(), signals.passed_on(partial(stop_cells, command.folder)):
            sweep(command)
    else:
        sweep(command)


def wait_for(path: Path, seconds: float = 300) -> None:
    """Give the first machine of a run the time to begin it."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        signals.stop_if_asked()
        time.sleep(0.2)


def build_stores(cells: Sequence[Mapping[str, Any]]) -> None:
    """Decode images here, once, before many jobs would wait for the first of them to do it."""
    from cxr.jobs.run import build_data

    seen: list[tuple[Any, Any]] = []
    for options in cells:
        if (wanted := (options["data"], options["cache_dir"])) not in seen:
            seen.append(wanted)
            build_data(options)


def stop_cells(folder: Path, number: int) -> None:
    """Let no more cells of a sweep begin, and give a signal to the processes of those that run."""
    (folder / STOP).touch()
    for path in folder.glob(f"*/{STATUS}"):
        told = read_status(path.parent)
        if told.get("status") == "running" and told["host"] == socket.gethostname():
            signals.send(told["pid"], number)


def end(command: CommandLine | None) -> NoReturn:
    """Say that we stopped because we were asked to, and how to go on."""
    name, how = signals.asked_by(), ""
    if command and command.folder:
        with suppress(OSError, UserError):  # a full disk too: what is done is on it
            close_own(command.folder, f"stopped by {name}")
            if command.multirun:
                leaderboard.write(command.folder)
        if jobs := slurm.running_jobs(command.folder):
            how = f"; Slurm's jobs {', '.join(jobs)} go on in {command.folder} (scancel stops them)"
            print(f"cxr: stopped by {name}{how}", file=sys.stderr)
            raise SystemExit(signals.exit_code())
        again = "" if command.named else f" with name={command.folder.name}"
        how = f"; what is done is in {command.folder}: the same command{again} goes on from there"
    print(f"cxr: stopped by {name}{how}", file=sys.stderr)
    raise SystemExit(signals.exit_code())


def sweep(command: CommandLine) -> None:
    """All cells, then the table that they were trained for, whatever happened on the way."""
    refused = False
    study = Study(command.search, command.folder) if command.search else None
    try:
        study.run(cell) if study else cell()
    except Exception as error:
        refused = isinstance(error, UserError)
        states = {row["status"] for row in leaderboard.collect(command.folder)}
        # Not a cell's error, which its log and the leaderboard hold; a search gets none of its cells' errors.
        if not (states & {"lost"} if study else refused or states & {"failed", "lost"}):
            raise
        if "lost" in states:  # of these nobody else tells why
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            print(f"cxr: {kind}{' '.join(str(error).split())[:200]}", file=sys.stderr)
    if signals.asked():
        return
    from cxr.reporting import (
        comparison,
        report,  # scipy.stats, matplotlib: not before they are needed
    )

    rows = leaderboard.write(command.folder)  # once more: cells side by side may have overtaken each other
    again = study.finish(compose_trial) if study else ""
    print(f"\n{leaderboard.head(command.folder, rows)}\n")
    for line in comparison.write(command.folder):
        print(f"- {line}")
    told = report.write(command.folder, command.lang)
    print(f"\nall runs: {command.folder / 'leaderboard.md'}" + (f", report: {told}" if told else ""))
    if study:  # which trials that failed do not spoil
        print(f"best options: {again}")
        return
    if refused or any(row["status"] in ("failed", "lost") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
