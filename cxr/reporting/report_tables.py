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
        "screening": screening_table(screenings, w),
        "predictive": predictive_table(screenings, w),
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


# Runs, the classes that they screen for, and what apart_screening() says.
Screenings = Sequence[tuple[str, Mapping[str, Any], Sequence[str]]]


def screening_table(screenings: Screenings, w: Mapping[str, str]) -> list[list[str]]:
    """Classes as screening tests, below their header; empty without any. Without verdicts where all classes stand apart
    from others by their hospitals."""
    keys = ["run", "class", "threshold", "promise", "sensitivity", "specificity", "who"]
    rows = [[name, *screening_row(screening, bool(apart), w)] for name, screening, apart in screenings]
    table = [[w[key] for key in keys], *rows] if rows else []
    return [row[:-1] for row in table] if all(apart for *_, apart in screenings) else table


def screening_row(screening: Mapping[str, Any], apart: bool, w: Mapping[str, str]) -> list[str]:
    """Class, threshold, promise, sensitivity, specificity and verdict; the latter only where the class does not stand
    `apart` from others by its hospitals."""
    chosen = [screening["class"], threshold_text(screening["threshold"]), promise_short(screening, w)]
    verdict = "–" if apart else f"{w[screening['who']['verdict']]} (n={screening['test']['positive_images']})"
    return [*chosen, *screening_shares(screening).values(), verdict]


def predictive_table(screenings: Screenings, w: Mapping[str, str]) -> list[list[str]]:
    """Predictive values at each prevalence of the classes that do not stand apart from others by their hospitals, below
    their header; empty without any."""
    shown = [(name, screening) for name, screening, apart in screenings if not apart]
    if not shown:
        return []
    values = [(key, number) for number in range(len(shown[0][1]["prevalences"])) for key in ("ppv", "npv")]
    prevalences = [f"{of['prevalence']:.1%}" for of in shown[0][1]["prevalences"]]
    header = [w["run"], w["class"], *(f"{key.upper()}, {w['prevalence']} {prevalences[n]}" for key, n in values)]
    rows = []
    for name, screening in shown:
        points = [(screening["prevalences"][number], key) for key, number in values]
        texts = [with_interval(point, key) if point[key] is not None else "–" for point, key in points]
        rows.append([name, screening["class"], *texts])
    return [header, *rows]
