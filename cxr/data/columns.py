"""Which column of a table is what: the names that known sets use, those that the user tells, and one column a class."""

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cxr.data.class_names import CLASSES, class_name
from cxr.data.column_guesses import as_option, likely_columns
from cxr.data.naming import IGNORE, SEVERAL, SHOWN, Naming, plain
from cxr.data.several_rows import PARTS
from cxr.errors import UserError, collecting, printable, raise_all

# The names that public sets have for the parts of a table (NIH, CheXpert, VinDr, RSNA, COVID-CXNet and others), lower
# case, in the order in which they are tried.
KNOWN = {
    "file": ("file", "filename", "file_name", "filepath", "path", "image index", "image_path", "image", "image_id"),
    "label": ("label", "class", "class_name", "finding labels", "finding", "diagnosis", "labels"),
    "patient": ("patient", "patient id", "patientid", "patient_id", "subject_id"),
    "split": ("split", "subset", "partition"),
}
MANIFEST = "manifest.csv"  # beside class folders; data.columns is of tables
TRUTH = {"true": "1", "false": "0"}  # as pandas writes columns of them
HOSPITAL = ("hospital", "institution", "institution name")
MISSING = ("", "nan", "none", "null", "na", "n/a", "?", "-")  # lower case
UNCERTAIN = "-1"  # CheXpert's mark


def name_columns(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    needed: Sequence[str],
    naming: Naming,
) -> tuple[list[dict[str, str]], list[str], list[str]]:
    """Give the columns that stand for file, label, patient and split these names.

    Args:
        path: of the table, for messages.
        names: of its columns, lower case.
        needed: the parts that it must have.
        naming: its `columns` lead from a part to a column, or to None for no column; its `classes` tell which columns
            of 1 and 0 matter.

    Returns:
        The rows, the columns that stand for one class each, and remarks for people. With such columns, a row's label
        joins the names of those with 1 and, behind "-1 ", of those with -1: see one_label().

    Raises:
        UserError: `naming.columns` names no column of the table, or there is none for a part that is needed.
    """
    chosen, one_hot, guesses = choose_columns(path, names, rows, needed, naming)
    same = {str(column).strip().lower() for column, value in naming.rows.items() if not isinstance(value, list)}
    taken = {*chosen.values(), *one_hot, *same}  # a column with one value says nothing in slices
    further = [name for name in names if name and name not in taken and name not in (*KNOWN, "hospital")]
    named = [
        {part: row.get(column, "") for part, column in chosen.items()}
        | ({"label": join_labels(row, one_hot)} if one_hot else {})
        | {name: row.get(name, "") for name in further}
        for row in rows
    ]
    return named, one_hot, column_remarks(path, chosen, one_hot, naming, guesses)


