"""report.html of a sweep or a run: everything a sceptical reader asks for, from the run folders alone."""

import base64
import io
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cxr.data.audit_lines import summarise_audit
from cxr.data.split import USES
from cxr.evaluation.screening import screenings_of
from cxr.files.run_folder import AUDIT, COMPARISONS, METRICS, SEARCH, SPLIT, STATUS
from cxr.files.writing import read_json, read_table, write_text
from cxr.reporting import comparison, figures
from cxr.reporting import search_figures as search
from cxr.reporting.accuracy_cost import Point, accuracy_against_cost
from cxr.reporting.board_pictures import board_pictures
from cxr.reporting.console import (
    apart_screening,
    beaten_lines,
    promise_text,
    reliability_names,
    screening_shares,
)
from cxr.reporting.grid_table import finished_recipes, grid_rows, grid_sentence, line_of, recipe_rows, transfer_rows
from cxr.reporting.heatmap_section import heatmap_section
from cxr.reporting.hospitals_in_words import class_table, hospital_header, hospital_notes, hospital_rows
from cxr.reporting.leaderboard import SHOWN, trial_rows, trial_sentence
from cxr.reporting.markdown import in_short, with_interval
from cxr.reporting.model_card import unknown_patients
from cxr.reporting.rows import COST, Row, collect, row_of, tested_rows
from cxr.reporting.words import render, words

REPORT = "report.html"
PICTURED = 8  # recipes whose matrix and reliability are shown


class Run(NamedTuple):
    """A finished run: its row of the leaderboard, its folder, and its metrics.json."""

    row: Row
    folder: Path
    metrics: Mapping[str, Any]


def write_report(folder: Path, lang: str) -> Path | None:
    """Write report.html into the folder of a sweep or of one run; None where no run is done and tested.

    Args:
        lang: en or ko.
    """
    single = (folder / STATUS).exists()
    rows = [row_of(folder)] if single else collect(folder)
    runs = []
    for row in rows if single else tested_rows(folder, rows):
        where = folder if single else folder / row["run"]
        metrics = read_json(where / METRICS)
        if row["status"] == "done" and "test" in metrics:  # the trials of a search have none
            runs.append(Run(row, where, metrics))
    if not runs:
        return None
    w = words(lang)
    values = {**about(folder, runs, w), **answers(folder, rows, runs, lang), **figure_tables(runs, w)}
    values |= {"pictures": pictures(runs), "heatmaps": heatmap_section(runs, w)}
    write_text(folder / REPORT, render(REPORT, lang, values))
    return folder / REPORT


def about(folder: Path, runs: Sequence[Run], w: Mapping[str, str]) -> dict[str, Any]:
    """The template's values about the sweep, its images and how to repeat it."""
    first, audit = runs[0].metrics, read_json(runs[0].folder / AUDIT)
    one_seed = len({run.row.get("seed") for run in runs}) == 1
    command = read_json(runs[0].folder / STATUS).get("command", "")
    return {
        "name": folder.name,
        "runs": runs,
        "single": (folder / STATUS).exists(),
        "versions": first["versions"],
        "device": first["train"]["device"],
        "note": w.get(first["note"], first["note"]),
        "audit": [[line.title(w), line.number or w["none"], line.example(w)] for line in summarise_audit(audit)],
        "data_hash": audit["sha256"],
        "limits": [w[key] for key in ("use_text", "limit_once", "limit_source", "limit_external")]
        + unknown_patients(audit, w)
        + [w["limit_seed"]] * one_seed,
        "command": f"{command}\npython -m cxr.report {shlex.quote(str(folder))}",
    }


def answers(folder: Path, rows: Sequence[Row], runs: Sequence[Run], lang: str) -> dict[str, Any]:
    """The template's values that answer what the sweep or the search asks."""
    w, search_record = words(lang), read_json(folder / SEARCH)
    sentence, recipes = trial_sentence if search_record else grid_sentence, finished_recipes(folder, rows)
    return {
        "searched": bool(search_record),
        "search_pictures": search_pictures(search_record),
        "grid": trial_rows(rows, w)[: SHOWN + 1] if search_record else grid_rows(rows, w, recipes),
        "recipes": recipe_rows(recipes, w),
        "transfers": transfer_rows(finished_recipes(folder, rows, "transfers"), w),
        "sentence": sentence(rows, w).replace("**", ""),
        "class_table": class_table(judged["table"], w) if (judged := runs[0].metrics["hospitals"])["known"] else (),
        "hospitals": hospital_notes({run.row["run"]: run.metrics for run in runs}, w),
        "beaten": beaten_lines({run.row["run"]: run.metrics for run in runs}, w),
        "comparisons": comparison.sentences(read_json(folder / COMPARISONS) or {"pairs": []}, lang),
    }


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
        "by_hospital": by_hospital and [hospital_header(w), *by_hospital],
        "costs": table(lambda m: [in_short(m["network"][key]) for key in COST]),
        "shortcuts": [[w[rule] for rule in rules], *table(lambda m: shortcut_row(m["shortcuts"], rules))],
        "calibration": table(lambda m: calibration_row(m["calibration"])),
        "screening": [[name, *screening_row(screening, bool(apart), w)] for name, screening, apart in screenings],
        "screening_apart": list(dict.fromkeys(line.strip() for *_, apart in screenings for line in apart)),
        "prevalences": [
            f"{key.upper()}, {w['prevalence']} {p['prevalence']:.1%}"
            for _, screening, _ in screenings[:1]
            for p in screening["prevalences"]
            for key in ("ppv", "npv")
        ],
    }


