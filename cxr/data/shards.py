"""The files of a store: a fixed number of images each, memory-mapped, and beside each a list of what its images are.

A shard is finished once its list exists: the pixels are written first, and both under another name until they are on
the disk. A build that was killed therefore loses at most the shard that it was writing.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr.data.cache import use
from cxr.files.writing import replacing

LISTS = "images-*.json"
DAMAGED = (OSError, ValueError, TypeError, EOFError)  # raised by read_shard() for a shard that is missing or damaged


class Record(NamedTuple):
    """One image of a store. `bytes`, `mtime_ns` and `mode` are its file's; an image is decoded again when one of them
    changes. `width` to `hospital` are those of cxr.data.decode.Decoded.

    A rejected image has a reason in `rejected`, and black pixels. With `retry`, the file was missing, closed to us,
    without a reader or without enough memory: whenever the store is opened, cxr checks whether that has changed.
    """

    file: str
    bytes: int
    mtime_ns: int
    mode: int
    width: int = 0
    height: int = 0
    format: str = ""
    coloured: int = 0
    outliers: int = 0
    negative: int = 0
    sha256: str = ""
    patient: str = ""
    view: str = ""
    sex: str = ""
    age: str = ""
    hospital: str = ""
    rejected: str = ""
    retry: bool = False

    @property
    def source(self) -> tuple[str, int, int, int]:
        """What tells the image apart from every other, and from its own earlier content."""
        return self[:4]


def pixels_path(folder: Path, number: int) -> Path:
    return folder / f"images-{number:05}.npy"


def list_path(folder: Path, number: int) -> Path:
    return pixels_path(folder, number).with_suffix(".json")


def write_shard(
    folder: Path, number: int, shape: tuple[int, int, int], images: Iterable[tuple[np.ndarray, Record]]
) -> None:
    """Write a shard of images (n, S, S), and wait until it is on the disk."""
    records: list[Record] = []
    with replacing(pixels_path(folder, number), "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for pixels, record in images:
            # Not through a memory map: a full disk would kill the process there, and is an error here.
            file.write(np.ascontiguousarray(pixels))
            records.append(record)
    with replacing(list_path(folder, number), "wb") as file:
        file.write(json.dumps(records).encode("ascii"))  # a file's name may hold bytes that are not UTF-8


def read_shard(folder: Path, number: int, size: int) -> tuple[np.ndarray, list[Record]]:
    """The images of a finished shard, memory-mapped: uint8 (n, size, size); and their records.

    Raises:
        DAMAGED: the shard is not finished, or is damaged.
    """
    records = [Record(*row) for row in json.loads(list_path(folder, number).read_bytes())]
    pixels = map_pixels(pixels_path(folder, number))
    if pixels.dtype != np.uint8 or pixels.shape != (len(records), size, size):
        raise ValueError(f"{folder}: shard {number} does not hold {len(records)} images of {size}x{size}")
    return pixels, records


def map_pixels(path: Path) -> np.ndarray:
    """The array in a .npy file, memory-mapped. As long as it is, no process removes the store, see use(). (numpy.load()
    would open the file itself; a mapping keeps the file that it was made from open, and so keeps its lock.)"""
    with path.open("rb") as file:
        use(file)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # Copy-on-write: torch takes no read-only arrays.
        return np.memmap(file, dtype=dtype, mode="c", offset=file.tell(), shape=shape)


def move_shard(source: Path, target: Path, number: int) -> None:
    """Move a finished shard to another folder. Its list goes last: a shard without one is decoded again."""
    for path in (pixels_path, list_path):
        path(source, number).rename(path(target, number))


def gather(shards: Sequence[np.ndarray], places: np.ndarray | np.integer) -> np.ndarray:
    """Images by their place, counted through all shards: uint8 (S, S) for one place, (n, S, S) for n; one index into
    each shard that has some of them."""
    if len(shards) == 1:
        return shards[0][places]
    images = np.empty((*np.shape(places), *shards[0].shape[1:]), dtype=np.uint8)
    number, place = np.divmod(places, len(shards[0]))
    for shard in np.unique(number):
        here = number == shard
        images[here] = shards[shard][place[here]]
    return images
