"""Figures say what the arrays say, take any name, and leave nothing behind."""

import io
import itertools
import unicodedata

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.metrics import average_precision_score

from cxr.reporting import figures

CLASSES = ["NORMAL", "PNEUMONIA", "COVID19"]
NOTE = "drawn images: say nothing about patients"
# Not valid mathtext, a lone $, Hangul taken apart as macOS does, a tab and a byte that is no UTF-8.
NASTY = ["a$\\frac{$_b_{.png", "$", unicodedata.normalize("NFD", "폐렴_1.png"), "tab\there\udcff.png"]


def all_figures(names: list[str], note: str = "") -> dict[str, Figure]:
    """Every figure of the module, with `names` as classes, captions and titles."""
    n = len(names)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 16, 16), dtype=np.uint8)
    return {
        "confusion_matrix": figures.confusion_matrix(rng.integers(0, 50, (n, n)), names, names[0], note),
        "class_counts": figures.class_counts({"train": dict.fromkeys(names, 5), names[0]: {}}, note),
        "before_after": figures.before_after(images, images[::-1], names, names[0], note),
        "captioned_images": figures.captioned_images(images, names, names[0], note),
        "no_images": figures.captioned_images(images[:0], [], names[0], note),
        "precision_recall": figures.precision_recall(np.arange(40) % n, rng.random((40, n)), names, names[0], note),
    }


def draw(fig: Figure) -> None:
    """Lay the figure out; a bare Figure's `canvas.draw()` does nothing."""
    fig.savefig(io.BytesIO())


def texts(fig: Figure) -> list[str]:
    """What can be read in the figure, once drawn."""
    draw(fig)
    return [t.get_text() for t in fig.findobj(Text) if t.get_visible() and t.get_text()]


def test_confusion_matrix_says_counts_and_row_shares():
    matrix = np.array([[1200, 300, 0], [1, 2, 0], [0, 0, 0]])
    fig = figures.confusion_matrix(matrix, CLASSES, "Test")
    axes = fig.axes[0]
    cells = {t.get_position(): t.get_text() for t in axes.texts}
    expected = [["1,200\n80.0%", "300\n20.0%", "0\n0.0%"], ["1\n33.3%", "2\n66.7%", "0\n0.0%"], ["0\n–"] * 3]
    assert cells == {(column, row): expected[row][column] for row in range(3) for column in range(3)}
    assert np.allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [1 / 3, 2 / 3, 0], [0, 0, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [t.get_text() for t in axes.get_xticklabels()] == CLASSES
    assert [t.get_text() for t in axes.get_yticklabels()] == CLASSES


def test_confusion_matrix_numbers_stay_in_their_cells():
    fig = figures.confusion_matrix(np.full((15, 15), 12345), [f"class{i}" for i in range(15)], "Test")
    draw(fig)
    axes = fig.axes[0]
    cell = axes.get_window_extent().width / 15
    assert max(t.get_window_extent().width for t in axes.texts) < cell


def test_class_counts_bars_and_numbers():
    counts = {"train": {"NORMAL": 1266, "PNEUMONIA": 3418}, "test": {"PNEUMONIA": 390, "COVID19": 7}}
    axes = figures.class_counts(counts).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[1266, 3418, 0], [0, 390, 7]]
    assert [t.get_text() for t in axes.texts] == ["1,266", "3,418", "0", "0", "390", "7"]
    assert [t.get_text() for t in axes.get_xticklabels()] == CLASSES
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["train: 4,684", "test: 397"]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bars in axes.containers for bar in bars)
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(edges))


@pytest.mark.parametrize("n_classes", [2, 4, 15])
def test_numbers_on_equal_bars_do_not_run_into_each_other(n_classes):
    by_class = {f"class{i}": 12345 for i in range(n_classes)}
    fig = figures.class_counts(dict.fromkeys(["train", "val", "test"], by_class))
    draw(fig)
    boxes = sorted((t.get_window_extent() for t in fig.axes[0].texts), key=lambda box: box.x0)
    assert len(boxes) == 3 * n_classes
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("n", [1, 2, 8])
def test_before_after_puts_each_image_in_its_column(n):
    before = np.random.default_rng(0).random((n, 8, 8)).astype(np.float32)
    after = before / 2
    fig = figures.before_after(before, after, [f"image {i}" for i in range(n)], "Augmentation")
    (axes,) = fig.axes
    assert len(axes.images) == 2 * n
    captions = {text.get_text(): text.get_position() for text in axes.texts}
    for i, (top, bottom) in enumerate(zip(axes.images[:n], axes.images[n:], strict=True)):
        assert np.array_equal(top.get_array(), before[i])
        assert np.array_equal(bottom.get_array(), after[i])
        left, right, below, above = top.get_extent()
        assert left < captions[f"image {i}"][0] < right and captions[f"image {i}"][1] > above
        assert bottom.get_extent()[:2] == [left, right] and bottom.get_extent()[3] < below
        # One scale for both, or an image of half the brightness would look the same.
        assert top.get_clim() == bottom.get_clim() == (after.min(), before.max())
        for name, image in (("before", top), ("after", bottom)):
            assert image.get_extent()[2] < captions[name][1] < image.get_extent()[3]


