"""Whether a used output folder can be resumed: no other process works in it, and its options are the same. No torch."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxr.errors import UserError, counted
from cxr.files.run_folder import CONFIG, LOCK, STATUS, STOP
from cxr.files.writing import read_json
from cxr.jobs import slurm
from cxr.options.command_line import CommandLine
from cxr.options.rules import flatten

PATIENCE = 5  # seconds; the children of a killed process end, and release their locks, in less
# Options that do not change a run's results.
FREE = ("name", "resume", "cache_dir", "n", "isolate", "report.lang", "data.num_workers", "data.resident")
FREE += ("n_trials", "storage", "study", "sampler", "pruner", "trial")  # of a search

ANOTHER = "choose another name=NAME, or move it away"

Options = Mapping[str, Any]


def take_folder(command: CommandLine) -> ExitStack:
    """Lock the output folder of a command until the returned stack is closed; see occupy() and check_options()."""
    with ExitStack() as stack:
        if command.folder and not command.follows:
            stack.enter_context(occupy(command.folder, command.multirun, command.resume))
            check_options(command.folder, command.runs, command.swept)
        return stack.pop_all()


def occupy(folder: Path, multirun: bool, resume: bool) -> ExitStack:
    """Make an output folder and lock it until the returned stack is closed, or this process ends.

    Args:
        resume: whether the folder may hold an earlier process's work.

    Raises:
        UserError: it cannot be made, another process works in it, or it holds something that cannot be resumed.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_contents(folder, multirun, resume)
            # A run of a sweep belongs to the sweep too.
            for place in (folder, *([folder.parent] if (folder.parent / LOCK).exists() else [])):
                lock = FileLock(place / LOCK)
                lock.acquire(timeout=PATIENCE)
                stack.callback(lock.release)
            slurm.check_free(folder)
            (folder / STOP).unlink(missing_ok=True)
            for path in (folder / STATUS, *folder.glob(f"*/{STATUS}")):
                read_json(path)  # reports a damaged file before any run starts
        except Timeout as error:
            raise UserError(f"{folder}: another process is working in it; wait, or {ANOTHER}") from error
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be created ({error.strerror}); choose another name=NAME or folder"
            ) from error
        return stack.pop_all()


def check_contents(folder: Path, multirun: bool, resume: bool) -> None:
    """Raise UserError where an output folder holds another kind of work, or any that may not be resumed."""
    if not [path for path in folder.iterdir() if path.name not in (LOCK, STOP)]:
        return
    has_run, has_sweep = (folder / STATUS).exists(), any(folder.glob(f"*/{STATUS}"))
    if has_run if multirun else has_sweep:
        raise UserError(f"{folder}: holds {'one run' if multirun else 'a sweep'}; {ANOTHER}")
    if not (resume and (has_run or has_sweep or (folder / LOCK).exists())):
        raise UserError(f"{folder}: this folder is already used; {ANOTHER}")


def check_options(folder: Path, runs: Mapping[str, Options], swept: Sequence[str]) -> None:
    """Raise UserError where runs in an output folder began with other options than they have now.

    Args:
        runs: the options of each run, by its folder below `folder` ("." for a single run).
        swept: the options that the command varies. A run that the command no longer names must agree in all others:
            the leaderboard would otherwise compare runs that differ in more than it shows.
    """
    now = {name: dict(flatten(options)) for name, options in runs.items()}
    first = next(iter(now.values()))
    varied = {key for options in now.values() for key in {*options, *first} if options.get(key) != first.get(key)}

    def may_vary(key: str) -> bool:
        return key in varied or any(key == option or key.startswith(f"{option}.") for option in swept)

    for path in sorted(folder.glob(f"*/{CONFIG}" if "." not in runs else CONFIG)):
        name = path.parent.relative_to(folder).as_posix()
        before, options = dict(flatten(read_config(path))), now.get(name, first)
        differing = [
            key
            for key in sorted({*before, *options})
            if key not in FREE
            and not key.startswith(("slurm.", "choices.", "ranges."))
            and before.get(key) != options.get(key)
            and (name in now or not may_vary(key))
        ]
        if differing:
            key, more = (
                differing[0],
                f" (and {counted(len(differing) - 1, 'other option')})" if len(differing) > 1 else "",
            )
            raise UserError(
                f"{path.parent}: began with {key}={as_typed(before.get(key))}, now {as_typed(options.get(key))}{more}; "
                "give the same options to resume, or another name=NAME"
            )


def as_typed(value: Any) -> Any:
    """A value as it stands on a command line."""
    return "null" if value is None else value


def read_config(path: Path) -> dict[str, Any]:
    """config.yaml of a run folder.

    Raises:
        UserError: it is damaged.
    """
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(config, dict):
            raise ValueError("no options")
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: damaged; move its run folder away, to train that run again") from error
    return config
