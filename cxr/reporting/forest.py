"""The picture of all differences between recipes, as reviews of trials draw them (a forest plot)."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cxr.reporting.drawing import figure, finish, fit, style_plot
from cxr.reporting.figures import COLOURS
from cxr.reporting.grid_table import difference_text, pair_name
from cxr.reporting.markdown import some_of

MOST = 24  # differences in a picture
LINE = 44  # characters of a name, of which there may be two
GREY = "#7A8794"


def forest(differences: Mapping[str, Mapping[str, Any]], axis_label: str) -> Figure:
    """Differences with their intervals around a line at 0, one below the other: in colour where they are shown, and
    these first. Of more than MOST, the others are left out.

    Args:
        differences: results of paired_difference() for a figure, by what they compare.
        axis_label: the figure.
    """
    # Python's sort keeps the order of the others.
    drawn = sorted(differences.items(), key=lambda item: not item[1]["shown"])[:MOST]
    names = [fit("\n".join(textwrap.wrap(name, LINE, max_lines=2, placeholder=" …")), 230, 8) for name, _ in drawn]
    fig = figure(0.34 * len(drawn) + 0.08 * sum("\n" in name for name in names) + 0.9, "", "")
    axes = fig.add_subplot(xlabel=axis_label)
    axes.axvline(0, color=GREY, linewidth=1)
    for row, (_, result) in enumerate(drawn):
        colour = COLOURS[0] if result["shown"] else GREY
        axes.hlines(row, *result["ci95"], color=colour, linewidth=2)
        axes.plot(result["difference"], row, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(drawn)), names, fontsize=8)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(range(len(drawn)), [difference_text(result) for _, result in drawn], fontsize=9)
    numbers.tick_params(length=0)
    numbers.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    style_plot(axes, "x")
    return finish(fig)


def named_differences(pairs: Sequence[Mapping[str, Any]], w: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """The differences in macro F1 of "pairs" of comparisons.json, by what they compare; those of the same networks are
    none."""
    return {pair_name(pair, w): pair["f1_macro"] for pair in pairs if not pair.get("same")}


def forest_sentence(differences: Mapping[str, Mapping[str, Any]], w: Mapping[str, str]) -> str:
    """Which of some differences are shown, and in which direction; "" where there are none."""
    names: dict[str, list[str]] = {"shown_higher": [], "shown_lower": [], "not_shown": []}
    for name, result in differences.items():
        if not result["shown"]:
            names["not_shown"].append(name)
        else:
            names["shown_higher" if result["difference"] > 0 else "shown_lower"].append(
                f"{name} {difference_text(result)}"
            )
    return " ".join(w[key].format(names=some_of(of_key, w["and_more"])) for key, of_key in names.items() if of_key)
