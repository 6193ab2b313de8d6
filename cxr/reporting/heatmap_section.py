"""The section of report.html on heatmaps: the panels of the best run, and how the maps of each run were tested."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from cxr.reporting.board_pictures import board_pictures
from cxr.reporting.heatmaps_in_words import heatmap_lines, heatmaps_failed, heatmaps_row
from cxr.reporting.rows import validation_score
from cxr.reporting.tensorboard import HEATMAPS

if TYPE_CHECKING:
    from cxr.reporting.rows import Run

MOST = 8  # classes whose panels are shown: the page shall stay small
QUALITY = 80  # of JPEG: as PNG, the panels of a run take several MB


def heatmap_section(runs: Sequence["Run"], w: Mapping[str, str]) -> dict[str, Any] | None:
    """What the template shows of runs; None where none has heatmaps. "run": the name of the one with the highest macro
    F1 on validation images, its sentences "lines", whether its maps "failed", and "panels" by class, as JPEG in base64;
    "rows": each run's name and figures."""
    explained = [run for run in runs if run.metrics.get("heatmaps")]  # not without captum
    if not explained:
        return None
    best = max(explained, key=lambda run: validation_score(run.row))
    pictures = board_pictures(best.folder, HEATMAPS)
    return {
        "run": best.row["run"],
        "lines": heatmap_lines(best.metrics["heatmaps"], w),
        "failed": heatmaps_failed(best.metrics["heatmaps"]),
        "panels": {name: as_jpeg(picture) for name, picture in list(pictures.items())[:MOST]},
        "rows": [[run.row["run"], *heatmaps_row(run.metrics["heatmaps"], w)] for run in explained],
    }


def as_jpeg(picture: bytes) -> str:
    """A picture as JPEG in base64."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(out, format="JPEG", quality=QUALITY)
    return base64.b64encode(out.getvalue()).decode()
