"""The picture of what networks are worth against what they cost, with a name at every point."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from cxr.results.drawing import figure, finish, fit, style_plot
from cxr.results.figures import COLOURS

MARKERS = "osD^vP"
SIZE = 8  # of names, points
NEAR = 14  # points; a name further away has a line to its point
NAME = {"fontsize": SIZE, "va": "center", "bbox": {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}}
LINE = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
# Where a name may begin, or end, from its point, nearest first: points across and up.
PLACES = [(side * across, up) for across in (7, 16, 30, 50, 80) for up in range(-90, 91, 6) for side in (1, -1)]
PLACES.sort(key=lambda place: np.hypot(*place))
SIDE_BY_SIDE = 1.035  # cells of one network stand this factor apart, or their intervals would cover each other


class Point(NamedTuple):
    """A cell: the name of its line in the leaderboard, its augmentation, its network's FLOPs a film, and macro F1 and
    the ends of its interval of each seed."""

    name: str
    aug: str
    flops: float
    seeds: Sequence[tuple[float, float, float]]


def accuracy_against_cost(cells: Sequence[Point], note: str = "") -> Figure:
    """Macro F1 on the test films against FLOPs a film, a point a cell, a colour a network.

    A cell of one seed has its 95 % interval; one of several has their mean, and each of them as a small point with its
    interval.
    """
    fig = figure(5.2, "", note)
    axes = fig.add_subplot(xlabel="FLOPs a film (forward pass)", ylabel="macro F1 on the test films", xscale="log")
    networks, augs = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    for i, aug in enumerate(augs):
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="#5A6875", label=fit(aug, 110, 9))
    places = []
    for cell in cells:
        x = cell.flops * SIDE_BY_SIDE ** (augs.index(cell.aug) - (len(augs) - 1) / 2)
        colour = COLOURS[networks.index(cell.name) % len(COLOURS)]
        several, scores = len(cell.seeds) > 1, np.array(cell.seeds, dtype=float)
        middle, low, high = scores.T
        axes.vlines(np.full(len(scores), x), low, high, color=colour, linewidth=1.2, alpha=0.3 if several else 0.9)
        if several:
            axes.plot(np.full(len(scores), x), middle, "_", color=colour, markersize=7)
        marker = MARKERS[augs.index(cell.aug) % len(MARKERS)]
        axes.plot(x, middle.mean(), marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.7)
        places.append((cell.name, colour, x, middle.mean(), low.min(), high.max()))
    axes.margins(x=0.12, y=0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    style_plot(axes, "both")
    finish(fig)  # names have to be measured in the font that they will have
    name_points(axes, places)
    return finish(fig)


def name_points(axes: Axes, places: Sequence[tuple[str, str, float, float, float, float]]) -> None:
    """A name beside every point, at the nearest place where it covers no name, point or interval, or else the least.

    Args:
        places: name, colour, x, y, and the lowest and highest y that is drawn there, of each point.
    """
    fig = axes.figure
    fig.draw_without_rendering()  # only now it is known where points lie
    fig.set_layout_engine("none")
    dot = fig.dpi / 72  # pixels a point
    inside, taken = axes.get_window_extent(), []
    for _, _, x, y, low, high in places:
        (across, bottom), (_, middle), (_, top) = axes.transData.transform([(x, low), (x, y), (x, high)])
        taken.append(Bbox.from_extents(across - 2, bottom, across + 2, top))
        taken.append(Bbox.from_bounds(across - 5 * dot, middle - 5 * dot, 10 * dot, 10 * dot))
    for name, colour, x, y, _, _ in places:
        label = axes.annotate(fit(name, 150, SIZE), (x, y), (0, 0), textcoords="offset points", color=colour, **NAME)
        size, point = label.get_window_extent(), axes.transData.transform((x, y))

        def box(place: tuple[float, float], size: Bbox = size, point: np.ndarray = point) -> Bbox:
            left = point[0] + place[0] * dot - (size.width if place[0] < 0 else 0)
            return Bbox.from_bounds(left, point[1] + place[1] * dot - size.height / 2, size.width, size.height)

        def covered(place: tuple[float, float]) -> float:
            own = box(place)
            outside = own.width * own.height - area(own, inside)
            return round(4 * outside + sum(area(own, other) for other in taken))

        best = min(PLACES, key=covered)  # the first of those that cover as little
        taken.append(box(best))
        label.set(position=best, horizontalalignment="right" if best[0] < 0 else "left")
        if np.hypot(*best) > NEAR:
            axes.annotate("", (x, y), best, textcoords="offset points", arrowprops=LINE | {"color": colour})


def area(a: Bbox, b: Bbox) -> float:
    """What two boxes share, square pixels."""
    shared = Bbox.intersection(a, b)
    return shared.width * shared.height if shared else 0.0
