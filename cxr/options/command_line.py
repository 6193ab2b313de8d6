"""From the command line to options, checked for every run before any starts. No torch here."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxr.errors import UserError, one_line
from cxr.options.allowed_hydra import check_folder
from cxr.options.composing import (
    CONF,
    Groups,
    check_choice,
    checked_run,
    compose_runs,
    config_groups,
    plain,
)
from cxr.options.every_value import ALL, Hospitals, compose_choices, spell_out
from cxr.options.grammar import expand, parse, quote, quote_path, swept
from cxr.options.ranks import meeting_point, node
from cxr.options.run_folder_name import run_folder_pattern
from cxr.options.search_space import SWEEPER, Search, checked_search, search_from


@dataclass(frozen=True)
class CommandLine:
    """A checked command line of cxr.train."""

    argv: list[str]  # for Hydra
    multirun: bool
    folder: Path | None = None  # the output folder; None: the command only prints
    lang: str = "en"  # of the report
    launcher: str = "basic"
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # options by folder below `folder`
    swept: Sequence[str] = ()  # the options that vary
    named: bool = False  # the user named the folder, so that the same words mean the same folder
    resume: bool = False  # the folder may hold an earlier process's work
    follows: bool = False  # another machine is the first of those that train this run, and owns the folder
    search: Search | None = None


def read_command(argv: Sequence[str], config_name: str, list_hospitals: Hospitals = lambda data: []) -> CommandLine:
    """Check the command line of cxr.train for every run that it asks for.

    Args:
        list_hospitals: see spell_out().

    Raises:
        UserError: an option of one of the runs is wrong.
    """
    # Hydra's parser takes no options after a flag, so options go last that quoting may have changed.
    words = sorted((quote_path(word) for word in argv), key=lambda word: word not in ("-m", "--multirun"))
    args = get_args_parser().parse_args(words)
    check_flags(args)
    if args.help or args.hydra_help or args.shell_completion:
        return CommandLine(words, False)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        if args.config_dir:
            check_folder(Path(args.config_dir))
        path = [f"hydra.searchpath=[{quote(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []
        groups = config_groups(path)
        overrides = [parse(text) for text in args.overrides]
        for override in overrides:
            check_choice(override, groups, args.multirun)
        name = args.config_name or config_name
        for all_values in (word for word in ALL if word in words):
            every = spell_out(all_values, name, [*overrides, *map(parse, path)], groups, args.multirun, list_hospitals)
            words = [every if word == all_values else word for word in words]
            overrides = [parse(every) if o.input_line == all_values else o for o in overrides]
        search = read_search(name, [*overrides, *map(parse, path)], groups) if args.multirun else None
        varied = search.options if search else swept(overrides)
        added = []
        if args.multirun and not any(o.key_or_group == "hydra.sweep.subdir" for o in overrides):
            added = [f'hydra.sweep.subdir="{run_folder_pattern(varied, list(groups))}"']
        texts = search.samples(groups) if search else expand(overrides)
        configs = [checked_run(name, [*text, *path, *added], groups) for text in texts]
    if search:
        search = checked_search(search, configs[0])
    elif configs[0].hydra.sweeper._target_.endswith(SWEEPER):  # chosen by a YAML file
        raise UserError("hparams: a search trains many runs, and needs -m: python -m cxr.train -m …")
    if args.info or args.cfg:
        return CommandLine(words, args.multirun)
    named = any(o.key_or_group in ("name", "hydra.run.dir", "hydra.sweep.dir") for o in overrides)
    return locate_output(
        CommandLine([*words, *added], args.multirun, swept=varied, named=named, search=search), configs
    )


def check_flags(args: Namespace) -> None:
    """Raise UserError for flags of Hydra that would bypass the checks of options."""
    if args.experimental_rerun:
        raise UserError("--experimental-rerun: cxr reads no pickle: it could run code; type that run's options instead")
    if args.config_path:  # Hydra would read it instead of conf
        raise UserError(f"--config-path {args.config_path}: write --config-dir DIR to add your own choices")
    if (args.help or args.hydra_help) and args.config_dir:  # Hydra would read unchecked files to set up its log
        raise UserError("--help: leave out --config-dir")
    if args.multirun and (args.cfg or args.info):
        raise UserError("--cfg, --info: these show one run; leave out -m")


def locate_output(command: CommandLine, configs: Sequence[DictConfig]) -> CommandLine:
    """Complete a command line with its output folder and the options of its runs.

    Raises:
        UserError: two runs would share a folder, or several machines could not.
    """
    first, kind = configs[0], "sweep" if command.multirun else "run"
    names = [config.hydra.sweep.subdir if command.multirun else "." for config in configs]
    check_distinct(names)
    options = [plain(config) for config in configs]
    trainer, launcher = options[0]["trainer"], first.hydra.runtime.choices.launcher
    if launcher != "slurm" and trainer.get("num_nodes", 1) > 1:
        meeting_point(trainer)
        if not command.named:
            raise UserError("trainer.num_nodes: needs name=NAME, or each machine would use a different folder")
    # The default folder holds the time of day: Hydra gets the one that was composed here.
    folder, option = Path(first.hydra[kind].dir), f"hydra.{kind}.dir="
    argv = [*(word for word in command.argv if not word.startswith(option)), option + quote(str(folder))]
    return replace(
        command,
        argv=argv,
        folder=folder,
        lang=first.report.lang,
        launcher=launcher,
        runs=dict(zip(names, options, strict=True)),
        resume=command.named and first.resume == "auto",
        follows=node(trainer) > 0,
    )


def read_runs(argv: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """The runs that a command line of cxr.train asks for, each as its choices (such as model: cnn) and its options.

    Raises:
        UserError: an option is wrong in one of the runs.
    """
    return [(dict(config.hydra.runtime.choices), plain(config)) for config in compose_runs(argv, multirun=True)]


def read_search(config_name: str, overrides: Sequence[Override], groups: Groups) -> Search | None:
    """The search that a sweep asks for, None where it asks for none. Raises UserError as search_from() does."""
    try:
        return search_from(compose_choices(config_name, overrides, groups), overrides)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(one_line(error)) from error


def compose_trial(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checked choices and options of one run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = config_groups([word for word in words if word.startswith("hydra.searchpath=")])
        config = checked_run("config", words, groups)
        return dict(config.hydra.runtime.choices), plain(config)


def read_options(argv: Sequence[str], config_name: str) -> dict[str, Any]:
    """The checked options of a command that has no sweeps and no run folder; prints its help and ends for --help.

    Raises:
        UserError: an option is wrong.
    """
    if any(word in ("-h", "--help") for word in argv):
        print((CONF / f"{config_name}.yaml").read_text(encoding="utf-8"), end="")
        raise SystemExit(0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [parse(quote_path(word)) for word in argv]
        for override in overrides:
            check_choice(override, {}, multirun=False)
        return plain(checked_run(config_name, [o.input_line for o in overrides], {}))


def check_distinct(folders: Sequence[str]) -> None:
    """Raise UserError where two runs of a sweep would share a run folder."""
    if twice := [folder for i, folder in enumerate(folders) if folder in folders[:i]]:
        raise UserError(f"two runs of this sweep would share the folder {twice[0]}: give each value only once")
