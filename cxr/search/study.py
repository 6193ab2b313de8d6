"""A search at work: its trials in Optuna's storage, how it goes on, and what it leaves. No torch here; Optuna is
imported where it is needed, for it is an extra."""

import logging
import secrets
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from cxr.errors import UserError
from cxr.files.run_folder import SEARCH
from cxr.files.writing import read_json, write_json, write_text
from cxr.jobs import signals
from cxr.options.grammar import quote
from cxr.options.search_space import Search, value_of
from cxr.reporting import leaderboard

BEST = Path("experiment", "best.yaml")
BY, SURPLUS, SPACE = "cxr:by", "cxr:surplus", "cxr:space"  # attributes of trials and, the last, of a study
FEW = 8  # of fewer trials, importances are noise
# Options of how a command runs, which are no part of a recipe.
OWN = ("name", "resume", "cache_dir", "isolate", "n", "slurm", "n_trials", "storage", "study", "report")


class Full(Exception):
    """The search has all its trials."""


class Here:
    """What this process searches; Hydra makes the sampler, and hands it nothing of this."""

    token: ClassVar[str] = ""
    n_trials: ClassVar[int] = 0


def shown(error: Exception) -> str:
    """What a database's driver says, in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split("\n")[0].split())[:160]


def counted(trials: Iterable[Any]) -> list[Any]:
    """The trials of a study without those that were one too many."""
    return [trial for trial in trials if not trial.user_attrs.get(SURPLUS)]


class Study:
    """A search's trials in its storage, and its files in the folder of the sweep.

    Raises:
        UserError: the storage cannot be reached, or the search there began with other ranges.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # It lists every option of every trial, and a storage's address with its password.
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.search, self.folder = search, folder
        self.url = search.storage or f"sqlite:///{(folder / 'search.db').resolve()}"
        self.where = f"storage={search.storage}" if search.storage else folder / "search.db"
        self.name = search.study or folder.name
        Here.n_trials, Here.token = search.n_trials, read_json(folder / SEARCH).get("token") or secrets.token_hex(8)
        try:
            self.storage = optuna.storages.get_storage(self.url)
            self.study = optuna.create_study(
                storage=self.storage, study_name=self.name, direction="maximize", load_if_exists=True
            )
            began = self.study.user_attrs.get(SPACE)
            if began is None:
                self.study.set_user_attr(SPACE, dict(search.space))
        except Exception as error:  # the drivers' own kinds
            raise UserError(f"{self.where}: this database cannot be used ({shown(error)})") from error
        if began not in (None, dict(search.space)):
            key = next(k for k in {**began, **search.space} if began.get(k) != search.space.get(k))
            raise UserError(
                f"{key}: this search began with {began.get(key, 'no range')}, now "
                f"{search.space.get(key, 'no range')}; give the same ranges to go on, or another name=NAME"
            )
        self.write()

    def trials(self) -> list[Any]:
        return counted(self.study.get_trials(deepcopy=False))

    def left(self) -> int:
        """How many trials are left to begin here, those that this folder's last process left unfinished included: they
        wait again, with the same values, and their run folders go on."""
        from optuna.trial import TrialState

        others = 0
        for trial in self.trials():
            # A storage of our own has none of others, whose trials bear no name for a moment when they begin.
            by = trial.user_attrs.get(BY, "" if self.search.storage else Here.token)
            if trial.state == TrialState.RUNNING and by == Here.token:
                self.storage.set_trial_state(trial._trial_id, TrialState.WAITING)
            else:
                others += trial.state != TrialState.WAITING
        return self.search.n_trials - others

    def run(self, sweep: Callable[[], Any]) -> None:
        """Call a Hydra command, which takes its words from sys.argv, until the search has all its trials."""
        from optuna.exceptions import StorageInternalError

        words = list(sys.argv)
        while (left := self.left()) > 0:
            sys.argv = [*words, f"hydra.sweeper.n_trials={left}", f"hydra.sweeper.study_name={quote(self.name)}"]
            sys.argv.append(f"hydra.sweeper.storage={quote(self.url)}")
            try:
                sweep()
            except Full:  # other machines were faster
                continue
            except StorageInternalError as error:
                raise UserError(
                    f"{self.where}: this database cannot be used any more ({shown(error)}); mend it, then give the "
                    "same command again: it goes on from there"
                ) from error
            except KeyboardInterrupt:  # of a trial that was stopped, see cxr.jobs.hydra_callback.Unfinished
                if signals.asked():
                    raise
            except ValueError:  # the sweeper looks for the best one, and there may be none
                if self.best() or self.left() > 0:
                    raise

    def best(self) -> Any:
        """The trial with the highest value, the first of equals; None where none was completed, or all diverged."""
        values = [trial for trial in self.trials() if trial.values and trial.value > 0]
        return max(values, key=lambda trial: (trial.value, -trial.number), default=None)

    def write(self) -> dict[str, Any]:
        """Write search.json, and return what it says."""
        rows = leaderboard.collect(self.folder)
        trials = [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "params": {key.lstrip("+"): value_of(f"{key}={value}") for key, value in trial.params.items()},
            }
            for trial in self.trials()
        ]
        for trial in trials:
            # Of trials on other machines there is none.
            own = [row["run"] for row in rows if all(row.get(k, k) == v for k, v in trial["params"].items())]
            trial["run"] = own[0] if own and trial["params"] else None
        told = {"study": self.name, "token": Here.token, "n_trials": self.search.n_trials, "trials": trials}
        told["importances"] = self.importances()
        write_json(self.folder / SEARCH, told)
        return told

    def importances(self) -> dict[str, float]:
        """The share of each option in what a random forest explains of the values (mean decrease in impurity; Optuna's
        functional ANOVA of this version fails with today's NumPy); {} where trials are too few or all alike."""
        from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

        values = [trial.value for trial in self.trials() if trial.values]
        if len(values) < FEW or len(set(values)) == 1:
            return {}
        return dict(get_param_importances(self.study, evaluator=MeanDecreaseImpurityImportanceEvaluator(seed=0)))

    def finish(self, compose_cell: Callable[[Sequence[str]], tuple[dict[str, Any], dict[str, Any]]]) -> str:
        """Write search.json and best.yaml, and return the command that trains the best options again.

        Args:
            compose_cell: from words to the choices and the options of the cell that they ask for.

        Raises:
            UserError: no trial was completed.
        """
        found, best = self.write(), self.best()
        if not best:
            raise UserError(f"{self.folder}: every trial failed or diverged, so there is no best one")
        words = [f"{key}={value}" for key, value in best.params.items()]
        run = next(trial["run"] for trial in found["trials"] if trial["number"] == best.number)
        choices, options = compose_cell([*self.search.fixed, *words])
        own = {key: value for key, value in options.items() if key not in OWN}
        groups = [key for key in choices if "/" not in key and key not in ("experiment", "hparams", "launcher")]
        defaults = [{f"override /{group}": choices[group]} for group in sorted(groups)]
        again = shlex.join(["python", "-m", "cxr.train", "--config-dir", str(self.folder), "experiment=best"])
        said = (
            "# @package _global_\n"
            f"# Trial {best.number}, the best of {len(found['trials'])} of the search {self.name}:\n"
            f"# macro F1 {best.value:.4f} on validation images. Nothing was chosen on test images.\n"
            f"# Its run: {run or 'on another machine'}\n"
            f"# To train it again: {again}\n"
        )
        (self.folder / BEST).parent.mkdir(exist_ok=True)
        text = yaml.safe_dump({"defaults": defaults, **own}, sort_keys=False, allow_unicode=True)
        write_text(self.folder / BEST, said + text)
        return again
