"""Fill a store, shard by shard: all cores decode, this process writes, and shards that are finished are kept."""

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cxr.data.cache import is_unfinished, remove
from cxr.data.decode import NO_MEMORY, UNREADABLE, NoMemory, Reading, decode, why_unreadable
from cxr.data.dicom import NoReader, is_installed
from cxr.data.formats import HEAD, is_dicom
from cxr.data.retrying import is_closed
from cxr.data.shards import DAMAGED, LISTS, Record, move_shard, read_shard, write_shard
from cxr.data.workers import spread
from cxr.errors import UserError, counted, printable

log = logging.getLogger(__name__)

BLOCK = 64  # images that a process decodes at a time

Source = tuple[str, int, int, int]  # a file below the root, and its bytes, mtime_ns and mode


def fill_store(folder: Path, root: Path, sources: Sequence[Source], size: int, reading: Reading, shard: int) -> None:
    """Write a store's shards, in the order of `sources`.

    Shards that a killed build finished are moved here if they fit; other images that are unchanged since an earlier
    store or a killed build are copied. Both lie beside `folder`. All other images are decoded.

    Args:
        root: the folder of the files.
        size: side of the images in pixels.
        shard: images in a file.

    Raises:
        UserError: the disk has too little room, a process was killed, or an image cannot be read because a disk or a
            network share fails. The shards that are finished stay.
    """
    parts = {number: sources[start : start + shard] for number, start in enumerate(range(0, len(sources), shard))}
    moved, earlier = take_over(folder, parts, size)
    left = [source for number, part in parts.items() if number not in moved for source in part]
    new = [source for source in left if source not in earlier]
    check_room(folder, len(left), size)
    if len(new) < len(sources):
        log.info("%d of %d images were decoded before", len(sources) - len(new), len(sources))
    if new:
        log.info(
            "decoding %s to %dx%d, once (%.0f MB)", counted(len(new), "image"), size, size, len(new) * size**2 / 1e6
        )
    blocks = (new[start : start + BLOCK] for start in range(0, len(new), BLOCK))
    with (
        closing(spread(partial(decode_block, root, size, reading), blocks, partial(explain_killed, root))) as results,
        tqdm(total=len(left), unit=" images", disable=None) as bar,
    ):
        decoded = chain.from_iterable(results)
        for number, part in parts.items():
            if number not in moved:
                images = (copy_image(*earlier[source]) if source in earlier else next(decoded) for source in part)
                write_shard(folder, number, (len(part), size, size), images)
                bar.update(len(part))


def take_over(
    folder: Path, parts: dict[int, Sequence[Source]], size: int
) -> tuple[set[int], dict[Source, tuple[np.ndarray, int, Record]]]:
    """Move shards of killed builds here that hold just what a shard of the new store is to hold.

    Returns:
        The numbers of the shards that were moved; and where other earlier shards have usable images: the shard, the
        place in it, and the record.
    """
    moved: set[int] = set()
    earlier = {}
    for path in sorted(folder.parent.glob(f"*/{LISTS}")):
        number = int(path.stem.rpartition("-")[2])
        try:
            pixels, records = read_shard(path.parent, number, size)
        except DAMAGED:
            continue
        fits = [record.source for record in records] == parts.get(number) and not any(r.retry for r in records)
        if fits and number not in moved and is_unfinished(path.parent):
            move_shard(path.parent, folder, number)
            moved.add(number)
            if not any(path.parent.glob(LISTS)):
                remove(path.parent)
            continue
        for place, record in enumerate(records):
            if not record.rejected:
                earlier[record.source] = pixels, place, record
    return moved, earlier


def copy_image(pixels: np.ndarray, place: int, record: Record) -> tuple[np.ndarray, Record]:
    return pixels[place], record


def check_room(folder: Path, images: int, size: int) -> None:
    """Raise UserError if the disk has no room for this many more images."""
    needed, free = images * size**2, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"cache_dir: {folder.parent} has {free / 1e6:.0f} MB free, but {images} images of "
            f"{size}x{size} need {needed / 1e6:.0f} MB; choose another cache_dir=DIR, or make clean-cache"
        )


def decode_block(root: Path, size: int, reading: Reading, sources: Sequence[Source]) -> list[tuple[np.ndarray, Record]]:
    """Decode images; an unreadable one is black, and its record has the reason. Raises UserError as decode() does."""
    images = []
    for source in sources:
        try:
            pixels, *facts = decode(root / source[0], size, reading)
            images.append((pixels, Record(*source, *facts)))
        except UNREADABLE as error:
            record = Record(*source, rejected=why_unreadable(error), retry=may_pass(error))
            images.append((np.zeros((size, size), dtype=np.uint8), record))
    return images


def may_pass(error: Exception) -> bool:
    """Whether a file that raised this error may be readable later, though it stays as it is."""
    return is_closed(error) or isinstance(error, NoReader | NoMemory)


def is_readable_again(root: Path, size: int, reading: Reading, records: Sequence[Record]) -> bool:
    """Whether an image that was missing, closed to us, without a reader or without memory is not so any more."""
    # The ranks of one run look at different moments, and must have the same images.
    tried = [r for r in records if r.retry and not (r.rejected == NO_MEMORY and "RANK" in os.environ)]
    return any(not is_refused(root / record.file, size, reading, record.rejected == NO_MEMORY) for record in tried)


def is_refused(path: Path, size: int, reading: Reading, no_memory: bool) -> bool:
    """Whether a file is missing or closed to us, a DICOM file while the extra for these is missing, or, where
    `no_memory` says that memory ran out before, one that still needs more."""
    try:
        with path.open("rb") as file:
            if not is_installed() and is_dicom(file.read(HEAD)):
                return True
        if no_memory:
            decode(path, size, reading)
    except UNREADABLE as error:
        return may_pass(error)
    return False


def explain_killed(root: Path, jobs: Sequence[Sequence[Source]]) -> str:
    """The error message for a killed process that was decoding one of these blocks."""
    first = [printable(str(root / block[0][0])) for block in jobs[:4]] + ["…"] * (len(jobs) > 4)
    return (
        "a process that decodes images was killed, most likely because memory ran out (500 MB per core are enough); it "
        f"was decoding one of the blocks of {BLOCK} images that begin with {', '.join(first)}; close other programs "
        "and start again, or remove those images"
    )
