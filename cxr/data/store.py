"""Decode each film once: memory-mapped bytes in the cache, shared by every run that asks for the same films."""

import csv
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cxr.data.cache import built, fingerprint
from cxr.data.decode import UNREADABLE, decode, why_unreadable
from cxr.data.sources import Films
from cxr.errors import UserError, printable
from cxr.results.run_folder import read_table, write_table
from cxr.stopping import leave_to_parent

log = logging.getLogger(__name__)

FORMAT = 4  # raise when decode() or the files of a store change: old stores are then left alone and built anew
BLOCK = 64  # films a process decodes at a time


@dataclass(frozen=True)
class Store:
    """Decoded films. `images` is a memory-mapped uint8 array (slots, S, S); `slot` (N,) says where the film of each row
    of the table lies: a rejected film keeps its slot, so that the others need not move. `facts` has arrays of length N
    about the files: bytes, width, height and coloured (int64), format and sha256 (strings), see Decoded."""

    images: np.ndarray
    slot: np.ndarray
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """The films of some rows of the table: uint8, (S, S) of one row, else (n, S, S)."""
        return self.images[self.slot[rows]]

    def parts(self, films: int = 512) -> Iterator[np.ndarray]:
        """All films in the order of the table, some at a time: uint8 (n, S, S)."""
        for start in range(0, len(self), films):
            yield self[start : start + films]

    @property
    def size(self) -> int:
        """Side of the films in pixels."""
        return self.images.shape[-1]

    @property
    def nbytes(self) -> int:
        """What all films of the table take, wherever they are copied to."""
        return len(self) * self.size**2


INDEX_FILE = "index.csv"
# What stands in it beside the films, one row a slot, in the order of the slots. `bytes`, `mtime_ns` and `mode`
# are the file's; a film whose three are as they were is not decoded again.
FACTS = ("width", "height", "format", "coloured", "sha256", "rejected")
INDEX = ("file", "label", "patient", *FACTS[:-1], "bytes", "mtime_ns", "mode", "rejected")
UNCHANGED = ("file", "bytes", "mtime_ns", "mode")


def open_store(films: Films, size: int, cache: Path) -> tuple[Store, Films]:
    """Decode all films, or map what an earlier run decoded.

    The cache holds one store for each folder of films and image size. Where the folder has changed, unchanged films are
    copied from its earlier store, which is then removed (a run that still has it mapped keeps its films).

    Returns:
        The store, and the table of the N films that could be read; the others stand in its `rejected`.

    Raises:
        UserError: the cache cannot be written, the disk has too little room, or no film can be read.
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
    fill, intact = partial(fill_store, root=films.root, table=table, size=size), partial(is_whole, size=size)
    with built(group / key, fill, intact) as folder:
        images = np.load(folder / "films.npy", mmap_mode="c")  # copy-on-write: torch takes no read-only arrays
        index = read_table(folder / INDEX_FILE)
        for other in group.iterdir():
            if other.is_dir() and other != folder:  # an earlier state, or a build that was killed
                shutil.rmtree(other, ignore_errors=True)
    log.info("store: %d films of %dx%d, %.0f MB, in %s", len(images), size, size, images.nbytes / 1e6, folder)
    rejected = {slot: row["rejected"] for slot, row in enumerate(index) if row["rejected"]}
    if len(rejected) == len(films):
        slot, why = next(iter(rejected.items()))
        raise UserError(
            f"{films.root}: none of its {len(films)} films can be read; {printable(films.file[slot])}: {why}"
        )
    used = np.setdiff1d(np.arange(len(films)), list(rejected))
    facts = {name: np.array([index[slot][name] for slot in used], dtype=np.str_) for name in ("format", "sha256")}
    for name in ("bytes", "width", "height", "coloured"):
        facts[name] = np.array([index[slot][name] for slot in used], dtype=np.int64)
    return Store(images, used, facts), films.without(rejected)


def is_whole(folder: Path, size: int) -> bool:
    """Whether a folder holds a store of films of this size, with a row of the index for each."""
    try:
        images = np.load(folder / "films.npy", mmap_mode="r")
        with (folder / INDEX_FILE).open(newline="", encoding="utf-8") as index:
            lines = csv.reader(index)
            fit = images.dtype == np.uint8 and images.shape[1:] == (size, size) and next(lines) == [*INDEX]
            return fit and sum(1 for _ in lines) == len(images)
    except (OSError, ValueError, EOFError, StopIteration, csv.Error):  # there is none yet, or a damaged one
        return False


def file_state(path: Path) -> tuple[int, int, int]:
    """Bytes, time of the last change in ns, and mode of a file; zeros for one that is not there any more."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_mode


