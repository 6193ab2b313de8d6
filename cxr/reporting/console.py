"""The summary of a finished run on the console."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FEW = 10  # positive validation images: a threshold from fewer depends on each of them
SHORTCUTS = {
    "majority_class": "always predict the most frequent class",
    "file_facts": "logistic regression on size, brightness and border",
    "nearest_neighbour": "nearest neighbour on thumbnails",
    "lungs_black": "this network, lungs blacked out",
    "only_lungs": "this network, all but the lungs blacked out",
    "normal_or_pneumonia": "this network, NORMAL against PNEUMONIA only",
}
RULES = ("majority_class", "file_facts", "nearest_neighbour")  # those that need no network


def shortcut_lines(shortcuts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Scores of shortcuts, see cxr.evaluation.evaluation.Evaluation.shortcuts()."""
    return ["shortcuts: macro F1 without the lungs, and within one hospital:"] + [
        f"  {SHORTCUTS[name]:<50}  {s['f1_macro']:.3f} {shown_interval(s['ci95']['f1_macro'])}"
        for name, s in shortcuts.items()
    ]


def beaten_lines(runs: Mapping[str, Mapping[str, Any]], w: Mapping[str, str] | None = None) -> list[str]:
    """A line for each shortcut that some networks do not beat; `runs` holds their metrics.json by name, `w` the
    words of a language other than English."""
    beaten: dict[tuple[str, str], list[str]] = {}
    for name, metrics in runs.items():
        rules = {rule: metrics["shortcuts"].get(rule, {}).get("f1_macro", 0) for rule in RULES}
        best = max(rules, key=lambda rule: rules[rule])
        if metrics["test"]["f1_macro"] <= rules[best]:
            beaten.setdefault((best, f"{rules[best]:.3f}"), []).append(name)
    w = w or {"not_better": "No better than {shortcut} (macro F1 {f1}): {names}.", **SHORTCUTS}
    return [
        w["not_better"].format(shortcut=w[shortcut], f1=f1, names=", ".join(names))
        for (shortcut, f1), names in beaten.items()
    ]


def calibration_lines(calibration: Mapping[str, Any]) -> list[str]:
    """Errors of the probabilities, see cxr.evaluation.calibration."""
    before, after = calibration["before"], calibration.get("after")
    if after is None:
        return [f"expected calibration error {with_interval(before, 'ece')}; calibration needs validation images"]
    ece, brier = (f"{with_interval(before, key)}, then {with_interval(after, key)}" for key in ("ece", "brier"))
    return [
        f"calibration, before and after dividing logits by a temperature of {calibration['temperature']:.2f}:",
        f"  expected calibration error {ece}; Brier score {brier}",
    ]


def reliability_names(calibration: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The curves that figures.reliability() draws, by name; `calibration` as in metrics.json."""
    names = {"before": "as trained", "after": f"temperature {calibration['temperature']:.2f}"}
    return {
        f"{name}\nECE {with_interval(calibration[key], 'ece')}": calibration[key]["bins"]
        for key, name in names.items()
        if key in calibration
    }


def screening_lines(screening: Mapping[str, Any] | None) -> list[str]:
    """One class as a screening test, see cxr.evaluation.screening."""
    if screening is None:
        return ["no screening threshold: there are no validation images, or the set lacks the class"]
    if screening["test"]["sensitivity"] is None:
        return [f"no images of {screening['class']}, so its screening threshold cannot be tested"]
    test, who = screening["test"], screening["who"]
    verdicts = {
        "met": "met",
        "missed": "not met",
        "not shown": f"not decided with n={test['positive_images']}",
    }
    values = [
        f"  at a prevalence of {p['prevalence']:.1%}: "
        + ", ".join(f"{key.upper()} {with_interval(p, key)}" for key in ("ppv", "npv") if p[key] is not None)
        for p in screening["prevalences"]
    ]
    few = " (too few for a stable threshold)" if screening["val"]["positive_images"] < FEW else ""
    sensitivity, specificity = (with_interval(test, key) for key in ("sensitivity", "specificity"))
    return [
        f"screening for {screening['class']}: threshold {screening['threshold']:.3g}, chosen on "
        f"{screening['val']['positive_images']} validation images of this class{few}:",
        f"  sensitivity {sensitivity}, specificity {specificity}",
        f"  WHO target (sensitivity ≥ {who['sensitivity']:.0%}, specificity ≥ {who['specificity']:.0%}): "
        f"{verdicts[who['verdict']]}",
        *values,
    ]


def with_interval(figures: Mapping[str, Any], key: str) -> str:
    """A figure with its interval."""
    return f"{figures[key]:.3f} {shown_interval(figures['ci95'][key])}"


def run_summary(folder: Path, metrics: Mapping[str, Any]) -> str:
    """The summary of a finished run."""
    test, chosen = metrics["test"], "best epoch by validation macro F1" if metrics["val"] else "last epoch"
    lines = [
        "",
        f"{folder.name}: {metrics['n_test']} test images, opened once, {chosen}",
        per_class_table(test),
        f"accuracy {with_interval(test, 'accuracy')}, macro F1 {with_interval(test, 'f1_macro')}, "
        f"macro AUROC {with_interval(test, 'auroc_macro')}",
        *beaten_lines({folder.name: metrics}),
        *shortcut_lines(metrics["shortcuts"]),
        *calibration_lines(metrics["calibration"]),
        *screening_lines(metrics["screening"]),
        "macro F1 is the plain mean of the classes' F1; [low, high]: 95 % intervals, if other patients had been tested",
        *([f"{metrics['note']}"] if metrics["note"] else []),
        f"all in {folder}",
    ]
    return "\n".join(lines)


def per_class_table(scores: Mapping[str, Any]) -> str:
    """Precision, recall, F1 and support of each class, recall and F1 with their intervals, and the macro means, as
    lines of text."""
    width = max(len("macro mean"), *map(len, scores["per_class"]))
    lines = [f"{'class':<{width}}  precision  {'recall':<20}  {'F1':<20}  images"]

    def line(
        name: str, figures: Mapping[str, float], ends: Mapping[str, Sequence[float]], suffix: str, images: int
    ) -> str:
        recall, f1 = (f"{figures[key + suffix]:.3f} {shown_interval(ends[key + suffix])}" for key in ("recall", "f1"))
        return f"{name:<{width}}  {figures['precision' + suffix]:9.3f}  {recall:<20}  {f1:<20}  {images:5d}"

    for name, s in scores["per_class"].items():
        lines.append(line(name, s, scores["ci95"]["per_class"][name], "", s["support"]))
    total = sum(s["support"] for s in scores["per_class"].values())
    lines.append(line("macro mean", scores, scores["ci95"], "_macro", total))
    return "\n".join(lines)


def shown_interval(ends: Sequence[float]) -> str:
    """[low, high] with three digits."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"
