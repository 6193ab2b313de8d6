"""What a run shows of its network's heatmaps: panels, the tests beside them, and a failure that is called one."""

import json
import shutil

import numpy as np
import pytest

from cxr import report, train
from cxr.reporting.board_pictures import board_pictures
from cxr.reporting.heatmap_pictures import COLOUR, GAP, LINE, beside
from cxr.reporting.heatmaps_in_words import heatmap_lines, heatmaps_failed
from cxr.reporting.words import words

TESTED = {
    "images": 64,
    "layer": "layer1",
    "grid": 16,
    "empty": 1,
    "deletion": {"marked": 0.4, "random": 0.1, "another": 0.2, "difference": 0.3, "passed": True},
    "sanity": {"correlation": 0.7, "pairs": 0.5, "ci95": {"correlation": [0.6, 0.8]}, "passed": False},
    "lungs": {"share": 0.7, "ci95": {"share": [0.6, 0.8]}, "area": 0.57},
}
TESTED["deletion"]["ci95"] = {"difference": [0.25, 0.35]}


def test_the_overlay_is_clear_where_the_map_is_faint_and_its_line_encloses_a_tenth():
    image, heatmap = np.full((32, 32), 100, dtype=np.uint8), np.zeros((32, 32), dtype=np.float32)
    heatmap[:10, :10] = 1
    picture = beside(image, heatmap, side=320)
    assert picture.shape == (320, 640 + GAP, 3) and picture.dtype == np.uint8
    left, right = picture[:, :320], picture[:, 320 + GAP :]
    assert (left == 100).all() and (right[150:, 150:] == 100).all()
    assert right[40, 40, 0] > right[40, 40, 1] > right[40, 40, 2], "COLOUR over grey"
    rows, columns = np.nonzero((right == LINE).all(2))
    assert 95 <= rows.max() <= 106 and 95 <= columns.max() <= 106 and COLOUR[0] > COLOUR[1]


def test_a_map_that_fails_is_said_to_fail():
    assert heatmaps_failed(TESTED) and not heatmaps_failed(TESTED | {"sanity": TESTED["sanity"] | {"passed": True}})
    deletion, sanity, lungs = heatmap_lines(TESTED)
    assert deletion.startswith("Deletion test passed") and "by −0.400" in deletion and "63 images" in deletion
    assert "(difference −0.300 [−0.350, −0.250])" in deletion
    assert sanity.startswith("Sanity check FAILED") and "0.700 [0.600, 0.800]" in sanity and lungs.startswith("70%")
    assert "실패" in heatmap_lines(TESTED, words("ko"))[1]
    none = TESTED | {"empty": 64, "deletion": None, "sanity": None, "lungs": None}
    assert heatmap_lines(none) == [
        "No test: it needs maps that are not empty, of images of two patients; 64 images were tried."
    ] and not heatmaps_failed(none)


def test_a_run_tests_its_maps_and_shows_them(run, sweep, tmp_path):
    pytest.importorskip("captum", reason="captum is not installed (pip install captum)")
    folder = sweep / "cnn_aug-on_seed-0"
    tested = json.loads((folder / "metrics.json").read_text())["heatmaps"]
    assert (
        tested["layer"].startswith("features")
        and 0 < tested["images"] <= 64
        and -1 <= tested["deletion"]["difference"] <= 1
    )
    panels = board_pictures(folder, "heatmaps/")
    assert list(panels) == ["NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS"]
    page = (sweep / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 and len(page) < 5e6 / 3
    copy = shutil.copytree(sweep, tmp_path / "copy")
    for metrics in copy.glob("*/metrics.json"):
        metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"heatmaps": TESTED}))
    assert run(report.main, copy, "report.lang=ko")[0] == 0
    page = (copy / "report.html").read_text()
    assert words("ko")["heatmaps_fail"] in page and page.count("0.700 [0.600, 0.800]: 실패") == 2


def test_without_captum_a_run_says_how_to_get_it(run, small, tmp_path):
    options = ("aug=off", "trainer.max_epochs=1", *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert run(train.main, *options)[0] == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["heatmaps"] is None
    assert "no heatmaps: heatmaps need captum: pip install" in (tmp_path / "run" / "train.log").read_text()
    assert run(report.main, tmp_path / "run")[0] == 0
    assert words("en")["heatmaps"] not in (tmp_path / "run" / "report.html").read_text()
