"""Decode an image file of any kind into a square of gray bytes, or say why it cannot be used."""

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cxr.data.retrying import patiently
from cxr.errors import UserError, one_line, printable

# The largest detectors give 20 million pixels. This many, in the costliest kind of file (a progressive JPEG in CMYK,
# all of whose coefficients libjpeg keeps), take 470 MB; see to_gray() for the others.
MAX_PIXELS = 36_000_000
MAX_BYTES = 200_000_000  # Pillow holds a chunk of a PNG twice; MAX_PIXELS of RGBA, not compressed, are 144 MB
MIN_SIDE = 16
BAND = 2**20  # pixels that are converted at a time


class BadImage(ValueError):
    """A file that is not an image; the message is the reason that users read."""


class Decoded(NamedTuple):
    """An image for a store: uint8 pixels (S, S); and the original's width, height, format (JPEG or PNG), 1 if at least
    a hundredth of its pixels has a colour, else 0, and the SHA-256 of the file."""

    pixels: np.ndarray
    width: int
    height: int
    format: str
    coloured: int
    sha256: str


def decode(path: Path, size: int) -> Decoded:
    """Read an image as gray bytes, stretched to a square, in at most 500 MB of memory.

    Args:
        path: a JPEG or PNG file, whatever its name ends with. (No pipe or device: opening one may wait for ever.)
        size: side in pixels.

    Raises:
        UNREADABLE: the file is no readable JPEG or PNG, or one larger or smaller than any image; see why_unreadable().
        UserError: memory ran out, or, as ReadFailed, the disk or network share failed: the image is not to blame.
    """
    # Pillow's warnings name no file, so no user can act on them; images that are too large are rejected with a reason.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        return patiently(path, partial(read, path, size))
    except (UserError, *UNREADABLE):
        raise
    except MemoryError as error:
        raise UserError(
            f"{path}: memory ran out (500 MB per core are enough); close other programs and start again"
        ) from error
    except Exception as error:  # a bug of ours or of Pillow's: it must name its image
        error.add_note(f"while decoding {printable(str(path))}")
        raise


def read(path: Path, size: int) -> Decoded:
    """Decode as decode() does; errors that are not the image's are raised as they are."""
    with path.open("rb") as file:
        if (length := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise BadImage(f"{length:,} bytes, far more than any image has (at most {MAX_BYTES:,})")
        if why := no_image(file.read(64)):
            raise BadImage(why)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        with open_image(file) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"{width}x{height} pixels, far more than any image has (at most {MAX_PIXELS:,})")
            if min(width, height) < MIN_SIDE:
                raise BadImage(f"{width}x{height} pixels: too small to be an image")
            # A large JPEG is decoded at a half, quarter or eighth of its size; its colours stay, to be looked at.
            image.draft("L" if image.mode == "L" else "RGB", (2 * size, 2 * size))
            gray, coloured = to_gray(image)
            # A JPEG that has more pictures behind its first one (MPO) is a JPEG.
            kind = "PNG" if image.format == "PNG" else "JPEG"
        gray = ImageOps.exif_transpose(gray).resize((size, size), Image.Resampling.BILINEAR)
    return Decoded(np.asarray(gray), width, height, kind, coloured, sha256)


def no_image(head: bytes) -> str:
    """Why a file that begins with `head` cannot be a JPEG or PNG, or ""."""
    if not head:
        return "empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself: run git lfs pull"
    return "" if head.startswith((b"\xff\xd8", b"\x89PNG\r\n\x1a\n")) else "not a JPEG or PNG image"


def open_image(file: BinaryIO) -> Image.Image:
    """A JPEG or PNG whose header has been read, and no pixel yet."""
    try:
        return Image.open(file, formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:  # Pillow raises it before its size can be read
        pixels = f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise BadImage(f"{pixels}, far more than any image has (at most {MAX_PIXELS:,})") from error
    except Image.UnidentifiedImageError as error:  # no_image() knows it to begin like one
        raise BadImage("truncated or damaged: it begins like a JPEG or PNG, but its header cannot be read") from error


def to_gray(image: Image.Image) -> tuple[Image.Image, int]:
    """An image of any mode in mode L, and whether it has a colour: 1 where the channels differ by more than a JPEG's
    noise at a hundredth or more of the pixels, else 0. Band by band: whole, a large one would take a gigabyte."""
    gray, coloured = Image.new("L", image.size), 0
    image.load()
    deep = image.mode.startswith(("I", "F"))
    # 16-bit images use 10 to 16 of their bits, the file does not state how many: the image's own range becomes 0-255.
    low, high = map(np.float32, image.getextrema()) if deep else (0, 0)
    span = max(float(high - low), 1.0)
    for top, band in bands(image):
        if deep:
            band = Image.fromarray(((np.asarray(band, dtype=np.float32) - low) * (255 / span)).astype(np.uint8))
        elif "A" in band.mode or "transparency" in band.info:
            band = band.convert("RGBA")
        if band.mode not in ("1", "L"):
            red, green, blue = np.moveaxis(np.asarray(band.convert("RGB"), dtype=np.int16), 2, 0)
            coloured += np.count_nonzero((abs(red - green) > 24) | (abs(green - blue) > 24))
        if band.mode == "RGBA":
            band = Image.alpha_composite(Image.new("RGBA", band.size, "black"), band)
        gray.paste(band.convert("L"), (0, top))
    gray.info = image.info  # where its EXIF stands
    return gray, int(coloured / (image.width * image.height) > 0.01)


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image cut into bands of about BAND pixels, each with the row it begins at."""
    rows = max(BAND // image.width, 1)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def why_unreadable(error: Exception) -> str:
    """One line for an image that decode() could not read."""
    if isinstance(error, BadImage):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # the system's; Pillow's own have none
        return "not there any more" if isinstance(error, FileNotFoundError) else error.strerror.lower()
    message = one_line(error) or type(error).__name__
    return f"{'truncated' if 'truncated' in message.lower() else 'damaged'}: {message}"


# The errors of Pillow for a bad file. (Tens of thousands of files with changed bytes raised the first three and
# struct.error.)
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, TypeError, ArithmeticError, LookupError, EOFError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