def choose_columns(
    path: Path, names: Sequence[str], rows: Sequence[Mapping[str, str]], needed: Sequence[str], naming: Naming
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """The columns that stand for parts of a table and for the hospital, by part; those that stand for one class each;
    and guesses for the parts that none stands for. UserError as in name_columns(), with all mistakes at once."""
    mistakes: list[str] = []
    chosen = check_columns(path, names, naming.columns, mistakes)
    for part, usual in KNOWN.items():
        if part not in naming.columns and (column := next((name for name in usual if name in names), "")):
            chosen[part] = column
    if naming.hospital not in (None, IGNORE):
        with collecting(mistakes):
            chosen["hospital"] = find_column(path, names, naming.hospital, "hospital")
    elif naming.hospital is None and (column := next((name for name in HOSPITAL if name in names), "")):
        chosen["hospital"] = column
    one_hot = one_hot_columns(names, rows, naming) if "label" in needed and "label" not in chosen else []
    if "file" not in chosen and "patient" in chosen:  # RSNA's images are named by their patients
        chosen["file"] = chosen["patient"]
    open_parts = [part for part in PARTS if part not in chosen and not (part == "label" and one_hot)]
    guesses = likely_columns(open_parts, names, rows, {*chosen.values(), *one_hot})
    guesses = {part: column for part, column in guesses.items() if part not in naming.columns}
    with collecting(mistakes):  # columns that data.columns names, but are not there, are mistakes already
        lacking = [part for part in open_parts if part in needed and naming.columns.get(part) is None]
        check_needed(path, names, lacking, {part: chosen[part] for part in naming.columns if part in chosen} | guesses)
    if twice := [column for column in {*chosen.values(), *one_hot} if names.count(column) > 1]:
        mistakes.append(f"{path}: has {names.count(twice[0])} columns called {printable(twice[0])}; rename one")
    raise_all(mistakes)
    return chosen, one_hot, guesses


def check_needed(path: Path, names: Sequence[str], lacking: Sequence[str], guesses: Mapping[str, str]) -> None:
    """Raise UserError if parts that a table must have are `lacking`; `guesses` are columns that may be parts."""
    if not names:
        raise UserError(f"{path}: is empty; a table needs a line with the names of its columns")
    if lacking:
        there = ", ".join(map(printable, names))
        columns = {part: guesses.get(part, "COLUMN") for part in PARTS if part in (*lacking, *guesses)}
        how = "rename them" if path.name == MANIFEST else f"name them with {as_option(columns)}"
        raise UserError(f"{path}: no column for {' and '.join(lacking)}; it has {there}; {how}")


def column_remarks(
    path: Path, chosen: Mapping[str, str], one_hot: Sequence[str], naming: Naming, guesses: Mapping[str, str]
) -> list[str]:
    """Remarks on the columns that were `chosen` for parts of a table, on those that stand for one class each, and on
    those that may be parts without a column (`guesses`)."""
    other = [f"{part} is {printable(column)}" for part, column in chosen.items() if part != column]
    remarks = [f"columns of {path.name}: {', '.join(other)}"] if other else []
    if one_hot:
        kept = [printable(name) for name in one_hot if naming.class_of(name) is not None]
        remarks.append(f"{path.name} has one column a class: {', '.join(kept)}")
        if len(kept) < len(one_hot):
            remarks[-1] += f" ({len(one_hot) - len(kept)} others are left out by data.classes)"
    if guesses and path.name != MANIFEST:
        remarks.append(f"no column of {path.name} is taken for {' and '.join(guesses)}; is it {as_option(guesses)}?")
    return remarks


def check_columns(
    path: Path, names: Sequence[str], columns: Mapping[str, str | None], mistakes: list[str]
) -> dict[str, str]:
    """The option `data.columns` in lower case, without parts that have no column; those that the table lacks join
    `mistakes`."""
    chosen = {}
    for part, column in columns.items():
        if column is not None:
            with collecting(mistakes):
                chosen[part] = find_column(path, names, column, "columns")
    return chosen


def find_column(path: Path, names: Sequence[str], column: str, option: str) -> str:
    """The name of a column in lower case. Raises UserError if the table lacks it, as `option` names it."""
    name = column.strip().lower()
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        nearest = f" (the nearest is {printable(near[0])})" if near else ""
        there = ", ".join(map(printable, names))
        raise UserError(f"{path}: no column {printable(column)}, as data.{option} says; it has {there}{nearest}")
    return name


def which_count(
    path: Path, names: Sequence[str], rows: Sequence[Mapping[str, str]], wanted: Mapping[str, Any]
) -> tuple[list[bool], list[str]]:
    """Whether each row counts, and remarks on those that do not.

    Args:
        wanted: the option `data.rows`: the value, or list of values, that a column must have.

    Raises:
        UserError: there is no such column, or no row has such a value in it.
    """
    counts, remarks = [True] * len(rows), []
    mistakes: list[str] = []
    for column, values in wanted.items():
        with collecting(mistakes):
            name = find_column(path, names, str(column), "rows")
            values = [str(value).strip().lower() for value in (values if isinstance(values, list) else [values])]
            fits = [plain_number(row.get(name, "")).lower() in values for row in rows]
            if not any(fits):
                there = ", ".join(sorted({printable(row.get(name, "")) for row in rows})[:SHOWN])
                raise UserError(
                    f"{path}: no row has {' or '.join(map(printable, values))} in {printable(name)}, as data.rows "
                    f"says; it has {there or 'no rows'}"
                )
            remarks.append(
                f"left out by data.rows: {len(rows) - sum(fits):,} of {len(rows):,} rows of {path.name} whose "
                f"{printable(name)} is not {' or '.join(map(printable, values))}"
            )
            counts = [before and now for before, now in zip(counts, fits, strict=True)]
    raise_all(mistakes)
    return counts, remarks


def without_brackets(names: Sequence[str]) -> list[str]:
    """Names of columns, where brackets around several parts were torn apart at the commas: of
    originalimage[width,height], originalimage width and originalimage height."""
    whole, stem = [], ""
    for name in names:
        opened, bracket, rest = name.partition("[")
        if bracket and "]" not in rest:
            stem, name = opened.strip(), rest
        whole.append(f"{stem} {name.removesuffix(']').strip()}" if stem else name)
        if stem and name.endswith("]"):
            stem = ""
    return whole


def one_hot_columns(names: Sequence[str], rows: Sequence[Mapping[str, str]], naming: Naming) -> list[str]:
    """The columns that say with 1, 0 and -1 whether an image is of a class: two or more, one of which is a known class
    or has a class by `naming.classes`; and empty columns, which may be findings that no image has."""
    marks: list[str] = []
    empty: list[str] = []
    for name in names:
        values = {plain_number(value) for value in {row.get(name, "") for row in rows}}
        values = {value for value in values if value.lower() not in MISSING}
        if name and values <= {"0", "1", UNCERTAIN}:
            (marks if values or plain(name) in naming.renamed else empty).append(name)
    is_class = any(class_name(name) in CLASSES or plain(name) in naming.renamed for name in marks)
    return [name for name in names if name in {*marks, *empty}] if len(marks) > 1 and is_class else []


def join_labels(row: Mapping[str, str], one_hot: Sequence[str]) -> str:
    """The label of a row that has one column a class."""
    marks = ((plain_number(row.get(name, "")), name) for name in one_hot)
    return SEVERAL.join(
        name if mark == "1" else f"{UNCERTAIN} {name}" for mark, name in marks if mark in ("1", UNCERTAIN)
    )


@lru_cache(maxsize=2**16)  # a large table repeats few values
def plain_number(text: str) -> str:
    """1 for 1.0, as programs write whole numbers in a column with gaps, and for True; any other text as it is."""
    return TRUTH.get(text.lower()) or re.sub(r"^(-?\d+)\.0+$", r"\1", text)
