"""python -m cxr.predict: predict unlabelled images with one or several trained networks."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from cxr.data.decode import UNREADABLE, Decoded, Reading, decode, why_unreadable
from cxr.data.files import list_files, not_an_image
from cxr.data.retrying import ReadFailed
from cxr.errors import UserError, counted, printable
from cxr.files.predictions import prediction, probability_columns
from cxr.jobs.exit_codes import answering
from cxr.jobs.heatmap_folder import HeatmapFolder, heatmap_remarks
from cxr.options.command_line import read_options

if TYPE_CHECKING:
    from cxr.models.ensemble import Ensemble


def main() -> None:
    """Exit codes: 0 every file was read, 1 some were not (their rows give the reason), 2 wrong options, 128 + N."""
    with answering():
        unread = predict(read_options(sys.argv[1:], "predict"))
    raise SystemExit(unread)


def predict(options: dict[str, Any]) -> int:
    """Write one row per file: file, prediction, prob_<class>, …, error and, if asked for, heatmap. Returns the exit
    code."""
    from cxr.jobs.members import load_networks

    source = Path(options["source"]).expanduser()
    files = list_files(source) if os.path.isdir(source) else [source]
    if not files:
        raise UserError(f"source={source}: this folder holds no files")
    pictures = HeatmapFolder(options["heatmaps"]) if options["heatmaps"] is not None else None
    networks = load_networks(options["ckpt"], options["trainer"]["accelerator"])
    model = networks.model
    trained_on = [f"this network was trained on {model.note}"] if model.note else []
    for remark in [*trained_on, *networks.remarks, *(heatmap_remarks(networks) if pictures else [])]:
        print(f"cxr: {printable(remark)}", file=sys.stderr)

    unreadable, negatives, size, choice = 0, [], options["data"]["batch_size"], options["data"]["negatives"]
    reading = Reading(choice, "ignore", dicom_unknown_parts=options["data"]["dicom_unknown_parts"])
    with open_out(options["out"]) as out:
        writer = csv.writer(out)
        columns = ("file", "prediction", *probability_columns(model.classes), "error")
        writer.writerow((*columns, "heatmap") if pictures else columns)
        for start in range(0, len(files), size):
            for row in predict_batch(model, files[start : start + size], reading, negatives, pictures):
                unreadable += row[len(columns) - 1] != ""
                writer.writerow(row)
    if negatives:
        many = (
            f"{len(negatives)} images look like negatives, such as"
            if len(negatives) > 1
            else "1 image looks like a negative:"
        )
        print(f"cxr: {many} {printable(str(negatives[0]))} (data.negatives={choice})", file=sys.stderr)
    where = f"; written to {options['out']}" if options["out"] else ""
    print(
        f"cxr: {counted(len(files) - unreadable, 'image')} predicted, {counted(unreadable, 'file')} could not be read"
        f"{where}",
        file=sys.stderr,
    )
    return 1 if unreadable else 0


def open_out(path: str | None) -> AbstractContextManager[TextIO]:
    """The file to write, or the console; bytes in a file's name that are not UTF-8 are written as \\udcNN."""
    if path is None:
        sys.stdout.reconfigure(errors="backslashreplace")
        return nullcontext(sys.stdout)
    try:
        return Path(path).expanduser().open("x", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror})") from error


def predict_batch(
    model: "Ensemble",
    files: Sequence[Path],
    reading: Reading,
    negatives: list[Path],
    pictures: HeatmapFolder | None,
) -> Iterator[tuple[str, ...]]:
    """The rows of some files, in their order. Those that look like negatives and are predicted join `negatives`."""
    import torch

    from cxr.data.batches import to_unit

    def read(file: Path) -> list[Decoded] | str:
        """An image in each size of the networks, or why there is none."""
        try:
            return not_an_image(file) or [decode(file, size, reading) for size in model.sizes]
        except ReadFailed as error:
            return why_unreadable(error.__cause__)
        except UNREADABLE as error:
            return why_unreadable(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(read, files))
    images = [[image.pixels for image in of_file] for of_file in decoded if not isinstance(of_file, str)]
    negatives += [
        f for f, image in zip(files, decoded, strict=True) if not isinstance(image, str) and image[0].negative
    ]
    probabilities = names = iter(())
    if images:
        stacks = [torch.from_numpy(np.stack(of_size))[:, None] for of_size in zip(*images, strict=True)]
        batch = {size: to_unit(stack.to(model.device)) for size, stack in zip(model.sizes, stacks, strict=True)}
        predicted = model.probabilities(batch)
        probabilities = iter(predicted.tolist())
        if pictures:
            readable = [file for file, image in zip(files, decoded, strict=True) if not isinstance(image, str)]
            names = iter(pictures.draw(model, batch, predicted, readable))
    for file, image in zip(files, decoded, strict=True):
        if isinstance(image, str):
            yield (str(file), "", *("" for _ in model.classes), image, *([""] if pictures else []))
        else:
            row = (str(file), *prediction(next(probabilities), model.classes), "")
            yield (*row, next(names)) if pictures else row


if __name__ == "__main__":
    main()
