"""python -m cxr.predict: predict unlabelled images with one or several trained networks."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cxr.data.cache import fingerprint
from cxr.data.files import list_files
from cxr.errors import UserError, counted, printable, such_as
from cxr.files.predictions import probability_columns
from cxr.files.writing import as_text
from cxr.jobs.exit_codes import answering
from cxr.jobs.file_predictions import predict_files
from cxr.jobs.heatmap_folder import HeatmapFolder, heatmap_remarks
from cxr.jobs.prediction_table import PredictionTable
from cxr.options.command_line import read_options


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
    key = fingerprint(*made_by, str(source), str(source.absolute()), sorted(options["data"].items()))
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


if __name__ == "__main__":
    main()
