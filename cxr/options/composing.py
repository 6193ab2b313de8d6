"""The options of runs, composed from conf and checked, one by one and together. No torch here."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxr.errors import UserError, one_line
from cxr.options.allowed_code import check_names
from cxr.options.allowed_hydra import check_word
from cxr.options.combinations import check_together
from cxr.options.grammar import expand, parse, quote_path, read_mappings
from cxr.options.option_names import check_name
from cxr.options.rules import FOLDER_NAME, check_missing, check_values, flatten
from cxr.options.timm_names import TARGET, check_timm

CONF = Path(__file__).parents[2] / "conf"

# Choices that need a package, which the extras of the same name install, and the module of each.
PLUGINS = {
    "launcher=parallel": ("hydra-joblib-launcher", "hydra_plugins.hydra_joblib_launcher"),
    "launcher=slurm": ("hydra-submitit-launcher", "hydra_plugins.hydra_submitit_launcher"),
    "hparams": ("optuna>=5", "optuna"),  # a user's own search may have any name
}

Groups = Mapping[str, Sequence[str]]


def config_groups(search: Sequence[str]) -> Groups:
    """The groups of choices: folders of conf and of a --config-dir, and the names in them."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.list_groups("")
    return {
        name: sorted(loader.get_group_options(name, ObjectType.CONFIG, config_name="config", overrides=list(search)))
        for name in names
        if name != "hydra"
    }


def check_choice(override: Override, groups: Groups, multirun: bool) -> None:
    """Raise UserError for a choice that a group does not have, or several values without -m."""
    key = override.key_or_group
    check_word(override)
    if override.is_sweep_override() and not multirun:
        raise UserError(f"{override.input_line}: several values need -m: python -m cxr.train -m {override.input_line}")
    if override.is_delete():
        raise UserError(f"{override.input_line}: options cannot be removed; set another value instead")
    if key not in groups:
        return
    typed = override.input_line.partition("=")[2]
    package = PLUGINS.get(key if key == "hparams" and typed != "none" else f"{key}={typed}")
    if package:
        check_plugin(f"{key}={typed}", *package, multirun)
    for value in override.sweep_string_iterator() if override.is_discrete_sweep() else [typed]:
        if value not in groups[key] and (key, typed) != ("experiment", "null"):
            raise UserError(f"{key}={value}: unknown; choose {' or '.join(groups[key])}")


def check_plugin(choice: str, package: str, module: str, multirun: bool) -> None:
    """Raise UserError if a choice is made without -m, or its package is missing."""
    if not multirun:
        raise UserError(f"{choice} is for several runs and needs -m: python -m cxr.train -m {choice} …")
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{choice} needs {package}: pip install {shlex.quote(package)}")
    if choice == "launcher=slurm" and not shutil.which("sbatch"):
        raise UserError("launcher=slurm: sbatch was not found; run the command on a machine of the cluster")


def compose_runs(argv: Sequence[str], multirun: bool, config_name: str = "config") -> list[DictConfig]:
    """The checked configs of all runs that a command asks for."""
    words = [quote_path(word) for word in argv]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = config_groups([])
        overrides = [parse(word) for word in words]
        for override in overrides:
            check_choice(override, groups, multirun)
        return [checked_run(config_name, texts, groups) for texts in expand(overrides)]


def checked_run(config_name: str, texts: Sequence[str], groups: Groups) -> DictConfig:
    """The options of one run, with Hydra's.

    Raises:
        UserError: an option is misspelt or its value is not allowed.
    """
    overrides = [parse(text) for text in texts]
    try:
        if any(o.is_add() or o.is_force_add() for o in overrides):  # Hydra would add an option that is misspelt
            check_option_names(config_name, overrides, groups)
        try:
            config = compose(config_name, list(texts), return_hydra_config=True)
        except HydraException:
            check_option_names(config_name, overrides, groups)  # with a message that suggests the right name
            raise
        read_mappings(config)
        check_missing(OmegaConf.to_container(config, resolve=False) | {"hydra": {}})  # before ${data.root} is followed
        check_code(config)
        options = plain(config)
        check_values(options)
        check_together(options)
        if options.get("model", {}).get("_target_") == TARGET:
            check_timm(options["model"])
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(one_line(error)) from error
    return config


def check_option_names(config_name: str, overrides: Sequence[Override], groups: Groups) -> None:
    """Raise UserError for an option that does not exist with the choices of a run."""
    choices = [o.input_line for o in overrides if o.key_or_group in groups or o.key_or_group == "hydra.searchpath"]
    base = OmegaConf.to_container(compose(config_name, choices, return_hydra_config=True), resolve=False)
    names = {*groups, *option_names(base)}
    for o in overrides:
        typed = o.value() if isinstance(o.value(), str) else o.input_line.partition("=")[2]
        check_name(o.key_or_group, typed, o.is_add() or o.is_force_add(), names, partial(owners, o, groups))


def check_code(config: DictConfig) -> None:
    """Raise UserError if options name code that they may not, or a run folder outside of the sweep's."""
    raw = OmegaConf.to_container(config, resolve=False)
    # Stand-ins for values that exist during a run only, so that every ${…} can be resolved and checked.
    raw["hydra"]["runtime"]["output_dir"] = "RUN"
    raw["hydra"]["job"] |= {"id": "0", "num": 0}
    resolved = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    subdir = resolved.pop("hydra")["sweep"]["subdir"]
    if subdir is not None and not re.fullmatch(FOLDER_NAME, str(subdir)):
        raise UserError(f"hydra.sweep.subdir={subdir}: must be the name of a folder, without slashes")
    check_names(resolved, "")


def plain(config: DictConfig) -> dict[str, Any]:
    """The options of a run without Hydra's, every ${…} resolved."""
    options = config.copy()  # still a part of its parent: it may refer to hydra.*
    OmegaConf.set_struct(options, False)
    options.pop("hydra")
    return OmegaConf.to_container(options, resolve=True)


def owners(override: Override, groups: Groups) -> list[str]:
    """The choices that have an option, such as data=folder for data.root, or launcher=parallel for n."""
    having = []
    for group, choices in groups.items():
        for choice in choices:
            file = CONF / group / f"{choice}.yaml"
            if not file.exists() or group == "experiment":  # experiments choose among options and define none
                continue
            part = "" if file.read_text(encoding="utf-8").startswith("# @package _global_") else f"{group}."
            names = option_names(read_choice(file))
            if override.key_or_group in (f"{part}{name}" for name in names):
                having.append(f"{group}={choice}")
    return having


def read_choice(file: Path) -> dict[str, Any]:
    """The options of a choice, with those of the files that its list of defaults takes in at the same place."""
    options = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    for entry in options.pop("defaults", []):
        name, here, _ = str(entry).partition("@_here_")
        options = (read_choice(file.parent / f"{name}.yaml") if here else {}) | options
    return options


def option_names(config: Mapping[str, Any]) -> set[str]:
    """Every option of a config and every part that holds some: optim.lr, optim."""
    names = {name for name, _ in flatten(config)}
    return names | {".".join(parts[:n]) for name in names if (parts := name.split(".")) for n in range(1, len(parts))}
