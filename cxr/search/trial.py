"""What a run knows of the search whose trial it is. No torch here, and no Optuna."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def trial_of(options: Mapping[str, Any], sweep: Path) -> TrialRun | None:
    """The trial that a run's options name; None for the final test, which is none.

    Args:
        sweep: the folder of the sweep.
    """
    number = options.get("trial")
    if number is None:
        return None
    pruner = "none" if why_no_pruning(options) else options["pruner"]
    url, study = storage_url(options["storage"], sweep), options["study"] or sweep.name
    return TrialRun(url, study, number, pruner, options["trainer"]["max_epochs"])


def why_no_pruning(options: Mapping[str, Any]) -> str:
    """One line where a pruner is chosen that would be of no use, else ""."""
    epochs, pruner = options["trainer"]["max_epochs"], options["pruner"]
    if pruner == "none" or epochs >= FEW_EPOCHS:
        return ""
    return f"no trial is pruned: trainer.max_epochs={epochs}, and pruner={pruner} needs {FEW_EPOCHS} or more"


def storage_url(storage: str | None, sweep: Path) -> str:
    return storage or f"sqlite:///{(sweep / 'search.db').resolve()}"
