"""What a compressed image in a DICOM file costs to decode, by its first bytes: a few kB may ask for gigabytes."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from cxr.data.formats import BadImage

TILES = 1024  # of a JPEG 2000 image; real ones have one or some dozen
PRECINCT = 5  # the least exponent of a precinct's side: 2 ** 5 pixels; usual are 7 and 15
START, SIZE, STYLE, DATA = b"\xff\x4f\xff\x51", 0xFF51, 0xFF52, 0xFF90  # markers of JPEG 2000


def check_codestream(stream: bytes, rows: int, columns: int, parameters: Callable[[bytes], Mapping[str, Any]]) -> None:
    """Raise BadImage if a compressed image has another size than rows × columns, several components, or, in JPEG 2000,
    so many parts that decoding takes minutes; `parameters` reads a stream's head, as the decoders' get_parameters()."""
    if stream.startswith(START) and is_torn(stream):  # before the decoder sees it
        raise BadImage("a DICOM image in JPEG 2000 of too many parts: save it without compression")
    inner = parameters(stream)
    if (inner["rows"], inner["columns"]) != (rows, columns):
        raise BadImage("a DICOM file that is damaged: its image has another size than its header says")
    if inner.get("nr_components", inner.get("samples_per_pixel")) != 1:  # libjpeg's name, and openjpeg's
        raise BadImage("a DICOM file that is damaged: its image has colours, and its header says it is gray")


def is_torn(stream: bytes) -> bool:
    """Whether a JPEG 2000 stream has more than TILES tiles, or precincts below PRECINCT (ISO 15444-1, A.5 and A.6)."""
    at = 2
    while at + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == SIZE:
            width, height, _, _, tile_width, tile_height = struct.unpack_from(">6L", stream, at + 6)
            if -(-width // max(tile_width, 1)) * -(-height // max(tile_height, 1)) > TILES:
                return True
        elif marker == STYLE and stream[at + 4] & 1:  # precincts have sizes of their own, one byte for each level
            sizes = stream[at + 14 : at + 2 + length]
            if any(min(size & 15, size >> 4) < PRECINCT for size in sizes[-3:]):  # the largest levels
                return True
        elif marker == DATA:
            return False
        at += 2 + length
    return False
