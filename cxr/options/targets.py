"""Which code options may name: YAML files and checkpoints are data, and no `_target_` makes programs of them."""

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.utils import _locate  # the very look-up of instantiate(): what is checked is what it will call
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper

from cxr.errors import UserError
from cxr.options.rules import FOLDER_NAME

# An environment variable: neither a YAML file nor a checkpoint can set it.
TRUST = "CXR_TRUST"
NETWORKS = ("cxr.models", "torch.nn", "torch.optim", "torchvision.models", "torchvision.ops")
# Functions of these may be called too, not only classes: of torch.nn's some set hooks for the whole process.
MAKERS = ("cxr.models", "torchvision.models")
HYDRA = ("cxr.jobs.hydra_callback", "hydra._internal.core_plugins", "hydra.experimental", "hydra_plugins")
# What a log may be made of: logging calls any name that it is given, with any arguments.
LOGGING = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "colorlog.ColoredFormatter")
SHELL = ("setup", "additional_parameters")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def check_names(options: Any, where: str, allowed: Sequence[str] = NETWORKS) -> None:
    """Raise UserError for a `_target_` at any depth whose dotted name does not begin with an allowed one. Imports
    nothing."""
    for key, name in entries(options, where):
        if key.rsplit(".", 1)[-1] == "_target_" and not (is_name(name) and below(name, (*allowed, *trusted()))):
            refuse(key, name, allowed)


def check_objects(options: Any, where: str) -> None:
    """Raise UserError for a `_target_` at any depth that is neither a class of networks or optimizers nor a function
    that makes them, defined where it may be: from an allowed module, names lead on to all that it imports."""
    from torch import nn, optim

    check_names(options, where)
    for key, name in entries(options, where):
        if isinstance(name, str) and "${" in name:  # instantiate() would follow it, to what nobody has looked at
            raise UserError(f"{key}={shown(name)}: ${{…}} is not followed here; write the value itself")
        if key.rsplit(".", 1)[-1] != "_target_":
            continue
        target, home = locate(key, name)
        makes = below(home, MAKERS) and inspect.isfunction(target) and "." not in target.__qualname__
        is_part = inspect.isclass(target) and issubclass(target, nn.Module | optim.Optimizer)
        public = not any(part.startswith("_") for part in name.split("."))
        if not below(home, trusted()) and not (below(home, NETWORKS) and public and (makes or is_part)):
            refuse(key, name, NETWORKS)


def check_hydra(hydra: Mapping[str, Any]) -> None:
    """Raise UserError where Hydra's own options would call what is no part of Hydra, set the environment, or write
    outside of the run folder.

    Args:
        hydra: all of `hydra.*` as it will be in the run, every ${…} followed.
    """
    for key, name in entries(hydra, "hydra"):
        if key.rsplit(".", 1)[-1] == "_target_":
            check_names({"_target_": name}, key.removesuffix("._target_"), HYDRA)
            target, home = locate(key, name)
            is_part = inspect.isclass(target) and issubclass(target, Callback | Launcher | Sweeper)
            if not below(home, trusted()) and not (below(home, HYDRA) and is_part):
                refuse(key, name, HYDRA)
    job, log = hydra["job"], f"{hydra['runtime']['output_dir']}/{hydra['job']['name']}.log"
    for part in ("job_logging", "hydra_logging"):
        for key, value in entries(hydra[part], f"hydra.{part}"):
            last = key.rsplit(".", 1)[-1]
            if (
                (last in ("()", "class") and value not in LOGGING)
                or (last == "filename" and value != log)
                or (str(value).startswith("ext://") and value not in STREAMS)
            ):
                raise UserError(f"{key}={shown(value)}: logs go to the console and to the log in the run folder only")
    for key, value in (
        ("hydra.job.name", job["name"]),
        ("hydra.output_subdir", hydra["output_subdir"]),
        ("hydra.sweep.subdir", hydra["sweep"]["subdir"]),
    ):
        if value is not None and not re.fullmatch(FOLDER_NAME, str(value)):
            raise UserError(f"{key}={shown(value)}: must be the name of a folder, without slashes")
    typed = [text.partition("=")[0].lstrip("+") for text in hydra["overrides"]["hydra"]]
    for name in SHELL:  # of a batch script
        if hydra["launcher"].get(name) and f"hydra.launcher.{name}" not in typed:
            raise UserError(f"hydra.launcher.{name}: is given to a shell, and not taken from a file; type it yourself")
    if job["env_set"]:
        raise UserError("hydra.job.env_set: options set no environment variables; set them in your shell")
    for key in hydra["sweeper"].get("params") or {}:
        if key.lstrip("+~").startswith("hydra") or "_target_" in key:  # Hydra adds them after all checks
            raise UserError(f"hydra.sweeper.params: {shown(key)} is not varied from a file; write it out as an option")


def entries(options: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(model.net.0._target_, torch.nn.Linear), … for every value at any depth, in lists too."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            name = f"{where}.{key}" if where else str(key)
            yield from [(name, value)] if key == "_target_" else entries(value, name)
    elif isinstance(options, Sequence) and not isinstance(options, str | bytes):
        for number, value in enumerate(options):
            yield from entries(value, f"{where}.{number}")
    else:
        yield where, options


def is_name(name: Any) -> bool:
    """Whether this is a dotted name, and not an interpolation, say."""
    return isinstance(name, str) and bool(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name))


def below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def trusted() -> tuple[str, ...]:
    """The packages that CXR_TRUST names."""
    return tuple(name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip())


def locate(key: str, name: str) -> tuple[Any, str]:
    """The object of a name, and the module that defines it.

    Raises:
        UserError: there is none.
    """
    try:
        target = _locate(name)
    except Exception as error:  # whatever its module raises
        raise UserError(f"{key}={name}: cannot be imported ({shown(error)})") from error
    return target, str(getattr(target, "__module__", None) or "")


def refuse(key: str, name: Any, allowed: Sequence[str]) -> None:
    raise UserError(
        f"{key}={shown(name)}: options may name parts of {', '.join(allowed)} only; "
        f"set the environment variable {TRUST}=PACKAGE if this code is yours, or you trust it"
    )


def shown(value: Any) -> str:
    """A value in one line."""
    return " ".join(str(value).split())[:120]
