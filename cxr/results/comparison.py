"""Does it help? The cells of a sweep against each other, film by film, in figures and in sentences."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.results import leaderboard
from cxr.results.intervals import difference
from cxr.results.run_folder import METRICS, PREDICTIONS, read_json, read_table, write_json

FIGURES = {"f1_macro": "macro F1", "accuracy": "accuracy"}
RESAMPLES = 10_000  # the ends of intervals that are corrected for many comparisons lie far out


def compare(sweep: Path) -> dict[str, Any]:
    """Every two cells of a sweep that differ in one choice other than the seed, and have the same test films.

    Returns:
        What stands in comparisons.json. "comparisons": how many; "pairs": for each "option" (what differs), "ours" and
        "theirs" (its two values, the earlier one is "theirs"), "where" (the other choices), "seeds" (of both; seeds
        that both have are paired), "films", and for f1_macro and accuracy what intervals.difference() says, corrected
        for all comparisons.
    """
    runs = [row for row in leaderboard.collect(sweep) if (sweep / row["run"] / PREDICTIONS).exists()]
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
    read = {row["run"]: read_predictions(sweep / row["run"]) for row in runs}
    found = []
    for option, ours, theirs in pairs:
        seeds = sorted(set(cells[ours]) & set(cells[theirs])) or None
        sides = [[read[cells[c][s]["run"]] for s in seeds or cells[c]] for c in (ours, theirs)]
        first = sides[0][0]
        if any(p["files"] != first["files"] for p in sides[0] + sides[1]):
            continue
        classes = read_json(sweep / cells[ours][next(iter(cells[ours]))]["run"] / METRICS)["classes"]
        labels = np.array([classes.index(name) for name in first["labels"]])
        said = [[np.array([classes.index(name) for name in p["said"]]) for p in side] for side in sides]
        shown = difference(labels, first["group"], *said, len(classes), 2 * len(pairs), RESAMPLES)
        where = {key: value for key, value in ours if key != option}
        names = {"option": option, "ours": dict(ours)[option], "theirs": dict(theirs)[option], "where": where}
        found.append({**names, "seeds": len(said[0]), "films": len(labels), **shown})
    return {"comparisons": 2 * len(pairs), "pairs": found}


def read_predictions(run: Path) -> dict[str, Any]:
    """What a run said of its test films: files, labels, said (lists of text) and group (int array)."""
    group = {row["file"]: int(row["group"]) for row in read_table(run / "split.csv")}
    rows = read_table(run / PREDICTIONS)
    return {
        "files": [row["file"] for row in rows],
        "labels": [row["label"] for row in rows],
        "said": [row["prediction"] for row in rows],
        "group": np.array([group[row["file"]] for row in rows]),
    }


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
    """Write comparisons.json, add its sentences to leaderboard.md, and return them."""
    compared = compare(sweep)
    write_json(sweep / "comparisons.json", compared)
    said = sentences(compared)
    if said:
        with (sweep / "leaderboard.md").open("a", encoding="utf-8") as file:
            file.write("\n## Comparisons\n\n" + "\n".join(f"- {line}" for line in said) + "\n")
    return said
