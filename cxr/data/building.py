"""Fill a store: images are decoded by all cores, and what is decoded is noted, so that a build that was killed goes on.

A journal stands beside the files of a store that is being built. An image has its line there once its pixels are on the
disk, so that whatever the journal says is so, wherever the build, or the machine, went down.
"""

import csv
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from cxr.data.decode import UNREADABLE, decode, why_unreadable
from cxr.data.processes import spread
from cxr.data.shards import Shards, gather
from cxr.data.sources import ImageTable
from cxr.errors import UserError, printable
from cxr.files.writing import write_table

log = logging.getLogger(__name__)

BLOCK = (
    64  # images a process decodes at a time, and that a build which is killed may have to decode again for each core
)
JOURNAL = "journal.jsonl"
INDEX_FILE = "index.csv"


class Told(NamedTuple):
    """What a store says of an image: its slot, and what decode() found; of a rejected image only why."""

    slot: int
    width: int
    height: int
    format: str
    coloured: int
    sha256: str
    rejected: str


# What stands in index.csv, one row an image of the table. `bytes`, `mtime_ns` and `mode` are the file's; an image whose
# three are as they were is not decoded again.
STATE = ("bytes", "mtime_ns", "mode")
INDEX = ("file", "label", "patient", *Told._fields[1:-1], *STATE, "slot", "rejected")


def fill_store(folder: Path, images: ImageTable, state: np.ndarray, size: int, shard: int) -> None:
    """Write the images (a rejected one is black) and index.csv, going on from what the folder's journal says.

    Args:
        state: int64 (N, 3), bytes, mtime_ns and mode of each image's file.
        size: side of the images in pixels.
        shard: images in a file.
    """
    shards, names = Shards(folder, shard, size), images.file.tolist()
    told: list[Told | None] = [None] * len(names)
    for row, known in unchanged(read_journal(shards), names, state):
        told[row] = known
    slots, slot_of = deal_slots(told)
    check_room(shards, slots)
    shards.lay_out(slots)
    begin_journal(folder, names, state, told)
    earlier = earlier_images(shards, names, state)
    new = [row for row, known in enumerate(told) if not known and row not in earlier]
    if known := len(names) - len(earlier) - len(new):
        log.info("going on with a store: %d of %d images were decoded before", known, len(names))
    if new:
        log.info("decoding %d images to %dx%d, once (%.0f MB)", len(new), size, size, slots * size**2 / 1e6)
    jobs = ([(row, slot_of[row], images.root / names[row]) for row in block] for block in blocks(new))
    decoded = spread(partial(decode_block, shards), jobs, what_was_decoded)
    with (
        (folder / JOURNAL).open("a", encoding="utf-8") as journal,
        tqdm(total=len(new) + len(earlier), unit=" images", disable=None) as bar,
    ):
        for done in chain(copied(shards, earlier, slot_of), decoded):
            shards.sync(known.slot for _, known in done)  # here, while the others decode, and not all at the end
            for row, known in done:
                told[row] = known
                journal.write(line(names[row], state[row], known))
            journal.flush()
            bar.update(len(done))
    write_index(folder / INDEX_FILE, images, state, told)
    (folder / JOURNAL).unlink()


def deal_slots(told: Sequence[Told | None]) -> tuple[int, dict[int, int]]:
    """The number of slots, and a free slot for each row that has none yet. In a new store, the slot is the row."""
    taken = np.array([known.slot for known in told if known], dtype=np.int64)
    slots = max(len(told), int(taken.max(initial=-1)) + 1)
    free = np.setdiff1d(np.arange(slots), taken).tolist()
    return slots, dict(zip((row for row, known in enumerate(told) if not known), free, strict=False))


def check_room(shards: Shards, slots: int) -> None:
    """Raise UserError where the disk has no room for this many images beside those that have it."""
    there = sum(512 * path.stat().st_blocks for path in shards.found())
    needed, free = slots * shards.size**2 - there, shutil.disk_usage(shards.folder).free
    if needed > free:
        raise UserError(
            f"cache_dir: {shards.folder.parent} has {free / 1e6:.0f} MB free, {slots} images of "
            f"{shards.size}x{shards.size} need {needed / 1e6:.0f} MB; choose another cache_dir=DIR, or make clean-cache"
        )


def line(name: str, state: np.ndarray, known: Told) -> str:
    """An image's line of the journal. (In ASCII: a name may hold a line's end, and bytes that are no UTF-8.)"""
    return json.dumps([name, state.tolist(), known]) + "\n"


