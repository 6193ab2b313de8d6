"""What the console says of a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.results.metrics import per_class_table, shown_interval

GIVE_AWAYS = {
    "majority_class": "always the majority class",
    "file_facts": "logistic regression on size, brightness and border",
    "nearest_neighbour": "nearest neighbour on thumbnails",
    "lungs_black": "this network, lungs blacked out",
    "only_lungs": "this network, all but the lungs blacked out",
    "normal_or_pneumonia": "this network, NORMAL against PNEUMONIA only",
}


def give_away_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What stands beside the headline: see cxr.evaluation.give_aways()."""
    return ["macro F1 without looking at lungs, and within one source:"] + [
        f"  {GIVE_AWAYS[name]:<50}  {s['f1_macro']:.3f} {shown_interval(s['ci95']['f1_macro'])}"
        for name, s in found.items()
    ]


def report(folder: Path, metrics: Mapping[str, Any]) -> str:
    """What the console says of a finished run."""
    test, chosen = metrics["test"], "best epoch by validation macro F1" if metrics["val"] else "last epoch"
    lines = [
        "",
        f"{folder.name}: {metrics['n_test']} test films, opened once, {chosen}",
        per_class_table(test),
        ", ".join(
            f"{name} {test[key]:.3f} {shown_interval(test['ci95'][key])}"
            for name, key in (("accuracy", "accuracy"), ("macro F1", "f1_macro"), ("macro AUROC", "auroc_macro"))
        ),
        *give_away_lines(metrics["give_aways"]),
        "macro F1 is the plain mean of the classes' F1; [low, high]: 95 % intervals, had others been tested",
        *([f"{metrics['note']}"] if metrics["note"] else []),
        f"all in {folder}",
    ]
    return "\n".join(lines)
