"""Which column of a table is what: the names that known sets use, those that the user tells, and one column a class."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr.data.class_names import CLASSES, class_name
from cxr.errors import UserError, printable

# The names that public sets have for the parts of a table (NIH, CheXpert, VinDr, RSNA, COVID-CXNet and others), lower
# case, in the order in which they are tried.
KNOWN = {
    "file": ("file", "filename", "file_name", "filepath", "path", "image index", "image_path", "image", "image_id"),
    "label": ("label", "class", "class_name", "finding labels", "finding", "diagnosis", "labels"),
    "patient": ("patient", "patient id", "patientid", "patient_id", "subject_id"),
    "split": ("split", "subset", "partition"),
}
MISSING = ("", "nan", "none", "null", "na", "n/a", "?", "-")  # lower case
SEVERAL = "|"  # between the labels of an image that has several
UNCERTAIN = "-1"  # CheXpert's mark


def name_columns(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    needed: Sequence[str],
    columns: Mapping[str, str],
) -> tuple[list[dict[str, str]], list[str]]:
    """Give the columns that stand for file, label, patient and split these names.

    Args:
        path: of the table, for messages.
        names: of its columns, lower case.
        needed: the parts that it must have.
        columns: the option `data.columns`, from a part to a column.

    Returns:
        The rows, and remarks for people.

    Raises:
        UserError: `columns` names no column of the table, or there is none for a part that is needed.
    """
    there, chosen = ", ".join(map(printable, names)), check_columns(path, names, columns)
    for part, usual in KNOWN.items():
        if part not in chosen and (column := next((name for name in usual if name in names), "")):
            chosen[part] = column
    one_hot = one_hot_columns(names, rows) if "label" in needed and "label" not in chosen else []
    if "file" not in chosen and "patient" in chosen:  # RSNA's images are named by their patients
        chosen["file"] = chosen["patient"]
    for part in needed:
        if part not in chosen and not (part == "label" and one_hot):
            raise UserError(
                f"{path}: no column for {part}; it has {there}; name it with data.columns='{{{part}: COLUMN}}'"
            )
    taken = {*chosen.values(), *one_hot}
    named = [
        {part: row.get(column, "") for part, column in chosen.items()}
        | ({"label": SEVERAL.join(labels_of(row, one_hot))} if one_hot else {})
        | {name: row.get(name, "") for name in names if name not in taken}
        for row in rows
    ]
    other = [f"{part} is {printable(column)}" for part, column in chosen.items() if part != column]
    remarks = [f"columns of {path.name}: {', '.join(other)}"] if other else []
    if one_hot:
        remarks.append(f"{path.name} has one column a class: {', '.join(map(printable, one_hot))}")
    return named, remarks


def check_columns(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The option `data.columns` in lower case. Raises UserError if it names a column that the table lacks."""
    for column in columns.values():
        if column.strip().lower() not in names:
            near = difflib.get_close_matches(column.lower(), names, 1)
            nearest = f" (the nearest is {printable(near[0])})" if near else ""
            there = ", ".join(map(printable, names))
            raise UserError(f"{path}: no column {printable(column)}, as data.columns says; it has {there}{nearest}")
    return {part: column.strip().lower() for part, column in columns.items()}


def one_hot_columns(names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns that say with 1 and 0 whether an image is of a class: two or more, one of which is a known class."""
    binary = [
        name
        for name in names
        if {plain_number(row.get(name, "")) for row in rows} - {*MISSING} <= {"0", "1", UNCERTAIN}
        and any(plain_number(row.get(name, "")) == "1" for row in rows)
    ]
    return binary if len(binary) > 1 and any(class_name(name) in CLASSES for name in binary) else []


def labels_of(row: Mapping[str, str], one_hot: Sequence[str]) -> list[str]:
    """The classes of a row that has one column a class; none but UNCERTAIN if one is marked so."""
    values = {name: plain_number(row.get(name, "")) for name in one_hot}
    return [UNCERTAIN] if UNCERTAIN in values.values() else [name for name, value in values.items() if value == "1"]


def plain_number(text: str) -> str:
    """1 for 1.0, as a program writes a whole number in a column that has gaps; any other text as it is."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)
