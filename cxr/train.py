"""python -m cxr.train: train one run of the model × augmentation grid, or with -m a sweep of runs."""

import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
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
from cxr.jobs.hydra_callback import error_line, is_stopped
from cxr.jobs.output_folder import take_folder
from cxr.options.command_line import CommandLine, compose_trial, read_command
from cxr.options.composing import CONF
from cxr.options.ranks import node, ranks
from cxr.options.search_space import is_search
from cxr.reporting import leaderboard
from cxr.search.recipe import write_recipe
from cxr.search.study import Study
from cxr.search.trial import trial_of


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def train_run(config: DictConfig) -> dict[str, Any] | None:
    """Train one run: write its options to the run folder, then import torch and train.

    Returns:
        Of a trial of a search, its value (macro F1 on validation images) and whether it was pruned; else None.
    """
    hydra_config = HydraConfig.instance().cfg
    if is_stopped(hydra_config):
        raise signals.Stopped("the sweep was asked to stop")
    folder = Path(hydra_config.hydra.runtime.output_dir)
    if follower := node(config.trainer) > 0:
        wait_for(folder / STATUS)
    if not (folder / STATUS).exists():  # Hydra only warns of errors in callbacks
        raise UserError(f"{folder / STATUS}: could not be written; {MEND}")
    choices = read_json(folder / STATUS)["choices"]
    options = OmegaConf.to_container(config, resolve=True)
    trial = trial_of(config, Path(hydra_config.hydra.sweep.dir)) if is_search(hydra_config) else None
    if not (follower or is_done(folder, config.get("trial"))):
        with explained(folder):
            write_text(folder / CONFIG, OmegaConf.to_yaml({"choices": choices, **options}))
    arguments = options, choices, folder, hydra_config.hydra.runtime.choices.launcher != "basic", trial
    try:
        # Trials of a search with the same options share a folder, one after the other.
        with FileLock(folder / LOCK) if is_search(hydra_config) else nullcontext():
            isolated = options["isolate"] or ranks(options["trainer"]) > 1
            train_here_or_isolated(isolated, hydra_config, *arguments)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        signals.stop_if_asked()
        raise
    if not trial:
        return None
    metrics = read_json(folder / METRICS)
    return {"value": metrics["val"]["f1_macro"], "pruned": metrics["train"].get("pruned", False)}


def train_here_or_isolated(isolated: bool, hydra_config: DictConfig, *arguments: Any) -> None:
    """Call train_and_test() in this process, or in a child process."""
    if isolated:
        train_isolated(OmegaConf.to_container(hydra_config.hydra.job_logging, resolve=True), *arguments)
        return
    from cxr.jobs.run import train_and_test

    # Imported objects live until the end: the garbage collector need not walk them each time.
    if not gc.get_freeze_count():
        gc.freeze()
    train_and_test(*arguments)


def main() -> None:
    """Exit codes: 0 all well, 1 a run failed, 2 wrong options, 128 + N stopped by the signal of that number."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises errors instead of printing them
    logging.raiseExceptions = False  # a full disk is reported elsewhere, once
    with signals.listening():
        command = None
        try:
            checked = read_command(sys.argv[1:], "config")
            with take_folder(checked):
                command = checked  # from here on, an error is the run's, not the options'
                sys.argv[1:] = command.argv  # where hydra.main reads them
                with explained(command.folder or Path()):
                    launch(command)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Libraries turn the interrupt of a signal into errors of any type.
            if not signals.asked():
                if isinstance(error, UserError):
                    fail(error, 1 if command else 2)
                raise
        if signals.asked():
            end_stopped(command)


def launch(command: CommandLine) -> None:
    """Train the run or the sweep of a command line, through its launcher."""
    if not (command.multirun and command.folder) or command.follows:
        train_run()
    elif command.launcher == "slurm":
        build_stores(command.runs.values())
        with slurm.watched(command.folder):
            sweep(command)
    elif command.launcher != "basic":
        with signals.patient(), signals.passed_on(partial(stop_runs, command.folder)):
            sweep(command)
    else:
        sweep(command)


def wait_for(path: Path, seconds: float = 300) -> None:
    """Wait until the first machine of a run has begun it (its status.json is there), or time is up."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        signals.stop_if_asked()
        time.sleep(0.2)


