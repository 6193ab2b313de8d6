"""Files that are written whole or not at all, also in a power cut: others read them while runs continue."""

import csv
import errno
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cxr.errors import UserError


def as_text(value: object) -> str:
    """A value as it reads back from a file in UTF-8; bytes in a file's name that are not UTF-8 are \\udcNN."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO]:
    """A file to write, in UTF-8 or in bytes ("wb"). It takes the name `path` once it is whole and on the disk; after an
    error, `path` is what it was before. Bytes in a file's name that are not UTF-8 are written as \\udcNN."""
    part = part_of(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    try:
        with part.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """A temporary name beside `path`, different for every process and machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives sync files alone
            raise
    finally:
        os.close(handle)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, see replacing()."""
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_text(path: Path, content: str) -> None:
    """Write a text file, see replacing()."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, see replacing(); it reads back as it was."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, or {} where there is none yet.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(content, dict):
            raise ValueError("not an object")
        return content
    except ValueError as error:
        raise UserError(f"{path}: damaged (not JSON); move its run folder away to train that run again") from error
