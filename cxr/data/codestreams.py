"""Compressed images in DICOM files: what one costs to decode, by its first bytes, for a few kB may ask for gigabytes;
and RLE, for other decoders of it either write as much as a stream asks for, or crash on a damaged one."""

import struct

import numpy as np

from cxr.data.formats import BadImage

TILES = 1024  # of a JPEG 2000 image; real ones have one or some dozen
PRECINCT = 5  # the least exponent of a precinct's side: 2 ** 5 pixels; usual are 7 and 15
START, SIZE, STYLE, DATA = b"\xff\x4f\xff\x51", 0xFF51, 0xFF52, 0xFF90  # markers of JPEG 2000
FRAMES, SCAN = {*range(0xFFC0, 0xFFD0), 0xFFDE} - {0xFFC4, 0xFFC8, 0xFFCC}, 0xFFDA  # of JPEG


def check_codestream(stream: bytes, rows: int, columns: int) -> None:
    """Raise BadImage if a compressed image has another size than rows × columns, several components, or, in JPEG 2000,
    so many parts that decoding takes minutes. Decoders are not asked: they take memory for the size that they read."""
    jpeg_2000 = stream.startswith(START)
    if jpeg_2000 and is_torn(stream):
        raise BadImage("a DICOM image in JPEG 2000 of too many parts: save it without compression")
    frames = [read_size(stream)] if jpeg_2000 else read_frames(stream)
    if not frames or any(frame[:2] != (rows, columns) for frame in frames):
        raise BadImage("a DICOM file that is damaged: its image has another size than its header says")
    if any(components != 1 for _, _, components in frames):
        raise BadImage("a DICOM file that is damaged: its image has colours, and its header says it is grey")


def read_size(stream: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a JPEG 2000 stream (ISO 15444-1, A.5.1)."""
    columns, rows, left, top = struct.unpack_from(">4L", stream, 8)
    return rows - top, columns - left, struct.unpack_from(">H", stream, 40)[0]


def read_frames(stream: bytes) -> list[tuple[int, int, int]]:
    """Rows, columns and components of every frame that a JPEG stream names before its pixels (ISO 10918-1, B.2)."""
    frames, at = [], 2
    while at + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == 0xFFFF:  # a byte that fills
            at += 1
            continue
        if marker in FRAMES:
            frames.append(struct.unpack_from(">HHB", stream, at + 5))
        elif marker == SCAN:
            break
        at += 2 + length
    return frames


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


def read_run_lengths(stream: bytes, rows: int, columns: int, width: int) -> np.ndarray:
    """The pixels of an RLE stream (DICOM PS3.5, annex G): unsigned integers (rows, columns) of `width` bytes, each of
    which has a segment of its own, the highest first. Raises BadImage if it does not hold just these."""
    pixels, (segments, *offsets) = rows * columns, struct.unpack("<16L", stream[:64].ljust(64, b"\0"))
    if segments != width or offsets[0] < 64:
        raise BadImage("a DICOM file that is damaged: its RLE image has other parts than its header says")
    ends = [*offsets[1:width], len(stream)]
    planes = [expand(stream[start:end], pixels) for start, end in zip(offsets, ends, strict=False)]
    if any(len(plane) > pixels + 1 for plane in planes):
        raise BadImage("a DICOM file that is damaged: its RLE image has more pixels than its header says")
    if any(len(plane) < pixels for plane in planes):
        raise truncated(sum(map(len, planes)), width * pixels)
    planes = [np.frombuffer(plane, dtype=np.uint8)[:pixels] for plane in reversed(planes)]
    return np.stack(planes, axis=-1).view(f"<u{width}").reshape(rows, columns)


def expand(segment: bytes, length: int) -> bytearray:
    """What a segment of an RLE stream stands for, up to the first run that ends more than a byte behind `length`; some
    writers fill up with one."""
    result, at = bytearray(), 0
    end = min(len(segment), 2 * length + 4)  # no writer needs more, and nothing may stand for nothing without end
    while at < end and len(result) < length + 2:
        count = segment[at]
        if count < 128:
            result += segment[at + 1 : at + 2 + count]
            at += 2 + count
        elif count > 128:
            result += segment[at + 1 : at + 2] * (257 - count)
            at += 2
        else:
            at += 1
    return result


def truncated(there: int, needed: int) -> BadImage:
    """The error for pixels that are not all there."""
    return BadImage(f"a DICOM file that is truncated: {there:,} of {needed:,} bytes of its pixels are there")
