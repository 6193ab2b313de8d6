"""From what a person typed to options: checked for every cell before any starts, without importing torch."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxr.errors import UserError
from cxr.files.status import explained
from cxr.jobs.exit_codes import answering
from cxr.jobs.hydra_callback import run_folder_pattern, swept
from cxr.jobs.output_folder import check_options, occupy
from cxr.options.composing import (
    CONF,
    LOCAL,
    Groups,
    check_choice,
    check_images,
    checked_cell,
    compose_cells,
    config_groups,
    plain,
)
from cxr.options.grammar import expand, parse, quote, quote_path
from cxr.options.ranks import meeting_point, node
from cxr.options.search_space import Search, asked_for, checked


@dataclass(frozen=True)
class CommandLine:
    """A checked command line: the words for Hydra, and the folder that it will write to (None: it only prints)."""

    argv: list[str]
    multirun: bool
    folder: Path | None
    lang: str = "en"  # of the report
    launcher: str = "basic"
    runs: Sequence[Mapping[str, Any]] = ()  # the options of each
    named: bool = False  # its folder stands on it, so that the same words mean the same folder
    follows: bool = False  # this is not the first of the machines that a run trains on
    search: Search | None = None
    held: ExitStack = field(default_factory=ExitStack)  # close it, and others may work in the folder


def prepare(argv: Sequence[str], config_name: str) -> CommandLine:
    """Check the command line of a Hydra command for every cell that it asks for, and take its output folder.

    Raises:
        UserError: an option is wrong in one of the cells, or the output folder is used and cannot be gone on with.
    """
    # Hydra's own words come behind what was typed, where its parser takes none after a flag.
    words = sorted((quote_path(word) for word in argv), key=lambda word: word not in ("-m", "--multirun"))
    args = get_args_parser().parse_args(words)
    if args.experimental_rerun:
        raise UserError("--experimental-rerun: a pickle is a program, and is not read; give that run's options anew")
    if args.config_path:  # Hydra would put it in the place of conf, and of all that was checked
        raise UserError(f"--config-path {args.config_path}: write --config-dir DIR to add a folder of your own choices")
    if (args.help or args.hydra_help) and args.config_dir:  # Hydra reads what has not been checked, to set up its log
        raise UserError("--help: without --config-dir")
    if args.multirun and (args.cfg or args.info):
        raise UserError("--cfg, --info: show one cell, without -m")
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
            fixed.append(f'hydra.sweep.subdir="{run_folder_pattern(varied, list(groups))}"')
        texts = wanted.samples(groups) if wanted else expand(overrides)
        cells = [checked_cell(name, cell + fixed, groups) for cell in texts]
    check_images([cell for cell in cells if cell.data.source in LOCAL])
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