def earlier_films(folder: Path, size: int) -> dict[tuple[str, ...], tuple[dict[str, str], np.ndarray]]:
    """What the stores beside `folder` hold, by what tells that a film is unchanged: its row of the index and pixels."""
    found = {}
    for index in folder.parent.glob(f"[!.]*/{INDEX_FILE}"):
        if not is_whole(index.parent, size):  # everything is decoded anew
            continue
        images = np.load(index.with_name("films.npy"), mmap_mode="r")
        for row, pixels in zip(read_table(index), images, strict=True):
            if not row["rejected"]:
                found[tuple(row[key] for key in UNCHANGED)] = (row, pixels)
    return found


def fill_store(folder: Path, root: Path, table: Sequence[Mapping[str, str | int]], size: int) -> None:
    """Write films.npy, one slot a row of the table (black for a rejected film), and index.csv."""
    needed, free = len(table) * size**2, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"cache_dir: {folder.parent} has {free / 1e6:.0f} MB free, {len(table)} films of {size}x{size} need "
            f"{needed / 1e6:.0f} MB; choose another cache_dir=DIR, or make clean-cache"
        )
    path, earlier = folder / "films.npy", earlier_films(folder, size)
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(table), size, size))
    if hasattr(os, "posix_fallocate"):  # once, or the file system looks for room at every write
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), store.offset, needed)
    told: list[Mapping[str, Any]] = [{}] * len(table)
    new = []
    for slot, row in enumerate(table):
        if known := earlier.get(tuple(str(row[key]) for key in UNCHANGED)):
            told[slot], store[slot] = known
        else:
            new.append(slot)
    log.info("decoding %d films to %dx%d, once (%.0f MB)", len(new), size, size, needed / 1e6)
    blocks = [new[i : i + BLOCK] for i in range(0, len(new), BLOCK)]
    jobs = [[(slot, root / str(table[slot]["file"])) for slot in block] for block in blocks]
    with path.open("rb") as file, tqdm(total=len(new), unit=" films", disable=None) as bar:
        for done in spread(partial(decode_block, path, store.offset, size), jobs, what_was_decoded):
            for slot, facts in done:
                told[slot] = facts
            bar.update(len(done))
            os.fsync(file)  # here, while the others decode, and not all at the end
    rows = ({**facts, **row} for facts, row in zip(told, table, strict=True))
    index = folder / INDEX_FILE
    write_table(index, INDEX, ([row[key] for key in INDEX] for row in rows))
    for written in (path, index):  # before the folder gets its name: a store is whole even after a power cut
        with written.open("rb") as file:
            os.fsync(file)


def spread(work: Callable[[Any], Any], jobs: Sequence[Any], killed: Callable[[Sequence[Any]], str]) -> Iterator[Any]:
    """The results of some jobs, done by as many processes as there are cores. (Threads would wait for each other: much
    of the decoding of a small film is Python.)

    Raises:
        UserError: one of the processes was killed; `killed` says so of the jobs that may have been at work.
    """
    if len(jobs) < 2:
        yield from map(work, jobs)
        return
    # As torch's own workers do: fork, which takes no time, where it is safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    cores, parent = os.cpu_count() or 1, os.getpid()
    with ProcessPoolExecutor(cores, context, initializer=leave_to_parent, initargs=(parent,)) as pool:
        try:
            futures = [pool.submit(work, job) for job in jobs]
            for future in futures:
                yield future.result()
        except BrokenProcessPool as error:  # whatever job was not done has this error now, those at work before others
            left = [job for job, future in zip(jobs, futures, strict=False) if not (future.done() and is_done(future))]
            raise UserError(killed(left[:cores])) from error
        finally:
            pool.shutdown(cancel_futures=True)


def is_done(future: Future) -> bool:
    """Whether a job has a result, or an error of its own."""
    return not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)


def what_was_decoded(blocks: Sequence[Sequence[tuple[int, Path]]]) -> str:
    """What to do where a process that decoded one of these blocks of films was killed."""
    first = [printable(str(block[0][1])) for block in blocks[:4]] + ["…"] * (len(blocks) > 4)
    return (
        "a process that decodes films was killed, most likely because memory ran out (500 MB a core are enough); it "
        f"was at one of the films from {', '.join(first)} on, {BLOCK} each; end other programs and start again, or "
        "take those films away"
    )


def decode_block(
    store: Path, offset: int, size: int, job: Sequence[tuple[int, Path]]
) -> list[tuple[int, dict[str, str | int]]]:
    """Decode films into their slots of the file `store`, whose array begins at `offset`; slots, and what the index
    says of them."""
    done = []
    with store.open("rb+", buffering=0) as file:
        for slot, path in job:
            try:
                film, *facts = decode(path, size)
            except UNREADABLE as error:
                done.append((slot, dict.fromkeys(FACTS, "") | {"rejected": why_unreadable(error)}))
                continue
            # Not through a memory map: a full disk would kill the process there, and is an error here.
            os.pwrite(file.fileno(), film, offset + slot * size**2)
            done.append((slot, dict(zip(FACTS, (*facts, ""), strict=True))))
    return done
