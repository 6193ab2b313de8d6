"""One word of a command line, such as optim.lr=0.1,0.2, in Hydra's grammar; paths and patterns are quoted for it."""

import itertools
import os
import re
from collections.abc import Sequence

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cxr.errors import UserError

# Their values are taken literally: Hydra's grammar refuses many characters that file names have.
PATTERNS = ("data.patient_pattern", "data.label_pattern")
MAPPINGS = ("data.classes", "data.columns", "data.rows", "data.split_lists", "data.table")
BEYOND_HYDRA = re.compile(r"[^\w \-+/.:*{}\[\],'\"|\\$]", re.ASCII)  # what names in its mappings may not hold
PATHS = (
    *("ckpt", "source", "out", "heatmaps", "name", "data.root", "data.table"),
    *("cache_dir", "hydra.run.dir", "hydra.sweep.dir"),
)


def quote_path(word: str) -> str:
    """Quote the value of an option that is a path or a pattern, so that Hydra takes it as it was typed; and mark a
    mapping, such as data.classes={A: B}, as one that may have new keys (++): they join those of the choice data=….
    One with names that Hydra cannot read, such as Korean ones, is quoted whole, for read_mappings()."""
    key, equals, value = word.partition("=")
    if key in MAPPINGS and value.startswith("{"):
        return f"{key}={quote(value)}" if BEYOND_HYDRA.search(value) else f"++{word}"
    if key == "data.hold_out" and not re.search("['\"]", value):  # names of hospitals, of which several make a sweep
        names = [quote(name) if BEYOND_HYDRA.search(name) else name for name in value.split(",")]
        return f"{key}={','.join(names)}"
    literal = key.lstrip("+") in PATHS or (key == "model.weights" and os.path.exists(os.path.expanduser(value)))
    literal = literal or (key in PATTERNS and value != "null")
    return f"{key}={quote(value)}" if equals and value and literal else word


def quote(text: str) -> str:
    """A text in quotes, so that Hydra's grammar takes it whole and ${ refers nowhere."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return "'" + escaped.replace("${", "\\${") + "'"


def read_mappings(config: DictConfig) -> None:
    """Turn mappings that quote_path() quoted into what they say, in place. Raises UserError if they cannot be read."""
    for key in MAPPINGS:
        text = OmegaConf.select(config, key, throw_on_resolution_failure=False)
        if isinstance(text, str) and text.startswith("{"):
            try:
                OmegaConf.update(config, key, yaml.safe_load(text), merge=False, force_add=True)
            except yaml.YAMLError as error:
                raise UserError(f"{key}={text}: cannot be read; put names with , : or * in quotes") from error


def parse(text: str) -> Override:
    """One override, as Hydra reads it."""
    try:
        return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides([text])[0]
    except HydraException as error:
        path = f" (a path needs its option, such as ckpt={text})" if "=" not in text and os.path.exists(text) else ""
        raise UserError(f"{text}: is not option=value, or has characters that need quotes{path}") from error


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
