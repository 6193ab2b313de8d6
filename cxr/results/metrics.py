"""What a set of predictions is worth. "macro" is the plain mean over the classes, however rare they are."""

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

from cxr.results.run_folder import HEADLINES


def training_metrics(n_classes: int) -> MetricCollection:
    """Accuracy and macro F1, cheap enough for every training step."""
    options: dict[str, Any] = {"num_classes": n_classes, "validate_args": False}  # validation would sync with the host
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(**options, average="micro"),
            "f1_macro": MulticlassF1Score(**options, average="macro"),
        }
    )


def evaluation_metrics(n_classes: int) -> MetricCollection:
    """All figures of an evaluation; update with probabilities (B, C) and labels (B,).

    As in scikit-learn, macro F1 leaves out a class with no true and no predicted film. AUROC is one-vs-rest, macro.
    """
    options: dict[str, Any] = {"num_classes": n_classes, "validate_args": False}
    metrics: dict[str, Metric] = {
        "accuracy": MulticlassAccuracy(**options, average="micro"),
        "auroc_macro": MulticlassAUROC(**options, average="macro"),
        "confusion_matrix": MulticlassConfusionMatrix(**options),
    }
    for name, metric in (("precision", MulticlassPrecision), ("recall", MulticlassRecall), ("f1", MulticlassF1Score)):
        metrics[f"{name}_macro"] = metric(**options, average="macro")
        metrics[name] = metric(**options, average="none")
    return MetricCollection(metrics)


def as_plain(computed: Mapping[str, Tensor], classes: Sequence[str]) -> dict[str, Any]:
    """What `evaluation_metrics` computed, as metrics.json holds it: plain numbers, lists and dictionaries."""
    support = computed["confusion_matrix"].sum(1).tolist()
    per_class = {
        name: {
            **{key: computed[key][i].item() for key in ("precision", "recall", "f1")},
            "support": int(support[i]),
        }
        for i, name in enumerate(classes)
    }
    return {
        **{key: computed[key].item() for key in (*HEADLINES, "auroc_macro")},
        "per_class": per_class,
        "confusion_matrix": computed["confusion_matrix"].int().tolist(),
    }


def per_class_table(scores: Mapping[str, Any]) -> str:
    """Precision, recall, F1 and support of each class, recall and F1 with their intervals, and the macro means, as
    lines of text."""
    width = max(len("macro mean"), *map(len, scores["per_class"]))
    lines = [f"{'class':<{width}}  precision  {'recall':<20}  {'F1':<20}  films"]

    def line(
        name: str, figures: Mapping[str, float], ends: Mapping[str, Sequence[float]], suffix: str, films: int
    ) -> str:
        recall, f1 = (f"{figures[key + suffix]:.3f} {shown_interval(ends[key + suffix])}" for key in ("recall", "f1"))
        return f"{name:<{width}}  {figures['precision' + suffix]:9.3f}  {recall:<20}  {f1:<20}  {films:5d}"

    for name, s in scores["per_class"].items():
        lines.append(line(name, s, scores["ci95"]["per_class"][name], "", s["support"]))
    total = sum(s["support"] for s in scores["per_class"].values())
    lines.append(line("macro mean", scores, scores["ci95"], "_macro", total))
    return "\n".join(lines)


def shown_interval(ends: Sequence[float]) -> str:
    """[low, high] with three digits."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"
