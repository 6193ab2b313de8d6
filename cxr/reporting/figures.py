"""Figures of images and results: plain arrays in, matplotlib Figures out.

Throughout, `title` stands above and `note` is a footer, none if empty; names and captions are users' own words.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.reporting.drawing import WIDTH, figure, finish, fit, name_classes, style_plot

# Okabe and Ito's colours, which colour-blind readers can tell apart; their yellow is too faint on white.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
SPLIT_COLOURS = {"train": COLOURS[0], "val": COLOURS[1], "test": COLOURS[2], "unused": "#9A9A9A"}
FEW = 10  # of fewer images a share is noise
LINES = ["-", "--", ":", "-."]


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str, note: str = "") -> Figure:
    """Images by true and predicted class, each number with its share of the row, which is also the shade.

    Args:
        matrix: int, C x C, rows true, columns predicted; a row without images has shares of "–".
        classes: the C class names in the matrix's order.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    fig = figure(7.0, title, note)
    axes = fig.add_subplot(xlabel="predicted", ylabel="true")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    cell = 5.3 * 72 / len(classes)  # points
    size = np.clip(cell / 4.6, 3, 13)  # "100.0%" is about 4 times as wide as high
    for (row, column), share in np.ndenumerate(shares):
        text = f"{matrix[row, column]:,}\n" + (f"{share:.1%}" if totals[row, 0] else "–")
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    name_classes(axes, classes, cell)
    axes.set_yticks(range(len(classes)), [fit(name, 110, 9) for name in classes], fontsize=min(9, cell))
    edges = np.arange(1, len(classes)) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="#D5DEE8", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color("#D5DEE8")
    return finish(fig)


