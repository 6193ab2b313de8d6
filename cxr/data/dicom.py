"""Read chest radiographs from DICOM files with pydicom (the extra `dicom`), and refuse what is something else.

Messages of the libraries, which may quote values of a header, are dropped.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cxr.data.codestreams import check_codestream, read_run_lengths, truncated
from cxr.data.dicom_header import Header, check_radiograph, read_header
from cxr.data.formats import BadImage

if TYPE_CHECKING:
    from pydicom import Dataset

RLE, JPEG_2000 = "1.2.840.10008.1.2.5", ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
# How pixels may be compressed: not at all (three orders of bytes), as JPEG (baseline, extended, two lossless kinds),
# JPEG 2000 (two) or RLE. Not deflated: such a file is inflated whole, to any size.
SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"),
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)),
    *JPEG_2000,
    RLE,
)
# Of JPEG, Pillow refuses what is truncated; others fill it up with grey.
DECODERS = dict.fromkeys(("1.2.840.10008.1.2.4.50", *JPEG_2000), "pillow")
MOST_ITEMS, MOST_META = 20_000, 200  # of sequences in a file, and of elements in its first group: more take seconds
NEEDED = "a DICOM image: pip install -e '.[dicom]' lets cxr read it"
TAGS = [
    *("Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType", "NumberOfFrames"),
    *("PatientID", "IssuerOfPatientID", "PatientSex", "PatientAge", "InstitutionName"),
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope"),
    *("RescaleIntercept", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "PixelData"),
]


class NoReader(BadImage):
    """A DICOM file, while the extra `dicom` is not installed."""


@cache
def is_installed() -> bool:
    """Whether the extra is there."""
    return all(find_spec(name) for name in ("pydicom", "openjpeg", "libjpeg"))


def read_dicom(data: bytes, dicom_patient: str, with_hospital: bool, unknown_parts: str) -> tuple[Image.Image, Header]:
    """The image of a DICOM file as it is meant to be looked at, and what its header says.

    The transformation of the modality and the first one for looking at it (VOI: a table or a window of any shape) are
    applied, then MONOCHROME1 is inverted. Padding becomes black, overlays are left out. Pixels that are not square need
    no care, for all images are stretched to squares.

    Args:
        data: the whole file.
        dicom_patient: the option `data.dicom_patient`: hash, keep or ignore.
        with_hospital: whether `data.hospital` is dicom.
        unknown_parts: the option `data.dicom_unknown_parts`: reject or keep.

    Returns:
        An image of mode L if its pixels have up to 8 bits, else I;16, where 65535 is its brightest pixel.

    Raises:
        NoReader: pydicom or one of its decoders is not installed.
        BadImage: the file is no radiograph of a chest that can be read.
    """
    if not is_installed():
        raise NoReader(NEEDED)
    import pydicom

    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")
    with damaged("its header cannot be read"):
        check_syntax(data)
        header = pydicom.dcmread(io.BytesIO(data), specific_tags=TAGS)
        check_radiograph(header, unknown_parts)
        return to_image(header, stored_values(header)), read_header(header, dicom_patient, with_hospital)


@contextmanager
def damaged(what: str) -> Iterator[None]:
    """A block in which a damaged or hostile file can make pydicom and its decoders raise anything. Any such error
    becomes a BadImage that says `what`."""
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except Exception:
        raise BadImage(f"a DICOM file that is damaged: {what}") from None


def check_syntax(data: bytes) -> None:
    """Raise BadImage if pixels are compressed in a way that is none of SYNTAXES."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    file.seek(132)
    elements = count()
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2 or next(elements) > MOST_META)
    if next(elements) > MOST_META or data.count(b"\xfe\xff\x00\xe0") > MOST_ITEMS:
        raise BadImage("a DICOM file that is damaged: its header has too many parts")
    syntax = meta.get("TransferSyntaxUID", SYNTAXES[0])
    if syntax not in SYNTAXES:
        how = f"as {syntax.name}" if syntax.is_transfer_syntax else "in an unknown way"
        raise BadImage(f"a DICOM file compressed {how}: save it without compression")


