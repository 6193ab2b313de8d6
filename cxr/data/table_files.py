"""Find the tables and lists that options name: by a path, or by a pattern that one file fits."""

import glob
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.data.files import is_hidden, mode_of
from cxr.data.split_lists import SplitLists
from cxr.errors import UserError, printable

TABLE = "the path of a CSV or parquet file"
LIST = "the path of a text file"


def find_tables(data: Mapping[str, Any]) -> dict[str, Path]:
    """The tables that `data.table` names, by the split of their images ("" where the table says it). UserError as in
    find_file(), and if data.root is no folder."""
    table, root = data["table"], data["root"]
    if root and not stat.S_ISDIR(mode_of(Path(root).expanduser())):
        raise UserError(f"data.root={root}: no such folder")
    if isinstance(table, Mapping):
        return {split: find_file(f"data.table.{split}", path, root, TABLE) for split, path in table.items()}
    return {"": find_file("data.table", table, root, TABLE)}


def find_lists(data: Mapping[str, Any]) -> SplitLists | None:
    """The lists that `data.split_lists` names, if it does. UserError as in find_file(), and for unusable lists."""
    lists, root = data.get("split_lists") or {}, data["root"]
    paths = {split: find_file(f"data.split_lists.{split}", path, root, LIST) for split, path in lists.items()}
    return SplitLists(paths) if paths else None


def find_file(option: str, path: str, root: str | None, what: str) -> Path:
    """The file at a path, or the only one that fits it as a pattern (with *, ? or [ ]). A path below `root` may also
    lead from a folder in it: many sets are unpacked into one of their own.

    Args:
        option: and `what` it names, for messages.

    Raises:
        UserError: no file fits, or several do.
    """
    if is_file(Path(path).expanduser()):
        return Path(path).expanduser()
    above = f"{str(root).rstrip('/')}/" if root else "\0"
    below = path.removeprefix(above).lstrip("/") if path.startswith(above) else ""
    if below:
        folder = Path(above).expanduser()
        fit = list(folder.glob(below)) or list(folder.glob(f"*/{below}"))
    else:
        fit = [Path(name) for name in glob.glob(os.path.expanduser(path))]
    fit = sorted(file for file in fit if is_file(file) and not is_hidden(file.name))
    if len(fit) > 1:
        names = " and ".join(printable(str(file)) for file in fit[:2])
        raise UserError(f"{option}={printable(path)}: {len(fit)} files fit, such as {names}; name one: {option}=FILE")
    if not fit:
        where = " at this place, or below a folder in data.root" if below else ""
        raise UserError(f"{option}={printable(path)}: must be {what}; there is none{where}")
    return fit[0]


def is_file(path: Path) -> bool:
    return stat.S_ISREG(mode_of(path))