def figure_or_dash(figures: Mapping[str, Any], key: str) -> str:
    """A figure with its interval; test images of one class have no AUROC."""
    return "–" if figures[key] is None else with_interval(figures, key)


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


def screening_row(screening: Mapping[str, Any], apart: bool, w: Mapping[str, str]) -> list[str]:
    """Class, threshold, promise, sensitivity, specificity, verdict and predictive values; the latter only where the
    class does not stand `apart` from others by its hospitals."""
    chosen = [screening["class"], f"{screening['threshold']:.3g}", promise_text(screening, w)]
    verdict = f"{w[screening['who']['verdict']]} (n={screening['test']['positive_images']})"
    values = [
        with_interval(p, key) if p[key] is not None and not apart else "–"
        for p in screening["prevalences"]
        for key in ("ppv", "npv")
    ]
    verdict = "–" if apart else verdict
    return [*chosen, *screening_shares(screening).values(), verdict, *values]


def pictures(runs: Sequence[Run]) -> dict[str, Any]:
    """Every picture as PNG in base64."""
    metrics = runs[0].metrics
    recipes: dict[str, list[Run]] = {}
    for run in runs:
        recipes.setdefault(f"{line_of(run.row)}, aug={run.row.get('aug', '')}", []).append(run)
    counts: dict[str, Counter[str]] = {}
    for row in read_table(runs[0].folder / SPLIT):
        counts.setdefault(row["split"], Counter())[row["label"]] += 1
    matrices, reliability = [], []
    for recipe, seeds in list(recipes.items())[:PICTURED]:
        test, calibrated = seeds[0].metrics["test"], seeds[0].metrics["calibration"]
        title = f"accuracy {with_interval(test, 'accuracy')}, macro F1 {with_interval(test, 'f1_macro')}"
        matrix = figures.confusion_matrix(np.array(test["confusion_matrix"]), seeds[0].metrics["classes"], title)
        matrices.append((recipe, png(matrix)))
        reliability.append((recipe, png(figures.reliability(reliability_names(calibrated), ""))))
    histories = {recipe: [run.metrics["train"]["history"] for run in seeds] for recipe, seeds in recipes.items()}
    order = [split for split in USES if split in counts]
    return {
        "counts": png(figures.class_counts({s: {c: counts[s][c] for c in metrics["classes"]} for s in order})),
        "augmentation": augmentation(runs),
        "curves": png(figures.learning_curves(histories)),
        "matrices": matrices,
        "reliability": reliability,
        "cost": cost_picture(recipes),
    }


def cost_picture(recipes: Mapping[str, Sequence[Run]]) -> str:
    """Macro F1 against cost; "" where there are not two different networks."""
    points, networks = [], set()
    for runs in recipes.values():
        row = runs[0].row
        seeds = [(run.row["f1_macro"], run.row["f1_macro_low"], run.row["f1_macro_high"]) for run in runs]
        points.append(Point(line_of(row), f"aug={row.get('aug', '')}", row["flops"], seeds))
        networks.add((row.get("model"), row["parameters"]))
    return png(accuracy_against_cost(points)) if len(networks) > 1 else ""


def search_pictures(search_record: Mapping[str, Any]) -> dict[str, str]:
    """Those of a search, from search.json."""
    if not search_record:
        return {}
    shares = search_record["importances"]
    return {
        "history": png(search.history(search_record["trials"])),
        "importances": png(search.importances(shares)) if shares else "",
    }


def augmentation(runs: Sequence[Run]) -> str:
    """The picture of images before and after augmentation that TensorBoard has, of a run with augmentation if any."""
    run = next((run for run in runs if run.row.get("aug") != "off"), runs[0])
    picture = board_pictures(run.folder, "data/augmentation").get("")
    return base64.b64encode(picture).decode() if picture else ""


def png(figure: Figure) -> str:
    """A figure as PNG in base64."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return base64.b64encode(out.getvalue()).decode()
