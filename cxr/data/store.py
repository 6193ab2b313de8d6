"""Decode each image once: memory-mapped bytes in the cache, shared by every run that asks for the same images."""

import csv
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from cxr.data.building import INDEX_FILE, JOURNAL, fill_store, read_index
from cxr.data.cache import built, fingerprint
from cxr.data.shards import Shards, gather
from cxr.data.sources import ImageTable
from cxr.errors import UserError, printable

log = logging.getLogger(__name__)

FORMAT = 5  # raise when decode() or the files of a store change: old stores are then left alone and built anew
# Images in a file: 134 MB at 64 pixels, 1.6 GB at 224. A batch is one index into each file that it touches, and each
# file stays open, of which systems allow a process about a thousand.
SHARD = 32_768


@dataclass(frozen=True)
class Store:
    """Decoded images.

    `shards` are memory-mapped uint8 arrays (n, S, S), all of one length but the last. `slot` (N,) is the place of the
    image of each row of the table, counted through all shards; a rejected image keeps its slot, so that the others need
    not move. `facts` has arrays of length N about the files: bytes, width, height and coloured (int64), format and
    sha256 (strings), see Decoded."""

    shards: Sequence[np.ndarray]
    slot: np.ndarray
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """The images of some rows of the table: uint8, (S, S) of one row, else (n, S, S)."""
        return gather(self.shards, self.slot[rows])

    def parts(self, images: int = 512) -> Iterator[np.ndarray]:
        """All images in the order of the table, some at a time: uint8 (n, S, S)."""
        for start in range(0, len(self), images):
            yield self[start : start + images]

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.shards[0].shape[-1]

    @property
    def nbytes(self) -> int:
        """What all images of the table take, wherever they are copied to."""
        return len(self) * self.size**2


def open_store(images: ImageTable, size: int, cache: Path, shard: int = SHARD) -> tuple[Store, ImageTable]:
    """Decode all images, or map what an earlier run decoded.

    The cache holds one store for each folder or table of images and image size. A build that was killed goes on.
    Where the folder has changed, unchanged images are taken over from its earlier store, which is then removed (a run
    that still has it mapped keeps its images), or from the build of it that was killed.

    Args:
        shard: images in a file of the store.

    Returns:
        The store, and the table of the N images that could be read; the others stand in its `rejected`.

    Raises:
        UserError: the cache cannot be written, the disk has too little room, or no image can be read.
    """
    state = np.array([file_state(images.root / file) for file in images.file.tolist()], dtype=np.int64)
    group = cache / f"store-{size}px-{fingerprint(FORMAT, shard, size, str(images.table or images.root))}"
    columns = images.file, images.label, images.patient, state
    key = fingerprint(images.classes, *(column.tobytes() for column in columns))
    fill = partial(fill_store, images=images, state=state, size=size, shard=shard)
    intact = partial(is_whole, size=size, shard=shard, number=len(images))
    with built(group / key, fill, intact, JOURNAL) as folder:
        arrays = Shards(folder, shard, size).load()
        slot, facts, rejected = read_facts(folder / INDEX_FILE, len(images))
        for other in group.iterdir():
            if other.is_dir() and other != folder:  # an earlier state, or a build of one that was killed
                shutil.rmtree(other, ignore_errors=True)
    slots = sum(map(len, arrays))
    log.info("store: %d images of %dx%d, %.0f MB, in %s", len(images), size, size, slots * size**2 / 1e6, folder)
    if len(rejected) == len(images):
        row, why = next(iter(rejected.items()))
        raise UserError(
            f"{images.root}: none of its {len(images)} images can be read; {printable(images.file[row])}: {why}"
        )
    used = np.setdiff1d(np.arange(len(images)), list(rejected))
    facts = {name: fact[used] for name, fact in facts.items()}
    return Store(arrays, slot[used], facts), images.without(rejected) if rejected else images


def is_whole(folder: Path, size: int, shard: int, number: int) -> bool:
    """Whether a folder holds a store of images of this size, with a row of the index, and a slot, for each."""
    try:
        slots = sum(map(len, Shards(folder, shard, size).load()))
        dealt = [int(row["slot"]) for row in read_index(folder / INDEX_FILE)]
        return len(dealt) == number and len({*dealt}) == number and max(dealt) < slots
    except (OSError, ValueError, TypeError, EOFError, csv.Error):  # there is none yet, or a damaged one
        return False


def read_facts(index: Path, number: int) -> tuple[np.ndarray, dict[str, np.ndarray], dict[int, str]]:
    """Of each of `number` images, its slot and its facts, see Store; and why images were rejected, by row."""
    numbers, words = ("slot", "bytes", "width", "height", "coloured"), ("format", "sha256")
    facts = {name: np.zeros(number, dtype=np.int64) for name in numbers}
    facts |= {"format": np.zeros(number, dtype="<U4"), "sha256": np.zeros(number, dtype="<U64")}
    rejected = {}
    for row, told in enumerate(read_index(index)):
        for name in numbers:
            facts[name][row] = int(told[name])
        for name in words:
            facts[name][row] = told[name]
        if told["rejected"]:
            rejected[row] = told["rejected"]
    return facts.pop("slot"), facts, rejected


def file_state(path: Path) -> tuple[int, int, int]:
    """Bytes, time of the last change in ns, and mode of a file; zeros for one that is not there any more."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_mode