def read_journal(shards: Shards) -> Iterator[tuple[str, tuple[int, ...], Told]]:
    """Name, state and facts of the images that a build wrote before it was killed. A line that was torn ends it."""
    path = shards.folder / JOURNAL
    if not path.exists():
        return
    told = []
    with path.open("rb") as lines:
        for text in lines:
            try:
                name, state, facts = json.loads(text)
                told.append((name, tuple(state), Told(*facts)))
            except (ValueError, TypeError):
                break
    there = shards.has(np.array([known.slot for *_, known in told], dtype=np.int64))
    yield from (row for row, is_there in zip(told, there.tolist(), strict=True) if is_there)


def begin_journal(folder: Path, names: Sequence[str], state: np.ndarray, told: Sequence[Told | None]) -> None:
    """Write the journal anew, of what is still so."""
    part = folder / f".{JOURNAL}"
    with part.open("w", encoding="utf-8") as journal:
        journal.writelines(line(names[row], state[row], known) for row, known in enumerate(told) if known)
    part.replace(folder / JOURNAL)


def read_index(path: Path) -> Iterator[dict[str, str]]:
    """The rows of index.csv, one at a time; raises ValueError where it has other columns."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != [*INDEX]:
            raise ValueError(f"{path}: columns")
        yield from rows


def write_index(path: Path, images: ImageTable, state: np.ndarray, told: Sequence[Told]) -> None:
    """Write index.csv, and wait until it is on the disk: a store is whole even after a power cut."""
    columns = images.file.tolist(), images.label.tolist(), images.patient.tolist(), state, told
    rows = zip(*columns, strict=True)
    write_table(
        path,
        INDEX,
        (
            (file, images.classes[label], who, *t[1:-1], *of.tolist(), t.slot, t.rejected)
            for file, label, who, of, t in rows
        ),
    )
    with path.open("rb") as written:
        os.fsync(written)


def unchanged(
    known: Iterable[tuple[str, tuple[int, ...], Any]], names: Sequence[str], state: np.ndarray
) -> Iterator[tuple[int, Any]]:
    """Of images that are known by name and state, the rows of those that are in the table and are as they were. (One
    that was rejected is looked at again.)"""
    row_of = {name: row for row, name in enumerate(names)}
    for name, of, told in known:
        row = row_of.get(name)
        if row is not None and tuple(state[row].tolist()) == of and not told.rejected:
            yield row, told


def earlier_images(shards: Shards, names: Sequence[str], state: np.ndarray) -> dict[int, tuple[list[np.ndarray], Told]]:
    """Images whose pixels an earlier store of this folder holds, by row: its arrays, and its record of the image. A
    damaged store holds none."""
    found = {}
    for index in shards.folder.parent.glob(f"[!.]*/{INDEX_FILE}"):
        try:
            arrays = Shards(index.parent, shards.images, shards.size).load()
            slots = sum(map(len, arrays))
            rows = (
                (row["file"], tuple(int(row[name]) for name in STATE), Told(*(row[name] for name in Told._fields)))
                for row in read_index(index)
            )
            for row, told in unchanged(rows, names, state):
                numbers = {name: int(getattr(told, name)) for name in ("slot", "width", "height", "coloured")}
                if numbers["slot"] < slots:
                    found[row] = arrays, told._replace(**numbers)
        except (OSError, ValueError, TypeError, EOFError, csv.Error):  # what it said before that holds
            continue
    return found


def copied(
    shards: Shards, earlier: dict[int, tuple[list[np.ndarray], Told]], slot_of: dict[int, int]
) -> Iterator[list[tuple[int, Told]]]:
    """Copy images from earlier stores, some at a time; rows, and what the index says of them."""
    for rows in blocks([*earlier]):
        done = []
        for row in rows:
            arrays, told = earlier[row]
            shards.write(slot_of[row], np.ascontiguousarray(gather(arrays, np.int64(told.slot))))
            done.append((row, told._replace(slot=slot_of[row])))
        yield done


def blocks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """Some rows, BLOCK at a time."""
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def decode_block(shards: Shards, job: Sequence[tuple[int, int, Path]]) -> list[tuple[int, Told]]:
    """Decode images (row, slot, path) into their slots; rows, and what the index says of them."""
    done = []
    for row, slot, path in job:
        try:
            image, *facts = decode(path, shards.size)
        except UNREADABLE as error:
            done.append((row, Told(slot, 0, 0, "", 0, "", why_unreadable(error))))
            continue
        shards.write(slot, image)
        done.append((row, Told(slot, *facts, "")))
    return done


def what_was_decoded(jobs: Sequence[Sequence[tuple[int, int, Path]]]) -> str:
    """What to do where a process that decoded one of these blocks of images was killed."""
    first = [printable(str(job[0][2])) for job in jobs[:4]] + ["…"] * (len(jobs) > 4)
    return (
        "a process that decodes images was killed, most likely because memory ran out (500 MB a core are enough); it "
        f"was at one of the images from {', '.join(first)} on, {BLOCK} each; end other programs and start again, or "
        "take those images away"
    )
