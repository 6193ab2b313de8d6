"""The picture of the accuracy of networks against their cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from cxr.reporting.drawing import figure, finish, fit, style_plot
from cxr.reporting.figures import COLOURS

MARKERS = "osD^vP"
SIDE_BY_SIDE = 1.035  # recipes of one network stand this factor apart, so that their intervals do not cover each other


class Point(NamedTuple):
    """A recipe: its line in the leaderboard, its augmentation, its network's FLOPs per image; for each seed, macro F1
    and the ends of its interval."""

    name: str
    aug: str
    flops: float
    seeds: Sequence[tuple[float, float, float]]


def accuracy_against_cost(points: Sequence[Point], note: str = "") -> Figure:
    """Macro F1 on the test images against FLOPs per image: one point per recipe, one colour per network (filled, then
    hollow when colours run out), one marker per augmentation.

    A recipe with one seed has its 95 % interval; one with several seeds has their mean, and a small line with an
    interval for each of them.
    """
    networks, augs = (list(dict.fromkeys(point[i] for point in points)) for i in (0, 1))
    fig = figure(max(4.4, 0.24 * (len(networks) + len(augs)) + 1), "", note)  # the legend has a line for each
    axes = fig.add_subplot(xlabel="FLOPs per image (forward pass)", ylabel="macro F1 on the test images", xscale="log")

    def look(network: str) -> dict[str, Any]:
        hollow, place = divmod(networks.index(network), len(COLOURS))
        return {"color": COLOURS[place], "fillstyle": "none" if hollow else "full", "linestyle": "none"}

    for network in networks:
        axes.plot([], [], "H", label=fit(network, 190, 9), **look(network))
    for i, aug in enumerate(augs):
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="#5A6875", linestyle="none", label=fit(aug, 190, 9))
    for point in points:
        place = augs.index(point.aug)
        x, style = point.flops * SIDE_BY_SIDE ** (place - (len(augs) - 1) / 2), look(point.name)
        several, scores = len(point.seeds) > 1, np.array(point.seeds, dtype=float)
        middle, low, high = scores.T
        side = np.full(len(scores), x)
        axes.vlines(side, low, high, color=style["color"], linewidth=1.2, alpha=0.3 if several else 0.9)
        if several:
            axes.plot(side, middle, "_", color=style["color"], markersize=7)
        axes.plot(x, middle.mean(), MARKERS[place % len(MARKERS)], markersize=7, **style)
    axes.margins(x=0.08, y=0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    style_plot(axes, "both")
    return finish(fig)
