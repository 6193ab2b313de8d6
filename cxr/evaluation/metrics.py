"""Metrics of a set of predictions. "macro" is the plain mean over the classes, however rare they are."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

# Classifier gathers the images of all ranks itself; torchmetrics would count them again.
ALONE: dict[str, Any] = {
    "validate_args": False,
    "sync_on_compute": False,
}  # checking arguments would let the host wait for the device


def training_metrics(n_classes: int) -> MetricCollection:
    """Accuracy and macro F1, cheap enough for every training step."""
    options = {"num_classes": n_classes, **ALONE}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(**options, average="micro"),
            "f1_macro": MulticlassF1Score(**options, average="macro"),
        }
    )


def evaluation_metrics(n_classes: int) -> MetricCollection:
    """All figures of an evaluation; update with probabilities (B, C) and labels (B,).

    AUROC is one-vs-rest.
    """
    options = {"num_classes": n_classes, **ALONE}
    metrics: dict[str, Metric] = {
        "accuracy": MulticlassAccuracy(**options, average="micro"),
        "auroc_macro": MulticlassAUROC(**options, average="macro"),
        "auroc": MulticlassAUROC(**options, average="none"),
        "confusion_matrix": MulticlassConfusionMatrix(**options),
    }
    for name, metric in (("precision", MulticlassPrecision), ("recall", MulticlassRecall), ("f1", MulticlassF1Score)):
        metrics[f"{name}_macro"] = metric(**options, average="macro")
        metrics[name] = metric(**options, average="none")
    return MetricCollection(metrics)


def compute(metrics: MetricCollection) -> dict[str, Tensor]:
    """The results, also where a class has no images, which another hospital may lack: as_plain() leaves it out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*No (positive|negative) samples in targets.*")
        return metrics.compute()


def as_plain(computed: Mapping[str, Tensor], classes: Sequence[str]) -> dict[str, Any]:
    """Results of `evaluation_metrics` as plain numbers, lists and dictionaries, as in metrics.json.

    Macro figures are means over the classes that have images: a set of another hospital may lack some. With only one
    class, macro AUROC is None.
    """
    support = computed["confusion_matrix"].sum(1)
    there = support > 0
    per_class = {
        name: {
            **{key: computed[key][i].item() for key in ("precision", "recall", "f1")},
            "support": int(support[i]),
        }
        for i, name in enumerate(classes)
    }
    macro = {f"{key}_macro": computed[key][there].mean().item() for key in ("f1", "precision", "recall", "auroc")}
    return {
        "accuracy": computed["accuracy"].item(),
        **macro,
        **({} if there.sum() > 1 else {"auroc_macro": None}),
        "per_class": per_class,
        "confusion_matrix": computed["confusion_matrix"].int().tolist(),
    }
