"""Lightning's Trainer as the options ask for it."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, TQDMProgressBar
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cxr.errors import UserError, one_line
from cxr.models.precision import best_precision
from cxr.training.checkpoints import DurableCheckpointIO


def build_trainer(options: Mapping[str, Any], folder: Path, logger: Any, callbacks: list[Callback]) -> pl.Trainer:
    """Lightning's Trainer with the options `trainer.*`, silent except for the callbacks."""
    quiet_libraries()
    if options["precision"] == "auto":
        options = {**options, "precision": best_precision(options["accelerator"])}
    try:
        return pl.Trainer(
            **options,
            default_root_dir=folder,
            logger=logger,
            callbacks=callbacks,
            # Lightning's handling of Slurm's signals and of processes is replaced by cxr.jobs.
            plugins=[DurableCheckpointIO(), LightningEnvironment()],
            use_distributed_sampler=False,  # Batches has each rank's part
            enable_progress_bar=any(isinstance(c, TQDMProgressBar) for c in callbacks),
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer.*: Lightning refuses these options: {one_line(error)}") from error


def quiet_libraries() -> None:
    """Silence messages of Lightning and torch that do not apply here."""
    # Lightning's own lines on devices and products are for its developers; its warnings stay.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Of Lightning's own code, against a newer torch.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
    # Lightning's advice to add workers is wrong for images that lie decoded in memory.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Our order of images is resumable: CXRDataModule keeps its position.
    warnings.filterwarnings("ignore", message=".*ended before the epoch ended and your dataloader is not resumable.*")
    # It holds the images' fingerprints, and a resumed run's checkpoints.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    # Every rank has the figures of all images, see Classifier.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # Lightning looks for Slurm, though nothing of it is Lightning's to do here.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # The first backward pass of a process on a GPU; what torch attempts then, succeeds.
    warnings.filterwarnings("ignore", message=".*no current CUDA context.*")
    # An epoch of fewer than 50 batches is nothing to warn of: nothing is logged by the step.
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
