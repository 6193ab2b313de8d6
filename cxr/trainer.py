"""Lightning's Trainer as the options ask for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cxr.checkpoints import DirectCheckpointIO
from cxr.errors import UserError


def build_trainer(options: Mapping[str, Any], folder: Path, logger: Any, callbacks: list[Callback]) -> pl.Trainer:
    """Lightning's Trainer with the options `trainer.*`, silent but for what the callbacks say."""
    options = dict(options)
    if options["precision"] == "auto":
        options["precision"] = best_precision(options["accelerator"])
    try:
        return pl.Trainer(
            **options,
            default_root_dir=folder,
            logger=logger,
            callbacks=callbacks,
            plugins=[DirectCheckpointIO()],
            enable_progress_bar=any(isinstance(c, TQDMProgressBar) for c in callbacks),
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer.*: Lightning refuses these options: {' '.join(str(error).split())}") from error


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware that will be used multiplies bf16 faster than fp32, else 32-true."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        # torch has no public question for it; where this one is missing, fp32 is right if slow.
        fast = (
            getattr(torch.cpu, "_is_amx_tile_supported", bool)()
            or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        )
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"
