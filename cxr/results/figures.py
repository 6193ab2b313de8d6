"""Figures of films and results: plain arrays in, matplotlib Figures out.

Figures are built as objects, never through pyplot, which keeps every figure alive until it is closed. All are
800 px wide, as TensorBoard and the README show them. Throughout, `title` stands above and `note` is a footer,
none if empty; names and captions are users' own words, drawn as they are, cut where they would overlap.
"""

import textwrap
import unicodedata
from bisect import bisect
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

WIDTH = 8.0  # inches, at 100 dots an inch
# Okabe and Ito's colours, which colour-blind readers can tell apart; their yellow is too faint on white.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
SPLIT_COLOURS = {"train": COLOURS[0], "val": COLOURS[1], "test": COLOURS[2], "unused": "#9A9A9A"}
LINES = ["-", "--", ":", "-."]
# matplotlib's own font has no Hangul: the fonts that Linux, Windows and macOS have it in.
HANGUL_FONTS = ["Noto Sans CJK KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic"]


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str, note: str = "") -> Figure:
    """Films by true and predicted class, each number with its share of the row, which is also the shade.

    Args:
        matrix: int, C x C, rows true, columns predicted; a row without films has shares of "–".
        classes: the C class names in the matrix's order.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    fig = _figure(7.0, title, note)
    axes = fig.add_subplot(xlabel="predicted", ylabel="true")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    cell = 5.3 * 72 / len(classes)  # points
    size = np.clip(cell / 4.6, 3, 13)  # "100.0%" is about 4 times as wide as high
    for (row, column), share in np.ndenumerate(shares):
        text = f"{matrix[row, column]:,}\n" + (f"{share:.1%}" if totals[row, 0] else "–")
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    _name_classes(axes, classes, cell)
    axes.set_yticks(range(len(classes)), [_fit(name, 110, 9) for name in classes], fontsize=min(9, cell))
    edges = np.arange(1, len(classes)) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="#D5DEE8", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color("#D5DEE8")
    return _finish(fig)


def class_counts(counts: dict[str, dict[str, int]], note: str = "") -> Figure:
    """Films per class in each split, as grouped bars with their numbers.

    Args:
        counts: split -> class -> number of films; a class that a split lacks counts 0 there.
    """
    classes = list(dict.fromkeys(name for by_class in counts.values() for name in by_class))
    heights = np.array([[by_class.get(name, 0) for name in classes] for by_class in counts.values()])
    fig = _figure(4.5, "Films per class and split", note)
    axes = fig.add_subplot(ylabel="films")
    width = 0.84 / len(counts)
    group = 5.4 * 72 / len(classes)  # points
    upright = group * width < 5.4 * len(f"{heights.max():,}")  # lying, numbers would run into each other
    for i, (split, row) in enumerate(zip(counts, heights, strict=True)):
        x = np.arange(len(classes)) + (i - (len(counts) - 1) / 2) * width
        colour = SPLIT_COLOURS.get(split, COLOURS[(i + 3) % len(COLOURS)])
        bars = axes.bar(x, row, width * 0.94, color=colour, label=f"{_fit(split, 80, 9)}: {row.sum():,}")
        size = np.clip(group * width / 1.25, 4, 8)  # a line is 1.2 sizes high
        axes.bar_label(bars, [f"{n:,}" for n in row], padding=2, fontsize=size, rotation=90 * upright)
    axes.margins(x=0.02, y=0.14 if upright else 0.08)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _name_classes(axes, classes, group)
    _style_plot(axes, "y")
    return _finish(fig)


def before_after(before: np.ndarray, after: np.ndarray, captions: Sequence[str], title: str, note: str = "") -> Figure:
    """Films before (top row) and after (bottom row) augmentation, on one gray scale to compare brightness.

    Args:
        before: uint8 or float, N x H x W; N about 8.
        after: the same films, same shape and type.
        captions: N, one a column.
    """
    columns = max(len(before), 4)
    cell = (WIDTH - 0.5) * 72 / columns  # points
    height = cell * before.shape[1] / before.shape[2]
    fig = _figure(2 * height / 72 + 0.65, title, note)
    films = np.concatenate([before, after])
    places = [(row, column) for row in (0, 1) for column in range(len(before))]
    captions = [_fit(caption, cell - 6, 7) for caption in captions] + [""] * len(after)
    axes = _show_films(fig, films, places, captions, cell, height, fontsize=7)
    for row, name in enumerate(("before", "after")):
        axes.text(-6, -(row + 0.5) * height, name, rotation=90, ha="right", va="center")
    axes.set(xlim=(-24, (columns - 0.05) * cell), ylim=(-2 * height, 12))
    return _finish(fig)


def captioned_films(
    films: np.ndarray, captions: Sequence[str], title: str, note: str = "", columns: int = 4, if_none: str = "no films"
) -> Figure:
    """Films in rows, each under its caption, or `if_none`.

    Args:
        films: uint8 or float, N x H x W.
        captions: N, of one or more lines such as truth, prediction and file.
    """
    if not len(films):
        fig = _figure(1.5, title, note)
        fig.text(0.5, 0.5, if_none, ha="center", va="center", fontsize=13)
        return _finish(fig)
    cell = WIDTH * 72 / columns  # points
    rows = -(-len(films) // columns)
    head = 9.7 * max(caption.count("\n") + 1 for caption in captions) + 7
    height = cell * films.shape[1] / films.shape[2] + head
    fig = _figure(rows * height / 72 + 0.4, title, note)
    places = [divmod(i, columns) for i in range(len(films))]
    captions = [_fit(caption, cell - 16, 8) for caption in captions]
    axes = _show_films(fig, films, places, captions, cell, height, fontsize=8)
    axes.set(xlim=(0, (columns - 0.05) * cell), ylim=(-rows * height + head, head))
    return _finish(fig)


def precision_recall(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], title: str, note: str = ""
) -> Figure:
    """One curve a class, that class against the rest, with its average precision (AP) and number of films.

    AP is the sum of (R_n - R_n-1) P_n over the distinct scores, as scikit-learn defines it: the area under
    the steps as drawn.

    Args:
        labels: int, N; index of the true class.
        probabilities: float, N x C.
        classes: the C class names; one without films has no curve, only its line in the legend.
    """
    fig = _figure(max(5.0, 0.37 * len(classes) + 1.0), title, note)  # the legend takes two lines a class
    axes = fig.add_subplot(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    for i, name in enumerate(classes):
        positive = labels == i
        precision, recall, summary = [], [], "no films"
        if positive.any():
            precision, recall = _precision_recall(positive, probabilities[:, i])
            average = np.sum(np.diff(recall, prepend=0) * precision)
            summary = f"AP {average:.3f}, {positive.sum():,} films"
            precision, recall = np.append(precision[0], precision), np.append(0, recall)
        line, colour = LINES[i // len(COLOURS) % len(LINES)], COLOURS[i % len(COLOURS)]
        label = f"{_fit(name, 130, 9)}\n{summary}"
        axes.plot(recall, precision, line, color=colour, linewidth=1.8, drawstyle="steps-pre", label=label)
    _style_plot(axes, "both")
    return _finish(fig)


def _precision_recall(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each distinct score, highest first, of `positive` (bool, N, not all False)."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last = np.append(np.diff(score) != 0, True)  # films of one score pass a threshold together
    hits = np.cumsum(positive)[last]
    return hits / (np.flatnonzero(last) + 1), hits / hits[-1]


def _figure(height: float, title: str, note: str) -> Figure:
    """An empty figure with title and footer; constrained layout keeps room for both."""
    footer = textwrap.fill(note, 80)
    height += 0.16 * len(footer.splitlines())
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    fig = Figure((WIDTH, height), dpi=100, layout=layout)
    fig.suptitle(_fit(title, WIDTH * 72 - 20, 12, "bold"), fontsize=12, fontweight="bold")
    if footer:
        footer = _fit(footer, WIDTH * 72 - 20, 9, "bold")
        fig.supxlabel(footer, fontsize=9, fontweight="bold", color="#A63C00")
    return fig


def _finish(fig: Figure) -> Figure:
    """Have every text drawn as it is: `a$1$_b` is a file, not a formula."""
    for text in fig.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(_fonts()[0])
    return fig


@cache
def _fonts() -> tuple[list[str], frozenset[int]]:
    """The font families to draw with, first choice first, and the characters that they have."""
    installed = set(font_manager.fontManager.get_font_names())
    families = ["DejaVu Sans", *(name for name in HANGUL_FONTS if name in installed)]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    return families, frozenset().union(*(font.get_charmap() for font in fonts))


def _fit(text: str, room: float, size: float, weight: str = "normal") -> str:
    """Cut lines wider than `room` points at font size `size`, in the middle: file names differ at their ends.

    A character that no font has becomes a box here, or matplotlib would warn of it at every drawing.
    """
    families, drawable = _fonts()
    font = font_manager.FontProperties(family=families, size=size, weight=weight)

    def width(line: str) -> float:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]

    lines = []
    for line in unicodedata.normalize("NFC", text).split("\n"):  # macOS takes Hangul names apart into letters
        line = "".join(c if ord(c) in drawable else "□" for c in line)
        if width(line) > room:
            cuts = [f"{line[: (n + 1) // 2]}…{line[len(line) - n // 2 :]}" for n in range(len(line))]
            line = cuts[max(bisect(cuts, room, key=width) - 1, 0)]
        lines.append(line)
    return "\n".join(lines)


def _name_classes(axes: Axes, classes: Sequence[str], room: float) -> None:
    """Class names along the x axis, `room` points each; slanted where one does not fit lying."""
    names = [_fit(name, 110, 9) for name in classes]
    slanted = any(_fit(name, room - 6, 9) != name for name in names)
    turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), names, fontsize=min(9, room), **turn)


def _style_plot(axes: Axes, grid: str) -> None:
    """Light grid behind the data, no box around it, the legend beside it where it hides nothing."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#E3E3E3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9)


def _show_films(
    fig: Figure,
    films: np.ndarray,
    places: Sequence[tuple[int, int]],
    captions: Sequence[str],
    across: float,
    down: float,
    fontsize: float,
) -> Axes:
    """Films below their captions, at places (row, column) that lie `across` and `down` points from each other.

    All in one Axes, whose unit is a point and whose limits the caller sets: one for each film takes four times as long.
    """
    axes = fig.add_subplot(aspect="equal")
    axes.set_axis_off()
    width, gray = 0.95 * across, _gray_range(films)
    height = width * films.shape[1] / films.shape[2]
    for film, (row, column), caption in zip(films, places, captions, strict=True):
        x, y = column * across, -row * down
        axes.imshow(film, cmap="gray", extent=(x, x + width, y - height, y), **gray)
        axes.text(x + width / 2, y + 3, caption, ha="center", va="bottom", fontsize=fontsize)
    return axes


def _gray_range(films: np.ndarray) -> dict[str, float]:
    """Black and white: of bytes the whole range, of floats the lowest and highest value there is."""
    if films.dtype == np.uint8:
        return {"vmin": 0, "vmax": 255}
    return {"vmin": films.min(), "vmax": films.max()}
