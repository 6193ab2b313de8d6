"""report.html of a sweep or a run: everything a sceptical reader asks for, from the run folders alone."""

import base64
import io
import logging
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cxr.files.run_folder import AUDIT, METRICS, SEARCH, SPLIT, STATUS
from cxr.files.writing import read_json, read_table
from cxr.reporting import comparison, figures, leaderboard
from cxr.reporting import search_figures as search
from cxr.reporting.accuracy_cost import Point, accuracy_against_cost
from cxr.reporting.console import beaten_lines, reliability_names, with_interval
from cxr.reporting.words import render, words

REPORT = "report.html"
NEEDED = {"calibration", "screening", "shortcuts"}  # runs of earlier versions lack them
PICTURED = 8  # cells whose matrix and reliability are shown


class Run(NamedTuple):
    """A finished run: its row of the leaderboard, its folder, and its metrics.json."""

    row: leaderboard.Row
    folder: Path
    metrics: Mapping[str, Any]


def write(folder: Path, lang: str) -> Path | None:
    """Write report.html into the folder of a sweep or of one run; None where no run is done.

    Args:
        lang: of headings and standing sentences: en or ko.
    """
    single = (folder / STATUS).exists()
    rows = [leaderboard.row_of(folder)] if single else leaderboard.collect(folder)
    runs = []
    for row in rows if single else leaderboard.opened(folder, rows):
        where = folder if single else folder / row["run"]
        metrics = read_json(where / METRICS)
        if row["status"] == "done" and metrics.keys() >= NEEDED and (where / SPLIT).exists():
            runs.append(Run(row, where, metrics))
    if not runs:
        return None
    path = folder / REPORT
    part = path.with_name(f".{REPORT}.part")
    part.write_text(render("report.html", lang, contents(folder, rows, runs, lang)), encoding="utf-8")
    part.replace(path)
    return path


def contents(folder: Path, rows: Sequence[leaderboard.Row], runs: Sequence[Run], lang: str) -> dict[str, Any]:
    """The values for the report's template; every number comes from a metrics file."""
    w = words(lang)
    first = runs[0].metrics
    search_record = read_json(folder / SEARCH)
    audit = read_json(runs[0].folder / AUDIT)
    prevalences = [
        f"{key.upper()}, {w['prevalence']} {p['prevalence']:.1%}"
        for run in runs[:1]
        if run.metrics["screening"]
        for p in run.metrics["screening"]["prevalences"]
        for key in ("ppv", "npv")
    ]
    rules = list(dict.fromkeys(rule for run in runs for rule in run.metrics["shortcuts"]))
    seeds = {run.row.get("seed") for run in runs}
    return {
        "name": folder.name,
        "runs": runs,
        "versions": first["versions"],
        "device": first["train"]["device"],
        "note": first["note"],
        "searched": bool(search_record),
        "search_pictures": search_pictures(search_record),
        "grid": leaderboard.trial_rows(rows)[: leaderboard.SHOWN + 1] if search_record else leaderboard.grid_rows(rows),
        "beaten": beaten_lines({run.row["run"]: run.metrics for run in runs}, w),
        "single": (folder / STATUS).exists(),
        "sentence": (leaderboard.trial_sentence if search_record else leaderboard.sentence)(rows).replace("**", ""),
        "comparisons": comparison.sentences(read_json(folder / comparison.COMPARISONS) or {"pairs": []}, lang),
        "audit": [[what, number or w["none"], such] for what, number, such in summary_of(audit)],
        "pictures": pictures(runs),
        "scores": [
            [run.row["run"], *(with_interval(run.metrics["test"], k) for k in ("f1_macro", "accuracy", "auroc_macro"))]
            for run in runs
        ],
        "costs": [[run.row["run"], *costs_of(run)] for run in runs if run.row["flops"] != ""],
        "shortcuts": [
            [w[rule] for rule in rules],
            *([run.row["run"], *shortcut_row(run.metrics["shortcuts"], rules)] for run in runs),
        ],
        "calibration": [[run.row["run"], *calibration_row(run.metrics["calibration"])] for run in runs],
        "screened": (first["screening"] or {}).get("class", ""),
        "screening": [
            [run.row["run"], *screening_row(run.metrics["screening"], w)] for run in runs if run.metrics["screening"]
        ],
        "prevalences": prevalences,
        "limits": [w["use_text"], w["limit_once"], w["limit_source"], w["limit_external"]]
        + ([w["limit_seed"]] if len(seeds) == 1 else []),
        "command": read_json(runs[0].folder / STATUS).get("command", "")
        + f"\npython -m cxr.report {shlex.quote(str(folder))}",
        "data_hash": audit.get("sha256", ""),
    }


