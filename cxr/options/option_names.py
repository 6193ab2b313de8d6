"""Whether an option that was typed exists, and which one was meant. No torch here."""

import ast
import difflib
import importlib.util
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from cxr.errors import UserError

# These hand arguments on to a constructor, so `+trainer.NAME=VALUE` may name some that conf does not.
OPEN = ("trainer", "model", "optim", "hydra")
# Arguments of the Trainer that a run sets itself.
OURS = {"logger", "callbacks", "plugins", "default_root_dir", "enable_checkpointing", "enable_progress_bar"}


def check_name(
    key: str, value: str, added: bool, names: Collection[str], find_owners: Callable[[], Sequence[str]]
) -> None:
    """Raise UserError for an option that does not exist.

    Args:
        key, value: as typed, without +.
        added: it was typed with a +.
        names: every option and group, such as optim.lr, optim and experiment.
        find_owners: returns the choices, such as data=folder, that have this option.
    """
    part, _, name = key.partition(".")
    if key in names or (added and part in OPEN and part != "trainer"):
        return
    if part == "trainer" and name in OURS:
        raise UserError(f"{key}={value}: cxr sets this argument of Lightning's Trainer itself")
    if part == "trainer" and name.split(".")[0] in trainer_arguments():
        if added:
            return
        raise UserError(f"{key}={value}: write +{key}={value} to pass this argument on to Lightning's Trainer")
    if owners := find_owners():
        raise UserError(f"{key}={value}: only with {' or '.join(owners)}")
    if part != "hydra":
        names = [name for name in names if not name.startswith("hydra")]
    passed_on = [f"+trainer.{name}" for name in trainer_arguments()]
    near = nearest(key, passed_on) if added else nearest(key, names) or nearest(key, passed_on)
    raise UserError(f"{key}={value}: no such option" + (f"; did you mean {near}?" if near else ", see --help"))


def nearest(key: str, candidates: Iterable[str]) -> str:
    """The candidate most similar to `key`, compared as a whole or by its last part; "" if there is none."""
    names = sorted(candidates, key=lambda name: (len(name), name))
    last_parts: dict[str, str] = {}
    for name in names:
        last_parts.setdefault(name.split(".")[-1], name)
    end = key.split(".")[-1]
    if end in last_parts:
        return last_parts[end]
    if close := difflib.get_close_matches(key, names, n=1):
        return close[0]
    if close := difflib.get_close_matches(end, list(last_parts), n=1):
        return last_parts[close[0]]
    return ""


def trainer_arguments() -> set[str]:
    """The arguments of Lightning's Trainer, read from its source: importing it would import torch."""
    package = importlib.util.find_spec("pytorch_lightning")
    source = Path(package.submodule_search_locations[0], "trainer", "trainer.py").read_text(encoding="utf-8")
    trainer = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    init = next(n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return {a.arg for a in [*init.args.args, *init.args.kwonlyargs]} - {"self"}
