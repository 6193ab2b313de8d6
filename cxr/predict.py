"""python -m cxr.predict: predict unlabelled images with one or several trained networks."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cxr.data.cache import fingerprint
from cxr.data.files import list_files
from cxr.errors import UserError, counted, printable, such_as
from cxr.files.predictions import probability_columns
from cxr.jobs.exit_codes import answering
from cxr.jobs.file_predictions import name_in_table, predict_files
from cxr.jobs.heatmap_folder import HeatmapFolder
from cxr.jobs.prediction_table import PredictionTable
from cxr.options.checkpoint_paths import paths_in
from cxr.options.command_line import read_options

if TYPE_CHECKING:
    from cxr.jobs.members import Networks


def main() -> None:
    """Exit codes: 0 every file was read, 1 some were not (their rows give the reason), 2 wrong options, 128 + N."""
    with answering():
        unread = predict(read_options(sys.argv[1:], "predict"))
    raise SystemExit(unread)


def predict(options: dict[str, Any]) -> int:
    """Write one row per file, with the columns file, prediction, prob_<class>, …, unfamiliar, negative, error and, if
    asked for, heatmap. Returns the exit code."""
    from cxr.jobs.members import load_networks

    source = Path(options["source"]).expanduser()
    files = list_files(source) if os.path.isdir(source) else [source]
    if not files:
        raise UserError(f"source={source}: this folder holds no files")
    pictures = HeatmapFolder(options["heatmaps"]) if options["heatmaps"] is not None else None
    networks = load_networks(paths_in(options["ckpt"]), options["trainer"]["accelerator"])
    with table_of(options, networks, pictures) as table:
        there = table.rows or []
        if pictures:
            written = None if table.rows is None else sum(row["heatmap"] != "" for row in there)
            pictures.begin(networks, written)
        remark_on(networks, pictures, there)
        done, summary = {row["file"] for row in there}, Summary(there)
        left = [file for file in files if name_in_table(file) not in done]
        quiet = None if options["out"] else True  # None: where nobody looks
        progress = tqdm(total=len(files), initial=len(there), unit=" images", disable=quiet)
        with table.writing() as writer, progress as bar:
            for row in predict_files(networks.model, left, options["data"], pictures):
                writer.writerow(row)
                summary.add(row)
                bar.update()
    summary.show(options)
    return 1 if summary.unreadable else 0


def remark_on(networks: "Networks", pictures: HeatmapFolder | None, there: Sequence[Mapping[str, str]]) -> None:
    """Print what to know before the first prediction; `there` are the rows of a stopped command."""
    trained_on = [f"this network was trained on {networks.model.note}"] if networks.model.note else []
    resumed = [f"the rows of {counted(len(there), 'file')} are there already"] if there else []
    for remark in [*trained_on, *networks.remarks, *(pictures.remarks if pictures else []), *resumed]:
        print(f"cxr: {printable(remark)}", file=sys.stderr)


def table_of(options: dict[str, Any], networks: "Networks", pictures: HeatmapFolder | None) -> PredictionTable:
    """The table to write; a stopped command with the same options is resumed."""
    columns = ["file", "prediction", *probability_columns(networks.model.classes), "unfamiliar", "negative", "error"]
    columns += ["heatmap"] if pictures else []
    source, place = Path(options["source"]).expanduser(), pictures and str(pictures.folder.absolute())
    made_by = [path.read_bytes() for path in networks.checkpoints]
    key = fingerprint(*made_by, str(source), str(source.absolute()), sorted(options["data"].items()), place)
    return PredictionTable(options["out"] and Path(options["out"]).expanduser(), columns, key)


class Summary:
    """What was predicted, and what to look at.

    Args:
        rows: of the table that are there already.

    Attributes:
        predicted, unreadable, unfamiliar, negative: the number of such files.
        example: the first one that is unreadable, unfamiliar or negative, by that word.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.predicted = self.unreadable = self.unfamiliar = self.negative = 0
        self.example: dict[str, str] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, str]) -> None:
        """Count a row of the table."""
        if row.get("error"):
            self.unreadable += 1
            self.example.setdefault("unreadable", f"{printable(row['file'])}: {printable(row['error'])}")
            return
        self.predicted += 1
        if float(row.get("unfamiliar") or 0) > 1:
            self.unfamiliar += 1
            self.example.setdefault("unfamiliar", printable(row["file"]))
        if row["negative"]:
            self.negative += 1
            self.example.setdefault("negative", printable(row["file"]))

    def show(self, options: Mapping[str, Any]) -> None:
        """Print it, with the options of the command."""
        lines = []
        if n := self.unfamiliar:
            images, example = counted(n, "image"), such_as(n, self.example["unfamiliar"])
            advice = "the column unfamiliar is above 1; do not use the prediction"
            lines.append(f"{images} unlike the training images ({example}): {advice}")
        if n := self.negative:
            many = f"{n:,} images look like negatives, such as" if n > 1 else "1 image looks like a negative:"
            lines.append(f"{many} {self.example['negative']} (data.negatives={options['data']['negatives']})")
        where = f"; written to {options['out']}" if options["out"] else ""
        unread = f"{counted(self.unreadable, 'file')} could not be read"
        unread += f" ({such_as(n, self.example['unreadable'])})" if (n := self.unreadable) else ""
        lines.append(f"{counted(self.predicted, 'image')} predicted, {unread}{where}")
        for line in lines:
            print(f"cxr: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
