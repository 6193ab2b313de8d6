"""Read the images that a table lists, wherever their files are."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from cxr.data.columns import SEVERAL, UNCERTAIN
from cxr.data.files import SUFFIXES, list_files, mode_of, not_an_image
from cxr.data.image_table import ImageTable, name_images, split_name
from cxr.data.naming import AS_USUAL, Naming
from cxr.data.tables import Row, one_row_each, read_rows
from cxr.errors import UserError, printable

ENDINGS = (*SUFFIXES, ".tif", ".tiff", ".bmp")  # of images


def read_listed(table: Path, root: Path | None, naming: Naming = AS_USUAL) -> ImageTable:
    """Read the images of a table: columns file and label, if known patient and split; further columns are for slices.

    Args:
        table: a CSV or parquet file.
        root: the folder that `file` is relative to, and below which it lies; None: the table's own.

    Raises:
        UserError: the table cannot be used, or none of its images can.
    """
    table = table.expanduser()
    root = (root.expanduser() if root else table.parent).resolve()
    rows, rejected = [], []
    listed, remarks = read_rows(table, ("file", "label"), naming.columns)
    check_several(table, listed, naming)
    places = Places(root)
    for row in listed:
        file, reason = places.find(row["file"])
        if reason := why_no_label(row["label"], naming) or reason:
            rejected.append((row["file"], reason))
        else:
            rows.append(row | {"file": file, "split": row.get("split", "")})
    rows, more = one_row_each(table, rows)
    if not rows:
        such_as = f"; {printable(rejected[0][0])}: {rejected[0][1]}" if rejected else ""
        raise UserError(
            f"{table}: no usable images: 0 of its {len(listed):,} files are below {root} (data.root=DIR){such_as}"
        )
    splits = Counter(row["split"] for row in rows if row["split"] and not split_name(row["split"]))
    rows = [
        row
        | {
            "patient": row["patient"] if "patient" in row else naming.patient_of(row["file"]),
            "split": split_name(row["split"]),
        }
        for row in rows
    ]
    remarks = [*remarks, *more, *places.remarks(), *split_remarks(splits)]
    images = name_images(root, rows, rejected, remarks, naming)
    return replace(images, table=table.resolve(), unknown_splits=dict(splits))


def check_several(table: Path, rows: Sequence[Row], naming: Naming) -> None:
    """Raise UserError if images have several labels, and it is not told what becomes of them."""
    several = [row for row in rows if SEVERAL in row["label"]]
    if several and naming.several_labels == "fail":
        first = several[0]
        raise UserError(
            f"{table}: {len(several):,} of {len(rows):,} rows name several labels, such as {printable(first['file'])} "
            f"({printable(first['label'])}), and cxr trains one label an image: data.several_labels=drop leaves these "
            "rows out, keep makes a class of each combination"
        )


def split_remarks(splits: Mapping[str, int]) -> list[str]:
    """A remark on values of the column split that are not train, val or test."""
    values = ", ".join(f"{value} ({number:,} images)" for value, number in splits.items())
    return [f"split has values that are not train, val or test: {values}"] if splits else []


def why_no_label(label: str, naming: Naming) -> str:
    """Why a row has no label to train with, or ""."""
    if not label:
        return "no label in the table"
    if label == UNCERTAIN:
        return f"an uncertain label ({UNCERTAIN})"
    return "several labels (data.several_labels=drop)" if SEVERAL in label and naming.several_labels == "drop" else ""


class Places:
    """Finds the files that a table names: by their path below a folder or, where the table comes from another machine,
    by their name alone, if no other file below the folder has it; without its ending, or with another one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moved: dict[str, str] = {}  # files found by name, and what the table calls them

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """All files below the folder, by their names with and without endings."""
        names: dict[str, list[str]] = defaultdict(list)
        for path in list_files(self.root):
            for name in {path.name, path.stem}:
                names[name].append(path.relative_to(self.root).as_posix())
        return names

    def find(self, listed: str) -> tuple[str, str]:
        """The place of a file below the folder, and why it is no image there, or ""."""
        file = Path(os.path.relpath(os.path.normpath(self.root / listed), self.root)).as_posix()
        outside = file.startswith("..")
        if not outside and (mode := mode_of(self.root / file)):
            return file, "a folder, not a file" if stat.S_ISDIR(mode) else not_an_image(self.root / file)
        name = PurePosixPath(listed)
        alike = self.by_name.get(name.name, [])
        if not alike and name.suffix.lower() in ENDINGS:  # saved in another format since
            alike = self.by_name.get(name.stem, [])
        if len(alike) == 1 and self.moved.setdefault(alike[0], listed) == listed:
            return alike[0], not_an_image(self.root / alike[0])
        if alike:
            return file, f"not at this place, and its name is not that of one file below {self.root} alone"
        if outside:  # every run names images by their place below one folder
            return file, f"is not below {self.root}; set data.root=DIR to a folder above it"
        return file, not_an_image(self.root / file)

    def remarks(self) -> list[str]:
        if not self.moved:
            return []
        file, listed = next(iter(self.moved.items()))
        return [f"{len(self.moved):,} files are found by their names below {self.root}, such as {listed} at {file}"]
