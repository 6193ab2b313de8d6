"""The summary of a finished run on the console, and the lines of it that reports share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.evaluation.screening import screenings_of
from cxr.reporting.hospitals_in_words import by_hospital_lines, lines_of_run
from cxr.reporting.markdown import interval_text, some_of, threshold_text, with_interval
from cxr.reporting.words import words

RULES = ("majority_class", "hospital_alone", "file_facts", "nearest_neighbour")  # shortcuts that need no network
HEADLINE = {"accuracy": "accuracy", "f1_macro": "macro F1", "auroc_macro": "macro AUROC"}
ENGLISH = words("en")

Words = Mapping[str, str]


def shortcut_lines(shortcuts: Mapping[str, Mapping[str, Any]], w: Words = ENGLISH) -> list[str]:
    """Scores of shortcuts, see Evaluation.shortcuts()."""
    return (
        [w["shortcuts_title"]]
        + [
            f"  {w[name]:<50}  {s['f1_macro']:.3f} {interval_text(s['ci95']['f1_macro'])}"
            for name, s in shortcuts.items()
        ]
        + [f"  {w['masked_note']}"] * ("lungs_black" in shortcuts)
    )


def rule_recall_lines(shortcuts: Mapping[str, Mapping[str, Any]], w: Words = ENGLISH) -> list[str]:
    """The recall of each class by its hospital alone, which is what a network has to beat."""
    rule = shortcuts.get("hospital_alone", {})
    recalls = ", ".join(f"{name} {recall:.3f}" for name, recall in rule.get("recall", {}).items())
    return [w["rule_recalls"].format(shortcut=w["hospital_alone"], recalls=recalls)] if recalls else []


def beaten_lines(runs: Mapping[str, Mapping[str, Any]], w: Words = ENGLISH) -> list[str]:
    """A line for each rule that some networks do not beat; `runs` holds their metrics.json by name."""
    beaten: dict[tuple[str, str], list[str]] = {}
    for name, metrics in runs.items():
        rules = {rule: metrics["shortcuts"].get(rule, {}).get("f1_macro", 0) for rule in RULES}
        best = max(rules, key=lambda rule: rules[rule])
        if metrics["test"]["f1_macro"] <= rules[best]:
            beaten.setdefault((best, f"{rules[best]:.3f}"), []).append(name)
    return [
        w["not_better"].format(shortcut=w[shortcut], f1=f1, names=some_of(names, w["and_more"]))
        for (shortcut, f1), names in beaten.items()
    ]


def calibration_lines(calibration: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """Errors of the probabilities, see cxr.evaluation.calibration."""
    before, after = calibration["before"], calibration.get("after")
    if after is None:
        return [w["calibration_off"].format(ece=with_interval(before, "ece"))]
    errors = {
        key: w["then"].format(before=with_interval(before, key), after=with_interval(after, key))
        for key in ("ece", "brier")
    }
    title = w["calibration_title"].format(temperature=calibration["temperature"])
    return [title, w["calibration_line"].format(**errors)]


def reliability_names(calibration: Mapping[str, Any], w: Words = ENGLISH) -> dict[str, Mapping[str, Any]]:
    """The curves that figures.reliability() draws, by name; `calibration` as in metrics.json."""
    names = {"before": w["as_trained"], "after": w["temperature_of"].format(temperature=calibration["temperature"])}
    return {
        f"{name}\nECE {with_interval(calibration[key], 'ece')}": calibration[key]["bins"]
        for key, name in names.items()
        if key in calibration
    }


def screening_lines(parts: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """Classes as screening tests, of metrics.json or evaluation.json: one at length, or all in a line each."""
    screenings = screenings_of(parts)
    if not screenings:
        return [w["no_threshold"]]
    if "screenings" not in parts:
        return one_screening(*screenings.values(), apart_screening(parts, next(iter(screenings)), w), w)
    lines = [
        w["screening_row"].format(
            name=name, threshold=threshold_text(s["threshold"]), promise=promise_text(s, w), **screening_shares(s)
        )
        for name, s in screenings.items()
    ]
    return [w["screenings_title"], *lines]


def apart_screening(parts: Mapping[str, Any], name: str, w: Words) -> list[str]:
    """What stands in place of a verdict, if the class that is screened for shares no hospital with others. (A hospital
    that is held out is one hospital.)"""
    others = apart_from(parts, name)
    word = "screening_apart" if parts.get("hospitals", {}).get("known") else "screening_apart_by_files"
    return [w[word].format(name=name, others=w["and"].join(others))] if others else []


def apart_from(parts: Mapping[str, Any], name: str) -> list[str]:
    """The classes that a class shares no hospital with; none if a hospital is held out."""
    pairs = () if parts.get("transfer") else parts.get("hospitals", {}).get("apart", ())
    return [other for pair in pairs if name in pair for other in pair if other != name]


def one_screening(screening: Mapping[str, Any], apart: Sequence[str], w: Words) -> list[str]:
    """One class as a screening test, see cxr.evaluation.screening; `apart` as apart_screening() has it."""
    name, test, who = (screening[key] for key in ("class", "test", "who"))
    if test["sensitivity"] is None:
        return [w["not_screened"].format(name=name)]
    verdict = w["undecided"].format(n=test["positive_images"]) if who["verdict"] == "not shown" else w[who["verdict"]]
    values = [
        w["at_prevalence"].format(prevalence=p["prevalence"])
        + ", ".join(f"{key.upper()} {with_interval(p, key)}" for key in ("ppv", "npv") if p[key] is not None)
        for p in screening["prevalences"]
    ]
    return [
        w["screening_title"].format(name=name, threshold=threshold_text(screening["threshold"])),
        w["screening_promise"].format(promise=promise_text(screening, w)),
        w["screening_point"].format(**screening_shares(screening)),
        *(apart or [w["who_target"].format(**{**who, "verdict": verdict}), *values]),
    ]


def promise_text(screening: Mapping[str, Any], w: Words, form: str = "") -> str:
    """The sensitivity that a threshold promises; or that it promises none, and what that would need. `form` ends the
    word for it: promise_short() has another one."""
    asked = {key: f"{100 * screening[key]:.6g}%" for key in ("sensitivity_asked", "confidence")}
    return w[("promised" if screening["promised"] else "not_promised") + form].format(**{**screening, **asked})


def promise_short(screening: Mapping[str, Any], w: Words) -> str:
    """The sensitivity that a threshold promises, or none, for a narrow column."""
    return promise_text(screening, w, "_short")


def screening_shares(screening: Mapping[str, Any]) -> dict[str, str]:
    """Sensitivity and specificity on the test images with their intervals, – without images."""
    test = screening["test"]
    return {key: with_interval(test, key) if test[key] is not None else "–" for key in ("sensitivity", "specificity")}


def run_summary(folder: Path, metrics: Mapping[str, Any]) -> str:
    """The summary of a finished run."""
    test = metrics["test"]
    lines = [
        "",
        f"{folder.name}: {metrics['n_test']:,} test images, opened once, {ENGLISH[metrics['chosen_by']]}",
        ", ".join(f"{name} {with_interval(test, key)}" for key, name in HEADLINE.items() if test[key] is not None),
        *lines_of_run(metrics),
        *([] if metrics["transfer"] else [ENGLISH["not_tested_elsewhere"]]),
        per_class_table(test),
        *by_hospital_lines(metrics),
        *beaten_lines({folder.name: metrics}),
        *rule_recall_lines(metrics["shortcuts"]),
        *shortcut_lines(metrics["shortcuts"]),
        *calibration_lines(metrics["calibration"]),
        *screening_lines(metrics),
        "macro F1 is the plain mean of the classes' F1; [low, high]: 95 % intervals, if other patients of these "
        "hospitals had been tested; training again would give other figures",
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
        recall, f1 = (f"{figures[key + suffix]:.3f} {interval_text(ends[key + suffix])}" for key in ("recall", "f1"))
        return f"{name:<{width}}  {figures['precision' + suffix]:9.3f}  {recall:<20}  {f1:<20}  {images:6,}"

    for name, s in scores["per_class"].items():
        if s["support"]:  # a hospital that is held out may lack a class
            lines.append(line(name, s, scores["ci95"]["per_class"][name], "", s["support"]))
    total = sum(s["support"] for s in scores["per_class"].values())
    lines.append(line("macro mean", scores, scores["ci95"], "_macro", total))
    return "\n".join(lines)
