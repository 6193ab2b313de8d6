"""What is said of a network on films from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.results.comparison import FIGURES
from cxr.results.console import calibration_lines, give_away_lines, screening_lines, with_interval
from cxr.results.leaderboard import markdown_table

EVALUATION = "evaluation.json"


def write(folder: Path, found: Mapping[str, Any]) -> str:
    """Write evaluation.md, and return what the console says."""
    lines = [comparison_table(found), "", *difference_lines(found), "", *source_lines(found), *limit_lines(found)]
    (folder / "evaluation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    more = [*give_away_lines(found["give_aways"]), *calibration_lines(found["calibration"])]
    return "\n".join(["", *lines, "", *more, *screening_lines(found["screening"]), f"all in {folder}"])


def comparison_table(found: Mapping[str, Any]) -> str:
    """Figures on films from elsewhere beside those on the run's own test films, of the same classes."""
    sides = [found["internal"]] if found["internal"] else []
    elsewhere = {**found, "calibration": found["calibration"].get("after", found["calibration"]["before"])}
    elsewhere["screening"] = found["screening"] and found["screening"]["test"]
    sides.append(elsewhere)
    names = ["internal", "external"][-len(sides) :]
    rows = [
        ["macro F1", *(with_interval(side["test"], "f1_macro") for side in sides)],
        ["accuracy", *(with_interval(side["test"], "accuracy") for side in sides)],
    ]
    if found["test"]["auroc_macro"] is not None:
        rows.append(["macro AUROC", *(with_interval(side["test"], "auroc_macro") for side in sides)])
    for name, own in found["test"]["per_class"].items():
        if own["support"]:
            recalls = []
            for side in sides:
                scores = {**side["test"]["per_class"][name], "ci95": side["test"]["ci95"]["per_class"][name]}
                recalls.append(f"{with_interval(scores, 'recall')}, n = {scores['support']:,}")
            rows.append([f"recall of {name}", *recalls])
    rows.append(["expected calibration error", *(with_interval(side["calibration"], "ece") for side in sides)])
    for key in ("sensitivity", "specificity"):
        if found["screening"] and found["screening"]["test"][key] is not None:
            shown = (with_interval(side["screening"], key) for side in sides)
            rows.append([f"{key} for {found['screening']['class']}", *shown])
    header = ["", *(f"{name}, n = {side['n_test']:,}" for name, side in zip(names, sides, strict=True))]
    return markdown_table(header, rows)


def difference_lines(found: Mapping[str, Any]) -> list[str]:
    """How much worse the network is elsewhere."""
    if not found["internal"]:
        return ["The checkpoint does not lie in its run folder: its own test films are not known."]
    shown = []
    for key, name in FIGURES.items():
        away = found["difference"][key]
        low, high = away["ci95"]
        shown.append(f"{away['difference']:+.3f} [{low:+.3f}, {high:+.3f}] {name}".replace("-", "−"))
    return [f"External less internal: {'; '.join(shown)}. [low, high]: 95 % intervals, had other patients come."]


def source_lines(found: Mapping[str, Any]) -> list[str]:
    """Accuracy on each source that the manifest names."""
    shown = [f"{name} {with_interval(s, 'accuracy')}, n = {s['films']:,}" for name, s in found["slices"].items()]
    return [f"Accuracy by source: {'; '.join(shown)}."] if shown else []


def limit_lines(found: Mapping[str, Any]) -> list[str]:
    """What was left out, and what these figures do not say."""
    lines = []
    if found["seen"] is None:
        lines.append(
            "Not known which of these films the network was trained on: films.npz is not beside the checkpoint."
        )
    else:
        kept = "scored all the same (data.on_leak=keep)" if found["on_leak"] == "keep" else "left out"
        lines.append(
            f"Seen in training: {found['seen']['copies']:,} films as copies, {found['seen']['patients']:,} other films "
            f"of patients of the same name; {kept}."
        )
    for name, of in found["unknown_classes"].items():
        said = ", ".join(f"{other} {films:,}" for other, films in of["said"].items() if films)
        lines.append(
            f"{name}: a class that the network does not know; its {of['films']:,} films are not scored ({said})."
        )
    if lacking := found["classes_without_films"]:
        lines.append(
            f"No films of {', '.join(lacking)}: macro figures are means over the other classes, on both sides."
        )
    if found["rejected"]:
        lines.append(f"{found['rejected']:,} files cannot be used: rejected.csv says why.")
    return [*lines, *([found["note"]] if found["note"] else [])]
