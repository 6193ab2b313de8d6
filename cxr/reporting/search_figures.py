"""Figures of a search, drawn from search.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.reporting.drawing import figure, finish, fit, style_plot
from cxr.reporting.figures import COLOURS

GREY = "#9A9A9A"
WITHOUT_VALUE = {"failed": ("x", COLOURS[4]), "diverged": ("v", COLOURS[3])}


def history(trials: Sequence[Mapping[str, Any]], note: str = "") -> Figure:
    """Value by trial, and the best so far; pruned trials are grey, those that failed or diverged lie on the axis.

    Args:
        trials: "trials" of search.json: number, state (complete, pruned, fail, running, waiting) and value: macro F1 on
            validation images; of a pruned trial that of its last epoch, of one that diverged 0, and None where there is
            none.
    """
    fig = figure(3.8, "", note)
    axes = fig.add_subplot(xlabel="trial", ylabel="macro F1 on validation images")
    complete, pruned = (
        [(t["number"], t["value"]) for t in trials if t["state"] == state and t["value"]]
        for state in ("complete", "pruned")
    )
    without_value = {
        "failed": [t["number"] for t in trials if t["state"] == "fail"],
        "diverged": [t["number"] for t in trials if t["state"] == "complete" and t["value"] == 0],
    }
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "o", color=GREY, markersize=4, label=f"pruned: {len(pruned)}")
    if complete:
        number, value = (np.array(column) for column in zip(*complete, strict=True))
        axes.plot(number, value, "o", color=COLOURS[0], markersize=5, label="trial")
        best = np.maximum.accumulate(value)
        end = max(t["number"] for t in trials)
        x, y = np.append(number, end), np.append(best, best[-1])
        axes.plot(x, y, color=COLOURS[1], linewidth=1.6, drawstyle="steps-post", label="best so far")
    values = [value for _, value in (*complete, *pruned)] or [0, 1]
    pad = max(0.08 * (max(values) - min(values)), 0.01)  # of values that are all alike, too
    axes.set_ylim(min(values) - 2 * pad, max(values) + pad)
    floor = min(values) - pad
    for name, numbers in without_value.items():
        if numbers:
            marker, colour = WITHOUT_VALUE[name]
            label = f"{name}: {len(numbers)}"
            axes.plot(numbers, [floor] * len(numbers), marker, color=colour, markersize=6, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    style_plot(axes, "y")
    return finish(fig)


def importances(shares: Mapping[str, float], note: str = "") -> Figure:
    """A bar per option, the most important first.

    Args:
        shares: option -> its share of the variance of the values (functional ANOVA), 0 to 1.
    """
    ordered = sorted(shares.items(), key=lambda item: item[1])
    fig = figure(0.9 + 0.32 * len(ordered), "", note)
    axes = fig.add_subplot(xlabel="share of the variance of validation macro F1")
    bars = axes.barh([fit(name, 160, 9) for name, _ in ordered], [s for _, s in ordered], color=COLOURS[0], height=0.7)
    axes.bar_label(bars, [f"{share:.0%}" for _, share in ordered], padding=3, fontsize=9)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.margins(x=0.1)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return finish(fig)