def costs_of(run: Run) -> list[str]:
    """Parameters, FLOPs an image; runs of earlier versions have none."""
    return [leaderboard.in_short(run.row[key]) for key in leaderboard.COST]


def summary_of(audit: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """The lines of an audit; none of a run from before training looked for them."""
    from cxr.data.audit import summarise_audit

    return summarise_audit(audit) if audit else []


def shortcut_row(shortcuts: Mapping[str, Any], rules: Sequence[str]) -> list[str]:
    """Macro F1 by each rule; sets without NORMAL and PNEUMONIA have none of these two."""
    return [with_interval(shortcuts[rule], "f1_macro") if rule in shortcuts else "–" for rule in rules]


def calibration_row(calibration: Mapping[str, Any]) -> list[str]:
    """Temperature, then each figure before and after."""
    after = calibration.get("after")
    columns = [f"{calibration['temperature']:.2f}" if after else "–"]
    for key in ("ece", "brier", "nll"):
        columns += [with_interval(calibration["before"], key), with_interval(after, key) if after else "–"]
    return columns


def screening_row(screening: Mapping[str, Any], w: Mapping[str, str]) -> list[str]:
    """Threshold, sensitivity, specificity, verdict and predictive values."""
    test = screening["test"]
    shares = [with_interval(test, key) if test[key] is not None else "–" for key in ("sensitivity", "specificity")]
    verdict = f"{w[screening['who']['verdict']]} (n={test['positive_images']})"
    values = [
        with_interval(p, key) if p[key] is not None else "–" for p in screening["prevalences"] for key in ("ppv", "npv")
    ]
    return [f"{screening['threshold']:.3g}", *shares, verdict, *values]


def pictures(runs: Sequence[Run]) -> dict[str, Any]:
    """Every picture as PNG in base64."""
    metrics = runs[0].metrics
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(f"{leaderboard.line_of(run.row)}, aug={run.row.get('aug', '')}", []).append(run)
    counts: dict[str, Counter[str]] = {}
    for row in read_table(runs[0].folder / SPLIT):
        counts.setdefault(row["split"], Counter())[row["label"]] += 1
    matrices, reliability = [], []
    for cell, own in list(cells.items())[:PICTURED]:
        test, calibrated = own[0].metrics["test"], own[0].metrics["calibration"]
        title = f"accuracy {with_interval(test, 'accuracy')}, macro F1 {with_interval(test, 'f1_macro')}"
        matrix = figures.confusion_matrix(np.array(test["confusion_matrix"]), own[0].metrics["classes"], title)
        matrices.append((cell, png(matrix)))
        reliability.append((cell, png(figures.reliability(reliability_names(calibrated), ""))))
    histories = {cell: [run.metrics["train"]["history"] for run in own] for cell, own in cells.items()}
    order = [split for split in ("train", "val", "test", "unused") if split in counts]
    return {
        "counts": png(figures.class_counts({s: {c: counts[s][c] for c in metrics["classes"]} for s in order})),
        "augmentation": augmentation(runs),
        "curves": png(figures.learning_curves(histories)),
        "matrices": matrices,
        "reliability": reliability,
        "cost": cost_picture(cells),
    }


def cost_picture(cells: Mapping[str, Sequence[Run]]) -> str:
    """Accuracy against cost of the cells whose cost is known; "" where these do not have two different networks."""
    found, networks = [], set()
    for own in cells.values():
        row = own[0].row
        if row["flops"] != "":
            seeds = [(run.row["f1_macro"], run.row["f1_macro_low"], run.row["f1_macro_high"]) for run in own]
            found.append(Point(leaderboard.line_of(row), f"aug={row.get('aug', '')}", row["flops"], seeds))
            networks.add((row.get("model"), row["parameters"]))
    return png(accuracy_against_cost(found)) if len(networks) > 1 else ""


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
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it says which file it reads
    run = next((run for run in runs if run.row.get("aug") != "off"), runs[0])
    events = EventAccumulator(str(run.folder), size_guidance={"images": 0})
    events.Reload()
    if "data/augmentation" not in events.Tags()["images"]:
        return ""
    return base64.b64encode(events.Images("data/augmentation")[-1].encoded_image_string).decode()


def png(figure: Figure) -> str:
    """A figure as PNG in base64."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return base64.b64encode(out.getvalue()).decode()