def stored_values(header: "Dataset") -> np.ndarray:
    """The pixels as they are stored: unsigned integers (H, W) without what stands in unused bits, such as overlays."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import pixel_array

    syntax, rows, columns = header.file_meta.TransferSyntaxUID, int(header.Rows), int(header.Columns)
    if not syntax.is_encapsulated:
        needed, there = rows * columns * header.BitsAllocated // 8, len(header.PixelData or b"")
        if there < needed:
            raise truncated(there, needed)
        pixels = pixel_array(header, raw=True)
    else:
        kind = "RLE" if syntax == RLE else "JPEG 2000" if syntax in JPEG_2000 else "JPEG"
        with damaged(f"its {kind} image is truncated or cannot be decoded"):
            stream = get_frame(header.PixelData, 0, number_of_frames=1)
            if syntax == RLE:
                pixels = read_run_lengths(stream, rows, columns, header.BitsAllocated // 8)
            else:
                check_codestream(stream, rows, columns)
                pixels = pixel_array(header, raw=True, decoding_plugin=DECODERS.get(syntax, ""))
    used = np.array(2**header.BitsStored - 1, dtype=f"u{pixels.itemsize}")
    return pixels.view(used.dtype) & used


def to_image(header: "Dataset", stored: np.ndarray) -> Image.Image:
    """The image of stored pixels (H, W), see read_dicom(). All is computed for the 256 to 65536 values that a pixel can
    have, not for the pixels."""
    bits = int(header.BitsStored)
    values = np.arange(2**bits)
    if header.get("PixelRepresentation") == 1:  # signed
        values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    padding = is_padding(header, values)
    # Up to 8 bits, the whole range is kept, as in a PNG of 8 bits; above, that of the pixels, for few files use all.
    used = np.full(len(values), bits <= 8)
    for row in stored:  # all at once, NumPy would need eight bytes for each pixel
        used[row] = True
    used &= ~padding
    levels = shown_levels(header, values, used)
    low, high = levels[used].min(), levels[used].max()
    full = 255 if bits <= 8 else 65535
    grey = np.clip((levels - low) * (full / max(high - low, 1e-9)), 0, full).round()
    grey[padding] = 0
    grey = grey.astype(np.uint8 if bits <= 8 else np.uint16)
    image = np.empty(stored.shape, dtype=grey.dtype)
    for stored_row, image_row in zip(stored, image, strict=True):
        image_row[:] = grey[stored_row]
    return Image.fromarray(image)


def shown_levels(header: "Dataset", values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The brightness, float64 (N,), with which stored values (N,) are shown. A transformation for looking at the image
    that cannot be applied, or under which the `used` values, bool (N,), all look alike, is ignored, as in viewers.

    Raises:
        BadImage: there is nothing to show.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    for name in ("RescaleSlope", "RescaleIntercept"):
        if name in header and header.get(name) in (None, ""):  # exporters write empty values
            delattr(header, name)
    with damaged("its lookup table (Modality LUT) or its rescaling cannot be used"):
        plain = levels = apply_modality_lut(values, header)
    with suppress(ValueError, TypeError, AttributeError, IndexError):  # such as a window that is text
        shown = apply_voi_lut(plain, header)
        if np.isfinite(shown).all() and used.any() and np.ptp(shown[used]):
            levels = shown
    if not np.isfinite(levels).all() or not used.any():
        raise BadImage("a DICOM file that is damaged: its pixels have no values that can be shown")
    return levels.astype(np.float64) * (-1 if header.PhotometricInterpretation == "MONOCHROME1" else 1)


def is_padding(header: "Dataset", values: np.ndarray) -> np.ndarray:
    """Which values, bool (N,), stand for pixels outside of the image."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(len(values), dtype=bool)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (values >= low) & (values <= high)
