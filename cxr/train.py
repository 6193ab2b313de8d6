"""python -m cxr.train: train one run of the model × augmentation grid, or with -m a sweep of runs."""

import logging
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser

from cxr.errors import UserError, one_line, with_type
from cxr.files.run_folder import STATUS, STOP
from cxr.files.status import explained, mark_unfinished, read_status
from cxr.jobs import slurm
from cxr.jobs.exit_codes import fail
from cxr.jobs.output_folder import take_folder
from cxr.jobs.task import Task
from cxr.options.command_line import CommandLine, compose_trial, read_command
from cxr.options.composing import CONF
from cxr.reporting.leaderboard import overview, write_leaderboard
from cxr.search.recipe import write_recipe
from cxr.search.study import Study
from cxr.training import signals


def main() -> None:
    """Exit codes: 0 all well, 1 a run failed, 2 wrong options, 128 + N stopped by the signal of that number."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises errors instead of printing them
    logging.raiseExceptions = False  # a full disk is reported elsewhere, once
    with signals.listening():
        command = None
        try:
            checked = read_command(sys.argv[1:], "config", list_hospitals)
            if checked.runs:
                from cxr.data.precheck import check_images  # SciPy takes a second: not for --help

                check_images(checked.runs.values())
            with take_folder(checked):
                command = checked  # from here on, an error is the run's, not the options'
                with explained(command.folder or Path()):
                    launch(command, Task(command, sys.argv[1:]))
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Libraries turn the interrupt of a signal into errors of any type.
            if not signals.asked():
                if isinstance(error, UserError):
                    fail(error, 1 if command else 2)
                raise
        if signals.asked():
            end_stopped(command)


def list_hospitals(data: Mapping[str, Any]) -> Sequence[str]:
    """The hospitals of the images that the options `data.*` name; for data.hold_out=all."""
    from cxr.data import precheck

    return precheck.list_hospitals(data)


def launch(command: CommandLine, task: Task) -> None:
    """Train the run or the sweep of a command line, through its launcher; or print what it asks for."""
    if not (command.multirun and command.folder):
        run_hydra(command, task)
        if task.error:
            raise task.error
    elif command.launcher == "slurm":
        from cxr.jobs.slurm_launch import submitting  # submitit, an extra

        build_stores(command.runs.values())
        with submitting():
            sweep(command, task)
    elif command.launcher != "basic":
        with signals.patient(), signals.passed_on(partial(stop_runs, command.folder)):
            sweep(command, task)
    else:
        sweep(command, task)


def run_hydra(command: CommandLine, task: Task) -> None:
    """Call `task` for each run of a command. (hydra.main would read the words from sys.argv, as they were typed.)"""
    version.setbase("1.3")
    parser = get_args_parser()
    _run_hydra(parser.parse_args(command.argv), parser, task, str(CONF), "config")


def build_stores(runs: Iterable[Mapping[str, Any]]) -> None:
    """Decode each set of images once, before the jobs start and wait for each other."""
    from cxr.training.build import build_data

    built: list[tuple[Any, Any]] = []
    for options in runs:
        if (store := (options["data"], options["cache_dir"])) not in built:
            built.append(store)
            build_data(options)


def stop_runs(folder: Path, number: int) -> None:
    """Let no further run of a sweep begin, and pass a signal to the processes of those that are training."""
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
            mark_unfinished(command.folder, f"stopped by {name}")
            if command.multirun:
                write_leaderboard(command.folder)
        if jobs := slurm.running_jobs(command.folder):
            advice = f"; Slurm's jobs {', '.join(jobs)} continue in {command.folder} (scancel stops them)"
        else:
            again = "" if command.named else f" with name={command.folder.name}"
            advice = f"; completed work is in {command.folder}: the same command{again} resumes it"
    print(f"cxr: stopped by {name}{advice}", file=sys.stderr)
    raise SystemExit(signals.exit_code())


def sweep(command: CommandLine, task: Task) -> None:
    """Train all runs, then write the leaderboard and the report, even if some of them failed."""
    incomplete = False
    try:
        run_hydra(command, task)
    except (UserError, BrokenExecutor) as error:  # of the launcher or of the search: runs raise none
        # A launcher whose worker was killed does not say which run is lost: the leaderboard does.
        if command.search and isinstance(error, UserError):
            raise
        incomplete = True
        print(f"cxr: {one_line(error) if isinstance(error, UserError) else with_type(error)}", file=sys.stderr)
    if signals.asked():
        return
    rows = write_leaderboard(command.folder)  # once more: runs side by side may have overtaken each other
    best = write_recipe(Study(command.search, command.folder), compose_trial) if command.search else ""
    report_sweep(command, rows)
    if command.search:  # failed trials do not spoil a search
        print(f"best options: {best}")
    elif incomplete or any(row["status"] in ("failed", "lost") for row in rows):
        raise SystemExit(1)


def report_sweep(command: CommandLine, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the leaderboard and the comparisons of a sweep, and write its report."""
    from cxr.reporting.comparison import write_comparisons  # scipy.stats, matplotlib: not before they are needed
    from cxr.reporting.report import write_report

    lines = write_comparisons(command.folder)  # before the overview, which shows what it finds out about recipes
    print(f"\n{overview(command.folder, rows)}\n")
    for line in lines:
        print(f"- {line}")
    path = write_report(command.folder, command.lang)
    print(f"\nall runs: {command.folder / 'leaderboard.md'}" + (f", report: {path}" if path else ""))
    if path:
        print(f"a page that classifies images with them: python -m cxr.demo ckpt={command.folder}")


if __name__ == "__main__":
    main()
