"""Decode an image file of any kind into a square of grey bytes, or say why it cannot be used."""

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cxr.data.dicom import read_dicom
from cxr.data.formats import HEAD, MAX_PIXELS, BadImage, is_deep_colour, is_dicom, no_image
from cxr.data.grey import middle, to_grey
from cxr.data.naming import DICOM
from cxr.data.negatives import looks_negative
from cxr.data.retrying import patiently
from cxr.errors import UserError, one_line, printable

MAX_BYTES = 200_000_000  # Pillow holds a chunk of a PNG twice; MAX_PIXELS of RGBA, not compressed, are 144 MB
MIN_SIDE = 16
NO_MEMORY = "needs more memory than this machine has free (500 MB per core are enough)"
LEVELS = 64  # grey levels that the upper 8 bits of a 16-bit image must use, if only these can be read


class NoMemory(BadImage):
    """An image for which memory ran out; later, it may be enough."""


class Reading(NamedTuple):
    """How images are read: the options `data.negatives` (what becomes of images that look like one: keep, invert or
    reject) and `data.dicom_patient` (what becomes of the patients in DICOM files: hash, keep or ignore); whether
    `data.hospital` asks for the hospitals in DICOM files; and `data.dicom_unknown_parts` (what becomes of DICOM files
    of a part of the body that cxr does not know: reject or keep)."""

    negatives: str = "keep"
    dicom_patient: str = "hash"
    dicom_hospital: bool = False
    dicom_unknown_parts: str = "reject"

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Reading":
        """What the options `data.*` say."""
        hospitals = data.get("hospital") == DICOM
        return cls(data["negatives"], data["dicom_patient"], hospitals, data["dicom_unknown_parts"])


AS_USUAL = Reading()


class Decoded(NamedTuple):
    """An image for a store: uint8 pixels (S, S), and facts about its file: width and height in pixels, format (JPEG,
    PNG or DICOM), `coloured` and `outliers` (see cxr.data.grey.Grey), whether it looks like a negative (1, else 0), its
    SHA-256, and what a DICOM header says (see cxr.data.dicom_header.Header), else ""."""

    pixels: np.ndarray
    width: int
    height: int
    format: str
    coloured: int
    outliers: int
    negative: int
    sha256: str
    patient: str = ""
    view: str = ""
    sex: str = ""
    age: str = ""
    hospital: str = ""


def decode(path: Path | bytes, size: int, reading: Reading = AS_USUAL) -> Decoded:
    """Read an image as grey bytes, stretched to a square, in at most 500 MB of memory.

    Args:
        path: a JPEG, PNG or DICOM file, whatever its name ends with. (No pipe or device: opening one may wait for
            ever.) Or what such a file holds.
        size: side in pixels.

    Raises:
        UNREADABLE: the file is no readable JPEG, PNG or DICOM image, or one larger or smaller than any image, or, as
            NoMemory, memory ran out; see why_unreadable().
        ReadFailed: the disk or network share failed: the image is not to blame.
    """
    # Pillow's warnings name no file, so no user can act on them; images that are too large are rejected with a reason.
    warnings.filterwarnings("ignore", module="PIL")
    work = partial(read, path, size, reading)
    try:
        return work() if isinstance(path, bytes) else patiently(path, work)
    except (UserError, *UNREADABLE):
        raise
    except MemoryError as error:
        raise NoMemory(NO_MEMORY) from error
    except Exception as error:  # a bug of ours or of Pillow's: it must name its image
        error.add_note(f"while decoding {'an upload' if isinstance(path, bytes) else printable(str(path))}")
        raise


def read(path: Path | bytes, size: int, reading: Reading) -> Decoded:
    """Decode as decode() does; errors that are not the image's are raised as they are."""
    grey, facts, more = read_grey(path, size, reading)
    pixels = to_square(grey, size)
    negative = bool(looks_negative(pixels[None])[0])
    if negative and reading.negatives == "reject":
        raise BadImage("looks like a negative (data.negatives=reject)")
    if negative and reading.negatives == "invert":
        pixels = 255 - pixels
    return Decoded(pixels, *facts, int(negative), *more)


def read_grey(path: Path | bytes, size: int, reading: Reading) -> tuple[Image.Image, tuple[Any, ...], tuple[str, ...]]:
    """An image in mode L in its own shape, large enough to be shrunk to `size`; and what Decoded has between `pixels`
    and `negative`, and after it. Errors as in read()."""
    held = isinstance(path, bytes)
    with io.BytesIO(path) if held else path.open("rb") as file:
        if (length := len(path) if held else os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise BadImage(f"{length:,} bytes, far more than any image has (at most {MAX_BYTES:,})")
        head = file.read(HEAD)
        if why := no_image(head):
            raise BadImage(why)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        image, header = read_dicom(file.read(), *reading[1:]) if is_dicom(head) else (open_image(file), ())
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"{width}x{height} pixels, far more than any image has (at most {MAX_PIXELS:,})")
            if min(width, height) < MIN_SIDE:
                raise BadImage(f"{width}x{height} pixels: too small to be an image")
            # A large JPEG is decoded at a half, quarter or eighth of its size; its colours stay, to be looked at.
            image.draft("L" if image.mode == "L" else "RGB", (2 * size, 2 * size))
            grey, coloured, outliers = to_grey(image)
            if is_deep_colour(head) and np.ptp(middle(grey.histogram())) < LEVELS:
                raise BadImage("a 16-bit PNG with colours or transparency that uses few of its bits: save it as grey")
            # A JPEG that has more pictures behind its first one (MPO) is a JPEG.
            kind = "DICOM" if is_dicom(head) else "PNG" if image.format == "PNG" else "JPEG"
        return ImageOps.exif_transpose(grey), (width, height, kind, coloured, outliers), (sha256, *header)


def to_square(grey: Image.Image, size: int) -> np.ndarray:
    """An image in mode L, stretched to uint8 (size, size)."""
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))


def open_image(file: BinaryIO) -> Image.Image:
    """A JPEG or PNG whose header has been read, and no pixel yet."""
    try:
        return Image.open(file, formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:  # Pillow raises it before its size can be read
        pixels = f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise BadImage(f"{pixels}, far more than any image has (at most {MAX_PIXELS:,})") from error
    except Image.UnidentifiedImageError as error:  # no_image() knows it to begin like one
        raise BadImage("truncated or damaged: it begins like a JPEG or PNG, but its header cannot be read") from error


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
