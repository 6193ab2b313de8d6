"""From what a person typed to options: checked for every cell before any starts, without importing torch."""

import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxr.data.sources import check_screened, read_local
from cxr.data.split import group_films, split_films
from cxr.ending import answering
from cxr.errors import UserError
from cxr.options import check_name, check_together, check_values, flatten
from cxr.overrides import expand, parse, quote, quote_path
from cxr.ranks import meeting_point, node
from cxr.results.run_folder import explained
from cxr.resume import check_options, occupy
from cxr.search import Search, asked_for, checked
from cxr.sweep import cell_folder, swept
from cxr.targets import check_hydra, check_names
from cxr.timm_names import TARGET, check_timm

CONF = Path(__file__).parents[1] / "conf"

# What a package does not work with, though it does not say so.
ALONG = {"hydra-optuna-sweeper": " 'sqlalchemy<2' 'alembic<1.14'"}
# Choices that are packages for Hydra, which the extras of the same name install.
PLUGINS = {
    "launcher=parallel": "hydra-joblib-launcher",
    "launcher=slurm": "hydra-submitit-launcher",
    "hparams": "hydra-optuna-sweeper",  # whatever a user's own search is called
}

LOCAL = ("folder", "table")  # sources that can be read before anything starts

Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class CommandLine:
    """A checked command line: the words for Hydra, and the folder that it will write to (None: it only prints)."""

    argv: list[str]
    multirun: bool
    folder: Path | None
    lang: str = "en"  # of the report
    launcher: str = "basic"
    cells: Sequence[Mapping[str, Any]] = ()  # the options of each
    named: bool = False  # its folder stands on it, so that the same words mean the same folder
    follows: bool = False  # this is not the first of the machines that a run trains on
    search: Search | None = None
    held: ExitStack = field(default_factory=ExitStack)  # close it, and others may work in the folder


