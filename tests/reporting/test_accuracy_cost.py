"""The picture accuracy against cost: points where the figures are, each to be found in the legend."""

import unicodedata

import numpy as np
import pytest
from matplotlib import pyplot

from cxr.reporting.accuracy_cost import Point, accuracy_against_cost

NETWORKS = {"cnn": 0.98e9, "resnet18": 3.47e9, "resnet34": 7.17e9, "resnet50": 8.02e9, "densenet121": 5.51e9}
NETWORKS |= {"efficientnet_b0": 0.755e9, "timm, model.name=convnext_tiny": 8.89e9, "timm, model.name=vit_tiny": 2.1e9}


def recipes(networks, seeds=1):
    rng = np.random.default_rng(0)
    return [
        Point(name, aug, NETWORKS[name], [(f1, f1 - 0.02, f1 + 0.01) for f1 in rng.uniform(0.9, 0.96, seeds)])
        for name in networks
        for aug in ("aug=on", "aug=off")
    ]


def look(line):
    return line.get_color(), line.get_fillstyle()


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("networks", [list(NETWORKS)[:2], list(NETWORKS)])
def test_every_recipe_is_a_point_that_the_legend_names(networks, seeds):
    points = recipes(networks, seeds)
    fig = accuracy_against_cost(points)
    (axes,) = fig.axes
    fig.draw_without_rendering()
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() != "_"]
    assert [round(line.get_ydata()[0], 6) for line in drawn] == [
        round(np.mean([f1 for f1, _, _ in point.seeds]), 6) for point in points
    ]
    for line, point in zip(drawn, points, strict=True):
        assert line.get_xdata()[0] == pytest.approx(point.flops, rel=0.03)
    assert axes.get_xscale() == "log"

    legend = axes.get_legend()
    entries = {text.get_text(): handle for text, handle in zip(legend.texts, legend.legend_handles, strict=True)}
    assert list(entries) == [*networks, "aug=on", "aug=off"]
    looks = [look(entries[name]) for name in networks]
    assert len(set(looks)) == len(networks), "no two networks look alike"
    for line, point in zip(drawn, points, strict=True):
        assert look(line) == look(entries[point.name]) and line.get_marker() == entries[point.aug].get_marker()
    box, inside = legend.get_window_extent().extents, fig.bbox.extents
    assert (box[:2] >= inside[:2]).all() and (box[2:] <= inside[2:]).all(), "the whole legend can be seen"
    assert box[0] >= axes.get_window_extent().extents[2], "it covers no point"
    ends = sorted(tuple(np.round(path.vertices[:, 1], 6)) for c in axes.collections for path in c.get_paths())
    assert ends == sorted((round(low, 6), round(high, 6)) for point in points for _, low, high in point.seeds)


def test_any_name_and_nothing_left_behind():
    name = "a$\\frac{$_b, " + unicodedata.normalize("NFD", "폐렴") + " model.name=" + "x" * 99
    fig = accuracy_against_cost(
        [Point(name, "aug=$x$", 1e9, [(0.5, 0.4, 0.6)]), Point("b", "aug=$x$", 2e9, [(0.4, 0.3, 0.5)])]
    )
    fig.draw_without_rendering()
    text = fig.axes[0].get_legend().texts[0].get_text()
    assert "…" in text and text.startswith("a$\\frac{$_b")
    assert pyplot.get_fignums() == []
