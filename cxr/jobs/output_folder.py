"""Whether a used output folder can be gone on with: it is ours, nobody works in it, it was told the same. No torch."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxr.errors import UserError
from cxr.files.run_folder import CONFIG, LOCK, STATUS, STOP
from cxr.files.writing import read_json
from cxr.jobs import slurm
from cxr.options.rules import flatten

PATIENCE = 5  # seconds until a process that was killed has taken its children along
# What changes nothing in a run's figures.
FREE = ("name", "resume", "cache_dir", "n", "isolate", "report.lang", "data.num_workers", "data.resident")
FREE += ("n_trials", "storage", "study", "sampler", "pruner", "trial")  # of a search

# Options that runs of earlier versions know nothing of, and the values that do what these did.
LATER = {"data.copies": "auto", "data.sampler": "uniform", "loss.weights": "none"}

Options = Mapping[str, Any]


def occupy(folder: Path, multirun: bool, go_on: bool) -> ExitStack:
    """Make an output folder ours alone until the returned stack is closed, or this process ends.

    Args:
        go_on: whether it may hold an earlier process's work.

    Raises:
        UserError: it cannot be made, another process works in it, or it holds what cannot be gone on with.
    """
    stack = ExitStack()
    another = "choose another name=NAME, or move it away"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = [path for path in folder.iterdir() if path.name not in (LOCK, STOP)]
        kinds = {True: (folder / STATUS).exists(), False: any(folder.glob(f"*/{STATUS}"))}
        if used and kinds[multirun]:
            raise UserError(f"{folder}: holds {'one run' if multirun else 'a sweep'}; {another}")
        if used and not (go_on and (kinds[not multirun] or (folder / LOCK).exists())):
            raise UserError(f"{folder}: this folder is already used; {another}")
        # A cell of a sweep is also the sweep's.
        for place in (folder, *([folder.parent] if (folder.parent / LOCK).exists() else [])):
            lock = FileLock(place / LOCK)
            lock.acquire(timeout=PATIENCE)
            stack.callback(lock.release)
        slurm.check_free(folder)
        (folder / STOP).unlink(missing_ok=True)
        for path in (folder / STATUS, *folder.glob(f"*/{STATUS}")):
            read_json(path)  # a damaged one is said now, and not by a cell
    except UserError:
        stack.close()
        raise
    except Timeout as error:
        stack.close()
        raise UserError(f"{folder}: another process works in this folder; wait for it, or {another}") from error
    except OSError as error:
        stack.close()
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another name=NAME or folder") from error
    return stack


def check_options(folder: Path, cells: Mapping[str, Options], swept: Sequence[str]) -> None:
    """Raise UserError where runs in an output folder began with other options than they are given now.

    Args:
        cells: the options of each run, by its folder below `folder` ("." for a single run).
        swept: the options that the command varies. A run that it does not name any more must agree in all others, or
            the table would compare what differs in more than it says.
    """
    now = {name: dict(flatten(options)) for name, options in cells.items()}
    first = next(iter(now.values()))
    varied = {key for options in now.values() for key in {*options, *first} if options.get(key) != first.get(key)}
    for path in sorted(folder.glob(f"*/{CONFIG}" if "." not in cells else CONFIG)):
        name = path.parent.relative_to(folder).as_posix()
        before = LATER | dict(flatten(read_config(path)))
        options = now.get(name, first)
        differing = [
            key
            for key in sorted({*before, *options})
            if key not in FREE
            and not key.startswith("slurm.")
            and not key.startswith(("choices.", "ranges."))
            and before.get(key) != options.get(key)
            and (name in now or not (key in varied or any(key == s or key.startswith(f"{s}.") for s in swept)))
        ]
        if differing:
            key, more = differing[0], f" (and {len(differing) - 1} more differ)" if len(differing) > 1 else ""
            raise UserError(
                f"{path.parent}: began with {key}={said(before.get(key))}, now {said(options.get(key))}{more}; give "
                "the same options to go on, or another name=NAME"
            )


def said(value: Any) -> Any:
    return "null" if value is None else value


def read_config(path: Path) -> dict[str, Any]:
    """config.yaml of a run folder.

    Raises:
        UserError: it is damaged.
    """
    try:
        read = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(read, dict):
            raise ValueError("no options")
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: damaged; move its run folder away, to train that run again") from error
    return read