def class_counts(counts: dict[str, dict[str, int]], note: str = "") -> Figure:
    """Images per class in each split, as grouped bars with their numbers.

    Args:
        counts: split -> class -> number of images; a class that a split lacks counts 0 there.
    """
    classes = list(dict.fromkeys(name for by_class in counts.values() for name in by_class))
    heights = np.array([[by_class.get(name, 0) for name in classes] for by_class in counts.values()])
    fig = figure(4.5, "Images per class and split", note)
    axes = fig.add_subplot(ylabel="images")
    width = 0.84 / len(counts)
    group = 5.4 * 72 / len(classes)  # points
    upright = group * width < 5.4 * len(f"{heights.max():,}")  # lying, numbers would run into each other
    for i, (split, row) in enumerate(zip(counts, heights, strict=True)):
        x = np.arange(len(classes)) + (i - (len(counts) - 1) / 2) * width
        colour = SPLIT_COLOURS.get(split, COLOURS[(i + 3) % len(COLOURS)])
        bars = axes.bar(x, row, width * 0.94, color=colour, label=f"{fit(split, 80, 9)}: {row.sum():,}")
        size = np.clip(group * width / 1.25, 4, 8)  # a line is 1.2 sizes high
        axes.bar_label(bars, [f"{n:,}" for n in row], padding=2, fontsize=size, rotation=90 * upright)
    axes.margins(x=0.02, y=0.14 if upright else 0.08)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    name_classes(axes, classes, group)
    style_plot(axes, "y")
    return finish(fig)


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], note: str = "") -> Figure:
    """Loss and macro F1 by epoch: dashed on training images, solid on validation images. Of several seeds, the mean of
    those that got as far, in a band from the lowest to the highest.

    Args:
        histories: recipe -> "history" of each of its seeds' metrics.json: train_loss, val_loss, train_f1_macro and
            val_f1_macro, a number per epoch.
    """
    fig = figure(3.6, "", note)
    panels = fig.subplots(1, 2)
    for axes, key, name in zip(panels, ("loss", "f1_macro"), ("loss", "macro F1"), strict=True):
        for i, (recipe, seeds) in enumerate(histories.items()):
            for side, line in (("train", "--"), ("val", "-")):
                columns = list(zip_longest(*(history.get(f"{side}_{key}", ()) for history in seeds), fillvalue=np.nan))
                values = np.array(columns, dtype=float).reshape(len(columns), len(seeds))
                label = fit(recipe, 130, 9) if side == "train" else None
                style = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.3, "label": label}
                epochs = range(1, len(values) + 1)
                # Of one epoch there is no line.
                axes.plot(epochs, np.nanmean(values, axis=1), line, marker="o" if len(values) == 1 else None, **style)
                if len(seeds) > 1:
                    ends = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
                    axes.fill_between(epochs, *ends, color=style["color"], alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        style_plot(axes, "both")
    panels[0].get_legend().remove()
    return finish(fig)


def before_after(before: np.ndarray, after: np.ndarray, captions: Sequence[str], title: str, note: str = "") -> Figure:
    """Images before (top row) and after (bottom row) augmentation, on one grey scale to compare brightness.

    Args:
        before: uint8 or float, N x H x W; N about 8.
        after: the same images, same shape and type.
        captions: N, one per column.
    """
    columns = max(len(before), 4)
    cell = (WIDTH - 0.5) * 72 / columns  # points
    height = cell * before.shape[1] / before.shape[2]
    fig = figure(2 * height / 72 + 0.65, title, note)
    images = np.concatenate([before, after])
    places = [(row, column) for row in (0, 1) for column in range(len(before))]
    captions = [fit(caption, cell - 6, 7) for caption in captions] + [""] * len(after)
    axes = _show_images(fig, images, places, captions, cell, height, fontsize=7)
    for row, name in enumerate(("before", "after")):
        axes.text(-6, -(row + 0.5) * height, name, rotation=90, ha="right", va="center")
    axes.set(xlim=(-24, (columns - 0.05) * cell), ylim=(-2 * height, 12))
    return finish(fig)


def captioned_images(
    images: np.ndarray,
    captions: Sequence[str],
    title: str,
    note: str = "",
    columns: int = 4,
    if_none: str = "no images",
) -> Figure:
    """Images in rows, each under its caption, or `if_none`.

    Args:
        images: uint8 or float, N x H x W.
        captions: N, of one or more lines such as truth, prediction and file.
    """
    if not len(images):
        fig = figure(1.5, title, note)
        fig.text(0.5, 0.5, if_none, ha="center", va="center", fontsize=13)
        return finish(fig)
    cell = WIDTH * 72 / columns  # points
    rows = -(-len(images) // columns)
    head = 9.7 * max(caption.count("\n") + 1 for caption in captions) + 7
    height = cell * images.shape[1] / images.shape[2] + head
    fig = figure(rows * height / 72 + 0.4, title, note)
    places = [divmod(i, columns) for i in range(len(images))]
    captions = [fit(caption, cell - 16, 8) for caption in captions]
    axes = _show_images(fig, images, places, captions, cell, height, fontsize=8)
    axes.set(xlim=(0, (columns - 0.05) * cell), ylim=(-rows * height + head, head))
    return finish(fig)


def precision_recall(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], title: str, note: str = ""
) -> Figure:
    """One curve per class, that class against the rest, with its average precision (AP) and number of images.

    AP is the sum of (R_n - R_n-1) P_n over the distinct scores, as scikit-learn defines it: the area under
    the steps as drawn.

    Args:
        labels: int, N; index of the true class.
        probabilities: float, N x C.
        classes: the C class names; one without images has no curve, only its line in the legend.
    """
    fig = figure(max(5.0, 0.37 * len(classes) + 1.0), title, note)  # the legend takes two lines a class
    axes = fig.add_subplot(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    for i, name in enumerate(classes):
        positive = labels == i
        precision, recall, summary = [], [], "no images"
        if positive.any():
            precision, recall = _precision_recall(positive, probabilities[:, i])
            average = np.sum(np.diff(recall, prepend=0) * precision)
            summary = f"AP {average:.3f}, {positive.sum():,} images"
            precision, recall = np.append(precision[0], precision), np.append(0, recall)
        line, colour = LINES[i // len(COLOURS) % len(LINES)], COLOURS[i % len(COLOURS)]
        label = f"{fit(name, 130, 9)}\n{summary}"
        axes.plot(recall, precision, line, color=colour, linewidth=1.8, drawstyle="steps-pre", label=label)
    style_plot(axes, "both")
    return finish(fig)


def _precision_recall(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each distinct score, highest first, of `positive` (bool, N, not all False)."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last = np.append(np.diff(score) != 0, True)  # images of one score pass a threshold together
    hits = np.cumsum(positive)[last]
    return hits / (np.flatnonzero(last) + 1), hits / hits[-1]


def reliability(kinds: Mapping[str, Mapping[str, Any]], title: str, note: str = "") -> Figure:
    """How often the predicted class was right, by its probability; below, the number of images.

    Args:
        kinds: name -> "bins" of calibration.calibration(): images, confidence and right, a number per bin (None
            without images).
    """
    fig = figure(6.0, title, note)
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color="#9A9A9A", linewidth=1, label="perfect calibration")
    for i, (name, bins) in enumerate(kinds.items()):
        there = [b for b, images in enumerate(bins["images"]) if images >= FEW]
        sure, right = ([bins[key][b] for b in there] for key in ("confidence", "right"))
        top.plot(sure, right, "o-", color=COLOURS[i], markersize=4, label=name)
        bottom.stairs(bins["images"], np.linspace(0, 1, len(bins["images"]) + 1), color=COLOURS[i], linewidth=1.5)
    top.set(ylabel=f"share correct\n(bins of {FEW} images or more)", ylim=(-0.02, 1.02))
    bottom.set(xlabel="probability of the predicted class", ylabel="images", xlim=(0, 1))
    style_plot(top, "both")
    bottom.spines[["top", "right"]].set_visible(False)
    return finish(fig)


def _show_images(
    fig: Figure,
    images: np.ndarray,
    places: Sequence[tuple[int, int]],
    captions: Sequence[str],
    across: float,
    down: float,
    fontsize: float,
) -> Axes:
    """Images below their captions, at places (row, column) that lie `across` and `down` points from each other.

    All are in one Axes, whose unit is a point and whose limits the caller sets: one Axes per image takes four times as
    long.
    """
    axes = fig.add_subplot(aspect="equal")
    axes.set_axis_off()
    width, grey = 0.95 * across, _grey_range(images)
    height = width * images.shape[1] / images.shape[2]
    for image, (row, column), caption in zip(images, places, captions, strict=True):
        x, y = column * across, -row * down
        axes.imshow(image, cmap="gray", extent=(x, x + width, y - height, y), **grey)
        axes.text(x + width / 2, y + 3, caption, ha="center", va="bottom", fontsize=fontsize)
    return axes


def _grey_range(images: np.ndarray) -> dict[str, float]:
    """Black and white: of bytes the whole range, of floats the lowest and highest value there is."""
    if images.dtype == np.uint8:
        return {"vmin": 0, "vmax": 255}
    return {"vmin": images.min(), "vmax": images.max()}
