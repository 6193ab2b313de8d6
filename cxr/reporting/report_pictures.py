"""The pictures of report.html, as PNG in base64."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr.data.split import USES
from cxr.files.run_folder import SPLIT
from cxr.files.writing import read_table
from cxr.reporting import figures
from cxr.reporting import search_figures as search
from cxr.reporting.accuracy_cost import Point, accuracy_against_cost
from cxr.reporting.board_pictures import board_pictures
from cxr.reporting.console import reliability_names
from cxr.reporting.forest import MOST, forest
from cxr.reporting.grid_table import line_of
from cxr.reporting.markdown import with_interval
from cxr.reporting.rows import Run, validation_score

PICTURED = 8  # recipes whose matrix and reliability are shown


def pictures(runs: Sequence[Run], differences: Mapping[str, Mapping[str, Any]], w: Mapping[str, str]) -> dict[str, Any]:
    """Every picture as PNG in base64; `differences` as forest() has them."""
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
    best = max(runs, key=lambda run: validation_score(run.row))
    return {
        "counts": png(figures.class_counts({s: {c: counts[s][c] for c in metrics["classes"]} for s in order})),
        "forest": png(forest(differences, w["forest_title"])) if differences else "",
        "undrawn": max(0, len(differences) - MOST),
        "augmentation": augmentation(runs),
        "mistakes": "" if best.metrics.get("heatmaps") else board_picture(best, "test/worst_mistakes"),
        "best": best.row["run"],
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
    """The picture of images before and after augmentation, of the first run that has it; "" where none has any."""
    augmented = (run for run in runs if run.row.get("aug") != "off")
    return next(filter(None, (board_picture(run, "data/augmentation") for run in augmented)), "")


def board_picture(run: Run, tag: str) -> str:
    """The latest picture that TensorBoard has of a run under a tag; "" where it has none."""
    picture = board_pictures(run.folder, tag).get("")
    return base64.b64encode(picture).decode() if picture else ""


def png(figure: Figure) -> str:
    """A figure as PNG in base64."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return base64.b64encode(out.getvalue()).decode()