def prepare(argv: Sequence[str], config_name: str) -> CommandLine:
    """Check the command line of a Hydra command for every cell that it asks for, and take its output folder.

    Raises:
        UserError: an option is wrong in one of the cells, or the output folder is used and cannot be gone on with.
    """
    words = [quote_path(word) for word in argv]
    args = get_args_parser().parse_args(words)
    if args.experimental_rerun:
        raise UserError("--experimental-rerun: a pickle is a program, and is not read; give that run's options anew")
    if args.config_path:  # Hydra would put it in the place of conf, and of all that was checked
        raise UserError(f"--config-path {args.config_path}: write --config-dir DIR to add a folder of your own choices")
    if (args.help or args.hydra_help) and args.config_dir:  # Hydra reads what has not been checked, to set up its log
        raise UserError("--help: without --config-dir")
    if args.help or args.hydra_help or args.shell_completion:
        return CommandLine(words, False, None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        search = [f"hydra.searchpath=[{quote(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []
        groups = config_groups(search)
        overrides = [parse(text) for text in args.overrides]
        for override in overrides:
            check_choice(override, groups, args.multirun)
        name, fixed = args.config_name or config_name, list(search)
        wanted = read_search(name, [*overrides, *map(parse, search)], groups) if args.multirun else None
        varied = wanted.options if wanted else swept(overrides)
        if args.multirun and not any(o.key_or_group == "hydra.sweep.subdir" for o in overrides):
            fixed.append(f'hydra.sweep.subdir="{cell_folder(varied, list(groups))}"')
        texts = wanted.samples(groups) if wanted else expand(overrides)
        cells = [checked_cell(name, cell + fixed, groups) for cell in texts]
    check_films([cell for cell in cells if cell.data.source in LOCAL])
    if wanted:
        wanted = checked(wanted, cells[0])
    elif cells[0].hydra.sweeper._target_.endswith(".OptunaSweeper"):  # chosen by a YAML file
        raise UserError("hparams: a search trains many cells, and needs -m: python -m cxr.train -m …")
    if args.info or args.cfg:
        return CommandLine(words, args.multirun, None)
    kind = "sweep" if args.multirun else "run"
    folder = Path(cells[0].hydra[kind].dir)
    names = [cell.hydra.sweep.subdir if args.multirun else "." for cell in cells]
    check_distinct(names)
    named = any(o.key_or_group in ("name", "hydra.run.dir", "hydra.sweep.dir") for o in overrides)
    trainer, launcher = plain(cells[0])["trainer"], cells[0].hydra.runtime.choices.launcher
    if launcher != "slurm" and trainer.get("num_nodes", 1) > 1:
        meeting_point(trainer)
        if not named:
            raise UserError("trainer.num_nodes: needs name=NAME, or each machine would have a folder of its own")
    follows = node(trainer) > 0
    held = ExitStack() if follows else occupy(folder, args.multirun, named and cells[0].resume == "auto")
    try:
        if not follows:
            check_options(folder, dict(zip(names, map(plain, cells), strict=True)), varied)
    except UserError:
        held.close()
        raise
    # The folder holds the time of day: Hydra is told ours, so that both mean the same.
    words = [word for word in words if not word.startswith(f"hydra.{kind}.dir=")]
    words += [*fixed[len(search) :], f"hydra.{kind}.dir={quote(str(folder))}"]
    options, lang = [plain(cell) for cell in cells], cells[0].report.lang
    return CommandLine(words, args.multirun, folder, lang, launcher, options, named, follows, wanted, held)


def read_cells(argv: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """The cells that a command line of cxr.train asks for, each as its choices (such as model: cnn) and its options.

    Raises:
        UserError: an option is wrong in one of the cells.
    """
    return [(dict(cell.hydra.runtime.choices), plain(cell)) for cell in compose_cells(argv, multirun=True)]


def run_single(work: Callable[[dict[str, Any], Path], None], usage: str, config_name: str = "config") -> None:
    """Be a command that has one run folder and no sweeps: `work` gets the checked options and the folder, which a
    failure leaves only if something lies in it. Prints `usage` for --help; exit codes as in the README."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(usage)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with answering():
        (cell,) = compose_cells(sys.argv[1:], False, config_name)
        folder = Path(cell.hydra.run.dir)
        reserve(folder)
        try:
            with explained(folder):
                work(plain(cell), folder)
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def compose_cells(argv: Sequence[str], multirun: bool, config_name: str = "config") -> list[DictConfig]:
    """Every cell that some options of a command ask for, checked."""
    words = [quote_path(word) for word in argv]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = config_groups([])
        overrides = [parse(word) for word in words]
        for override in overrides:
            check_choice(override, groups, multirun)
        cells = [checked_cell(config_name, texts, groups) for texts in expand(overrides)]
    check_films([cell for cell in cells if cell.data.source in LOCAL and "split" in cell.data])
    return cells


def read_search(config_name: str, overrides: Sequence[Override], groups: Groups) -> Search | None:
    """The search that a sweep asks for, None where it asks for none. Raises UserError as asked_for() does."""
    chosen = [
        o for o in overrides if not o.is_sweep_override() and (o.key_or_group in groups or "hydra" in o.key_or_group)
    ]
    try:
        config = compose(config_name, [o.input_line for o in chosen], return_hydra_config=True)
        return asked_for(config.hydra, overrides)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(" ".join(str(error).split())) from error


def compose_trial(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The choices and the options of the cell that some words ask for, checked."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = config_groups([word for word in words if word.startswith("hydra.searchpath=")])
        cell = checked_cell("config", words, groups)
        return dict(cell.hydra.runtime.choices), plain(cell)


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
        return plain(checked_cell(config_name, [o.input_line for o in overrides], {}))


def config_groups(search: Sequence[str]) -> Groups:
    """What can be chosen: the folders of conf and of a --config-dir, and the names in them."""
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
    if key == "hydra.searchpath" and "pkg:" in override.input_line:
        raise UserError(f"{override.input_line}: imports a package to look for YAML files; write file://DIR")
    if override.is_sweep_override() and not multirun:
        raise UserError(f"{override.input_line}: several values need -m: python -m cxr.train -m {override.input_line}")
    if override.is_delete():
        raise UserError(f"{override.input_line}: nothing can be taken out; set another value instead")
    if key not in groups:
        return
    typed = override.input_line.partition("=")[2]
    package = PLUGINS.get(key if key == "hparams" and typed != "none" else f"{key}={typed}")
    if package:
        check_plugin(f"{key}={typed}", package, multirun)
    for value in override.sweep_string_iterator() if override.is_discrete_sweep() else [typed]:
        if value not in groups[key] and (key, typed) != ("experiment", "null"):
            raise UserError(f"{key}={value}: unknown; choose {' or '.join(groups[key])}")


def check_plugin(choice: str, package: str, multirun: bool) -> None:
    """Raise UserError where a choice is made without -m, or its package is not there."""
    if not multirun:
        raise UserError(f"{choice}: is for several cells, and needs -m: python -m cxr.train -m {choice} …")
    if importlib.util.find_spec(f"hydra_plugins.{package.replace('-', '_')}") is None:
        raise UserError(f"{choice} needs {package}: pip install {package}" + ALONG.get(package, ""))
    if choice == "launcher=slurm" and not shutil.which("sbatch"):
        raise UserError("launcher=slurm: there is no sbatch here; give the command on a machine of the cluster")


def checked_cell(config_name: str, texts: Sequence[str], groups: Groups) -> DictConfig:
    """The options of one cell, Hydra's own included.

    Raises:
        UserError: an option is misspelt or its value is not allowed.
    """
    overrides = [parse(text) for text in texts]
    chosen = [o.input_line for o in overrides if o.key_or_group in groups or o.key_or_group == "hydra.searchpath"]
    try:
        base = OmegaConf.to_container(compose(config_name, chosen, return_hydra_config=True), resolve=False)
        known = {*groups, *option_names(base)}
        for o in overrides:
            typed = o.value() if isinstance(o.value(), str) else o.input_line.partition("=")[2]
            check_name(o.key_or_group, typed, o.is_add() or o.is_force_add(), known, owners(o, groups))
        config = compose(config_name, list(texts), return_hydra_config=True)
        check_code(config)
        options = plain(config)
        check_values(options)
        check_together(options)
        if options.get("model", {}).get("_target_") == TARGET:
            check_timm(options["model"])
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(" ".join(str(error).split())) from error
    return config


def check_code(config: DictConfig) -> None:
    """Raise UserError for options that name code which they may not, or would write outside of the run folder."""
    raw = OmegaConf.to_container(config, resolve=False)
    # What only a run knows, so that every ${…} can be followed: none hides anything from the check.
    raw["hydra"]["runtime"]["output_dir"] = "RUN"
    raw["hydra"]["job"] |= {"id": "0", "num": 0}
    told = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    check_hydra(told.pop("hydra"))
    check_names(told, "")


def plain(config: DictConfig) -> dict[str, Any]:
    """A cell's own options, without Hydra's, to which they may still point."""
    own = config.copy()
    OmegaConf.set_struct(own, False)
    own.pop("hydra")
    return OmegaConf.to_container(own, resolve=True)


def owners(override: Override, groups: Groups) -> list[str]:
    """The choices that have an option, such as data=folder for data.root, or launcher=parallel for n."""
    found = []
    for group, choices in groups.items():
        for choice in choices:
            file = CONF / group / f"{choice}.yaml"
            if not file.exists():
                continue
            part = "" if file.read_text(encoding="utf-8").startswith("# @package _global_") else f"{group}."
            if override.key_or_group in (f"{part}{name}" for name in OmegaConf.load(file)):
                found.append(f"{group}={choice}")
    return found


def option_names(config: Mapping[str, Any]) -> set[str]:
    """Every option of a config and every part that holds some: optim.lr, optim."""
    names = {name for name, _ in flatten(config)}
    return names | {".".join(parts[:n]) for name in names if (parts := name.split(".")) for n in range(1, len(parts))}


def check_films(cells: Sequence[DictConfig]) -> None:
    """Raise UserError for a folder of films that cannot be read, split or screened as the cells ask. (What follows from
    copies among the films is known once they are decoded.)"""
    wheres, hows = ("source", "root", "table"), ("split", "split_seed", "test_fraction", "val_fraction", "on_leak")
    asked = {(tuple(cell.data.get(key) for key in wheres), tuple(cell.data[key] for key in hows)) for cell in cells}
    tables = {where: read_local(dict(zip(wheres, where, strict=True))) for where, _ in asked}
    groups = {where: group_films(films.patient) for where, films in tables.items()}
    for where, how in asked:
        split_films(tables[where], groups[where], *how)
    for cell in cells:
        check_screened(cell.screen["class"], tables[tuple(cell.data.get(key) for key in wheres)].classes)


def check_distinct(folders: Sequence[str]) -> None:
    """Raise UserError where two cells of a sweep would share a run folder."""
    if twice := [folder for i, folder in enumerate(folders) if folder in folders[:i]]:
        raise UserError(f"two cells of this sweep would share the folder {twice[0]}: name each value once")


def reserve(folder: Path) -> None:
    """Make the output folder; one that holds anything is never used again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another name=NAME or folder") from error
    if used:
        raise UserError(f"{folder}: this folder is already used; choose another name=NAME, or move it away")
