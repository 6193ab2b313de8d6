"""What a run knows of the search whose trial it is. No torch here, and no Optuna."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

FEW_EPOCHS = 4  # with fewer, pruning saves nothing


@dataclass(frozen=True)
class TrialRun:
    """What the run of a trial knows of its search; it travels to the process that trains."""

    url: str
    study: str
    number: int
    pruner: str
    max_epochs: int

    def callbacks(self) -> list[Any]:
        """For Lightning's Trainer."""
        from cxr.search.pruning import ReportTrial, make_pruner

        return [ReportTrial(self.url, self.study, self.number, make_pruner(self.pruner, self.max_epochs))]


def trial_of(config: DictConfig, folder: Path) -> TrialRun | None:
    """The trial that a run's options name, None for a run that is none.

    Args:
        folder: of the sweep.
    """
    number = config.get("trial")
    if number is None:
        return None
    pruner = "none" if why_no_pruning(config) else config.pruner
    url, study = storage_url(config.storage, folder), config.study or folder.name
    return TrialRun(url, study, number, pruner, config.trainer.max_epochs)


def why_no_pruning(config: DictConfig) -> str:
    """One line where a pruner is chosen that would be of no use, else ""."""
    epochs = config.trainer.max_epochs
    if config.pruner == "none" or epochs >= FEW_EPOCHS:
        return ""
    return f"no trial is pruned: trainer.max_epochs={epochs}, and pruner={config.pruner} needs {FEW_EPOCHS} or more"


def storage_url(storage: str | None, folder: Path) -> str:
    return storage or f"sqlite:///{(folder / 'search.db').resolve()}"
