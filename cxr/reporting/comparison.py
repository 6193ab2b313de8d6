"""Does it help? The recipes of a sweep against each other, image by image, in numbers and in sentences."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxr.evaluation.differences import FIGURES, paired_difference
from cxr.files.predictions import read_predictions
from cxr.files.run_folder import PREDICTIONS
from cxr.files.writing import write_json
from cxr.reporting.console import beaten_lines
from cxr.reporting.rows import Row, choices, collect, finished_metrics, tested_rows
from cxr.reporting.words import words

COMPARISONS = "comparisons.json"
Recipe = tuple[tuple[str, str], ...]  # (option, value) of every choice but the seed
RESAMPLES = 10_000  # the ends of intervals that are corrected for many comparisons lie far out


def compare(sweep: Path) -> dict[str, Any]:
    """Compare the recipes of a sweep, each with one that differs in one option, on the same test images.

    A recipe is what the runs of several seeds have in common: every choice but the seed.

    Returns:
        The content of comparisons.json. "comparisons": their number; "pairs": for each "option" (the one that differs),
        "ours" and "theirs" (its two values), "where" (the other choices), "seeds" (of both; common seeds are paired),
        "images", and for f1_macro and accuracy the result of paired_difference(), corrected for all comparisons.
    """
    runs = [
        row
        for row in tested_rows(sweep, collect(sweep))
        if row["status"] == "done" and (sweep / row["run"] / PREDICTIONS).exists()
    ]
    predictions = {row["run"]: read_predictions(sweep / row["run"]) for row in runs}
    recipes = recipes_of(runs)
    pairs = []
    for option, ours, theirs in pairs_of(list(recipes)):
        sides = [
            [predictions[run] for run in representatives(recipes[recipe], recipes[other])]
            for recipe, other in ((ours, theirs), (theirs, ours))
        ]
        if all(run["files"] == sides[0][0]["files"] for run in (*sides[0], *sides[1])):
            pairs.append((option, dict(ours), dict(theirs), sides))
    comparisons = 2 * len(pairs)  # of macro F1 and of accuracy
    return {"comparisons": comparisons, "pairs": [compare_pair(*pair, comparisons) for pair in pairs]}


def recipes_of(runs: Sequence[Row]) -> dict[Recipe, dict[Any, Row]]:
    """Rows of the leaderboard by recipe and seed."""
    options = [key for key in choices(runs) if key != "seed"]
    recipes: dict[Recipe, dict[Any, Row]] = {}
    for row in runs:
        recipe = tuple((key, str(row[key])) for key in options if key in row)
        recipes.setdefault(recipe, {})[row.get("seed", 0)] = row
    return recipes


def pairs_of(recipes: Sequence[Recipe]) -> Iterator[tuple[str, Recipe, Recipe]]:
    """Every two recipes that differ in one option, after that option. The baseline stands second: the value off, else
    the one that came first on the command line."""
    for first, second in itertools.combinations(recipes, 2):
        differing = [key for (key, a), (_, b) in zip(first, second, strict=False) if a != b]
        if len(first) == len(second) and len(differing) == 1:
            ours, theirs = (first, second) if dict(second)[differing[0]] == "off" else (second, first)
            yield differing[0], ours, theirs


def representatives(recipe: Mapping[Any, Row], other: Mapping[Any, Row]) -> list[str]:
    """The runs of a recipe to compare with another one: those of the common seeds, else all."""
    return [recipe[seed]["run"] for seed in sorted(set(recipe) & set(other)) or sorted(recipe)]


def compare_pair(
    option: str,
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    sides: Sequence[Sequence[Mapping[str, Any]]],
    comparisons: int,
) -> dict[str, Any]:
    """One of the "pairs" of comparisons.json; `sides` are the read_predictions() of both recipes, one per seed."""
    first = sides[0][0]
    number = {name: i for i, name in enumerate(first["classes"])}
    labels = np.array([number[name] for name in first["labels"]])
    predicted = [[np.array([number[name] for name in run["predicted"]]) for run in side] for side in sides]
    result = paired_difference(labels, first["group"], *predicted, len(number), comparisons, RESAMPLES)
    where = {key: value for key, value in ours.items() if key != option}
    names = {"option": option, "ours": ours[option], "theirs": theirs[option], "where": where}
    return {**names, "seeds": len(sides[0]), "images": len(labels), **result}


def sentences(compared: Mapping[str, Any], lang: str = "en") -> list[str]:
    """A sentence for each pair of comparisons.json, and one on what they mean, in English or Korean."""
    w, lines = words(lang), []
    for pair in compared["pairs"]:
        where = ", ".join(v if k == "model" else f"{k}={v}" for k, v in pair["where"].items())
        names = w["against"].format(**pair) + (f" ({where})" if where else "")
        lines.append(f"{names}: " + "; ".join(phrase(pair[key], w[key], w) for key in FIGURES))
    if lines:
        seeds = {pair["seeds"] for pair in compared["pairs"]}
        note = w["over_patients"] if seeds == {1} else w["over_seeds"]
        lines.append(note.format(n=compared["comparisons"]) + (f" {w['one_seed']}" if 1 in seeds else ""))
    return lines


def phrase(result: Mapping[str, Any], figure: str, w: Mapping[str, str]) -> str:
    """A difference in words."""
    low, high = result["ci95"]
    numbers = f"{result['difference']:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
    return w["difference" if result["shown"] else "no_difference"].format(figure=figure, numbers=numbers)


def write_comparisons(sweep: Path) -> list[str]:
    """Write comparisons.json; add its sentences, and which networks are no better than simple rules, to leaderboard.md,
    and return them."""
    compared = compare(sweep)
    write_json(sweep / COMPARISONS, compared)
    lines = sentences(compared) + beaten_lines(finished_metrics(sweep))
    if lines:
        with (sweep / "leaderboard.md").open("a", encoding="utf-8") as file:
            file.write("\n## Comparisons\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    return lines
