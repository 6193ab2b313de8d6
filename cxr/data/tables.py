"""Read tables, CSV or parquet, as rows of text: any usual encoding and separator, one row for each file."""

import codecs
import csv
import io
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr.data.columns import MISSING, name_columns, plain_number
from cxr.data.files import why_closed
from cxr.errors import UserError, one_line, printable

Row = dict[str, str]
PARTS = ("file", "label", "patient", "split")  # every further column is for slices
# Tried in this order. Korean Excel saves CP949; it comes last, for it takes many bytes that are something else.
ENCODINGS = {"utf-8-sig": "UTF-8", "cp949": "CP949"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def read_rows(
    path: Path, needed: Sequence[str], columns: Mapping[str, str] | None = None
) -> tuple[list[Row], list[str]]:
    """The rows of a table by column names, in lower case; those that stand for PARTS have these names. Names and values
    are stripped of spaces; a missing value is "", in whatever way it is written. `file` has forward slashes and no
    detours.

    Args:
        columns: the option `data.columns`, see name_columns().

    Returns:
        The rows, and remarks for people.

    Raises:
        UserError: it cannot be read, or lacks one of the columns `needed`.
    """
    parquet = path.suffix.lower() == ".parquet"
    names, rows, remarks = read_parquet(path) if parquet else read_csv(path)
    rows, more = name_columns(path, names, rows, needed, columns or {})
    for row in rows:
        if not row["file"]:
            raise UserError(f"{path}: a row has no file; fill in its column file or remove the row")
        row["file"] = posixpath.normpath(row["file"].replace("\\", "/"))
        for part in PARTS[1:]:
            if part in row:
                row[part] = "" if row[part].lower() in MISSING else plain_number(row[part])
    return rows, [*remarks, *more]


def one_row_each(path: Path, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows of a table, of each file the first one, and a remark if there were more, such as one for each reader.

    Raises:
        UserError: two rows of a file have different PARTS.
    """
    by_file: dict[str, Row] = {}
    differing: dict[str, tuple[Row, Row]] = {}
    for row in rows:
        first = by_file.setdefault(row["file"], row)
        if any(first.get(part) != row.get(part) for part in PARTS):
            differing.setdefault(row["file"], (first, row))
    if differing:
        file, (first, row) = next(iter(differing.items()))
        part = next(part for part in PARTS if first.get(part) != row.get(part))
        values = f"{part} {printable(first[part]) or 'unknown'} and {printable(row[part]) or 'unknown'}"
        raise UserError(
            f"{path}: says two things of {len(differing):,} files, such as {printable(file)} ({values}); keep one row "
            "of each"
        )
    twice = len(rows) - len(by_file)
    return list(by_file.values()), [f"{twice:,} rows of {path.name} name a file again; it counts once"] * (twice > 0)


def read_csv(path: Path) -> tuple[list[str], list[Row], list[str]]:
    """The columns and rows of a CSV file, and a remark if it is not in UTF-8 with commas. UserError as read_rows()."""
    try:
        text, encoding = read_text(path)
        header = text.split("\n", 1)[0]
        separator = max(SEPARATORS, key=lambda s: len(next(csv.reader([header], delimiter=s), ())))
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        names = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: {why_closed(error)}") from error
    usual = encoding == "UTF-8" and separator == ","
    remark = f"{path.name} is read as {encoding} with {SEPARATORS[separator]}s between its columns"
    return list(names), rows, [] if usual else [remark]


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file, and the name of its encoding. Raises UserError for an unknown one."""
    data = path.read_bytes()
    encodings = {"utf-16": "UTF-16"} if data.startswith(UTF_16) else ENCODINGS
    for codec, name in encodings.items():
        try:
            return data.decode(codec), name
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: not text in {', '.join(['UTF-8', 'UTF-16', 'CP949'])}; save it as CSV in UTF-8")


def read_parquet(path: Path) -> tuple[list[str], list[Row], list[str]]:
    """The columns and rows of a parquet file, and no remark. UserError as read_rows(), and if pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: a parquet file needs pyarrow: pip install pyarrow, or write it as CSV") from error
    try:
        read = pyarrow.parquet.read_table(path)
    except OSError as error:
        raise UserError(f"{path}: {why_closed(error) if error.errno else 'not a parquet file'}") from error
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a parquet file ({one_line(error, 120)})") from error
    names = [name.strip().lower() for name in read.column_names]
    values = [["" if v is None else str(v).strip() for v in column.to_pylist()] for column in read.columns]
    return names, [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)], []
