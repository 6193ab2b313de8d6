"""report.html of a sweep or a run: everything a sceptical reader asks for, from the run folders alone."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.data.audit_lines import summarise_audit
from cxr.files.run_folder import AUDIT, COMPARISONS, METRICS, SEARCH, STATUS
from cxr.files.writing import read_json, write_text
from cxr.reporting import comparison
from cxr.reporting.console import beaten_lines
from cxr.reporting.forest import forest_sentence, named_differences
from cxr.reporting.grid_table import finished_recipes, grid_rows, grid_sentence, recipe_rows, transfer_rows
from cxr.reporting.heatmap_section import heatmap_section
from cxr.reporting.hospitals_in_words import class_table, hospital_notes
from cxr.reporting.leaderboard import SHOWN, trial_rows, trial_sentence
from cxr.reporting.markdown import with_interval
from cxr.reporting.model_card import unknown_patients
from cxr.reporting.report_pictures import pictures, search_pictures
from cxr.reporting.report_tables import figure_tables
from cxr.reporting.rows import REPEATED, Row, Run, choices, collect, row_of, tested_rows
from cxr.reporting.words import render, words

REPORT = "report.html"


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
    compared = read_json(folder / COMPARISONS) or {"pairs": []}
    differences = named_differences(compared["pairs"], w)
    values = {**about(folder, runs, w), **answers(folder, rows, runs, lang), **figure_tables(runs, w)}
    values |= {"comparisons": comparison.sentences(compared, lang), "headline": headline(runs, differences, w)}
    english = words("en")  # of pictures, in any language: not every machine has a font with Hangul
    drawn = pictures(runs, named_differences(compared["pairs"], english), english)
    values |= {"pictures": drawn, "heatmaps": heatmap_section(runs, w)}
    write_text(folder / REPORT, render(REPORT, lang, values))
    return folder / REPORT


def question(rows: Sequence[Row], w: Mapping[str, str]) -> str:
    """What the sweep asks: of models and augmentation what the capstone asked; else what the options that vary do; ""
    if none does."""
    varied = [key for key in choices(rows) if key not in REPEATED and len({row.get(key) for row in rows}) > 1]
    if {*varied} == {"model", "aug"}:
        return w["question"]
    return w["question_of"].format(options=", ".join(varied)) if varied else ""


def headline(runs: Sequence[Run], differences: Mapping[str, Mapping[str, Any]], w: Mapping[str, str]) -> str:
    """The sentence that answers: which differences are shown; or, of one recipe, its first run's macro F1."""
    metrics = runs[0].metrics
    score = f"macro F1 {with_interval(metrics['test'], 'f1_macro')}, n = {metrics['n_test']:,}"
    return forest_sentence(differences, w) or f"{runs[0].row['run']}: {score}"


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
        "question": question(rows, w) or folder.name,
        "search_pictures": search_pictures(search_record),
        "grid": trial_rows(rows, w)[: SHOWN + 1] if search_record else grid_rows(rows, w, recipes),
        "recipes": recipe_rows(recipes, w),
        "transfers": transfer_rows(finished_recipes(folder, rows, "transfers"), w),
        "sentence": sentence(rows, w).replace("**", ""),
        "class_table": class_table(judged["table"], w) if (judged := runs[0].metrics["hospitals"])["known"] else (),
        "hospitals": hospital_notes({run.row["run"]: run.metrics for run in runs}, w),
        "beaten": beaten_lines({run.row["run"]: run.metrics for run in runs}, w),
    }
