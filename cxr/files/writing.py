"""Text, JSON and CSV files: written whole or not at all, since others read them while runs continue."""

import csv
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.errors import UserError


def as_text(value: object) -> str:
    """A value as it reads back from a file in UTF-8; bytes in a file's name that are not UTF-8 are \\udcNN."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in UTF-8; bytes in a file's name that are not UTF-8 are written as \\udcNN."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_text(path: Path, content: str) -> None:
    """Write a file in UTF-8 whole or not at all: others read it while runs continue. Bytes in a file's name that are
    not UTF-8 are written as \\udcNN, which JSON reads back as they were."""
    part = part_of(path)
    try:
        part.write_text(content, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """A temporary name beside `path`, different for every process and machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
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