def test_bytes_are_shown_on_their_whole_range():
    images = np.full((1, 4, 4), 100, dtype=np.uint8)
    fig = figures.captioned_images(images, ["a"], "Mistakes")
    assert fig.axes[0].images[0].get_clim() == (0, 255)


def test_captions_stay_apart():
    captions = [f"true NORMAL\nsaid PNEUMONIA 0.9\nCOVID19_{'W' * 90}_{i:02}.jpeg" for i in range(12)]
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    fig = figures.captioned_images(images, captions, "Mistakes")
    draw(fig)
    (axes,) = fig.axes
    assert [int(image.get_array()[0, 0]) for image in axes.images] == list(range(12))
    for i, text in enumerate(axes.texts):
        first, second, file = text.get_text().split("\n")
        assert (first, second) == ("true NORMAL", "said PNEUMONIA 0.9")
        assert file.startswith("COVID19_") and "…" in file and file.endswith(f"_{i:02}.jpeg")
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert not any(a.overlaps(image.get_window_extent()) for a in boxes for image in axes.images)


def test_no_images():
    empty = np.zeros((0, 8, 8), np.uint8)
    assert "no mistakes" in texts(figures.captioned_images(empty, [], "Mistakes", if_none="no mistakes"))


@pytest.mark.parametrize("decimals", [1, 8])  # 1: nearly every score is a tie
def test_precision_recall_agrees_with_scikit_learn(decimals):
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 300, p=[0.7, 0.25, 0.05])
    probabilities = rng.dirichlet(np.ones(4), 300).round(decimals).astype(np.float32)
    axes = figures.precision_recall(labels, probabilities, [*CLASSES, "TUBERCULOSIS"], "Test").axes[0]
    legend = [t.get_text() for t in axes.get_legend().get_texts()]
    for i, name in enumerate(CLASSES):
        average = average_precision_score(labels == i, probabilities[:, i])
        assert legend[i] == f"{name}\nAP {average:.3f}, {(labels == i).sum()} images"
        recall, precision = axes.lines[i].get_data()
        assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(average)  # the area that is drawn
        assert axes.lines[i].get_drawstyle() == "steps-pre"
        assert (recall[0], recall[-1]) == (0, 1)
    assert legend[3] == "TUBERCULOSIS\nno images"
    assert not len(axes.lines[3].get_xdata())


def test_curves_of_many_classes_differ_in_colour_or_line():
    names = [f"class{i}" for i in range(20)]
    fig = figures.precision_recall(np.arange(40) % 20, np.random.default_rng(0).random((40, 20)), names, "Test")
    draw(fig)
    axes = fig.axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 20
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= 0 and legend.x1 <= fig.bbox.width


@pytest.mark.filterwarnings("error")  # a missing glyph is a warning at every drawing
@pytest.mark.parametrize("names", [CLASSES, NASTY, ["x" * 300, "y" * 300]], ids=["plain", "nasty", "long"])
def test_any_names_are_drawn_as_they_are_inside_the_figure(names):
    for kind, fig in all_figures(names, NOTE).items():
        shown = texts(fig)  # drawing raises where a name is taken for a formula
        assert NOTE in shown, kind
        first = names[0] if len(names[0]) < 300 else "xx…xx"
        assert any(first in text for text in shown), kind
        assert not any(text.get_parse_math() for text in fig.findobj(Text)), kind
        drawn = fig.get_tightbbox()
        assert drawn.x0 >= 0 and drawn.x1 <= fig.get_figwidth(), kind
        assert drawn.y0 >= 0 and drawn.y1 <= fig.get_figheight(), kind


def test_names_from_macos_are_put_together_again():
    apart = unicodedata.normalize("NFD", "Müller_é")
    fig = figures.captioned_images(np.zeros((1, 8, 8), np.uint8), [apart], "Mistakes")
    assert fig.axes[0].texts[0].get_text() == "Müller_é" != apart


def test_footer_is_drawn_below_everything_and_only_if_given():
    for kind, fig in all_figures(CLASSES, NOTE).items():
        draw(fig)
        (footer,) = [t for t in fig.texts if t.get_text() == NOTE]
        top = footer.get_window_extent().y1
        assert all(axes.get_tightbbox().y0 >= top for axes in fig.axes), kind
    assert not any(fig.get_supxlabel() for fig in all_figures(CLASSES).values())


def test_nothing_is_left_in_pyplot():
    for fig in all_figures(CLASSES).values():
        draw(fig)
        assert fig.bbox.width == 800
    assert pyplot.get_fignums() == []
