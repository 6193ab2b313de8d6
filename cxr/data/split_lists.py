"""Lists of file names that say to which split images belong, as some sets have them (train_val_list.txt)."""

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr.data.naming import as_nfc
from cxr.data.places import ENDINGS
from cxr.data.tables import read_text
from cxr.errors import UserError, printable


class SplitLists:
    """The splits of images by lists of their names, one name a line: the end of an image's path, with any ending of
    image files or none."""

    def __init__(self, lists: Mapping[str, Path]) -> None:
        """Read the list of each split. Raises UserError if one cannot be read, or two have the same name."""
        self.lists = lists
        self.split: dict[str, str] = {}
        for split, path in lists.items():
            for line in read_text(path)[0].splitlines():
                if (name := bare_name(line)) and self.split.setdefault(name, split) != split:
                    raise UserError(
                        f"data.split_lists: {printable(name)} is in the lists of {self.split[name]} and {split}"
                    )

    def split_of(self, file: str) -> str:
        """The split of an image by its path, or ""."""
        parts = bare_name(file).split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((self.split[end] for end in ends if end in self.split), "")

    def remarks(self, splits: Sequence[str]) -> list[str]:
        """How many images have a split from each list, and how many are in none."""
        number = Counter(splits)
        parts = [f"{split} {number[split]:,} (by {path.name})" for split, path in self.lists.items()]
        parts += [f"in no list {number['']:,}"] if number[""] else []
        return [f"images of each split: {', '.join(parts)}"]


def bare_name(line: str) -> str:
    """A path without an ending of images, and without detours; "" for an empty line."""
    if not (line := line.strip()):
        return ""
    path = posixpath.normpath(as_nfc(line).replace("\\", "/"))
    stem, ending = posixpath.splitext(path)
    return stem if ending.lower() in ENDINGS else path
