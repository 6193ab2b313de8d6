"""Decode each image once: memory-mapped bytes in the cache, shared by every run that asks for the same images."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from cxr.data.building import Source, fill_store, is_readable_again
from cxr.data.cache import built, fingerprint, remove
from cxr.data.decode import AS_USUAL, Reading
from cxr.data.dicom_header import Header
from cxr.data.image_table import ImageTable
from cxr.data.retrying import patiently
from cxr.data.shards import DAMAGED, LISTS, Record, gather, read_shard
from cxr.errors import UserError, counted, printable, such_as

log = logging.getLogger(__name__)

FORMAT = 10  # raise when decode() or the files of a store change: old stores are then ignored
# Images in a file, 17 MB at 64 pixels, 206 MB at 224: what a killed build may have to decode again. A batch is one
# index into each file that it touches, and each file stays open; systems allow a process about a thousand.
SHARD = 4096


@dataclass(frozen=True)
class Store:
    """Decoded images.

    Attributes:
        shards: memory-mapped uint8 arrays (n, S, S), all of the same length except the last.
        place: int64 (N,), where the image of each row of the table lies, counted through all shards.
        facts: arrays (N,) about the files: bytes, width, height, coloured, outliers and negative (int64), format,
            sha256, and what a DICOM header says (strings); see Decoded.
        reading: how the files were read.
    """

    shards: Sequence[np.ndarray]
    place: np.ndarray
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)
    reading: Reading = AS_USUAL

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Images by their rows in the table: uint8, (S, S) for one row, else (n, S, S)."""
        return gather(self.shards, self.place[rows])

    def select(self, rows: np.ndarray) -> "Store":
        """The store of some rows (n,), in their order."""
        return replace(self, place=self.place[rows], facts={name: of[rows] for name, of in self.facts.items()})

    def parts(self, images: int = 512) -> Iterator[tuple[slice, np.ndarray]]:
        """All images in the order of the table, some at a time: their rows, and uint8 (n, S, S)."""
        for start in range(0, len(self), images):
            rows = slice(start, start + images)
            yield rows, self[rows]

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.shards[0].shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all images of the table."""
        return len(self) * self.size**2


def open_store(
    images: ImageTable, size: int, cache: Path, reading: Reading = AS_USUAL, shard: int = SHARD
) -> tuple[Store, ImageTable]:
    """The store of one size, and the table of its N images; see open_stores()."""
    (store,), images = open_stores(images, (size,), cache, reading, shard)
    return store, images


def open_stores(
    images: ImageTable, sizes: Sequence[int], cache: Path, reading: Reading = AS_USUAL, shard: int = SHARD
) -> tuple[list[Store], ImageTable]:
    """Map the decoded images, in one store a size, after decoding those that no earlier run has decoded.

    The cache holds one store for each folder or table of images and image size. A killed build is continued. When the
    folder has changed, unchanged images are taken over from its earlier store. That one is then removed, or, if a
    process of this or another machine still has it mapped, by the first start after that.

    Args:
        shard: images in a file of the store.

    Returns:
        The stores, and the table of the N images that all of them have: row n is the same image in each. The others
        are listed in the table's `rejected`.

    Raises:
        UserError: the cache cannot be written, the disk has too little room, no image can be read, or an image cannot
            be read because a disk or a network share fails.
    """
    sources = [(file, *file_state(images.root / file)) for file in images.file.tolist()]
    opened = [map_images(images, sources, size, cache, reading, shard) for size in sizes]
    rejected: dict[int, str] = {}
    for row, of_row in enumerate(zip(*(records for _, records in opened), strict=True)):
        if why := next((record.rejected for record in of_row if record.rejected), ""):
            rejected[row] = why
    if len(rejected) == len(images):
        row, reason = next(iter(rejected.items()))
        raise UserError(
            f"{images.root}: none of {counted(len(images), 'image')} can be read "
            f"({such_as(len(images), printable(images.file[row]))}: {reason})"
        )
    used = np.setdiff1d(np.arange(len(images)), list(rejected))
    facts = (facts_of([records[row] for row in used.tolist()]) for _, records in opened)
    stores = [Store(shards, used, of_size, reading) for (shards, _), of_size in zip(opened, facts, strict=True)]
    images = images.without(rejected) if rejected else images
    return stores, images.with_headers({name: stores[0].facts[name] for name in Header._fields})


def map_images(
    images: ImageTable, sources: Sequence[Source], size: int, cache: Path, reading: Reading, shard: int
) -> tuple[list[np.ndarray], list[Record]]:
    """The shards and records of one store, see open_stores(); `sources` are the files of the table."""
    key = fingerprint(FORMAT, shard, size, *reading, str(images.table or images.root))
    group = cache / f"store-{size}px-{key}"
    fill = partial(fill_store, root=images.root, sources=sources, size=size, reading=reading, shard=shard)
    intact = partial(is_whole, root=images.root, sources=sources, size=size, reading=reading, shard=shard)
    with built(group / fingerprint(sources), fill, intact, keep=LISTS) as folder:
        shards, records = read_shards(folder, len(sources), size, shard)
        for other in group.iterdir():
            if other.is_dir() and other != folder:  # an earlier state, or what a killed build left
                remove(other)
    log.info("store: %d images of %dx%d, %.0f MB, in %s", len(images), size, size, len(images) * size**2 / 1e6, folder)
    return shards, records


def read_shards(folder: Path, images: int, size: int, shard: int) -> tuple[list[np.ndarray], list[Record]]:
    """All shards of a store, and the records of its images; raises DAMAGED if one is missing or damaged."""
    shards, records = zip(*(read_shard(folder, number, size) for number in range(-(-images // shard))), strict=True)
    return list(shards), [record for part in records for record in part]


def is_whole(folder: Path, root: Path, sources: Sequence[Source], size: int, reading: Reading, shard: int) -> bool:
    """Whether a folder holds the store of these files, and no image of it that can be read only now."""
    try:
        records = read_shards(folder, len(sources), size, shard)[1]
    except DAMAGED:  # there is none yet, or a damaged one
        return False
    if [record.source for record in records] != sources:
        return False
    return not (os.access(folder.parent, os.W_OK) and is_readable_again(root, size, reading, records))


def facts_of(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """The facts about the files as arrays, see Store."""
    types = {"bytes": "i8", "width": "i8", "height": "i8", "format": "<U5", "sha256": "<U64"}
    types |= dict.fromkeys(Header._fields, np.str_)
    types |= dict.fromkeys(("coloured", "outliers", "negative"), "i8")
    return {name: np.array([getattr(record, name) for record in records], dtype=kind) for name, kind in types.items()}


def file_state(path: Path) -> tuple[int, int, int]:
    """Bytes, time of the last change in ns, and mode of a file; zeros if it is missing or closed to us."""
    try:
        stat = patiently(path, path.stat)
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_mode
