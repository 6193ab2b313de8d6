"""The logger that writes a run's TensorBoard files (Lightning's), also after the run resumed or its disk filled."""

import threading
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

# TensorBoard sorts groups of tags by their letters, capitals first: what matters stands above all else.
FIRST = {"val/f1_macro": "Macro F1/validation", "train/f1_macro": "Macro F1/training"}


class RunLogger(TensorBoardLogger):
    """Writes TensorBoard's files to a run folder.

    Args:
        step: the steps of the optimizer that a resumed run has done. TensorBoard then ignores what a killed process
            wrote of later ones.
    """

    def __init__(self, folder: Path, step: int | None) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=step)
        threading.excepthook = silence_writer

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Raises OSError where the files cannot be written, which Lightning's own method replaces by a ValueError about
        the metric's type."""
        for tag, value in metrics.items():
            self.experiment.add_scalar(tag, value, step)
            if tag in FIRST:
                self.experiment.add_scalar(FIRST[tag], value, step)


def silence_writer(error: threading.ExceptHookArgs) -> None:
    """Print no traceback for an OSError in TensorBoard's thread: our next call raises it again, and explains it."""
    if not issubclass(error.exc_type, OSError):
        threading.__excepthook__(error)
