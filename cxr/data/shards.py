"""The files that hold a store's images: a fixed number of images each, memory-mapped, any number of them."""

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Shards:
    """images-00000.npy, images-00001.npy … in a folder: uint8 arrays (`images`, `size`, `size`), the last one shorter.
    The slot of an image counts through all of them."""

    folder: Path
    images: int
    size: int

    def path(self, number: int) -> Path:
        return self.folder / f"images-{number:05}.npy"

    def found(self) -> list[Path]:
        """The files that are there, in their order."""
        return sorted(self.folder.glob("images-*.npy"))

    def load(self) -> list[np.ndarray]:
        """All files, memory-mapped.

        Raises:
            OSError, ValueError, EOFError: one is damaged, or is missing before the last.
        """
        # Copy-on-write: torch takes no read-only ones.
        arrays = [np.load(self.path(i), mmap_mode="c") for i in range(len(self.found()))]
        full = [array.shape == (self.images, self.size, self.size) for array in arrays[:-1]]
        fit = [array.dtype == np.uint8 and array.shape[1:] == (self.size, self.size) for array in arrays]
        if not (arrays and all(full) and all(fit)):
            raise ValueError(f"{self.folder}: no images of {self.size}x{self.size}")
        return arrays

    def header(self, images: int) -> bytes:
        """What a file of this many images begins with; of the same length for any number (NumPy pads it)."""
        file = io.BytesIO()
        shape = (images, self.size, self.size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.getvalue()

    def lay_out(self, slots: int) -> None:
        """Make room for this many images; those that are there already, in slots below it, stay."""
        numbers = range(-(-slots // self.images))
        for path in {*self.found()} - {self.path(number) for number in numbers}:
            path.unlink()
        for number in numbers:
            images = min(self.images, slots - number * self.images)
            header = self.header(images)
            self.path(number).touch()
            with self.path(number).open("rb+") as file:
                file.write(header)
                file.truncate(len(header) + images * self.size**2)
                if hasattr(os, "posix_fallocate"):  # once, or the file system looks for room at every write
                    os.posix_fallocate(file.fileno(), 0, len(header) + images * self.size**2)

    def has(self, slots: np.ndarray) -> np.ndarray:
        """Whether each of some slots (n,) lies within a file that is there: bool (n,)."""
        lengths = [path.stat().st_size if path.exists() else 0 for path in map(self.path, range(len(self.found())))]
        room = (np.array(lengths, dtype=np.int64) - len(self.header(self.images))) // self.size**2
        number, place = np.divmod(slots, self.images)
        return (number < len(room)) & (place < np.append(room, 0)[np.minimum(number, len(room))])

    def write(self, slot: int, image: np.ndarray) -> None:
        """Put an image (S, S) into its slot."""
        number, place = divmod(slot, self.images)
        # Not through a memory map: a full disk would kill the process there, and is an error here.
        with self.path(number).open("rb+", buffering=0) as file:
            os.pwrite(file.fileno(), image, len(self.header(self.images)) + place * self.size**2)

    def sync(self, slots: Iterable[int]) -> None:
        """Wait until what was written into these slots is on the disk."""
        for number in {slot // self.images for slot in slots}:
            with self.path(number).open("rb") as file:
                os.fsync(file)


def gather(shards: Sequence[np.ndarray], slots: np.ndarray | np.integer) -> np.ndarray:
    """The images in some slots: uint8 (S, S) of one slot, (n, S, S) of n; one index into each file that has some."""
    if len(shards) == 1:
        return shards[0][slots]
    images = np.empty((*np.shape(slots), *shards[0].shape[1:]), dtype=np.uint8)
    number, place = np.divmod(slots, len(shards[0]))
    for shard in np.unique(number):
        here = number == shard
        images[here] = shards[shard][place[here]]
    return images
