"""From a film's file to a square of gray bytes, whatever kind of file it is."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps


class Decoded(NamedTuple):
    """A film as it goes into a store: uint8 pixels (S, S), and of the original: width, height, JPEG or PNG, whether a
    hundredth of it or more has a colour (0 or 1), SHA-256 of the file."""

    pixels: np.ndarray
    width: int
    height: int
    format: str
    coloured: int
    sha256: str


def decode(path: Path, size: int) -> Decoded:
    """Read a film as gray bytes, stretched to a square.

    Args:
        path: a JPEG or PNG file, whatever its name ends with.
        size: side in pixels.

    Raises:
        OSError, ValueError, SyntaxError: the file is no readable JPEG or PNG (Pillow raises all of these).
        PIL.Image.DecompressionBombError: far more pixels than any film has.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            width, height = image.size
            # A large JPEG is decoded at a half, quarter or eighth of its size; its colours stay, to be looked at.
            image.draft("L" if image.mode == "L" else "RGB", (2 * size, 2 * size))
            coloured = has_colour(image)
            pixels = to_square(ImageOps.exif_transpose(image), size)
    return Decoded(pixels, width, height, image.format, coloured, sha256)


def has_colour(image: Image.Image) -> int:
    """1 where the channels differ by more than a JPEG's noise at a hundredth or more of the pixels, else 0."""
    if image.mode == "1" or image.mode.startswith(("L", "I", "F")):
        return 0
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.int16), 2, 0)
    return int(((abs(red - green) > 24) | (abs(green - blue) > 24)).mean() > 0.01)


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """An image of any mode as uint8 gray of shape (size, size)."""
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
