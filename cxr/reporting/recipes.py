"""Recipes: what runs have in common that differ in nothing but their seed, or the fold that they test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxr.evaluation.averaging import log_mean
from cxr.evaluation.differences import (
    CORRECTED_RESAMPLES,
    FIGURES,
    gap_over_seeds,
    mean_over_seeds,
    paired_difference,
)
from cxr.evaluation.exact_intervals import difference_ends
from cxr.evaluation.intervals import headline
from cxr.files.predictions import read_predictions
from cxr.files.run_folder import PREDICTIONS
from cxr.reporting.rows import REPEATED, Row, choices, collect, tested_rows

Recipe = tuple[tuple[str, str], ...]  # (option, value) of every other choice
Predictions = Mapping[str, Any]


def recipes_of(rows: Sequence[Row]) -> dict[Recipe, dict[Any, list[Row]]]:
    """The rows of each recipe by seed; with cross-validation, a seed has a row for each fold."""
    options = [key for key in choices(rows) if key not in REPEATED]
    recipes: dict[Recipe, dict[Any, list[Row]]] = {}
    for row in rows:
        recipe = tuple((key, str(row[key])) for key in options if key in row)
        recipes.setdefault(recipe, {}).setdefault(row.get("seed", 0), []).append(row)
    return recipes


def read_recipes(sweep: Path, name: str = PREDICTIONS) -> dict[Recipe, dict[Any, Predictions]]:
    """The predictions of each recipe of a sweep by seed, in the file `name` of the runs whose test figures may be
    compared."""
    rows = [row for row in tested_rows(sweep, collect(sweep)) if row["status"] == "done"]
    rows = [row for row in rows if (sweep / row["run"] / name).exists()]
    return {
        recipe: {seed: pooled([sweep / row["run"] for row in of_seed], name) for seed, of_seed in seeds.items()}
        for recipe, seeds in recipes_of(rows).items()
    }


def pooled(runs: Sequence[Path], name: str) -> Predictions:
    """The predictions in a file of a run, or of all folds of a cross-validation together, as if of one network:
    "runs" (names), "classes", "files" (list of text, sorted), "group" (N,), "labels" and "predicted" (int, N), and
    "probabilities" (N, C).

    Two folds do not share a patient, so intervals over patients hold for the whole.
    """
    parts = [read_predictions(run, name) for run in runs]
    classes = parts[0]["classes"]
    number = {name: i for i, name in enumerate(classes)}
    files = np.array([file for part in parts for file in part["files"]])
    order = np.argsort(files)
    return {
        "runs": [run.name for run in runs],
        "classes": classes,
        "files": files[order].tolist(),
        "group": np.concatenate([part["group"] for part in parts])[order],
        **{
            key: np.array([number[name] for part in parts for name in part[key]])[order]
            for key in ("labels", "predicted")
        },
        "probabilities": np.concatenate([part["probabilities"] for part in parts])[order],
    }


def summarise(recipe: Recipe, seeds: Mapping[Any, Predictions], comparisons: int) -> dict[str, Any]:
    """What the runs of a recipe are worth together, one of the "recipes" of comparisons.json.

    Args:
        comparisons: see paired_difference(): those of all ensembles of the sweep.

    Returns:
        "recipe" (its choices), "runs" (names), "seeds" and "folds" (numbers), "images"; f1_macro and accuracy, each
        "mean", "ci95" and, over seeds, "sd": with one seed, the figure of all folds and its interval over patients,
        with several, the mean over seeds and its interval over patients and seeds. With several, "ensemble" has the
        same figures of the mean of their probabilities, and "gain": the paired_difference() of the ensemble, less its
        networks, which holds for these networks. cxr.predict calibrates that mean again, which changes no
        predicted class; of several folds, it takes the networks of all of them, here each fold has its own.
    """
    runs = list(seeds.values())
    first, many = runs[0], len(runs) > 1
    shared = first["labels"], first["group"]
    classes = len(first["classes"])
    if many:
        members = [run["predicted"] for run in runs]
        figures = mean_over_seeds(*shared, members, classes)
        predicted = log_mean([run["probabilities"] for run in runs]).argmax(1)
        gain = paired_difference(*shared, [predicted], members, classes, comparisons, CORRECTED_RESAMPLES)
        figures["ensemble"] = as_figures(headline(shared[0], predicted, shared[1], classes)) | {"gain": gain}
    else:
        figures = as_figures(headline(shared[0], first["predicted"], shared[1], classes))
    return {
        "recipe": dict(recipe),
        "runs": [name for run in runs for name in run["runs"]],
        "seeds": len(runs),
        "folds": len(first["runs"]),
        "images": len(first["files"]),
        **figures,
    }


def transfers(
    outside: Mapping[Recipe, Mapping[Any, Predictions]], inside: Mapping[Recipe, Mapping[Any, Predictions]]
) -> list[dict[str, Any]]:
    """What each recipe with a hospital held out is worth outside and inside, the "transfers" of comparisons.json.

    Returns:
        "recipe" (its choices), "runs" (names), "seeds" (their number), "classes" (those that both sides have: images of
        others do not count), and for f1_macro and accuracy the figures "outside" and "inside" and the "gap"; see
        gap_over_seeds(). Of one class alone, accuracy is its recall. Recipes whose runs tested different images are
        left out.
    """
    parts = []
    for recipe, seeds in outside.items():
        sides = [list(seeds.values()), list(inside.get(recipe, {}).values())]
        if len(sides[0]) != len(sides[1]) or any(len({tuple(run["files"]) for run in side}) > 1 for side in sides):
            continue
        names = sides[0][0]["classes"]
        common = np.intersect1d(*(side[0]["labels"] for side in sides))
        figures, arrays = [], []
        for side in sides:
            rows = np.isin(side[0]["labels"], common)
            labels, group = side[0]["labels"][rows], side[0]["group"][rows]
            predicted = [run["predicted"][rows] for run in side]
            arrays.append((labels, group, predicted))
            if len(side) > 1:
                figures.append(mean_over_seeds(labels, group, predicted, len(names)))
            else:
                figures.append(as_figures(headline(labels, predicted[0], group, len(names))))
        parts.append(
            {
                "recipe": dict(recipe),
                "runs": [name for run in sides[0] for name in run["runs"]],
                "seeds": len(sides[0]),
                "classes": [names[label] for label in common],
                "outside": figures[0],
                "inside": figures[1],
                "gap": gap_over_seeds(*arrays, len(names)) if len(seeds) > 1 else gap_of_one(*figures),
            }
        )
    return parts


def gap_of_one(outside: Mapping[str, Any], inside: Mapping[str, Any]) -> dict[str, Any]:
    """The gap of one network in the form of gap_over_seeds(), of as_figures() of both sides."""
    gaps = {}
    for key in FIGURES:
        sides = [(side[key]["mean"], side[key]["ci95"]) for side in (outside, inside)]
        gaps[key] = {"mean": sides[0][0] - sides[1][0], "ci95": difference_ends(*sides)}
    return gaps


def as_figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """headline() in the form of mean_over_seeds()."""
    return {key: {"mean": scores[key], "ci95": scores["ci95"][key]} for key in FIGURES}


def summaries(recipes: Mapping[Recipe, Mapping[Any, Predictions]]) -> list[dict[str, Any]]:
    """summarise() of each recipe that has several runs, all of whose seeds tested the same images."""
    several = {
        recipe: seeds
        for recipe, seeds in recipes.items()
        if sum(len(run["runs"]) for run in seeds.values()) > 1
        and len({tuple(run["files"]) for run in seeds.values()}) == 1
    }
    comparisons = len(FIGURES) * sum(len(seeds) > 1 for seeds in several.values())
    return [summarise(recipe, seeds, comparisons) for recipe, seeds in several.items()]
