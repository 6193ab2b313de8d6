"""Which values a trial gets: they depend on the seed, the trial's number and the trials that ended before it."""

import zlib
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from cxr.options.grammar import parse

DIGITS = 3
SAMPLERS = {"tpe": TPESampler, "random": RandomSampler}


class SeededSampler(BaseSampler):
    """One of Optuna's samplers, seeded for every value: a stopped search continues as if it had never stopped, and
    machines that share a search draw different values.

    Args:
        name: tpe (tree-structured Parzen estimator, Bergstra et al. 2011) or random.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed

    def seeded(self, trial: FrozenTrial, option: str = "") -> BaseSampler:
        return SAMPLERS[self.name](seed=zlib.crc32(f"{self.seed} {trial.number} {option}".encode()))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.seeded(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        values = self.seeded(trial).sample_relative(study, trial, search_space)
        return {option: rounded(value, search_space[option]) for option, value in values.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self.seeded(trial, param_name).sample_independent(study, trial, param_name, param_distribution)
        return rounded(value, param_distribution)


def rounded(value: Any, distribution: BaseDistribution) -> Any:
    """A float in few digits, within its range, since folders are named by it; any other value unchanged."""
    if not isinstance(value, float) or isinstance(distribution, CategoricalDistribution):
        return value
    digits = 12 if distribution.step else DIGITS  # 0.30000000000000004 is 0.3
    return min(max(float(f"{value:.{digits}g}"), distribution.low), distribution.high)


def distributions(space: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Optuna's form of the ranges in `Search.space`. The values of a list stay as they were typed."""
    return {option: distribution(option, text) for option, text in space.items()}


def distribution(option: str, text: str) -> BaseDistribution:
    override = parse(f"{option}={text}")
    sweep = override.value()
    if override.is_interval_sweep():
        low, high, step, log = sweep.start, sweep.end, None, "log" in sweep.tags
    elif isinstance(sweep, RangeSweep) and not sweep.shuffle:
        values = sorted(sweep.range())
        low, high, step, log = values[0], values[-1], abs(sweep.step), False
    else:
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)
