"""The picture accuracy against cost: points where the figures are, names that can be read."""

import unicodedata

import numpy as np
import pytest
from matplotlib import pyplot

from cxr.reporting.accuracy_cost import Point, accuracy_against_cost, shared

NETWORKS = {"cnn": 0.98e9, "resnet18": 3.47e9, "resnet34": 7.17e9, "resnet50": 8.02e9, "densenet121": 5.51e9}
NETWORKS |= {"efficientnet_b0": 0.755e9, "timm, model.name=convnext_tiny": 8.89e9}


def cells(networks, seeds=1):
    rng = np.random.default_rng(0)
    return [
        Point(name, aug, NETWORKS[name], [(f1, f1 - 0.02, f1 + 0.01) for f1 in rng.uniform(0.9, 0.96, seeds)])
        for name in networks
        for aug in ("aug=on", "aug=off")
    ]


def drawn(fig):
    """Markers of the cells as (shape, x, y), and the labels beside them."""
    (axes,) = fig.axes
    fig.draw_without_rendering()
    lines = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() != "_"]
    return [(line.get_marker(), *line.get_xydata()[0]) for line in lines], [t for t in axes.texts if t.get_text()]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("networks", [list(NETWORKS)[:2], list(NETWORKS)])
def test_every_cell_is_a_point_with_a_name_that_covers_no_other(networks, seeds):
    told = cells(networks, seeds)
    fig = accuracy_against_cost(told)
    points, names = drawn(fig)
    assert [(shape, round(y, 6)) for shape, _, y in points] == [
        ("os"[i % 2], round(np.mean([f1 for f1, _, _ in cell.seeds]), 6)) for i, cell in enumerate(told)
    ]
    assert all(x == pytest.approx(cell.flops, rel=0.03) for (_, x, _), cell in zip(points, told, strict=True))
    assert fig.axes[0].get_xscale() == "log"
    assert [name.get_text() for name in names] == [cell.name for cell in told]
    boxes = np.array([name.get_window_extent().extents for name in names])
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert np.allclose(shared(boxes, boxes), np.diag(sizes))
    assert np.allclose(shared(boxes, fig.axes[0].get_window_extent().extents[None])[:, 0], sizes)
    ends = sorted(tuple(np.round(path.vertices[:, 1], 6)) for c in fig.axes[0].collections for path in c.get_paths())
    assert ends == sorted((round(low, 6), round(high, 6)) for cell in told for _, low, high in cell.seeds)


def test_any_name_and_nothing_left_behind():
    name = "a$\\frac{$_b, " + unicodedata.normalize("NFD", "폐렴") + " model.name=" + "x" * 99
    fig = accuracy_against_cost(
        [Point(name, "aug=$x$", 1e9, [(0.5, 0.4, 0.6)]), Point("b", "aug=$x$", 2e9, [(0.4, 0.3, 0.5)])]
    )
    _, names = drawn(fig)
    assert "…" in names[0].get_text() and names[0].get_text().startswith("a$\\frac{$_b")
    assert pyplot.get_fignums() == []
