"""Compare the recipes of a sweep image by image, and write the sentences that say which one is better."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxr.evaluation.differences import CORRECTED_RESAMPLES, FIGURES, RELEVANT, paired_difference
from cxr.files.run_folder import COMPARISONS, INSIDE_PREDICTIONS, METRICS
from cxr.files.writing import read_json, write_json
from cxr.reporting.console import beaten_lines
from cxr.reporting.grid_table import difference_text, pair_name
from cxr.reporting.hospitals_in_words import hospital_notes
from cxr.reporting.leaderboard import write_leaderboard
from cxr.reporting.recipes import Predictions, Recipe, read_recipes, summaries, transfers
from cxr.reporting.rows import finished_metrics
from cxr.reporting.words import words


def compare(sweep: Path) -> dict[str, Any]:
    """Compare the recipes of a sweep, each with one that differs in one option, on the same test images.

    Returns:
        The content of comparisons.json. "recipes": see summarise(). "transfers": see transfers(), and "hold_out", the
        hospital. "comparisons": their number. "pairs": for each "option" (the one that differs), "ours" and "theirs"
        (its two values), "where" (the other choices), "seeds" (of each; those that both have, if there are any),
        "images", "same", see same_networks() (these count as no comparison), and for f1_macro and accuracy the result
        of paired_difference(), corrected for all comparisons.
    """
    recipes = read_recipes(sweep)
    pairs = []
    for option, ours, theirs in pairs_of(list(recipes)):
        sides = representatives(recipes[ours], recipes[theirs]), representatives(recipes[theirs], recipes[ours])
        if len({tuple(run["files"]) for side in sides for run in side}) == 1:
            pairs.append((option, dict(ours), dict(theirs), sides))
    comparisons = len(FIGURES) * sum(not same_networks(*sides) for *_, sides in pairs)
    return {
        "recipes": summaries(recipes),
        "transfers": [
            {"hold_out": hold_out_of(sweep / part["runs"][0]), **part}
            for part in transfers(recipes, read_recipes(sweep, INSIDE_PREDICTIONS))
        ],
        "comparisons": comparisons,
        "pairs": [compare_pair(*pair, max(comparisons, 1)) for pair in pairs],
    }


def hold_out_of(run: Path) -> str:
    """The hospital that a run held out."""
    return read_json(run / METRICS)["transfer"]["hold_out"]


def pairs_of(recipes: Sequence[Recipe]) -> Iterator[tuple[str, Recipe, Recipe]]:
    """Every two recipes that differ in one option, after that option. The baseline stands second: the value off, else
    the one that came first on the command line."""
    for first, second in itertools.combinations(recipes, 2):
        differing = [key for (key, a), (_, b) in zip(first, second, strict=False) if a != b]
        if len(first) == len(second) and len(differing) == 1:
            ours, theirs = (first, second) if dict(second)[differing[0]] == "off" else (second, first)
            yield differing[0], ours, theirs


def representatives(recipe: Mapping[Any, Predictions], other: Mapping[Any, Predictions]) -> list[Predictions]:
    """The seeds of a recipe to compare with another one: the common ones, else all."""
    return [recipe[seed] for seed in sorted(set(recipe) & set(other)) or sorted(recipe)]


def same_networks(ours: Sequence[Predictions], theirs: Sequence[Predictions]) -> bool:
    """Whether two recipes made the same predictions, seed by seed, to the last digit of the files."""
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(np.array_equal(a["probabilities"], b["probabilities"]) for a, b in pairs)


def compare_pair(
    option: str,
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    sides: Sequence[Sequence[Predictions]],
    comparisons: int,
) -> dict[str, Any]:
    """One of the "pairs" of comparisons.json; `sides` are the predictions of both recipes, one per seed."""
    first = sides[0][0]
    predicted = [[run["predicted"] for run in side] for side in sides]
    result = paired_difference(
        first["labels"], first["group"], *predicted, len(first["classes"]), comparisons, CORRECTED_RESAMPLES
    )
    where = {key: value for key, value in ours.items() if key != option}
    names = {"option": option, "ours": ours[option], "theirs": theirs[option], "where": where}
    same = same_networks(*sides)
    return {**names, "seeds": min(map(len, sides)), "images": len(first["labels"]), "same": same, **result}


def sentences(compared: Mapping[str, Any], lang: str = "en") -> list[str]:
    """A sentence for each pair of comparisons.json, and one on what they mean, in English or Korean."""
    w, lines = words(lang), []
    for pair in compared["pairs"]:
        names = pair_name(pair, w)
        if pair.get("same"):  # a comparisons.json of an earlier version does not say
            lines.append(f"{names}: {w['same_networks']}")
            continue
        phrases = [phrase(pair[key], w[key], w) for key in FIGURES]
        lines.append(f"{names}: {'; '.join(phrases)}{needed_seeds(pair, w)}")
    if seeds := {pair["seeds"] for pair in compared["pairs"] if not pair.get("same")}:
        note = w["over_patients"] if seeds == {1} else w["over_seeds"]
        lines.append(note.format(n=compared["comparisons"]) + (f" {w['one_seed']}" if 1 in seeds else ""))
    return lines


def phrase(result: Mapping[str, Any], figure: str, w: Mapping[str, str]) -> str:
    """A difference in words."""
    words_of = w["difference" if result["shown"] else "no_difference"]
    return words_of.format(figure=figure, numbers=difference_text(result))


def needed_seeds(pair: Mapping[str, Any], w: Mapping[str, str]) -> str:
    """How many seeds would show a difference of macro F1 that matters, where these are too few to show it; else ""."""
    result = pair["f1_macro"]
    if result["shown"] or "seeds_needed" not in result:
        return ""
    if result["seeds_needed"] is None:
        return w["more_patients"].format(relevant=RELEVANT)
    return (
        w["more_seeds"].format(n=result["seeds_needed"], relevant=RELEVANT)
        if result["seeds_needed"] > pair["seeds"]
        else ""
    )


def write_comparisons(sweep: Path) -> list[str]:
    """Write comparisons.json; rewrite the leaderboard with what the recipes are worth, the comparisons in sentences,
    what hospitals do to the scores, and the networks that are no better than simple rules. Returns the sentences."""
    compared = compare(sweep)
    write_json(sweep / COMPARISONS, compared)
    runs = finished_metrics(sweep)
    lines = sentences(compared) + hospital_notes(runs) + beaten_lines(runs)
    write_leaderboard(sweep, lines)
    return lines
