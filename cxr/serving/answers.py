"""What the page shows about a network and about an image, as plain data; all sentences are ready to be read."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.data.batches import to_unit
from cxr.data.decode import Decoded
from cxr.errors import with_type
from cxr.jobs.members import not_learnt
from cxr.models.heatmaps import is_installed
from cxr.reporting.heatmap_pictures import overlay
from cxr.reporting.heatmaps_in_words import heatmap_lines, heatmaps_failed
from cxr.reporting.hospitals_in_words import hospital_notes
from cxr.reporting.words import Words, words
from cxr.serving.loaded import Loaded
from cxr.serving.nearest import can_show
from cxr.serving.pictures import data_url
from cxr.serving.prevalence import at_prevalences, certainty

TEMPLATES = Path(__file__).parent / "templates"

log = logging.getLogger(__name__)


def about_network(loaded: Loaded, lang: str, local_only: bool) -> dict[str, Any]:
    """What to know about a network before any image: its caveats, what the tests of its heatmaps say, and whether it
    can show training images, if the page is `local_only`, on this machine alone."""
    page = words(lang, TEMPLATES)
    w, model = words(lang) | {"not_tested_elsewhere": page["not_tested_elsewhere"]}, loaded.model
    notes = [w.get(note, note) for note in dict.fromkeys(member.note for member in model.members) if note]
    notes += hospital_notes(loaded.metrics, w)
    if len(loaded.metrics) < len(model.members):
        notes.append(page["no_run"])
    notes += [page["unseen_class"].format(name=name) for name in not_learnt(loaded.metrics.values())]
    if not model.familiar:
        notes.append(page["familiar_unknown"])
    return {
        "notes": notes,
        "calibration": page["calibrated" if model.is_calibrated else "uncalibrated"],
        "heatmaps": about_heatmaps(loaded, w, page),
        "size": max(model.sizes),
        "nearest": local_only and can_show(loaded),
    }


def about_heatmaps(loaded: Loaded, w: Words, page: Words) -> dict[str, Any]:
    """What to know about heatmaps: whether there are any, a warning, and what their tests say."""
    if not is_installed():
        return {"warning": page["no_captum"], "lines": []}
    tested = loaded.alone.get("heatmaps")
    if not tested:
        return {"warning": w["heatmaps_untested"], "lines": []}
    warning = w["heatmaps_fail"] if heatmaps_failed(tested) else ""
    return {"warning": warning, "lines": heatmap_lines(tested, w)}


def answer(loaded: Loaded, images: Sequence[Decoded], lang: str, inverted: bool) -> dict[str, Any]:
    """What a network says of an image.

    Args:
        images: the image in each of the network's sizes.
        inverted: whether images that look like negatives were inverted.

    Returns:
        "image" and "heatmap" (data URLs; the second None where there is none), "classes" (name, probability and its
        text, in the network's order), "predicted" (a name), "caution", "refused" and "negative" (sentences, or ""),
        and "prevalence", see at_prevalences().
    """
    model, page = loaded.model, words(lang, TEMPLATES)
    stacks = [to_unit(torch.from_numpy(image.pixels.copy())[None, None].to(model.device)) for image in images]
    batch = dict(zip(model.sizes, stacks, strict=True))
    (probabilities,), unfamiliar = model.judge(batch)
    predicted = int(probabilities.argmax())
    largest = max(zip(model.sizes, images, strict=True), key=lambda of: of[0])[1].pixels
    by_class = dict(zip(model.classes, probabilities.tolist(), strict=True))
    refused = unfamiliar is not None and unfamiliar[0] > 1
    return {
        "image": data_url(largest),
        "heatmap": heatmap(loaded, batch, predicted, largest),
        "caution": page["drawn"] if model.note else "",
        "classes": [{"name": name, "share": p, "text": certainty(p)} for name, p in by_class.items()],
        "predicted": model.classes[predicted],
        "refused": page["refused"].format(score=unfamiliar[0]) if refused else "",
        "negative": page["inverted" if inverted else "negative"] if images[0].negative else "",
        "prevalence": at_prevalences(loaded, by_class, words(lang), page),
    }


def heatmap(loaded: Loaded, batch: Mapping[int, torch.Tensor], target: int, image: np.ndarray) -> str | None:
    """An image with the heatmap of a class, as a data URL; None if the network has none."""
    if not is_installed():
        return None
    try:
        maps = loaded.model.heatmaps(batch, torch.tensor([target], device=loaded.model.device))
    except Exception as error:  # the network has no layer for one; and a user's own network may do anything
        log.warning("no heatmap: %s", with_type(error))
        return None
    return data_url(overlay(image, maps[0].cpu().numpy()))
