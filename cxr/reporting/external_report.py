"""The report of a network on another hospital's images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.errors import printable, such_as
from cxr.evaluation.screening import screenings_of
from cxr.files.run_folder import SIDE_FILE
from cxr.files.writing import write_text
from cxr.reporting.console import beaten_lines, calibration_lines, screening_lines, shortcut_lines
from cxr.reporting.hospitals_in_words import ENGLISH, gap_part_lines, hospital_header, hospital_rows
from cxr.reporting.markdown import inert, interval_text, markdown_table, threshold_text, with_interval, with_sign

EVALUATION = "evaluation.json"


def write_external_report(folder: Path, evaluation: Mapping[str, Any]) -> str:
    """Write evaluation.md, and return the summary for the console."""
    warnings = warning_lines(evaluation)
    lines = [*warnings, *([""] if warnings else []), comparison_table(evaluation), ""]
    lines += [*difference_lines(evaluation), *remedy_lines(evaluation), *hospital_table(evaluation)]
    lines += [*slice_lines(evaluation), *beaten_lines({"this network": evaluation}), *limit_lines(evaluation)]
    write_text(folder / "evaluation.md", inert("\n".join(lines) + "\n"))
    more = [*shortcut_lines(evaluation["shortcuts"]), *calibration_lines(evaluation["calibration"])]
    return "\n".join(["", *lines, "", *more, *screening_lines(evaluation), f"all in {folder}"])


def comparison_table(evaluation: Mapping[str, Any]) -> str:
    """Figures on images from elsewhere, outside, beside those on the run's own test images, inside, of the same
    classes."""
    sides = [evaluation["internal"]] if evaluation["internal"] else []
    elsewhere = {
        **evaluation,
        "calibration": evaluation["calibration"].get("after", evaluation["calibration"]["before"]),
    }
    sides.append(elsewhere)
    names = ["inside", "outside"][-len(sides) :]
    rows = [["accuracy", *(with_interval(side["test"], "accuracy") for side in sides)]]
    if several_classes(evaluation):
        rows.insert(0, ["macro F1", *(with_interval(side["test"], "f1_macro") for side in sides)])
    if evaluation["test"]["auroc_macro"] is not None:
        rows.append(["macro AUROC", *(with_interval(side["test"], "auroc_macro") for side in sides)])
    for name, scores_here in evaluation["test"]["per_class"].items():
        if scores_here["support"]:
            recalls = []
            for side in sides:
                scores = {**side["test"]["per_class"][name], "ci95": side["test"]["ci95"]["per_class"][name]}
                recalls.append(f"{with_interval(scores, 'recall')}, n = {scores['support']:,}")
            rows.append([f"recall of {name}", *recalls])
    rows.append(["expected calibration error", *(with_interval(side["calibration"], "ece") for side in sides)])
    for name, screening in screenings_of(evaluation).items():
        points = [screenings_of(side)[name] for side in sides[:-1]] + [screening["test"]]
        for key in ("sensitivity", "specificity"):
            if screening["test"][key] is not None:
                rows.append([f"{key} for {name}", *(with_interval(point, key) for point in points)])
    header = ["", *(f"{name}, n = {side['n_test']:,}" for name, side in zip(names, sides, strict=True))]
    return markdown_table(header, rows)


def several_classes(evaluation: Mapping[str, Any]) -> bool:
    """Whether the images outside are of several classes. Of one, accuracy is the recall, and macro F1 says no more."""
    return sum(scores["support"] > 0 for scores in evaluation["test"]["per_class"].values()) > 1


def difference_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """How much worse the network is elsewhere."""
    if not evaluation["internal"]:
        return []
    shown = []
    several = several_classes(evaluation)
    figures = {"f1_macro": "macro F1", "accuracy": "accuracy"} if several else {"accuracy": "recall"}
    for key, name in figures.items():
        away = evaluation["difference"][key]
        shown.append(f"{with_sign(away['difference'])} {interval_text(away['ci95'], with_sign)} {name}")
    return [
        f"Transfer gap, outside less inside: {'; '.join(shown)}. [low, high]: 95 % intervals, if other patients had "
        "been tested.",
        *gap_part_lines(evaluation["gap_parts"]),
        "",
    ]


def remedy_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """The thresholds that would have kept the sensitivity, and what calibration on some of the images changes."""
    lines = []
    for name, point in evaluation.get("keeping", {}).items():
        used = screenings_of(evaluation)[name]["threshold"]
        specificity = with_interval(point, "specificity") if point["specificity"] is not None else "–"
        lines.append(
            f"To keep the sensitivity of {point['kept']:.3f} for {name}, the threshold would have to be "
            f"{threshold_text(point['threshold'])} instead of {threshold_text(used)}, with a specificity of "
            f"{specificity}. (It is chosen on these images: it shows what a threshold can do, not what to expect.)"
        )
    if after := evaluation["recalibrated"]:
        counts = ", ".join(f"{name} {images:,}" for name, images in after["counts"].items() if images)
        gain = after["difference"]["f1_macro"]
        lines.append(
            f"Calibrated on {after['images']:,} of the images ({counts}), which are not scored: macro F1 "
            f"{with_interval(after['test'], 'f1_macro')}, a difference of {with_sign(gain['difference'])} "
            f"{interval_text(gain['ci95'], with_sign)}; expected calibration error "
            f"{with_interval(after['calibration'], 'ece')}. The intervals hold for the images that were drawn; with "
            f"others, the difference was {with_sign(after['other_draws'][0])} to {with_sign(after['other_draws'][1])}."
        )
        if lacking := [name for name, images in after["counts"].items() if not images]:
            lines.append(
                f"No {' and no '.join(lacking)} are among them: calibrated so, the network predicts these classes less "
                "often. Do not use it for patients who may have them."
            )
    return [*lines, ""] if lines else []


def hospital_table(evaluation: Mapping[str, Any]) -> list[str]:
    """Macro F1 and recalls by hospital, if there are several."""
    rows = hospital_rows({"hospitals": {"scores": evaluation["by_hospital"]}})
    return [markdown_table(hospital_header(ENGLISH), rows), ""] if rows else []


def slice_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """Accuracy on the images of each value of a further column of the table or manifest."""
    lines = []
    for column, values in evaluation["slices"].items():
        shown = [f"{value} {with_interval(s, 'accuracy')}, n = {s['images']:,}" for value, s in values.items()]
        lines.append(f"Accuracy by {column}: {'; '.join(shown)}.")
    return lines


def warning_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """Warnings that stand above the figures, because they limit what these mean."""
    matches = evaluation["matches"]
    lines = [
        f"WARNING: {SIDE_FILE} is not beside the checkpoint {name}: its training images may be among these."
        for name, counts in evaluation["networks"].items()
        if counts is None
    ]
    if matches and matches["trained"] and evaluation["on_leak"] == "keep":
        lines.append(
            f"WARNING: copies of training images that are scored (data.on_leak=keep): {len(matches['trained']):,}."
        )
    if matches and matches["tested"]:
        lines.append(
            f"WARNING: copies of images that the run was tested on: {len(matches['tested']):,}. Their scores are no "
            "news: the run has them already."
        )
    if matches and matches["patients"]:
        lines.append(
            f"Images with the name or number of a training image's patient: {len(matches['patients']):,}. If these are "
            "the same people, remove the images; evaluation.json names them."
        )
    return lines + [f"{remark[0].upper()}{remark[1:]}." for remark in evaluation["remarks"]]


def unfamiliar_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """How many images are unlike those of the training, and what the others score."""
    about = evaluation.get("unfamiliar")
    if not about or not about["images"]:
        return []
    text = (
        f"Unlike the training images: {about['images']:,} of {evaluation['n_test']:,} ({about['share']:.1%}; inside, "
        f"1.0% is to be expected), {such_as(about['images'], printable(about['example']))}; predictions.csv has them "
        "as unfamiliar above 1. Look at these: are they chests, from the front, and not negatives?"
    )
    return [text + (f" Macro F1 without them: {with_interval(about, 'f1_macro')}." if "f1_macro" in about else "")]


def limit_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """Images that were left out, and classes that are missing."""
    lines = unfamiliar_lines(evaluation)
    if evaluation["matches"] and evaluation["on_leak"] == "drop":
        lines.append(f"Left out as copies of training images: {len(evaluation['matches']['trained']):,}.")
        if len(evaluation["networks"]) > 1:
            counts = [f"{name} {counts['trained']:,}" for name, counts in evaluation["networks"].items() if counts]
            lines[-1] += f" By network: {', '.join(counts)}."
    for name, of in evaluation["unknown_classes"].items():
        counts = ", ".join(f"{other} {images:,}" for other, images in of["predicted"].items() if images)
        lines.append(
            f"{name}: a class that the network does not know; its images are not scored (predicted: {counts})."
        )
    if lacking := evaluation["classes_without_images"]:
        both = ", on both sides" if evaluation["internal"] else ""
        lines.append(f"No images of {', '.join(lacking)}: macro figures are means over the other classes{both}.")
    if any(screening["promised"] for screening in screenings_of(evaluation).values()):
        lines.append("The promised sensitivity holds for patients like those of the run, not for another hospital's.")
    lines.append(f"Images not scored: {evaluation['left_out']:,}, each with its reason in rejected.csv.")
    return [*lines, *([evaluation["note"]] if evaluation["note"] else [])]
