"""Decode each film once: memory-mapped bytes in the cache, shared by every run that asks for the same films."""

import csv
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cxr.data.cache import built, fingerprint
from cxr.data.decode import UNREADABLE, decode, why_unreadable
from cxr.data.sources import Films
from cxr.errors import UserError
from cxr.results.run_folder import write_table

log = logging.getLogger(__name__)

FORMAT = 2  # raise when decode() or the files of a store change: old stores are then left alone and built anew
BLOCK = 32  # films a thread decodes and writes at once


@dataclass(frozen=True)
class Store:
    """Decoded films. `images` is a memory-mapped uint8 array (slots, S, S); `slot` (N,) says where the film of each row
    of the table lies: a rejected film keeps its slot, so that the others need not move."""

    images: np.ndarray
    slot: np.ndarray

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """The films of some rows of the table: uint8, (S, S) of one row, else (n, S, S)."""
        return self.images[self.slot[rows]]

    @property
    def size(self) -> int:
        """Side of the films in pixels."""
        return self.images.shape[-1]

    @property
    def nbytes(self) -> int:
        """What all films of the table take, wherever they are copied to."""
        return len(self) * self.size**2


# What stands in index.csv beside the films, one row a slot, in the order of the slots. `bytes`, `mtime_ns` and `mode`
# are the file's; a film whose three are as they were is not decoded again.
INDEX = ("file", "label", "patient", "width", "height", "sha256", "bytes", "mtime_ns", "mode", "rejected")
UNCHANGED = ("file", "bytes", "mtime_ns", "mode")


def open_store(films: Films, size: int, cache: Path) -> tuple[Store, Films]:
    """Decode all films, or map what an earlier run decoded.

    The cache holds one store for each folder of films and image size. Where the folder has changed, unchanged films are
    copied from its earlier store, which is then removed (a run that still has it mapped keeps its films).

    Returns:
        The store, and the table of the N films that could be read; the others stand in its `rejected`.

    Raises:
        UserError: the cache cannot be written, or the disk has too little room.
    """
    table = [
        dict(zip(("file", "label", "patient", "bytes", "mtime_ns", "mode"), row, strict=True))
        for row in zip(
            films.file.tolist(),
            [films.classes[i] for i in films.label],
            films.patient.tolist(),
            *zip(*(file_state(films.root / file) for file in films.file.tolist()), strict=True),
            strict=True,
        )
    ]
    group = cache / f"store-{size}px-{fingerprint(FORMAT, size, str(films.root))}"
    key = fingerprint([tuple(row.values()) for row in table])
    with built(group / key, lambda folder: fill_store(folder, films.root, table, size)) as folder:
        images = np.load(folder / "films.npy", mmap_mode="c")  # copy-on-write: torch takes no read-only arrays
        rejected = {i: row["rejected"] for i, row in enumerate(read_index(folder)) if row["rejected"]}
        for other in group.iterdir():
            if other.is_dir() and other != folder:  # an earlier state, or a build that was killed
                shutil.rmtree(other, ignore_errors=True)
    log.info("store: %d films of %dx%d, %.0f MB, in %s", len(images), size, size, images.nbytes / 1e6, folder)
    used = np.setdiff1d(np.arange(len(films)), list(rejected))
    return Store(images, used), films.without(rejected)


def file_state(path: Path) -> tuple[int, int, int]:
    """Bytes, time of the last change in ns, and mode of a file; zeros for one that is not there any more."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_mode


def read_index(folder: Path) -> list[dict[str, str]]:
    """The rows of a store's index.csv."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def earlier_films(folder: Path) -> dict[tuple[str, ...], tuple[dict[str, str], np.ndarray]]:
    """What the stores beside `folder` hold, by what tells that a film is unchanged: its row of the index and pixels."""
    found = {}
    for index in folder.parent.glob("[!.]*/index.csv"):
        images = np.load(index.with_name("films.npy"), mmap_mode="r")
        for row, pixels in zip(read_index(index.parent), images, strict=True):
            if not row["rejected"]:
                found[tuple(row[key] for key in UNCHANGED)] = (row, pixels)
    return found


def fill_store(folder: Path, root: Path, table: Sequence[Mapping[str, str | int]], size: int) -> None:
    """Write films.npy, one slot a row of the table, and index.csv: threads take blocks of rows."""
    shape = (len(table), size, size)
    needed, free = len(table) * size**2, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"cache_dir: {folder.parent} has {free / 1e6:.0f} MB free, {len(table)} films of {size}x{size} need "
            f"{needed / 1e6:.0f} MB; choose another cache_dir=DIR, or make clean-cache"
        )
    known = earlier_films(folder)
    offset = np.lib.format.open_memmap(folder / "films.npy", mode="w+", dtype=np.uint8, shape=shape).offset
    index: list[tuple] = [()] * len(table)

    def read(row: Mapping[str, str | int]) -> tuple[np.ndarray | int, tuple]:
        """Pixels (0, that is black, for a rejected film), and what the index says of them."""
        if earlier := known.get(tuple(str(row[key]) for key in UNCHANGED)):
            told, pixels = earlier
            return pixels, (told["width"], told["height"], told["sha256"], "")
        try:
            film = decode(root / str(row["file"]), size)
        except UNREADABLE as error:
            return 0, ("", "", "", why_unreadable(error))
        return film.pixels, (film.width, film.height, film.sha256, "")

    def fill(start: int) -> int:
        rows = table[start : start + BLOCK]
        block = np.empty((len(rows), size, size), dtype=np.uint8)
        for i, row in enumerate(rows):
            block[i], (width, height, sha256, why) = read(row)
            told = row | {"width": width, "height": height, "sha256": sha256, "rejected": why}
            index[start + i] = tuple(told[key] for key in INDEX)
        # Not through the memory map: a full disk would kill the process there, and is an error here.
        os.pwrite(file, memoryview(block).cast("B"), offset + start * size**2)
        return len(rows)

    new = sum(tuple(str(row[key]) for key in UNCHANGED) not in known for row in table)
    log.info("decoding %d films to %dx%d, once (%.0f MB)", new, size, size, needed / 1e6)
    file = os.open(folder / "films.npy", os.O_WRONLY)
    # Threads, not processes: Pillow lets go of the interpreter's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(table), unit=" films", disable=None) as bar:
        try:
            for done in as_completed([pool.submit(fill, start) for start in range(0, len(table), BLOCK)]):
                bar.update(done.result())
            os.fsync(file)
        finally:
            pool.shutdown(cancel_futures=True)
            os.close(file)
    write_table(folder / "index.csv", INDEX, index)
