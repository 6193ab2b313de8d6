"""Hydra's sweeper of hparams=optuna: it asks Optuna for trials, has the launcher run them, and reports the results.

No torch here, and no Optuna before a search begins, for it is an extra.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cxr.errors import UserError
from cxr.files.status import Outcome
from cxr.options.search_space import search_from, with_settings
from cxr.search.study import Study
from cxr.search.trial import why_no_pruning


class SearchSweeper(Sweeper):
    """Runs trials until the search has all of them, then tests the best run.

    Args:
        max_batch_size: trials side by side; the next ones begin when all of these have ended.
        params: of Hydra's basic sweeper, unused.
    """

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        self.batch_size = max_batch_size or 1
        self.jobs = 0  # that the launcher was given so far

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Raises UserError where the storage cannot be used or the final test failed, and any error of the launcher."""
        search = with_settings(search_from(self.config, self.parser.parse_overrides(arguments)), self.config)
        if reason := why_no_pruning(self.config):
            print(reason, flush=True)
        study = Study(search, Path(self.config.hydra.sweep.dir))
        with study.reachable():
            study.take_up_again()
            while trials := study.ask(self.batch_size):
                outcomes = self.launch([study.overrides(trial.number) for trial in trials])
                for trial, outcome in zip(trials, outcomes, strict=True):
                    if outcome.state != "stopped":
                        study.tell(trial, outcome.score, outcome.state == "pruned")
                study.write_record()
                if any(outcome.state == "stopped" for outcome in outcomes):
                    return  # these trials stay unfinished, and the same command resumes them
            if (number := study.untested_best()) is not None:
                (outcome,) = self.launch([study.overrides(number, test=True)])
                if outcome.state == "failed":  # with the error printed and in train.log already
                    raise UserError(f"trial {number} is the best one, but its test failed; give the same command again")

    def launch(self, overrides: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run trials through the launcher, and return how they ended."""
        results = self.launcher.launch(overrides, initial_job_idx=self.jobs)
        self.jobs += len(overrides)
        return [result.return_value for result in results]
