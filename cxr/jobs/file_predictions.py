"""What networks predict for image files: a row for each."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxr.data.decode import UNREADABLE, Decoded, Reading, decode, why_unreadable
from cxr.data.files import not_an_image
from cxr.data.reading_ahead import read_ahead
from cxr.data.retrying import ReadFailed
from cxr.files.predictions import prediction
from cxr.jobs.heatmap_folder import HeatmapFolder

if TYPE_CHECKING:
    from cxr.models.ensemble import Ensemble


class Read(NamedTuple):
    """A file, and its image in each size of the networks, or why there is none."""

    file: Path
    images: Sequence[Decoded] | str


def predict_files(
    model: "Ensemble",
    files: Sequence[Path],
    options: dict[str, Any],
    negatives: list[Path],
    pictures: HeatmapFolder | None,
) -> Iterator[tuple[str, ...]]:
    """The rows of some files, in their order, with the options `data.*`. The next images are read while the networks
    predict. Those that look like negatives and are predicted join `negatives`."""
    reading = Reading(options["negatives"], "ignore", dicom_unknown_parts=options["dicom_unknown_parts"])

    def read(file: Path) -> Read:
        try:
            return Read(file, not_an_image(file) or [decode(file, size, reading) for size in model.sizes])
        except ReadFailed as error:
            return Read(file, why_unreadable(error.__cause__))
        except UNREADABLE as error:
            return Read(file, why_unreadable(error))

    size = options["batch_size"]
    results = read_ahead(read, files, 2 * size, os.cpu_count() or 1)
    while batch := list(islice(results, size)):
        negatives += [of.file for of in batch if not isinstance(of.images, str) and of.images[0].negative]
        yield from predict_batch(model, batch, pictures)


def predict_batch(
    model: "Ensemble", batch: Sequence[Read], pictures: HeatmapFolder | None
) -> Iterator[tuple[str, ...]]:
    """The rows of some files, in their order."""
    import torch

    from cxr.data.batches import to_unit

    readable = [of for of in batch if not isinstance(of.images, str)]
    probabilities = names = unfamiliar = iter(())
    if readable:
        stacks = zip(*([image.pixels for image in of.images] for of in readable), strict=True)
        tensors = [to_unit(torch.from_numpy(np.stack(of_size))[:, None].to(model.device)) for of_size in stacks]
        images = dict(zip(model.sizes, tensors, strict=True))
        predicted, scores = model.judge(images)
        probabilities = iter(predicted.tolist())
        unfamiliar = iter([""] * len(readable) if scores is None else [f"{score:.3f}" for score in scores])
        if pictures:
            names = iter(pictures.draw(model, images, predicted, [of.file for of in readable]))
    for file, of_file in batch:
        if isinstance(of_file, str):
            yield (str(file), "", *("" for _ in model.classes), "", of_file, *([""] if pictures else []))
        else:
            row = (str(file), *prediction(next(probabilities), model.classes), next(unfamiliar), "")
            yield (*row, next(names)) if pictures else row
