"""Where Optuna looks next: values that depend on the seed and the number of the trial alone, in few digits.

Also the one place that Optuna's sweeper passes through between trials, so here trials are claimed, counted and told of.
Needs the extra `optuna`.
"""

import zlib
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, DiscreteUniformDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cxr.search.study import BY, SURPLUS, Full, Here, counted

DIGITS = 3


class SeededTPE(BaseSampler):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), drawn anew for every value: a search that was
    stopped goes on as if it never was, and machines that share a search do not draw the same values twice.

    Args:
        seed: of all draws.
        options: those of optuna.samplers.TPESampler.
    """

    def __init__(self, seed: int, **options: Any) -> None:
        self.seed, self.options = seed, options

    def tpe(self, trial: FrozenTrial, name: str = "") -> TPESampler:
        return TPESampler(seed=zlib.crc32(f"{self.seed} {trial.number} {name}".encode()), **self.options)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Called once when a trial begins. Raises Full where the search has all its trials."""
        storage = study._storage  # as in Optuna's own samplers
        earlier = [t for t in counted(study.get_trials(deepcopy=False)) if t.number < trial.number]
        if len(earlier) >= Here.n_trials:
            storage.set_trial_user_attr(trial._trial_id, SURPLUS, True)
            storage.set_trial_state(trial._trial_id, TrialState.FAIL)
            raise Full
        storage.set_trial_user_attr(trial._trial_id, BY, Here.token)
        return self.tpe(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        found = self.tpe(trial).sample_relative(study, trial, search_space)
        return {name: rounded(value, search_space[name]) for name, value in found.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        found = self.tpe(trial, param_name).sample_independent(study, trial, param_name, param_distribution)
        return rounded(found, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: list[float] | None) -> None:
        """Say how a trial ended and which one is the best so far."""
        values_now = [(t.value, t.number) for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        if values:
            values_now.append((values[0], trial.number))
        best = max(values_now, key=lambda pair: (pair[0], -pair[1]), default=None)
        said = f"macro F1 {values[0]:.4f} on validation images" if values else "failed"
        print(f"trial {trial.number}: {said}" + (f"; best: {best[0]:.4f}, trial {best[1]}" if best else ""), flush=True)


def rounded(value: Any, distribution: BaseDistribution) -> Any:
    """A float in few digits, as it stands in a folder's name, within its range; anything else as it is."""
    if not isinstance(value, float) or isinstance(distribution, CategoricalDistribution):
        return value
    digits = 12 if isinstance(distribution, DiscreteUniformDistribution) else DIGITS  # 0.30000000000000004 is 0.3
    return min(max(float(f"{value:.{digits}g}"), distribution.low), distribution.high)
