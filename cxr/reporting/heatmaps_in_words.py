"""What the tests of heatmaps say, for people."""

from collections.abc import Mapping
from typing import Any

from cxr.reporting.markdown import interval_text, with_interval, with_sign
from cxr.reporting.words import Words, words

ENGLISH = words("en")


def heatmap_lines(figures: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """The tests and the mass in the lungs, a sentence each; `figures` as "heatmaps" in metrics.json."""
    if not (deletion := figures["deletion"]):
        return [w["heatmaps_empty"].format(n=figures["images"])]
    sanity, lungs, n = figures["sanity"], figures["lungs"], figures["images"] - figures["empty"]
    falls = {name: with_sign(-deletion[name]) for name in ("marked", "random", "another")}
    passed = [verdict(test, w) for test in (deletion, sanity)]
    correlation = with_interval(sanity, "correlation")
    return [
        w["deletion"].format(verdict=passed[0], n=n, difference=difference_text(deletion), **falls),
        w["sanity"].format(verdict=passed[1], correlation=correlation, pairs=sanity["pairs"]),
        w["mass_inside"].format(share=lungs["share"], area=lungs["area"]),
    ]


def heatmaps_row(figures: Mapping[str, Any], w: Words) -> list[str]:
    """Deletion test, sanity check and mass in the lungs, as a row of a table."""
    if not (deletion := figures["deletion"]):
        return ["–"] * 3
    sanity, lungs = figures["sanity"], figures["lungs"]
    return [
        f"{difference_text(deletion)}: {verdict(deletion, w)}",
        f"{with_interval(sanity, 'correlation')}: {verdict(sanity, w)}",
        f"{lungs['share']:.0%}",
    ]


def difference_text(deletion: Mapping[str, Any]) -> str:
    """How much more the probability falls with the marked pixels covered than with others, with its interval."""
    low, high = sorted(-end for end in deletion["ci95"]["difference"])
    return f"{with_sign(-deletion['difference'])} {interval_text((low, high), with_sign)}"


def verdict(test: Mapping[str, Any], w: Words) -> str:
    return w["passed" if test["passed"] else "failed"]


def heatmaps_failed(figures: Mapping[str, Any]) -> bool:
    """Whether the maps failed a test."""
    return bool(figures["deletion"]) and not (figures["deletion"]["passed"] and figures["sanity"]["passed"])
