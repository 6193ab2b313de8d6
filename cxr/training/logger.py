"""TensorBoard's scalars, once each, however often a run was stopped."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from cxr.training.distributed import rank

Scalars = list[tuple[float, int, dict[str, float]]]  # time in s, step, figures by their tag


class Board(TensorBoardLogger):
    """TensorBoard's files of a run folder; earlier ones there are replaced.

    A writer keeps what it is given for up to two minutes before the file has it, so a killed run's file has more steps
    than its checkpoint or fewer. So a checkpoint holds all `scalars`, and a resumed run writes them anew.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self.scalars: Scalars = []
        for path in folder.glob("events.out.tfevents.*") if rank() == 0 else ():
            path.unlink()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.scalars.append((time.time(), int(step or 0), {key: float(value) for key, value in metrics.items()}))
        self.write(self.scalars[-1:])

    def replay(self, scalars: Sequence[Any]) -> None:
        """Write what an earlier process wrote."""
        self.scalars = [(at, step, dict(figures)) for at, step, figures in scalars]
        self.write(self.scalars)

    def write(self, scalars: Scalars) -> None:
        """Raises OSError where the files cannot be written. (Lightning's own way makes another error of it.)"""
        for at, step, figures in scalars:
            for tag, value in figures.items():
                self.experiment.add_scalar(tag, value, step, walltime=at)

    def history(self, tags: Iterable[str]) -> dict[str, list[float]]:
        """Of metrics.json: figures of each epoch that has them, the last of each, by their tag with _ for /."""
        curves: dict[str, dict[float, float]] = {}
        for _, _, figures in self.scalars:
            for tag in tags:
                if tag in figures and "epoch" in figures:
                    curves.setdefault(tag.replace("/", "_"), {})[figures["epoch"]] = figures[tag]
        return {tag: list(by_epoch.values()) for tag, by_epoch in curves.items()}


def of_a_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer is a thread. What the system has against its file is raised again at the next writing, in
    our thread, where it becomes a line: no need for its traceback too."""
    if not issubclass(error.exc_type, OSError):
        threading.__excepthook__(error)


threading.excepthook = of_a_thread
