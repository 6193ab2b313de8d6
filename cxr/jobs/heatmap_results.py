"""Where a run's network looked on test images: the part "heatmaps" of metrics.json, and the panels."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from cxr.data.datamodule import CXRDataModule
from cxr.errors import UserError, printable, with_type
from cxr.evaluation.evaluation import Evaluation
from cxr.models.classifier import Classifier
from cxr.models.heatmaps import NEEDED, is_installed
from cxr.reporting.heatmap_pictures import PANEL_SIDE, beside, panel
from cxr.reporting.heatmaps_in_words import ENGLISH, heatmaps_failed
from cxr.training.explaining import IMAGES, heatmap_figures, maps_of

log = logging.getLogger(__name__)

EACH = 3  # hits of a class, and mistakes
PANELS = 16  # classes that have one


def heatmap_results(
    model: Classifier, data: CXRDataModule, test: Evaluation, seed: int, device: torch.device
) -> tuple[dict[str, Any] | None, dict[str, Figure]]:
    """The part "heatmaps", see heatmap_figures(), of IMAGES test images, and a panel for each class: its most confident
    hits and mistakes. None, and no panels, where captum is not installed or the network cannot have heatmaps.

    Args:
        test: the network's predictions for the test images.
        seed: draws the images whose maps are tested.
        device: where to compute; the network returns to its own.
    """
    if not is_installed():
        log.info("no heatmaps: %s", NEEDED)
        return None, {}
    home = model.device
    try:
        model.to(device)
        tested = tested_maps(model, data, test, seed)
        failed = [ENGLISH["heatmaps_fail"]] if tested and heatmaps_failed(tested) else []
        note = "\n".join(filter(None, [data.note, *failed]))
        return tested, dict(panels(model, data, test, note))
    except Exception as error:  # a user's own network may do anything, and the run is trained and tested
        log.warning("no heatmaps: %s", error if isinstance(error, UserError) else with_type(error))
        return None, {}
    finally:
        model.to(home)


def tested_maps(model: Classifier, data: CXRDataModule, test: Evaluation, seed: int) -> dict[str, Any] | None:
    """The part "heatmaps"; None of a single test image."""
    rows = np.random.default_rng(seed).permutation(len(test))[:IMAGES]
    if len(rows) < 2:
        return None
    images, predicted, group = np.array(data.store[test.index[rows]]), test.predicted[rows], test.group[rows]
    return heatmap_figures(model, images, predicted, group, seed, data.data["batch_size"])


def panels(model: Classifier, data: CXRDataModule, test: Evaluation, note: str) -> Iterator[tuple[str, Figure]]:
    """Each class that has test images, and its panel, with a note below it."""
    chosen = {name: (hits, mistakes) for name, hits, mistakes in most_confident(test)}
    rows = np.array([row for sides in chosen.values() for side in sides for row in side])
    images = np.array(data.store[test.index[rows]])
    maps = maps_of(model, images, test.predicted[rows], data.data["batch_size"])
    files, sure = data.images.file[test.index], test.probabilities.max(1)
    cells = {}
    for row, image, heatmap in zip(rows.tolist(), images, maps, strict=True):
        label, predicted = test.classes[test.labels[row]], test.classes[test.predicted[row]]
        verdict = f"predicted {predicted} {sure[row]:.3f}" + (f", true {label}" if label != predicted else "")
        cells[row] = beside(image, heatmap, PANEL_SIDE), f"{verdict}\n{printable(files[row]).rsplit('/', 1)[-1]}"
    for name, (hits, mistakes) in chosen.items():
        title = f"{name}: the most confident hits (left) and mistakes (right)"
        yield name, panel([cells[row] for row in hits], [cells[row] for row in mistakes], title, note)


def most_confident(test: Evaluation) -> Iterator[tuple[str, list[int], list[int]]]:
    """Of each class that has images, the first PANELS of them: its name, and its images that were predicted rightly and
    wrongly with the highest probability."""
    present = [label for label in range(len(test.classes)) if (test.labels == label).any()]
    for label in present[:PANELS]:
        of_class = np.flatnonzero(test.labels == label)
        order = of_class[np.argsort(-test.probabilities[of_class].max(1), kind="stable")]
        right = test.predicted[order] == label
        yield test.classes[label], order[right][:EACH].tolist(), order[~right][:EACH].tolist()
