"""Read tables, CSV or parquet, as rows of text, in any usual encoding and with any usual separator."""

import codecs
import csv
import io
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from cxr.data.columns import MISSING, name_columns, plain_number, which_count, without_brackets
from cxr.data.files import why_closed
from cxr.data.naming import AS_USUAL, SEVERAL, Naming, as_nfc
from cxr.data.several_rows import PARTS, Row
from cxr.errors import UserError, collecting, one_line, raise_all

# Tried in this order. Korean Excel saves CP949; it comes last, for it takes many bytes that are something else.
ENCODINGS = {"utf-8-sig": "UTF-8", "cp949": "CP949"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Table:
    """What a table says.

    Attributes:
        path: of its file.
        rows: those that count, by column names, in lower case; the columns that stand for PARTS have these names.
        labels: every label, of rows that do not count too: what `data.classes` may name.
        classes: the columns that say with 1 and 0 whether an image is of a class; empty if one column names it.
        remarks: what was understood, in clauses for people.
    """

    path: Path
    rows: list[Row]
    labels: frozenset[str]
    classes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def read_table(path: Path, needed: Sequence[str], naming: Naming = AS_USUAL) -> Table:
    """Read a table. Names and values are stripped of spaces; a missing value is "", in whatever way it is written.
    `file` has forward slashes and no detours.

    Args:
        needed: the PARTS that it must have.
        naming: which column is what, by its `columns`, and which rows count, by its `rows`.

    Raises:
        UserError: the table cannot be read, or lacks columns; of these, all at once.
    """
    parquet = path.suffix.lower() == ".parquet"
    names, rows, remarks = read_parquet(path) if parquet else read_csv(path)
    mistakes: list[str] = []
    counts, left_out = [], []
    with collecting(mistakes):
        counts, left_out = which_count(path, names, rows, naming.rows)
    with collecting(mistakes):
        rows, classes, more = name_columns(path, names, rows, needed, naming)
        if empty := [number for number, row in enumerate(rows, start=1) if not row["file"]]:
            row, more_rows = f"row {empty[0]:,}", f" (and {len(empty) - 1:,} more)" if len(empty) > 1 else ""
            raise UserError(f"{path}: {row} has no file{more_rows}; fill in its column file or remove the row")
    raise_all(mistakes)
    for row in rows:
        row["file"] = posixpath.normpath(row["file"].replace("\\", "/"))
        for part in PARTS[1:]:
            if part in row:
                row[part] = "" if row[part].lower() in MISSING else as_nfc(plain_number(row[part]))
    labels = frozenset(classes or label_names(rows))
    return Table(path, list(compress(rows, counts)), labels, tuple(classes), (*remarks, *left_out, *more))


def label_names(rows: Sequence[Row]) -> set[str]:
    """Every label of these rows, alone and as they join them."""
    texts = {row.get("label", "") for row in rows}
    return {*texts, *(name for text in texts for name in text.split(SEVERAL))} - {""}


def read_csv(path: Path) -> tuple[list[str], list[Row], list[str]]:
    """The columns and rows of a CSV file, and a remark if it is not in UTF-8 with commas. UserError as read_rows()."""
    try:
        text, encoding = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: {why_closed(error)}") from error
    separator, text = find_separator(text)
    # Strict: a quote that nobody closes would else take all lines that follow into one value.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = without_brackets([as_nfc(name).strip().lower() for name in next(reader, ())])
        rows = []
        for values in filter(None, reader):
            if any(values[len(names) :]):
                raise csv.Error("more values than columns; quote a value that has the separator in it")
            rows.append(dict(zip(names, map(str.strip, values), strict=False)))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file (line {reader.line_num:,}: {error})") from error
    usual = encoding == "UTF-8" and separator == ","
    remark = f"{path.name} is read as {encoding} with {SEPARATORS[separator]}s between its columns"
    return list(names), rows, [] if usual else [remark]


def find_separator(text: str) -> tuple[str, str]:
    """The separator of a CSV file, and its text from the header on, with one kind of line break.

    It is the one that makes the most columns in the header and as many in the next line, or the one of a first line
    "sep=;", which Excel writes."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep=") and first[4:5] in SEPARATORS:
        return first[4], rest

    def columns(separator: str) -> tuple[bool, int]:
        header, following = (len(next(csv.reader([line], delimiter=separator), ())) for line in (first, rest))
        return 1 < header == following, header

    rest = rest.partition("\n")[0]
    return max(SEPARATORS, key=columns), text


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file, and the name of its encoding. Raises UserError for an unknown one."""
    data = path.read_bytes()
    encodings = {"utf-16": "UTF-16"} if data.startswith(UTF_16) else ENCODINGS
    if not data.startswith(UTF_16) and data[:64].count(0) > 16:  # UTF-16 without the mark that should stand before it
        encodings = {f"utf-16-{'le' if data[1:2] == bytes(1) else 'be'}": "UTF-16"}
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
    names = [as_nfc(name).strip().lower() for name in read.column_names]
    values = [["" if v is None else str(v).strip() for v in column.to_pylist()] for column in read.columns]
    return names, [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)], []
