"""The tables of report.html: a row for each run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr.evaluation.screening import screenings_of
from cxr.reporting.console import apart_screening, promise_short, promise_text, screening_shares
from cxr.reporting.hospitals_in_words import hospital_header, hospital_rows
from cxr.reporting.markdown import in_short, threshold_text, with_interval
from cxr.reporting.rows import COST, Run


def figure_tables(runs: Sequence[Run], w: Mapping[str, str]) -> dict[str, Any]:
    """The template's tables of figures: one row per run, or per run and class it screens for; the run's name first."""
    rules = list(dict.fromkeys(rule for run in runs for rule in run.metrics["shortcuts"]))
    screenings = [
        (run.row["run"], s, apart_screening(run.metrics, name, w))
        for run in runs
        for name, s in screenings_of(run.metrics).items()
    ]

    def table(row: Callable[[Mapping[str, Any]], list[str]]) -> list[list[str]]:
        return [[run.row["run"], *row(run.metrics)] for run in runs]

    by_hospital = [[run.row["run"], *row] for run in runs for row in hospital_rows(run.metrics, w)]
    return {
        "scores": table(lambda m: [figure_or_dash(m["test"], key) for key in ("f1_macro", "accuracy", "auroc_macro")]),
        "recalls": [[w["run"], *runs[0].metrics["test"]["per_class"]], *table(recall_row)],
        "by_hospital": by_hospital and [hospital_header(w), *by_hospital],
        "costs": table(lambda m: [in_short(m["network"][key]) for key in COST]),
        "shortcuts": [[w[rule] for rule in rules], *table(lambda m: shortcut_row(m["shortcuts"], rules))],
        "calibration": table(lambda m: calibration_row(m["calibration"])),
        **screening_table(screenings, w),
        "promises": list(dict.fromkeys(f"{s['class']}: {promise_text(s, w)}" for _, s, _ in screenings)),
        "screening_apart": list(dict.fromkeys(line.strip() for *_, apart in screenings for line in apart)),
    }


def figure_or_dash(figures: Mapping[str, Any], key: str) -> str:
    """A figure with its interval; test images of one class have no AUROC."""
    return "–" if figures[key] is None else with_interval(figures, key)


def recall_row(metrics: Mapping[str, Any]) -> list[str]:
    """The recall of each class, and its images; – of a class without any."""
    test = metrics["test"]
    cells = []
    for name in test["per_class"]:
        figures = {**test["per_class"][name], "ci95": test["ci95"]["per_class"][name]}
        cells.append(f"{with_interval(figures, 'recall')}, n = {figures['support']:,}" if figures["support"] else "–")
    return cells


def shortcut_row(shortcuts: Mapping[str, Any], rules: Sequence[str]) -> list[str]:
    """Macro F1 of each shortcut; sets without NORMAL and PNEUMONIA lack the last one."""
    return [with_interval(shortcuts[rule], "f1_macro") if rule in shortcuts else "–" for rule in rules]


def calibration_row(calibration: Mapping[str, Any]) -> list[str]:
    """Temperature, then each figure before and after."""
    after = calibration.get("after")
    columns = [f"{calibration['temperature']:.2f}" if after else "–"]
    for key in ("ece", "brier", "nll"):
        columns += [with_interval(calibration["before"], key), with_interval(after, key) if after else "–"]
    return columns


def screening_table(
    screenings: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]], w: Mapping[str, str]
) -> dict[str, list[list[str]]]:
    """The header and the rows of screened classes, given with their runs and what apart_screening() says; without
    verdicts and predictive values where all classes stand apart from others by their hospitals."""
    header = [w[key] for key in ("run", "class", "threshold", "promise", "sensitivity", "specificity", "who")]
    header += [
        f"{key.upper()}, {w['prevalence']} {p['prevalence']:.1%}"
        for _, screening, _ in screenings[:1]
        for p in screening["prevalences"]
        for key in ("ppv", "npv")
    ]
    rows = [[name, *screening_row(screening, bool(apart), w)] for name, screening, apart in screenings]
    if all(apart for *_, apart in screenings):
        header, *rows = [row[: header.index(w["who"])] for row in (header, *rows)]
    return {"screening_header": header, "screening": rows}


def screening_row(screening: Mapping[str, Any], apart: bool, w: Mapping[str, str]) -> list[str]:
    """Class, threshold, promise, sensitivity, specificity, verdict and predictive values; the latter only where the
    class does not stand `apart` from others by its hospitals."""
    chosen = [screening["class"], threshold_text(screening["threshold"]), promise_short(screening, w)]
    verdict = f"{w[screening['who']['verdict']]} (n={screening['test']['positive_images']})"
    values = [
        with_interval(p, key) if p[key] is not None and not apart else "–"
        for p in screening["prevalences"]
        for key in ("ppv", "npv")
    ]
    verdict = "–" if apart else verdict
    return [*chosen, *screening_shares(screening).values(), verdict, *values]
