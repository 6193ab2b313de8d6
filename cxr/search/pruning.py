"""Which trials of a search are pruned: what each run reports after an epoch, and when it ends early."""

import logging
from typing import Any

import optuna
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

log = logging.getLogger(__name__)

SCORE = "val/f1_macro"


def make_pruner(name: str, max_epochs: int) -> optuna.pruners.BasePruner:
    """One of Optuna's pruners. No median is taken before five trials are complete, and none in the first quarter of the
    epochs."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max_epochs // 4)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=max_epochs)
    return optuna.pruners.NopPruner()


class ReportTrial(Callback):
    """Reports macro F1 on validation images after each epoch, and ends training when the pruner decides so.

    A database that cannot be reached for a moment does not end training: a warning is logged and the epoch counts as
    not reported.

    Args:
        url, study, number: the database, the search in it and the trial of this run.
        pruner: decides whether training ends.
    """

    def __init__(self, url: str, study: str, number: int, pruner: optuna.pruners.BasePruner) -> None:
        self.url, self.study_name, self.number, self.pruner = url, study, number, pruner
        self.pruned = False

    def state_dict(self) -> dict[str, Any]:
        """A run that was pruned and then killed is still pruned when it continues. (Otherwise the state is empty, or
        Lightning would warn when the best run is tested, where nothing reports.)"""
        return {"pruned": True} if self.pruned else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pruned = state["pruned"]

    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self.storage = optuna.storages.get_storage(self.url)
            self.study = optuna.load_study(study_name=self.study_name, storage=self.storage)
            study_id = self.storage.get_study_id_from_name(self.study_name)
            self.trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, self.number)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and not self.pruned and SCORE in trainer.callback_metrics:
            self.pruned = trainer.strategy.broadcast(trainer.is_global_zero and self.report_epoch(trainer))
            if self.pruned:
                log.info("trial %d is pruned after epoch %d", self.number, trainer.current_epoch + 1)
                trainer.should_stop = True

    def report_epoch(self, trainer: pl.Trainer) -> bool:
        """Report the score of this epoch, and return whether the pruner wants no further one."""
        try:
            score = trainer.callback_metrics[SCORE].item()
            self.storage.set_trial_intermediate_value(self.trial_id, trainer.current_epoch, score)
            # A bool of Python's: one of NumPy's in a checkpoint could not be loaded as plain data.
            return bool(self.pruner.prune(self.study, self.storage.get_trial(self.trial_id)))
        except optuna.exceptions.StorageInternalError as error:
            log.warning("epoch %d was not reported to the search: %s", trainer.current_epoch + 1, error)
            return False
