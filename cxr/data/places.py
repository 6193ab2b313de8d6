"""Where the files that a table names lie below a folder."""

import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from cxr.data.files import SUFFIXES, is_mask, list_files, mode_of, not_an_image
from cxr.data.naming import as_nfc
from cxr.errors import counted, such_as

ENDINGS = (*SUFFIXES, ".tif", ".tiff", ".bmp")  # of images


class Places:
    """Finds the files that a table names: by their path below a folder or, where the table comes from another machine,
    by their name or the end of their path, if one file below the folder has it; without its ending, or with another
    one.

    Paths may also lead from the folder around it, as CheXpert's do, or from one between it and the table.

    Args:
        root: the folder.
        tables: the folders of the tables.
    """

    def __init__(self, root: Path, tables: Iterable[Path] = ()) -> None:
        self.root = root
        inside = (folder for folder in map(Path.resolve, tables) if root in folder.parents)
        between = [part for folder in inside for part in (folder, *folder.parents) if root in part.parents]
        self.between = list(dict.fromkeys(part.relative_to(root).as_posix() for part in reversed(between)))
        self.moved: dict[str, str] = {}  # files found by name, and what the table calls them
        self.indexed: dict[int, dict[str, list[str]]] = {}

    @cached_property
    def files(self) -> list[str]:
        """All files below the folder."""
        above = os.path.join(self.root, "")
        return [str(path).removeprefix(above) for path in list_files(self.root)]

    def by_end(self, parts: int) -> dict[str, list[str]]:
        """All files below the folder by the last `parts` parts of their paths, with and without endings. Case and ways
        to write accents do not count."""
        if parts not in self.indexed:
            index: dict[str, list[str]] = defaultdict(list)
            for file in self.files:
                if file.count("/") >= parts - 1:
                    end = "/".join(file.split("/")[-parts:])
                    for name in {end, posixpath.splitext(end)[0]}:
                        index[as_nfc(name).casefold()].append(file)
            self.indexed[parts] = {end: self.images_among(files) for end, files in index.items()}
        return self.indexed[parts]

    def images_among(self, files: list[str]) -> list[str]:
        """Of several files, the images, if there are any: a mask or a text may have the name of its image."""
        if len(files) == 1:
            return files
        return [file for file in files if not (is_mask(file) or not_an_image(self.root / file))] or files

    def alike(self, listed: str) -> list[str]:
        """The files whose paths end as a path does: in as few parts, from the last, as tell one file from all others.
        Several where that is not possible."""
        candidates: list[str] = []
        parts = as_nfc(listed).casefold().split("/")
        for number in range(1, len(parts) + 1):
            of_end = self.by_end(number).get("/".join(parts[-number:]), [])
            if not of_end or len(of_end) == 1:
                return of_end or candidates
            candidates = of_end
        return candidates

    def nearby(self, file: str) -> list[str]:
        """Where a file is if its path leads from the folder around the root, or from one between it and a table."""
        inside = file.removeprefix(f"{self.root.name}/")
        return [inside] * (inside != file) + [f"{folder}/{file}" for folder in self.between]

    def find(self, listed: str) -> tuple[str, str]:
        """The place of a file below the folder, and why it is no image there, or ""."""
        if "\0" in listed or any(len(part.encode()) > 255 for part in listed.split("/")):
            return listed, "no possible name of a file"
        file = os.path.relpath(os.path.normpath(os.path.join(self.root, listed)), self.root)
        outside = file.startswith("..")
        for place in () if outside else (file, *self.nearby(file)):
            if mode := mode_of(self.root / place):
                return place, "a folder, not a file" if stat.S_ISDIR(mode) else not_an_image(self.root / place)
        alike = self.alike(listed)
        stem, ending = posixpath.splitext(listed)
        if not alike and ending.lower() in ENDINGS:  # saved in another format since
            alike = self.alike(stem)
        if len(alike) == 1 and self.moved.setdefault(alike[0], listed) == listed:
            return alike[0], not_an_image(self.root / alike[0])
        if alike:
            return file, f"not at this place, and its name is not that of one file below {self.root} alone"
        if outside:  # every run names images by their place below one folder
            return file, f"is not below {self.root}; set data.root=DIR to a folder above it"
        return file, f"not found below {self.root}"

    def remarks(self) -> list[str]:
        if not self.moved:
            return []
        file, listed = next(iter(self.moved.items()))
        where = f"found by name below {self.root} ({such_as(len(self.moved), file)})"
        return [f"not where the table says ({listed}): {counted(len(self.moved), 'file')}, {where}"]
