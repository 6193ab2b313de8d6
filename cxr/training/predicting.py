"""A trained network's predictions for the images of a split, on one device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cxr.data.datamodule import CXRDataModule
from cxr.errors import Diverged
from cxr.evaluation.evaluation import Evaluation
from cxr.models.classifier import Classifier
from cxr.models.features import joined, kept_features
from cxr.models.precision import FULL
from cxr.training.callbacks import EpochTimer, StopWhenAsked
from cxr.training.trainer import build_trainer


def predict(
    model: Classifier, data: CXRDataModule, split: str, options: Mapping[str, Any], timer: EpochTimer | None = None
) -> Evaluation:
    """Predict the images of a split with the network of a checkpoint, in the precision of its training.

    Args:
        split: val, test or inside.
        options: the options `trainer.*`.
        timer: adds up the time.

    Raises:
        Diverged: an output is NaN or infinite.
    """
    kept = {"accelerator": options["accelerator"], "precision": FULL}  # the network has a precision of its own
    # One device, also where several trained: then no image is counted twice, and none is missing.
    kept["devices"] = options["devices"][:1] if isinstance(options["devices"], list) else 1
    # logger=False: None would be a logger of Lightning's own
    trainer = build_trainer(kept, data.cache, False, [*([timer] if timer else []), StopWhenAsked()])
    data.tested = "test" if split == "val" else split
    (trainer.validate if split == "val" else trainer.test)(model, datamodule=data, verbose=False)
    index, labels, logits = (column.cpu().numpy() for column in model.evaluation())
    if not np.isfinite(logits).all():
        raise Diverged("the network's output is not finite: training diverged; try a smaller optim.lr")
    fitted = model.temperature.item()
    temperature = None if fitted == 1 else fitted  # it is 1 where there were no validation images
    return Evaluation(index, labels, logits, data.group[index], model.classes, temperature)


def predict_with_features(
    model: Classifier, data: CXRDataModule, split: str, options: Mapping[str, Any], timer: EpochTimer | None = None
) -> tuple[Evaluation, np.ndarray | None]:
    """predict(), and the network's features: float32 (N, D), or None if it has none; see kept_features()."""
    with kept_features(model.net) as features:
        evaluation = predict(model, data, split, options, timer)
    if not features:
        return evaluation, None
    rows = torch.cat([index for index, *_ in model.evaluated]).cpu()
    return evaluation, joined(features, len(rows)).cpu()[rows.argsort()].numpy()


def predict_masked(
    model: Classifier, data: CXRDataModule, options: Mapping[str, Any], timer: EpochTimer | None = None
) -> dict[str, Evaluation]:
    """Predict the test images with the lungs blacked out, and with all but the lungs; arguments as for predict()."""
    masked = {}
    for name, hidden in (("lungs_black", "lungs"), ("only_lungs", "rest")):
        data.hidden = hidden
        masked[name] = predict(model, data, "test", options, timer)
    data.hidden = ""
    return masked
