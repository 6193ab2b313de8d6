"""Read the images that a table lists, wherever their files are."""

import os
import stat
from dataclasses import replace
from pathlib import Path

from cxr.data.files import mode_of, not_an_image
from cxr.data.image_table import ImageTable, name_images, split_name
from cxr.data.naming import AS_USUAL, Naming
from cxr.data.tables import Row, read_rows
from cxr.errors import UserError, printable


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
    for row in read_rows(table, ("file", "label")):
        file = os.path.relpath(os.path.normpath(root / row["file"]), root)
        if reason := why_rejected(root, file, row):
            rejected.append((row["file"], reason))
            continue
        standard = {
            "file": Path(file).as_posix(),
            "patient": row["patient"] if "patient" in row else naming.patient_of(file),
            "split": split_name(row.get("split", "")),
        }
        rows.append(row | standard)
    if not rows:
        such_as = f"; {printable(rejected[0][0])}: {rejected[0][1]}" if rejected else ""
        raise UserError(f"{table}: no usable images below {root} (data.root=DIR){such_as}")
    return replace(name_images(root, rows, rejected, [], naming), table=table.resolve())


def why_rejected(root: Path, file: str, row: Row) -> str:
    """Why a row of a table is no image, or "". `file`: its place below the root."""
    path = root / file
    if not row["label"]:
        return "no label in the table"
    if file.startswith(".."):  # every run names images by their place below one folder
        return f"is not below {root}; set data.root=DIR to a folder above it"
    return not_an_image(path) or ("a folder, not a file" if stat.S_ISDIR(mode_of(path)) else "")
