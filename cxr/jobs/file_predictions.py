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
from cxr.files.predictions import prediction, probability_columns
from cxr.files.writing import as_text
from cxr.jobs.heatmap_folder import STEP, HeatmapFolder

if TYPE_CHECKING:
    from cxr.models.ensemble import Ensemble


class Read(NamedTuple):
    """A file, and its image in each size of the networks, or why there is none."""

    file: Path
    images: Sequence[Decoded] | str


def predict_files(
    model: "Ensemble", files: Sequence[Path], options: dict[str, Any], pictures: HeatmapFolder | None
) -> Iterator[dict[str, str]]:
    """The rows of some files, in their order, with the options `data.*`. The next images are read while the networks
    predict."""
    reading = Reading(options["negatives"], "ignore", dicom_unknown_parts=options["dicom_unknown_parts"])

    def read(file: Path) -> Read:
        try:
            return Read(file, not_an_image(file) or [decode(file, size, reading) for size in model.sizes])
        except ReadFailed as error:
            return Read(file, why_unreadable(error.__cause__))
        except UNREADABLE as error:
            return Read(file, why_unreadable(error))

    size = min(options["batch_size"], STEP) if pictures else options["batch_size"]
    results = read_ahead(read, files, 2 * size, os.cpu_count() or 1)
    while batch := list(islice(results, size)):
        yield from predict_batch(model, batch, pictures)


def name_in_table(file: Path) -> str:
    """A file as the table names it. A name that spreadsheets would take for a formula begins with "./"."""
    name = as_text(file)
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name


def predict_batch(model: "Ensemble", batch: Sequence[Read], pictures: HeatmapFolder | None) -> Iterator[dict[str, str]]:
    """The rows of some files, in their order."""
    import torch

    from cxr.data.batches import to_unit

    readable = [of for of in batch if not isinstance(of.images, str)]
    results: Iterator[dict[str, str]] = iter(())
    if readable:
        stacks = zip(*([image.pixels for image in of.images] for of in readable), strict=True)
        tensors = [to_unit(torch.from_numpy(np.stack(of_size))[:, None].to(model.device)) for of_size in stacks]
        images = dict(zip(model.sizes, tensors, strict=True))
        predicted, scores = model.judge(images)
        columns = ["prediction", *probability_columns(model.classes)]
        rows = [dict(zip(columns, prediction(row, model.classes), strict=True)) for row in predicted.tolist()]
        for row, of in zip(rows, readable, strict=True):
            row["negative"] = "yes" if of.images[0].negative else ""
        if scores is not None:
            for row, score in zip(rows, scores, strict=True):
                row["unfamiliar"] = f"{score:.3f}"
        if pictures:
            names = pictures.draw(model, images, predicted, scores, [of.file for of in readable])
            for row, name in zip(rows, names, strict=True):
                row["heatmap"] = name
        results = iter(rows)
    for file, of_file in batch:
        yield {"file": name_in_table(file)} | ({"error": of_file} if isinstance(of_file, str) else next(results))