def build_stores(runs: Iterable[Mapping[str, Any]]) -> None:
    """Decode each set of images once, before the jobs start and wait for each other."""
    from cxr.training.build import build_data

    built: list[tuple[Any, Any]] = []
    for options in runs:
        if (store := (options["data"], options["cache_dir"])) not in built:
            built.append(store)
            build_data(options)


def stop_runs(folder: Path, number: int) -> None:
    """Let no further run of a sweep begin, and pass a signal to the processes of those that train."""
    (folder / STOP).touch()
    for path in folder.glob(f"*/{STATUS}"):
        record = read_status(path.parent)
        if record.get("status") == "running" and record["host"] == socket.gethostname():
            signals.send(record["pid"], number)


def end_stopped(command: CommandLine | None) -> NoReturn:
    """Record that a signal stopped the command, print how to resume it, and exit with 128 + N."""
    name, advice = signals.asked_by(), ""
    if command and command.folder:
        with suppress(OSError, UserError):  # such as a full disk: completed work stays as it is
            close_own(command.folder, f"stopped by {name}")
            if command.multirun:
                leaderboard.write(command.folder)
        if jobs := slurm.running_jobs(command.folder):
            advice = f"; Slurm's jobs {', '.join(jobs)} go on in {command.folder} (scancel stops them)"
            print(f"cxr: stopped by {name}{advice}", file=sys.stderr)
            raise SystemExit(signals.exit_code())
        again = "" if command.named else f" with name={command.folder.name}"
        advice = f"; what is done is in {command.folder}: the same command{again} goes on from there"
    print(f"cxr: stopped by {name}{advice}", file=sys.stderr)
    raise SystemExit(signals.exit_code())


def sweep(command: CommandLine) -> None:
    """Train all runs, then write the leaderboard and the report, even if some of them failed."""
    refused = False
    try:
        train_run()
    except Exception as error:
        refused = isinstance(error, UserError)
        if not is_explained(error, command.folder, bool(command.search)):
            raise
    if signals.asked():
        return
    rows = leaderboard.write(command.folder)  # once more: runs side by side may have overtaken each other
    best = write_recipe(Study(command.search, command.folder), compose_trial) if command.search else ""
    report_sweep(command, rows)
    if command.search:  # failed trials do not spoil a search
        print(f"best options: {best}")
    elif refused or any(row["status"] in ("failed", "lost") for row in rows):
        raise SystemExit(1)


def is_explained(error: Exception, folder: Path, searches: bool) -> bool:
    """Whether the leaderboard explains an error that ended a sweep: runs failed or were lost. Prints the error if it is
    no run's own, which its log and the leaderboard hold."""
    rows = leaderboard.collect(folder)
    states, refused = {row["status"] for row in rows}, isinstance(error, UserError)
    # A search gets none of its runs' errors.
    if not (states & {"lost"} if searches else refused or states & {"failed", "lost"}):
        return False
    of_run = refused or signals.asked() or error_line(error) in [row["error"] for row in rows]
    if "lost" in states or not of_run:
        kind = "" if refused else f"{type(error).__name__}: "
        print(f"cxr: {kind}{' '.join(str(error).split())[:200]}", file=sys.stderr)
    return True


def report_sweep(command: CommandLine, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the leaderboard and the comparisons of a sweep, and write its report."""
    from cxr.reporting import comparison, report  # scipy.stats, matplotlib: not before they are needed

    print(f"\n{leaderboard.head(command.folder, rows)}\n")
    for line in comparison.write(command.folder):
        print(f"- {line}")
    path = report.write(command.folder, command.lang)
    print(f"\nall runs: {command.folder / 'leaderboard.md'}" + (f", report: {path}" if path else ""))


if __name__ == "__main__":
    main()
