"""data.fold=all and data.hold_out=all, spelt out for Hydra: a run for each fold or hospital. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxr.errors import UserError, one_line
from cxr.options.composing import Groups, plain
from cxr.options.grammar import quote
from cxr.options.rules import RULES

ALL = {"data.fold=all": "fold", "data.hold_out=all": "hospital"}  # and what each trains a run for
Hospitals = Callable[[Mapping[str, Any]], Sequence[str]]


def spell_out(
    word: str, config_name: str, overrides: Sequence[Override], groups: Groups, multirun: bool, hospitals: Hospitals
) -> str:
    """A word of ALL with a value for each run, such as data.fold=0,1,2,3,4.

    Args:
        hospitals: lists those of the images that the options `data.*` name.

    Raises:
        UserError: without -m, or where the values cannot be known.
    """
    if not multirun:
        raise UserError(f"{word}: trains a run for each {ALL[word]}, and needs -m: python -m cxr.train -m {word} …")
    option = word.partition("=")[0]
    others = {o.key_or_group for o in overrides if o.key_or_group.startswith("data.")} - {option}
    try:
        data = plain(compose_choices(config_name, overrides, groups, *others))["data"]
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(one_line(error)) from error
    if option == "data.hold_out":
        values = [quote(name) for name in hospitals(data)]
    elif RULES["data.folds"].holds(data["folds"]):
        values = map(str, range(data["folds"]))
    else:
        raise UserError(f"data.folds={data['folds']}: must be {RULES['data.folds'].allowed}")
    return f"{option}={','.join(values)}"


def compose_choices(config_name: str, overrides: Sequence[Override], groups: Groups, *more: str) -> DictConfig:
    """The config with a command's choices alone, and its values for the options `more`."""
    chosen = [
        o.input_line
        for o in overrides
        if not o.is_sweep_override() and (o.key_or_group in (*groups, *more) or "hydra" in o.key_or_group)
    ]
    return compose(config_name, chosen, return_hydra_config=True)
