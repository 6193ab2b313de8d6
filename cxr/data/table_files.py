"""Find the tables and lists that options name: by a path, or by a pattern that one file fits."""

import glob
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxr.data.files import is_hidden, mode_of, subfolders
from cxr.data.split_lists import SplitLists
from cxr.errors import UserError, printable

DEPTH = 4  # folders on the way down to a set: wget -r makes physionet.org/files/NAME/VERSION
MANY = 1000  # folders on a level, below which nothing is looked for
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


def find_lists(data: Mapping[str, Any]) -> tuple[SplitLists | None, list[str]]:
    """The lists that `data.split_lists` names, if it does, and remarks on those that are missing.

    Raises:
        UserError: as in find_file(), but a list may be missing where `data.split` is not given; or lists are unusable.
    """
    root, paths, remarks = data["root"], {}, []
    for split, path in (data.get("split_lists") or {}).items():
        option = f"data.split_lists.{split}"
        if data.get("split") == "given" or find_files(path, root):
            paths[split] = find_file(option, path, root, LIST, "; without lists: data.split_lists=null")
        else:
            remarks.append(f"{option}={printable(path)}: no such file; only data.split=given needs it")
    return SplitLists(paths) if paths else None, remarks


def find_file(option: str, path: str, root: str | None, what: str, advice: str = "") -> Path:
    """The only one of find_files().

    Args:
        option: and `what` it names, for messages, and further `advice` where there is none.

    Raises:
        UserError: no file fits, or several do.
    """
    fit = find_files(path, root)
    if len(fit) > 1:
        names = " and ".join(printable(str(file)) for file in fit[:2])
        raise UserError(f"{option}={printable(path)}: {len(fit)} files fit, such as {names}; name one: {option}=FILE")
    if not fit:
        below = f" at this place, or up to {DEPTH} folders below {root}; is data.root the set's download?"
        where = below if below_root(path, root) else ""
        raise UserError(f"{option}={printable(path)}: must be {what}; there is none{where}{advice}")
    return fit[0]


def find_files(path: str, root: str | None) -> list[Path]:
    """The file at a path, or those that fit it as a pattern (with *, ? or [ ]). A path below `root` may also lead from
    a folder in it, the nearest that has such a file: many sets are unpacked into folders of their own."""
    if is_file(Path(path).expanduser()):
        return [Path(path).expanduser()]
    if not (below := below_root(path, root)):
        return usable(map(Path, glob.glob(os.path.expanduser(path))))
    level = [Path(root).expanduser()]
    for _ in range(DEPTH + 1):
        if (fit := usable(file for folder in level for file in folder.glob(below))) or len(level) > MANY:
            return fit
        level = [inner for folder in level for inner in subfolders(folder)]
    return []


def below_root(path: str, root: str | None) -> str:
    """A path without the folder `root` before it, or ""."""
    above = f"{root.rstrip('/')}/" if root else ""
    return path.removeprefix(above).lstrip("/") if above and path.startswith(above) else ""


def usable(paths: Iterable[Path]) -> list[Path]:
    """The files among some paths, without hidden ones, in the order of their names."""
    return sorted(path for path in paths if is_file(path) and not is_hidden(path.name))


def is_file(path: Path) -> bool:
    return stat.S_ISREG(mode_of(path))
