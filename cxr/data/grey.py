"""The pixels of an image of any mode as 8-bit grey: deep ones by their range, colours, transparency."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

BAND = 2**20  # pixels that are converted at a time: whole, a large image would take a gigabyte
# Of a 16-bit image's pixels, the darkest and the brightest of this share are clipped: a dead pixel at full scale would
# else make all the rest black.
CLIPPED = 0.001
# What lies further from the pixels without this share at either end than these lie from each other is clipped too: a
# marker with smooth edges has all values between its own and the image's.
MOST = 0.02
MARKER = 0.1  # of all pixels, at most, are a marker (a letter that is burnt in), if no pixel has a value near theirs


class Grey(NamedTuple):
    """An image in mode L; 1 if at least a hundredth of its pixels has a colour, else 0; and 1 if a few pixels of a
    16-bit image lie far outside the range of all others, else 0."""

    image: Image.Image
    coloured: int
    outliers: int


def to_grey(image: Image.Image) -> Grey:
    """Convert an image, band by band. What is transparent becomes black, unless everything is."""
    grey, coloured = Image.new("L", image.size), 0
    image.load()
    deep = image.mode.startswith(("I", "F"))
    low, high, outliers = usual_range(image) if deep else (0, 0, 0)
    see_through = "A" in image.mode or "transparency" in image.info
    empty = see_through and not any(np.asarray(band.convert("RGBA"))[..., 3].any() for _, band in bands(image))
    for top, band in bands(image):
        if deep:
            levels = np.clip((np.asarray(band, dtype=np.float32) - low) * (255 / max(high - low, 1)), 0, 255)
            band = Image.fromarray(levels.astype(np.uint8))
        elif see_through:
            band = band.convert("RGBA")
        if band.mode not in ("1", "L"):
            red, green, blue = np.moveaxis(np.asarray(band.convert("RGB"), dtype=np.int16), 2, 0)
            coloured += np.count_nonzero((abs(red - green) > 24) | (abs(green - blue) > 24))  # more than a JPEG's noise
        if band.mode == "RGBA" and not empty:
            band = Image.alpha_composite(Image.new("RGBA", band.size, "black"), band)
        grey.paste(band.convert("L"), (0, top))
    grey.info = image.info  # where its EXIF stands
    return Grey(grey, int(coloured / (image.width * image.height) > 0.01), outliers)


def usual_range(image: Image.Image) -> tuple[int, int, int]:
    """The range of values (0 to 65535) that becomes 0 to 255, and whether a few pixels lie far outside of it.

    16-bit images use 10 to 16 of their bits, and the file does not state how many.
    """
    counts = sum(np.bincount(np.asarray(band).ravel(), minlength=2**16) for _, band in bands(image))
    values = np.flatnonzero(counts)
    whole = int(values[-1] - values[0])
    counts = without_marker(counts, values)
    below = np.cumsum(counts)
    low, high = np.searchsorted(below, [CLIPPED * below[-1], (1 - CLIPPED) * below[-1]], side="right").tolist()
    first, last = middle(counts)
    if last > first:
        low, high = max(low, 2 * first - last), min(high, 2 * last - first)
    if high <= low:  # almost all pixels are the same
        return int(values[0]), int(values[-1]), 0
    return low, high, int(whole > 2 * (high - low))


def middle(counts: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """The values between which all pixels but MOST of them at either end lie; `counts` are the pixels of each value."""
    below = np.cumsum(counts)
    low, high = np.searchsorted(below, [MOST * below[-1], (1 - MOST) * below[-1]], side="right").tolist()
    return low, high


def without_marker(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many pixels have each value, without those of a marker: at most MARKER of all, and more than half of the
    image's range away from the others."""
    gaps = np.diff(values)
    if not len(gaps) or gaps.max() * 2 <= values[-1] - values[0]:
        return counts
    bright = np.arange(len(counts)) > values[gaps.argmax()]
    for marker in (bright, ~bright):
        if counts[marker].sum() <= MARKER * counts.sum():
            return np.where(marker, 0, counts)
    return counts


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image cut into bands of about BAND pixels, each with the row it begins at."""
    rows = max(BAND // image.width, 1)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
