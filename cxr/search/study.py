"""The trials of a search in Optuna's storage, and the search's files in the sweep's folder. No torch here.

Optuna is imported where it is needed, for it is an extra."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr.errors import UserError, with_type
from cxr.files.run_folder import SEARCH
from cxr.files.writing import read_json, write_json
from cxr.options.search_space import Search, value_of
from cxr.reporting.rows import Row, collect
from cxr.search.trial import storage_url

# Attributes of trials (the folder that runs it, by its token; one too many) and, the last, of a study.
BY, SURPLUS, SPACE = "cxr:by", "cxr:surplus", "cxr:space"
FEW = 8  # of fewer trials, importances are noise


class Study:
    """A search's trials in its storage, and its files in the folder of the sweep.

    Raises:
        UserError: the storage cannot be reached, or the search there began with other ranges.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        import optuna

        from cxr.search.sampler import SeededSampler

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.folder = search, folder
        self.place = f"storage={search.storage}" if search.storage else folder / "search.db"
        self.name = search.study or folder.name
        self.token = read_json(folder / SEARCH).get("token") or secrets.token_hex(8)
        try:
            self.storage = optuna.storages.get_storage(storage_url(search.storage, folder))
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                sampler=SeededSampler(search.sampler, search.seed),
                direction="maximize",
                load_if_exists=True,
            )
            first_space = self.study.user_attrs.get(SPACE)
            if first_space is None:
                self.study.set_user_attr(SPACE, dict(search.space))
        except Exception as error:  # each driver has its own
            raise UserError(f"{self.place}: this database cannot be used ({with_type(error)})") from error
        if first_space is not None:
            check_same_space(first_space, search.space)
        self.write_record()

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """A block that works in the storage. Raises UserError where the storage fails."""
        from optuna.exceptions import StorageInternalError

        try:
            yield
        except StorageInternalError as error:
            raise UserError(
                f"{self.place}: this database cannot be used any more ({with_type(error)}); repair it, then give the "
                "same command again to continue"
            ) from error

    def trials(self) -> list[Any]:
        """All trials but those that were one too many."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if not trial.user_attrs.get(SURPLUS)]

    def take_up_again(self) -> None:
        """Queue the trials that this folder's last process left unfinished: ask() returns them with the same values,
        and their run folders are resumed."""
        from optuna.trial import TrialState

        # Only in a storage of our own is a trial without a token ours: its process was killed as the trial began.
        default = "" if self.search.storage else self.token
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(BY, default) == self.token:
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)
                self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    @property
    def study_id(self) -> int:
        return self.storage.get_study_id_from_name(self.name)

    def ask(self, count: int) -> list[Any]:
        """Up to `count` trials to run now; none once the search has all its trials, here and on other machines."""
        from optuna.trial import TrialState

        from cxr.search.sampler import distributions

        space = distributions(self.search.space)
        trials: list[Any] = []
        while len(trials) < count:
            begun = [trial for trial in self.trials() if trial.state != TrialState.WAITING]
            if len(begun) >= self.search.n_trials:
                break
            trial = self.study.ask(space)
            if sum(other.number < trial.number for other in self.trials()) >= self.search.n_trials:
                trial.set_user_attr(SURPLUS, True)  # another machine was faster
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            trial.set_user_attr(BY, self.token)
            trials.append(trial)
        return trials

    def overrides(self, number: int, test: bool = False) -> list[str]:
        """The words for Hydra of a trial's run, or of the test of it."""
        params = self.params(self.study.get_trials(deepcopy=False)[number])
        return [*self.search.fixed, *params, f"trial={'null' if test else number}"]

    def params(self, trial: Any) -> list[str]:
        return [f"{option}={trial.params[option]}" for option in self.search.space]

    def tell(self, trial: Any, value: float | None, pruned: bool) -> None:
        """Record how a trial ended (value None: it failed), and print that with the best trial so far."""
        from optuna.trial import TrialState

        ended = TrialState.FAIL if value is None else TrialState.PRUNED if pruned else TrialState.COMPLETE
        self.study.tell(trial, value if ended == TrialState.COMPLETE else None, state=ended)
        score = "failed" if value is None else f"macro F1 {value:.4f} on validation images"
        best = self.best()
        print(
            f"trial {trial.number}: {score}{', pruned' if pruned else ''}"
            + (f"; best: {best.value:.4f}, trial {best.number}" if best else ""),
            flush=True,
        )

    def best(self) -> Any:
        """The complete trial with the highest value, the first of equals; None where there is none, or all diverged."""
        from optuna.trial import TrialState

        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE and trial.value > 0]
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)

    def untested_best(self) -> int | None:
        """The number of the best trial, where it is to be tested now and here."""
        from optuna.trial import TrialState

        best = self.best()
        if best is None:
            return None
        again = "give the same command again"
        if elsewhere := [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]:
            print(f"not tested yet: trial {elsewhere[0]} is running on another machine; {again} when it has ended")
        elif best.user_attrs.get(BY) != self.token:
            print(f"not tested yet: trial {best.number}, the best one, ran on another machine; {again} there")
        elif (row := self.row_of(best, collect(self.folder))) and row["f1_macro"] == "":
            return best.number
        return None

    def row_of(self, trial: Any, rows: Sequence[Row]) -> Row | None:
        """The leaderboard's row of a trial; None for one that ran on another machine."""
        params = plain_params(trial)
        return next((row for row in rows if params and all(row.get(k, k) == v for k, v in params.items())), None)

    def write_record(self) -> list[dict[str, Any]]:
        """Write search.json, and return its trials."""
        rows = collect(self.folder)
        trials = []
        for trial in self.trials():
            state, row = trial.state.name.lower(), self.row_of(trial, rows)
            record = {"number": trial.number, "state": state, "value": trial.value, "params": plain_params(trial)}
            trials.append(record | {"run": row["run"] if row else None})
        record = {"study": self.name, "token": self.token, "n_trials": self.search.n_trials, "trials": trials}
        write_json(self.folder / SEARCH, record | {"importances": self.importances()})
        return trials

    def importances(self) -> dict[str, float]:
        """The share of each option in the variance of the values (functional ANOVA, Hutter et al. 2014); the shares sum
        to 1. {} where trials are too few or all alike."""
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances
        from optuna.trial import TrialState

        values = [trial.value for trial in self.trials() if trial.state == TrialState.COMPLETE]
        if len(values) < FEW or len(set(values)) == 1:
            return {}
        return dict(get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0)))


def plain_params(trial: Any) -> dict[str, Any]:
    """The values of a trial as options have them, without + before those that are new to conf."""
    return {option.lstrip("+"): value_of(f"{option}={value}") for option, value in trial.params.items()}


def check_same_space(first: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UserError where a search continues with other ranges than it began with."""
    if first == now:
        return
    option = next(key for key in {**first, **now} if first.get(key) != now.get(key))
    raise UserError(
        f"{option}: this search began with {first.get(option, 'no range')}, now {now.get(option, 'no range')}; give "
        "the same ranges to continue, or another name=NAME"
    )
