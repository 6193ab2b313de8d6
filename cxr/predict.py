"""python -m cxr.predict: predict unlabelled images with one or several trained networks."""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from cxr.data.cache import fingerprint
from cxr.data.decode import UNREADABLE, Decoded, Reading, decode, why_unreadable
from cxr.data.files import list_files, not_an_image
from cxr.data.reading_ahead import read_ahead
from cxr.data.retrying import ReadFailed
from cxr.errors import UserError, counted, printable, such_as
from cxr.files.predictions import prediction, probability_columns
from cxr.files.writing import as_text
from cxr.jobs.exit_codes import answering
from cxr.jobs.heatmap_folder import HeatmapFolder, heatmap_remarks
from cxr.jobs.prediction_table import PredictionTable
from cxr.options.command_line import read_options

if TYPE_CHECKING:
    from cxr.models.ensemble import Ensemble


class Read(NamedTuple):
    """A file, and its image in each size of the networks, or why there is none."""

    file: Path
    images: Sequence[Decoded] | str


def main() -> None:
    """Exit codes: 0 every file was read, 1 some were not (their rows give the reason), 2 wrong options, 128 + N."""
    with answering():
        unread = predict(read_options(sys.argv[1:], "predict"))
    raise SystemExit(unread)


def predict(options: dict[str, Any]) -> int:
    """Write one row per file: file, prediction, prob_<class>, …, unfamiliar, error and, if asked for, heatmap. Returns
    the exit code."""
    from cxr.jobs.members import load_networks

    source = Path(options["source"]).expanduser()
    files = list_files(source) if os.path.isdir(source) else [source]
    if not files:
        raise UserError(f"source={source}: this folder holds no files")
    pictures = HeatmapFolder(options["heatmaps"]) if options["heatmaps"] is not None else None
    networks = load_networks(options["ckpt"], options["trainer"]["accelerator"])
    model = networks.model
    columns = ["file", "prediction", *probability_columns(model.classes), "unfamiliar", "error"]
    columns += ["heatmap"] if pictures else []
    made_by = [path.read_bytes() for path in networks.checkpoints]
    key = fingerprint(*made_by, str(source.absolute()), sorted(options["data"].items()))
    table = PredictionTable(options["out"] and Path(options["out"]).expanduser(), columns, key)
    if not pictures:  # their folder is new
        table.resume()
    trained_on = [f"this network was trained on {model.note}"] if model.note else []
    resumed = [f"the rows of {counted(len(table.rows), 'file')} are there already"] if table.rows else []
    for remark in [*trained_on, *networks.remarks, *(heatmap_remarks(networks) if pictures else []), *resumed]:
        print(f"cxr: {printable(remark)}", file=sys.stderr)

    rows, negatives, done = [*table.rows], [], {row[0] for row in table.rows}
    left = [file for file in files if as_text(file) not in done]
    predicted = predict_files(model, left, options["data"], negatives, pictures)
    quiet = None if options["out"] else True  # None: where nobody looks
    with table.writing() as writer, tqdm(total=len(files), initial=len(rows), unit=" images", disable=quiet) as bar:
        for row in predicted:
            writer.writerow(row)
            rows.append(row)
            bar.update()
    return sum_up([dict(zip(columns, row, strict=True)) for row in rows], negatives, options)


def sum_up(rows: Sequence[dict[str, str]], negatives: Sequence[Path], options: dict[str, Any]) -> int:
    """Print what was predicted, and what to look at; returns the exit code."""
    unreadable = sum(row["error"] != "" for row in rows)
    unfamiliar = [row["file"] for row in rows if float(row["unfamiliar"] or 0) > 1]
    if unfamiliar:
        images, example = counted(len(unfamiliar), "image"), such_as(len(unfamiliar), printable(unfamiliar[0]))
        advice = "the column unfamiliar is above 1; do not use the prediction"
        print(f"cxr: {images} unlike the training images ({example}): {advice}", file=sys.stderr)
    if negatives:
        n = len(negatives)
        many = f"{n:,} images look like negatives, such as" if n > 1 else "1 image looks like a negative:"
        choice = f"data.negatives={options['data']['negatives']}"
        print(f"cxr: {many} {printable(str(negatives[0]))} ({choice})", file=sys.stderr)
    where = f"; written to {options['out']}" if options["out"] else ""
    print(
        f"cxr: {counted(len(rows) - unreadable, 'image')} predicted, {counted(unreadable, 'file')} could not be read"
        f"{where}",
        file=sys.stderr,
    )
    return 1 if unreadable else 0


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


if __name__ == "__main__":
    main()
