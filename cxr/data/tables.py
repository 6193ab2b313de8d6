"""Read tables, CSV or parquet, as rows of text."""

import csv
from collections.abc import Sequence
from pathlib import Path

from cxr.data.files import why_closed
from cxr.errors import UserError, one_line, printable

Row = dict[str, str]
PARTS = ("file", "label", "patient", "split")  # every further column is for slices


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """The rows of a table by column names, in lower case. Names and values are stripped of spaces; an empty value is
    "". `file` has forward slashes.

    Raises:
        UserError: it cannot be read, lacks one of the columns `needed`, or names a file twice.
    """
    columns, rows = (read_parquet if path.suffix.lower() == ".parquet" else read_csv)(path)
    if lacking := [name for name in needed if name not in columns]:
        raise UserError(f"{path}: no column {lacking[0]}; expected are {','.join(PARTS[:3])} and, if known, split")
    seen: set[str] = set()
    for row in rows:
        row["file"] = row["file"].replace("\\", "/")
        if not row["file"]:
            raise UserError(f"{path}: a row has no file; fill in its column file or remove the row")
        if row["file"] in seen:
            raise UserError(f"{path}: names {printable(row['file'])} twice; name each file once")
        seen.add(row["file"])
    return rows


def read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and rows of a CSV file in UTF-8. Raises UserError as read_rows() does."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            return list(columns), [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: {why_closed(error)}") from error


def read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and rows of a parquet file. Raises UserError as read_rows() does, and where pyarrow is missing."""
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
    return names, [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
