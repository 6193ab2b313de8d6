"""What a command line with hparams=optuna searches. No torch here, and no Optuna."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig

from cxr.errors import UserError
from cxr.options.grammar import parse
from cxr.options.rules import check_values

SWEEPER = ".SearchSweeper"
DATABASES = ("sqlite", "postgresql", "mysql")  # Optuna reads pickles from Redis, and a pickle is a program


@dataclass(frozen=True)
class Search:
    """The ranges and settings of a search."""

    space: Mapping[str, str]  # option -> its range as typed: interval(0.1,1.0), or 16,32
    fixed: Sequence[str]  # the words of all other options
    n_trials: int = 0
    storage: str | None = None
    study: str | None = None
    sampler: str = "tpe"
    seed: int = 0

    @property
    def options(self) -> list[str]:
        """The searched options, without + before those that are new to conf."""
        return [key.lstrip("+") for key in self.space]

    def samples(self, groups: Iterable[str]) -> list[list[str]]:
        """The words of a few trials that stand for all when options are checked: the first value of every range; then,
        for every searched choice of a group, its other values.

        Raises:
            UserError: a value at the ends of a range, or in a list, is not allowed.
        """
        first: dict[str, str] = {}
        others: list[tuple[str, str]] = []
        for key, text in self.space.items():
            override = parse(f"{key}={text}")
            if override.is_interval_sweep():
                values = [override.value().start, override.value().end]
                if values[0] > values[1]:
                    raise UserError(f"{key}={text}: write the lower end of a range first")
                words = [f"{key}={value}" for value in values]
            else:
                words = [f"{key}={value}" for value in override.sweep_string_iterator()]
            for word in words:
                if key not in groups:
                    check_values({key.lstrip("+"): value_of(word)})
            first[key] = words[0]
            others += [(key, word) for word in words[1:] if key in groups]
        base = [*self.fixed, *first.values()]
        return [base, *([*self.fixed, *(first | {key: word}).values()] for key, word in others)]


def value_of(word: str) -> Any:
    """The value of an override, such as 0.1 in optim.lr=0.1."""
    value = OverridesParser.create().parse_overrides([word])[0].value()
    return value.text if isinstance(value, QuotedString) else value


def search_from(config: DictConfig, overrides: Sequence[Override]) -> Search | None:
    """The search of a command line, None for a plain sweep.

    Args:
        config: options, Hydra's included.
        overrides: the words of the command line.

    Raises:
        UserError: a range without a search, or a search without ranges, or a range that is not allowed.
    """
    if not config.hydra.sweeper._target_.endswith(SWEEPER):
        if ranges := [o.input_line for o in overrides if o.is_interval_sweep()]:
            raise UserError(f"{ranges[0]}: a range needs a search: add hparams=optuna")
        return None
    typed = [o for o in overrides if not o.key_or_group.startswith("hydra.")]
    names = {o.key_or_group for o in typed}
    if "trial" in names:
        raise UserError("trial: a search numbers its trials itself; leave this option out")
    if ranges := [name for name in names if name.partition(".")[0] == "ranges"]:
        raise UserError(f"{ranges[0]}: give the option itself a range, such as optim.lr=interval(0.0001,0.01)")
    for key in config.ranges:
        if key.lstrip("+~").startswith("hydra") or "_target_" in key:  # the values of a range are not all checked
            raise UserError(f"ranges: a file cannot vary {key}; set it as an option instead")
    ranges = [parse(f"{key}={value}") for key, value in config.ranges.items()]
    every = [o for o in ranges if o.key_or_group not in names] + typed
    space = {o.get_key_element(): o.input_line.partition("=")[2] for o in every if o.is_sweep_override()}
    if not space:
        raise UserError("hparams=optuna: every option is fixed; give one a range, such as data.batch_size=16,32")
    if "model" in space and (of_model := [key for key in space if key.startswith("model.")]):
        raise UserError(f"model={space['model']}: not all have {of_model[0]}; search each network separately")
    if "seed" in space:
        raise UserError(f"seed={space['seed']}: a search uses one seed; the best of several would only be the luckiest")
    fixed = [o.input_line for o in [*every, *overrides] if not o.is_sweep_override()]
    return Search(space, list(dict.fromkeys(fixed)))


def with_settings(search: Search, config: DictConfig) -> Search:
    """A search with the settings of hparams=optuna."""
    names = ("n_trials", "storage", "study", "sampler", "seed")
    return replace(search, **{name: config[name] for name in names})


def checked_search(search: Search, run: DictConfig) -> Search:
    """A search with its settings, which any of its runs has.

    Raises:
        UserError: the search has no validation images, or its folder or database cannot be used.
    """
    search = with_settings(search, run)
    if run.data.val_fraction == 0:
        raise UserError("data.val_fraction=0: a search chooses by validation images; use a fraction above 0")
    name = run.hydra.sweep.subdir
    if len(name.encode()) > 200:  # other values may be longer; a file system takes 255
        raise UserError(f"the run folder's name would be too long ({name}): search fewer options")
    database = str(search.storage or "sqlite://").partition(":")[0].partition("+")[0]
    if database not in DATABASES:
        raise UserError(f"storage={search.storage}: must be null or the address of a database: {', '.join(DATABASES)}")
    if not search.storage and set("?{}%") & set(str(Path(run.hydra.sweep.dir).resolve())):
        raise UserError(f"{run.hydra.sweep.dir}: a database address cannot have ?, %, {{ or }}; choose another folder")
    return search
