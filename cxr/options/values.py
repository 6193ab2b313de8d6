"""Kinds of values that an option may have, in words and as a test."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """The values that an option may have, in words, and the test for them.

    `parts` are what is tested, each alone; `why` says what is wrong with one, if there is more to say than `allowed`.
    """

    allowed: str
    holds: Callable[[Any], bool]
    parts: Callable[[Any], Iterable[Any]] = lambda value: [value]
    why: Callable[[Any], str] = lambda value: ""


def is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def is_printable(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def is_pattern(value: Any) -> bool:
    """Whether it is a regular expression with a group, or None."""
    try:
        return value is None or re.compile(value).groups > 0
    except (re.error, TypeError):
        return False


def is_mapping(value: Any, keys: Callable[[str], bool], values: Callable[[Any], bool]) -> bool:
    """Whether it is None, or a mapping whose keys and values pass these tests."""
    return value is None or (
        isinstance(value, dict) and all(keys(str(key)) for key in value) and all(map(values, value.values()))
    )


def is_value(value: Any) -> bool:
    """Whether it may stand in a table."""
    return is_printable(str(value)) and isinstance(value, str | int | float)


def is_table(value: Any) -> bool:
    return isinstance(value, str) and Path(value).suffix.lower() in (".csv", ".parquet")


def whole(low: int) -> Rule:
    return Rule(f"a whole number from {low}", lambda v: is_whole(v, low))


def number(words: str, test: Callable[[float], bool]) -> Rule:
    return Rule(f"a number {words}", lambda v: is_number(v) and test(v))


def one_of(*choices: Any) -> Rule:
    words = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
    return Rule(words, lambda v: v in choices and not isinstance(v, bool))


BOOLEAN = Rule("true or false", lambda v: isinstance(v, bool))
TEXT = Rule("text", lambda v: isinstance(v, str) and v != "")


def is_folder(value: Any) -> bool:
    """Whether a value is the path of a folder, or of one that can be made."""
    try:
        folder = Path(value).expanduser()
        return folder.is_dir() or (not folder.exists() and folder.parent.is_dir())
    except (OSError, RuntimeError, TypeError, ValueError):  # no such home, a name that is too long, no text at all
        return False


FOLDER = Rule("a folder, or one that does not exist yet in a folder that does", lambda v: v is None or is_folder(v))
NEW_FILE = Rule(
    "a file that does not exist yet, in a folder that does",
    lambda v: v is None or (not Path(v).expanduser().exists() and Path(v).expanduser().parent.is_dir()),
    why=lambda v: "it exists already" if Path(v).expanduser().exists() else "its folder does not exist",
)


def not_there(path: Any) -> str:
    """Why a path is refused, if nothing is there."""
    return "" if path == "" or os.path.exists(os.path.expanduser(str(path))) else "nothing is there"
