"""The summary of a finished run on the console, and the lines of it that reports share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.evaluation.screening import screenings_of
from cxr.reporting.words import words

RULES = ("majority_class", "hospital_alone", "file_facts", "nearest_neighbour")  # shortcuts that need no network
PAIRS = 3  # of classes that a sentence names
ENGLISH = words("en")

Words = Mapping[str, str]


def shortcut_lines(shortcuts: Mapping[str, Mapping[str, Any]], w: Words = ENGLISH) -> list[str]:
    """Scores of shortcuts, see Evaluation.shortcuts()."""
    return [w["shortcuts_title"]] + [
        f"  {w[name]:<50}  {s['f1_macro']:.3f} {interval_text(s['ci95']['f1_macro'])}" for name, s in shortcuts.items()
    ]


def beaten_lines(runs: Mapping[str, Mapping[str, Any]], w: Words = ENGLISH) -> list[str]:
    """A line for each rule that some networks do not beat; `runs` holds their metrics.json by name."""
    beaten: dict[tuple[str, str], list[str]] = {}
    for name, metrics in runs.items():
        rules = {rule: metrics["shortcuts"].get(rule, {}).get("f1_macro", 0) for rule in RULES}
        best = max(rules, key=lambda rule: rules[rule])
        if metrics["test"]["f1_macro"] <= rules[best]:
            beaten.setdefault((best, f"{rules[best]:.3f}"), []).append(name)
    return [
        w["not_better"].format(shortcut=w[shortcut], f1=f1, names=", ".join(names))
        for (shortcut, f1), names in beaten.items()
    ]


def hospital_lines(hospitals: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """What the hospitals of the images do to a score; `hospitals` as in metrics.json: the pairs of classes that no
    hospital has both of, and the score within hospitals."""
    lines = []
    if hospitals["apart"]:
        pairs = pairs_text(hospitals["apart"], hospitals["pairs"], w)
        lines.append(w["apart" if hospitals["known"] else "apart_by_files"].format(pairs=pairs))
    if hospitals["known"] and (within := hospitals["within"]):
        names = ", ".join(f"{name} ({part['images']:,})" for name, part in within["hospitals"].items())
        lines.append(w["within"].format(names=names, f1=with_interval(within, "f1_macro")))
    return lines


def pairs_text(apart: Sequence[Sequence[str]], pairs: int, w: Words) -> str:
    """Some of all pairs of classes, in few words: two sides, where every class of one is in a pair with every class of
    the other."""
    if len(apart) == pairs > 1:
        return w["every_pair"]
    left = list(dict.fromkeys(a for a, b in apart if b == apart[0][1]))
    right = list(dict.fromkeys(b for a, b in apart if a == apart[0][0]))
    if len(apart) > 1 and {(a, b) for a in left for b in right} == {(a, b) for a, b in apart}:
        return w["two_sides"].format(left=w["and"].join(left), right=w["and"].join(right))
    text = ", ".join(w["and"].join(pair) for pair in apart[:PAIRS])
    return text if len(apart) <= PAIRS else w["more_pairs"].format(pairs=text, n=len(apart) - PAIRS, all=pairs)


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
        return one_screening(*screenings.values(), w)
    lines = [
        w["screening_row"].format(
            name=name, threshold=s["threshold"], promise=promise_text(s, w), **screening_shares(s)
        )
        for name, s in screenings.items()
    ]
    return [w["screenings_title"], *lines]


def one_screening(screening: Mapping[str, Any], w: Words) -> list[str]:
    """One class as a screening test, see cxr.evaluation.screening."""
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
        w["screening_title"].format(name=name, threshold=screening["threshold"]),
        w["screening_promise"].format(promise=promise_text(screening, w)),
        w["screening_point"].format(**screening_shares(screening)),
        w["who_target"].format(**{**who, "verdict": verdict}),
        *values,
    ]


def promise_text(screening: Mapping[str, Any], w: Words) -> str:
    """The sensitivity that a threshold promises; or that it promises none, and what that would need."""
    asked = {key: f"{100 * screening[key]:.6g}%" for key in ("sensitivity_asked", "confidence")}
    return w["promised" if screening["promised"] else "not_promised"].format(**{**screening, **asked})


def screening_shares(screening: Mapping[str, Any]) -> dict[str, str]:
    """Sensitivity and specificity on the test images with their intervals, – without images."""
    test = screening["test"]
    return {key: with_interval(test, key) if test[key] is not None else "–" for key in ("sensitivity", "specificity")}


def with_interval(figures: Mapping[str, Any], key: str) -> str:
    """A figure with its interval."""
    return f"{figures[key]:.3f} {interval_text(figures['ci95'][key])}"


def run_summary(folder: Path, metrics: Mapping[str, Any]) -> str:
    """The summary of a finished run."""
    test, chosen = metrics["test"], "best epoch by validation macro F1" if metrics["val"] else "last epoch"
    lines = [
        "",
        f"{folder.name}: {metrics['n_test']} test images, opened once, {chosen}",
        per_class_table(test),
        f"accuracy {with_interval(test, 'accuracy')}, macro F1 {with_interval(test, 'f1_macro')}, "
        f"macro AUROC {with_interval(test, 'auroc_macro')}",
        *hospital_lines(metrics["hospitals"]),
        *beaten_lines({folder.name: metrics}),
        *shortcut_lines(metrics["shortcuts"]),
        *calibration_lines(metrics["calibration"]),
        *screening_lines(metrics),
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
        recall, f1 = (f"{figures[key + suffix]:.3f} {interval_text(ends[key + suffix])}" for key in ("recall", "f1"))
        return f"{name:<{width}}  {figures['precision' + suffix]:9.3f}  {recall:<20}  {f1:<20}  {images:5d}"

    for name, s in scores["per_class"].items():
        lines.append(line(name, s, scores["ci95"]["per_class"][name], "", s["support"]))
    total = sum(s["support"] for s in scores["per_class"].values())
    lines.append(line("macro mean", scores, scores["ci95"], "_macro", total))
    return "\n".join(lines)


def interval_text(ends: Sequence[float]) -> str:
    """[low, high] with three digits."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"
