"""The table that cxr.predict writes row by row, and resumes after a stop."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from cxr.errors import UserError
from cxr.files.writing import replacing, write_table

PARQUET = ".parquet"
ENDINGS = (".csv", PARQUET)
NUMBERS = ("prob_", "unfamiliar")  # columns


class PredictionTable:
    """A CSV or Parquet file whose rows are in a file beside it, named by a key, until all are written. To be used as a
    context manager: within the block, no other command writes the table.

    Args:
        path: of the table; None: the rows go to the console.
        columns: their names.
        key: of what makes the rows: with another one, those of a stopped command are not continued.

    Attributes:
        rows: those that a stopped command has written, in their order; None: there is no such command.
    """

    def __init__(self, path: Path | None, columns: Sequence[str], key: str) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, str]] | None = None
        self.part = path and path.with_name(f"{path.name}.{key}.part")
        if path and path.suffix not in ENDINGS:
            raise UserError(f"out={path}: must end with {' or '.join(ENDINGS)}")
        if path and path.suffix == PARQUET and not find_spec("pyarrow"):
            raise UserError(f"out={path}: Parquet needs pyarrow: pip install 'cxr[parquet]'; or write a .csv")

        self.lock = path and FileLock(f"{path}.lock")

    def __enter__(self) -> "PredictionTable":
        if self.lock:
            try:
                self.lock.acquire(timeout=0)
            except Timeout as error:
                raise UserError(f"out={self.path}: another command writes it; wait, or name another file") from error
            except OSError as error:
                raise self.cannot_write(error) from error
            self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock:
            Path(self.lock.lock_file).unlink(missing_ok=True)  # before the release: it may be another command's then
            self.lock.release()

    def cannot_write(self, error: OSError) -> UserError:
        return UserError(f"out={self.path}: cannot be written ({error.strerror})")

    def resume(self) -> None:
        """Read the rows of a stopped command, whole ones only."""
        if self.part.exists():
            # As bytes: a row may end within a character, and a file's name may have any kind of line end.
            text = self.part.read_bytes().decode("utf-8", "replace")
            first, *rows = [*csv.reader(io.StringIO(text, newline=""))] or [[]]
            whole = rows if text.endswith("\n") else rows[:-1]
            if first == list(self.columns):
                self.rows = [dict(zip(first, row, strict=True)) for row in whole if len(row) == len(first)]

    @contextmanager
    def writing(self) -> Iterator["csv.DictWriter"]:
        """A writer of the rows that are left. Those of this command and of the one before are the table when the block
        ends well, and else kept beside it. Raises UserError where that is not possible."""
        if not self.part:
            sys.stdout.reconfigure(errors="backslashreplace")
            writer = csv.DictWriter(sys.stdout, self.columns)
            writer.writeheader()
            yield writer
            return
        try:
            write_table(self.part, self.columns, [row.values() for row in self.rows or []])
            # Bytes in a file's name that are not UTF-8 are written as \udcNN.
            with self.part.open("a", newline="", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
                yield csv.DictWriter(file, self.columns)
            if self.path.suffix == PARQUET:
                with replacing(self.path, "wb") as file:
                    as_parquet(self.part, self.columns, file)
                self.part.unlink()
            else:
                self.part.replace(self.path)
        except OSError as error:
            raise self.cannot_write(error) from error
        finally:
            if self.part.exists() and self.part.read_bytes().count(b"\n") > 1:  # its header is a line
                print(f"cxr: the rows so far are in {self.part}; the same command resumes there", file=sys.stderr)


def as_parquet(table: Path, columns: Sequence[str], file: IO[bytes]) -> None:
    """Copy a CSV file to a Parquet file, some rows at a time: numbers as float64, all else as text."""
    import pyarrow as pa
    from pyarrow import csv as arrow
    from pyarrow.parquet import ParquetWriter

    types = {name: pa.float64() if name.startswith(NUMBERS) else pa.string() for name in columns}
    rows = arrow.open_csv(
        table,
        parse_options=arrow.ParseOptions(newlines_in_values=True),
        convert_options=arrow.ConvertOptions(column_types=types),
    )
    with ParquetWriter(file, pa.schema(types)) as writer:
        for batch in rows:
            writer.write_batch(batch)
