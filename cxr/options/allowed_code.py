"""Which code a `_target_` may name: YAML files and checkpoints are data, not programs."""

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.utils import _locate  # the look-up of instantiate(): what is checked is what it will call

from cxr.errors import UserError, one_line

# An environment variable: neither a YAML file nor a checkpoint can set it.
TRUST = "CXR_TRUST"
NETWORKS = ("cxr.models", "torch.nn", "torch.optim", "torchvision.models", "torchvision.ops")
# Functions of these may be called too, not only classes: of torch.nn's some set hooks for the whole process.
MAKERS = ("cxr.models", "torchvision.models")


def check_names(options: Any, where: str, allowed: Sequence[str] = NETWORKS) -> None:
    """Raise UserError for a `_target_` at any depth whose dotted name does not begin with an allowed one. Imports
    nothing."""
    for key, name in entries(options, where):
        if key.rsplit(".", 1)[-1] == "_target_" and not (is_name(name) and below(name, (*allowed, *trusted()))):
            refuse(key, name, allowed)


def check_objects(options: Any, where: str) -> None:
    """Raise UserError for a `_target_` at any depth that is not a class of networks or optimizers, nor a function that
    makes them. The module that defines it must be allowed: a module's names also lead to all that it imports."""
    from torch import nn, optim

    check_names(options, where)
    for key, name in entries(options, where):
        if isinstance(name, str) and "${" in name:  # instantiate() would follow it to an unchecked value
            raise UserError(f"{key}={one_line(name, 120)}: ${{…}} is not followed here; write the value itself")
        if key.rsplit(".", 1)[-1] != "_target_":
            continue
        target, home = locate(key, name)
        makes = below(home, MAKERS) and inspect.isfunction(target) and "." not in target.__qualname__
        is_part = inspect.isclass(target) and issubclass(target, nn.Module | optim.Optimizer)
        public = not any(part.startswith("_") for part in name.split("."))
        if not below(home, trusted()) and not (below(home, NETWORKS) and public and (makes or is_part)):
            refuse(key, name, NETWORKS)


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
    """Whether this is a dotted name and not, for example, an interpolation."""
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
        raise UserError(f"{key}={name}: cannot be imported ({one_line(error, 120)})") from error
    return target, str(getattr(target, "__module__", None) or "")


def refuse(key: str, name: Any, allowed: Sequence[str]) -> None:
    raise UserError(
        f"{key}={one_line(name, 120)}: options may name parts of {', '.join(allowed)} only; "
        f"set the environment variable {TRUST}=PACKAGE if this code is yours, or you trust it"
    )
