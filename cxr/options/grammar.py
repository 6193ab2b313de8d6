"""One word of a command line, such as optim.lr=0.1,0.2, in Hydra's grammar; paths and patterns are quoted for it."""

import itertools
import os
import re
from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from cxr.errors import UserError

# Their values are taken literally: Hydra's grammar refuses many characters that file names have.
PATTERNS = ("data.patient_pattern", "data.label_pattern")
MAPPINGS = ("data.classes", "data.columns", "data.rows", "data.split_lists", "data.table")
PATHS = ("ckpt", "source", "out", "name", "data.root", "data.table", "cache_dir", "hydra.run.dir", "hydra.sweep.dir")


def quote_path(word: str) -> str:
    """Quote the value of an option that is a path or a pattern, so that Hydra takes it as it was typed; and mark a
    mapping, such as data.classes={A: B}, as one that may have new keys (++): they join those of the choice data=…."""
    key, equals, value = word.partition("=")
    if key in MAPPINGS and value.startswith("{"):
        return f"++{word}"
    literal = key.lstrip("+") in PATHS or (key == "model.weights" and os.path.exists(os.path.expanduser(value)))
    literal = literal or (key in PATTERNS and value != "null")
    return f"{key}={quote(value)}" if equals and value and literal else word


def quote(text: str) -> str:
    """A text in quotes, so that Hydra's grammar takes it whole and ${ refers nowhere."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return "'" + escaped.replace("${", "\\${") + "'"


def parse(text: str) -> Override:
    """One override, as Hydra reads it."""
    try:
        return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides([text])[0]
    except HydraException as error:
        raise UserError(f"{text}: is not option=value, or has characters that need quotes") from error


def expand(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each run, as Hydra's basic sweeper will combine them. A range has no list of values, and is left
    out."""
    lists = {}
    for o in overrides:
        if o.is_discrete_sweep():
            lists[o.get_key_element()] = [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        elif not o.is_sweep_override():
            lists[o.get_key_element()] = [o.input_line]
    return [list(texts) for texts in itertools.product(*lists.values())]


def swept(overrides: Sequence[Override]) -> list[str]:
    """The options that a sweep varies, in the order of the command line."""
    return [o.key_or_group for o in overrides if o.is_sweep_override()]
