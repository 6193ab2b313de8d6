"""Does it help? The cells of a sweep against each other, image by image, in figures and in sentences."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.evaluation.intervals import difference
from cxr.files.run_folder import METRICS, PREDICTIONS, SPLIT, probability_columns
from cxr.files.writing import read_json, read_table, write_json
from cxr.reporting import leaderboard
from cxr.reporting.console import beaten_lines

FIGURES = {"f1_macro": "macro F1", "accuracy": "accuracy"}
COMPARISONS = "comparisons.json"
RESAMPLES = 10_000  # the ends of intervals that are corrected for many comparisons lie far out


def compare(sweep: Path) -> dict[str, Any]:
    """Every two cells of a sweep that differ in one choice other than the seed, and have the same test images.

    Returns:
        What stands in comparisons.json. "comparisons": how many; "pairs": for each "option" (what differs), "ours" and
        "theirs" (its two values), "where" (the other choices), "seeds" (of both; seeds
        that both have are paired), "images", and for f1_macro and accuracy what intervals.difference() says, corrected
        for all comparisons.
    """
    runs = [
        row
        for row in leaderboard.opened(sweep, leaderboard.collect(sweep))
        if row["status"] == "done" and (sweep / row["run"] / PREDICTIONS).exists()
    ]
    cells: dict[tuple[tuple[str, Any], ...], dict[Any, leaderboard.Row]] = {}
    for row in runs:
        choices = tuple((key, str(row[key])) for key in leaderboard.choices(runs) if key != "seed" and key in row)
        cells.setdefault(choices, {})[row.get("seed", 0)] = row
    pairs = []
    for one, other in itertools.combinations(cells, 2):
        differ = [key for (key, a), (_, b) in zip(one, other, strict=False) if a != b]
        if len(one) == len(other) and len(differ) == 1:
            # Others are held against what is off, else against what came first on the command line.
            ours, theirs = (one, other) if dict(other)[differ[0]] == "off" else (other, one)
            pairs.append((differ[0], ours, theirs))
    said_by = {row["run"]: read_predictions(sweep / row["run"]) for row in runs}
    asked = []
    for option, ours, theirs in pairs:
        both = [
            [said_by[run] for run in runs_of(cells[cell], cells[other])]
            for cell, other in ((ours, theirs), (theirs, ours))
        ]
        if all(said["files"] == both[0][0]["files"] for said in both[0] + both[1]):
            asked.append(((option, ours, theirs), both))
    found = []
    for (option, ours, theirs), both in asked:
        first = both[0][0]
        said = [[np.array([first["classes"].index(name) for name in run["said"]]) for run in side] for side in both]
        labels = np.array([first["classes"].index(name) for name in first["labels"]])
        shown = difference(labels, first["group"], *said, len(first["classes"]), 2 * len(asked), RESAMPLES)
        where = {key: value for key, value in ours if key != option}
        names = {"option": option, "ours": dict(ours)[option], "theirs": dict(theirs)[option], "where": where}
        found.append({**names, "seeds": len(said[0]), "images": len(labels), **shown})
    return {"comparisons": 2 * len(asked), "pairs": found}


def runs_of(cell: Mapping[Any, leaderboard.Row], other: Mapping[Any, leaderboard.Row]) -> list[str]:
    """The runs of a cell that stand for it beside another: those of the seeds that both have, else all."""
    return [cell[seed]["run"] for seed in sorted(set(cell) & set(other)) or sorted(cell)]


def read_predictions(run: Path) -> dict[str, Any]:
    """What a run said of its test images: run, classes, files, labels, said (lists of text), probabilities (float32 (N,
    C)) and group (int; of runs before there were groups, the patient or file, text)."""
    split = {row["file"]: row for row in read_table(run / SPLIT)}
    rows, classes = read_table(run / PREDICTIONS), read_json(run / METRICS)["classes"]
    group = [group_of(split[row["file"]]) for row in rows]
    chances = [[row[column] for column in probability_columns(classes)] for row in rows]
    return {
        "run": run,
        "classes": classes,
        "probabilities": np.array(chances, dtype=np.float32),
        "files": [row["file"] for row in rows],
        "labels": [row["label"] for row in rows],
        "said": [row["prediction"] for row in rows],
        # As numbers where they are: sorted as text, a resample would draw other groups than the run's own.
        "group": np.array([int(name) for name in group] if all(name.isdigit() for name in group) else group),
    }


def group_of(row: Mapping[str, str]) -> str:
    """What stands for an image's group in a row of split.csv."""
    return row.get("group") or row["patient"] or row["file"]


def sentences(compared: Mapping[str, Any]) -> list[str]:
    """What was found, a sentence a pair, and one on what it means."""
    lines = []
    for pair in compared["pairs"]:
        where = ", ".join(v if k == "model" else f"{k}={v}" for k, v in pair["where"].items())
        what = f"{pair['option']}={pair['ours']} against {pair['theirs']}" + (f" ({where})" if where else "")
        lines.append(f"{what}: " + "; ".join(phrase(pair[key], name) for key, name in FIGURES.items()))
    if lines:
        seeds = {pair["seeds"] for pair in compared["pairs"]}
        lines.append(
            f"[low, high]: 95 % intervals over patients{' and seeds' if seeds != {1} else ''}, corrected for "
            f"{compared['comparisons']} comparisons."
            + (" One seed a cell: they hold for these trained networks, not for the recipes." if 1 in seeds else "")
        )
    return lines


def phrase(found: Mapping[str, Any], name: str) -> str:
    """A difference in words."""
    low, high = found["ci95"]
    numbers = f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
    return f"{numbers} {name}" if found["shown"] else f"no difference in {name} shown ({numbers})"


def write(sweep: Path) -> list[str]:
    """Write comparisons.json; add its sentences, and which networks are no better than simple rules, to leaderboard.md,
    and return them."""
    compared = compare(sweep)
    write_json(sweep / COMPARISONS, compared)
    said = sentences(compared) + beaten_lines(leaderboard.finished(sweep))
    if said:
        with (sweep / "leaderboard.md").open("a", encoding="utf-8") as file:
            file.write("\n## Comparisons\n\n" + "\n".join(f"- {line}" for line in said) + "\n")
    return said
