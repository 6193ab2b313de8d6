"""Decode each film once: memory-mapped bytes in the cache, shared by every run that asks for the same films."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cxr.data.sources import Films
from cxr.errors import UserError

log = logging.getLogger(__name__)

FORMAT = 1  # raise when decode() or the files of a store change: old stores are then left alone and built anew


def decode(path: Path, size: int) -> np.ndarray:
    """Read a film as gray bytes, stretched to a square.

    Args:
        path: a JPEG or PNG file, whatever its name ends with.
        size: side in pixels.

    Returns:
        uint8 array of shape (size, size).

    Raises:
        OSError, ValueError, SyntaxError: the file is no readable JPEG or PNG (Pillow raises all of these).
        PIL.Image.DecompressionBombError: far more pixels than any film has.
    """
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        image.draft("L", (2 * size, 2 * size))  # a large JPEG is decoded at a half, quarter or eighth of its size
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            # 16-bit films use 10 to 16 of their bits and nothing says how many: the film's own range becomes 0-255.
            pixels = np.asarray(image, dtype=np.float32)
            low, span = pixels.min(), max(float(np.ptp(pixels)), 1.0)
            image = Image.fromarray(((pixels - low) * (255 / span)).astype(np.uint8))
        elif "A" in image.mode or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))


def why_unreadable(error: Exception) -> str:
    """One line for a film that decode() could not read."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a JPEG or PNG image"
    return f"{type(error).__name__}: {error}".splitlines()[0]


# Everything that Pillow raises for a bad file; anything else is a bug of ours.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that stand for `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, a folder in the cache; where it does not exist, `build` fills it, whole or not at all.

    Two processes may build at the same time: both build the same, the first to finish wins.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cache_dir: cannot write to {target.parent} ({error.strerror}); choose another cache_dir=DIR"
        ) from error
    try:
        build(work)
        with contextlib.suppress(OSError):  # another process was first
            os.rename(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def open_store(films: Films, size: int, cache: Path) -> tuple[np.ndarray, Films]:
    """Decode all films, or map what an earlier run decoded.

    Returns:
        A read-only memory-mapped uint8 array of shape (N, size, size), and the table of the N films that could be
        read; the others stand in its `rejected`.
    """
    stats = [(films.root / str(file)).stat() for file in films.file]
    key = fingerprint(
        FORMAT,
        size,
        str(films.root),
        [(str(f), s.st_size, s.st_mtime_ns, s.st_mode) for f, s in zip(films.file, stats, strict=True)],
    )
    store = build_once(cache / f"store-{size}px-{key}", lambda folder: fill_store(folder, films, size))
    rejected = {int(row): why for row, why in json.loads((store / "rejected.json").read_text()).items()}
    return np.load(store / "films.npy", mmap_mode="r"), films.without(rejected)


def fill_store(folder: Path, films: Films, size: int) -> None:
    """Write films.npy (the films that could be read, in order) and rejected.json (row → reason)."""

    def read(row: int) -> np.ndarray | str:
        try:
            return decode(films.root / str(films.file[row]), size)
        except UNREADABLE as error:
            return why_unreadable(error)

    log.info("decoding %d films to %dx%d, once", len(films), size, size)
    array = np.lib.format.open_memmap(folder / "all.npy", mode="w+", dtype=np.uint8, shape=(len(films), size, size))
    rejected: dict[int, str] = {}
    used = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter's lock while it decodes
        for row, film in enumerate(pool.map(read, range(len(films)))):
            if isinstance(film, str):
                rejected[row] = film
            else:
                array[used] = film
                used += 1
    array.flush()
    if rejected:
        np.save(folder / "films.npy", array[:used])
        (folder / "all.npy").unlink()
    else:
        (folder / "all.npy").rename(folder / "films.npy")
    (folder / "rejected.json").write_text(json.dumps(rejected))
