"""The picture of what networks are worth against what they cost, with a name at every point."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from cxr.reporting.drawing import figure, finish, fit, fonts, style_plot
from cxr.reporting.figures import COLOURS

MARKERS = "osD^vP"
SIZE = 8  # of names, points
NAME = {"fontsize": SIZE, "va": "center", "bbox": {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}}
NEAR = 14  # points; a name further away has a line to its point
LINE = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
# Where a name may begin (or end, left of it) from its point: points across and up.
PLACES = np.array(
    [(side * across, up) for across in (7, 16, 30, 50, 80) for up in range(-90, 91, 6) for side in (1, -1)]
)
SIDE_BY_SIDE = 1.035  # recipes of one network stand this factor apart, so that their intervals do not cover each other


class Point(NamedTuple):
    """A recipe: its line in the leaderboard, its augmentation, its network's FLOPs per image; for each seed, macro F1
    and the ends of its interval."""

    name: str
    aug: str
    flops: float
    seeds: Sequence[tuple[float, float, float]]


def accuracy_against_cost(points: Sequence[Point], note: str = "") -> Figure:
    """Macro F1 on the test images against FLOPs per image: one point per recipe, one colour per network.

    A recipe with one seed has its 95 % interval; one with several seeds has their mean, and a small point with an
    interval for each of them.
    """
    fig = figure(5.2, "", note)
    axes = fig.add_subplot(xlabel="FLOPs per image (forward pass)", ylabel="macro F1 on the test images", xscale="log")
    networks, augs = (list(dict.fromkeys(point[i] for point in points)) for i in (0, 1))
    for i, aug in enumerate(augs):
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="#5A6875", label=fit(aug, 110, 9))
    places = []
    for point in points:
        x = point.flops * SIDE_BY_SIDE ** (augs.index(point.aug) - (len(augs) - 1) / 2)
        colour = COLOURS[networks.index(point.name) % len(COLOURS)]
        several, scores = len(point.seeds) > 1, np.array(point.seeds, dtype=float)
        middle, low, high = scores.T
        axes.vlines(np.full(len(scores), x), low, high, color=colour, linewidth=1.2, alpha=0.3 if several else 0.9)
        if several:
            axes.plot(np.full(len(scores), x), middle, "_", color=colour, markersize=7)
        marker = MARKERS[augs.index(point.aug) % len(MARKERS)]
        axes.plot(x, middle.mean(), marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.7)
        places.append((point.name, colour, x, middle.mean(), low.min(), high.max()))
    axes.margins(x=0.22, y=0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    style_plot(axes, "both")
    finish(fig)  # before it is laid out: it changes how texts are measured
    name_points(axes, places)
    return finish(fig)


def name_points(axes: Axes, places: Sequence[tuple[str, str, float, float, float, float]]) -> None:
    """A name beside every point, as near as it can be without covering a name or a point, better no interval either.

    Args:
        places: name, colour, x, y, and the lowest and highest y that is drawn there, of each point.
    """
    fig = axes.figure
    fig.draw_without_rendering()  # only now it is known where points lie
    fig.set_layout_engine("none")
    dot = fig.dpi / 72  # pixels a point
    inside, intervals, taken = axes.get_window_extent().extents[None], [], []
    for _, _, x, y, low, high in places:
        (across, bottom), (_, middle), (_, top) = axes.transData.transform([(x, low), (x, y), (x, high)])
        intervals.append((across - 2, bottom, across + 2, top))
        taken.append((across - 5 * dot, middle - 5 * dot, across + 5 * dot, middle + 5 * dot))
    for name, colour, x, y, _, _ in places:
        label = axes.annotate(fit(name, 150, SIZE), (x, y), (0, 0), textcoords="offset points", color=colour, **NAME)
        label.set(parse_math=False, fontfamily=fonts()[0])  # as it will be drawn, to be measured
        size = label.get_window_extent().size
        corners = axes.transData.transform((x, y)) + PLACES * dot - size * (0, 0.5)
        corners[:, 0] -= size[0] * (PLACES[:, 0] < 0)
        boxes = np.hstack([corners, corners + size])
        outside = size.prod() - shared(boxes, inside)[:, 0]
        over = shared(boxes, np.array(taken)).sum(1) + outside
        way = 3 * np.hypot(*PLACES.T) + 0.5 * shared(boxes, np.array(intervals)).sum(1)
        best = np.argmin(100 * over.round() + way)
        taken.append(boxes[best])
        place = tuple(PLACES[best].tolist())
        label.set(position=place, horizontalalignment="right" if place[0] < 0 else "left")
        if np.hypot(*place) > NEAR:
            axes.annotate("", (x, y), place, textcoords="offset points", arrowprops=LINE | {"color": colour})


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Square pixels (N, M) that each of the boxes (N, 4) shares with each of (M, 4): left, bottom, right, top."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return sides.clip(0).prod(-1)
