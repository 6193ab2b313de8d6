"""python -m cxr.predict: predict unlabelled images with a trained network."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from cxr.data.decode import UNREADABLE, decode, why_unreadable
from cxr.data.files import list_files, not_an_image
from cxr.data.retrying import ReadFailed
from cxr.errors import UserError
from cxr.files.predictions import prediction, probability_columns
from cxr.jobs.exit_codes import answering
from cxr.options.command_line import read_options

if TYPE_CHECKING:
    from cxr.models.classifier import Classifier


def main() -> None:
    """Exit codes: 0 every file was read, 1 some were not (their rows give the reason), 2 wrong options, 128 + N."""
    with answering():
        unread = predict(read_options(sys.argv[1:], "predict"))
    raise SystemExit(unread)


def predict(options: dict[str, Any]) -> int:
    """Write one row per file: file, prediction, prob_<class>, …, error. Returns the exit code."""
    from cxr.models.classifier import load_classifier

    source = Path(options["source"]).expanduser()
    files = list_files(source) if os.path.isdir(source) else [source]
    if not files:
        raise UserError(f"source={source}: this folder holds no files")
    model = load_classifier(Path(options["ckpt"]).expanduser(), options["trainer"]["accelerator"])
    if model.note:
        print(f"cxr: this network was trained on {model.note}", file=sys.stderr)

    unreadable = 0
    with open_out(options["out"]) as out:
        writer = csv.writer(out)
        writer.writerow(("file", "prediction", *probability_columns(model.classes), "error"))
        for start in range(0, len(files), options["data"]["batch_size"]):
            for row in predict_batch(model, files[start : start + options["data"]["batch_size"]]):
                unreadable += row[-1] != ""
                writer.writerow(row)
    where = f"; written to {options['out']}" if options["out"] else ""
    print(
        f"cxr: {len(files) - unreadable} images predicted, {unreadable} files could not be read{where}", file=sys.stderr
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


def predict_batch(model: "Classifier", files: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """The rows of some files, in their order."""
    import torch

    from cxr.data.batches import to_unit

    def read(file: Path) -> np.ndarray | str:
        try:
            return not_an_image(file) or decode(file, model.hparams.image_size).pixels
        except ReadFailed as error:
            return why_unreadable(error.__cause__)
        except UNREADABLE as error:
            return why_unreadable(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(read, files))
    images = [pixels for pixels in decoded if isinstance(pixels, np.ndarray)]
    probabilities = iter(())
    if images:
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(images))[:, None].to(model.device)
            probabilities = iter(model.probabilities(to_unit(batch)).tolist())
    for file, image in zip(files, decoded, strict=True):
        if isinstance(image, str):
            yield (str(file), "", *("" for _ in model.classes), image)
        else:
            yield (str(file), *prediction(next(probabilities), model.classes), "")


if __name__ == "__main__":
    main()
