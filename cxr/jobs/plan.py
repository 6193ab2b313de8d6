"""What the process that trains a run must know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cxr.search.trial import TrialRun


class Plan(NamedTuple):
    """A run to be trained; it travels to child processes.

    Attributes:
        options: resolved, plain data.
        choices: what tells this run from its neighbours: model, aug, seed, every other swept option.
        folder: the run folder; cxr/evaluation/README.md lists its files.
        sweep: the folder of the sweep that the run belongs to, if any.
        shared_console: other runs write to the console at the same time.
        trial: the trial of a search that this run is, if any. Its test images stay unopened.
    """

    options: Mapping[str, Any]
    choices: Mapping[str, Any]
    folder: Path
    sweep: Path | None = None
    shared_console: bool = False
    trial: TrialRun | None = None
