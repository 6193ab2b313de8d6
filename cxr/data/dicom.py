"""Read chest radiographs from DICOM files with pydicom (the extra `dicom`), and refuse what is something else.

Nothing of a file's header leaves this module but what Header holds and what a reason for a rejection names. Messages of
the libraries, which may quote other values, are dropped.
"""

import hashlib
import io
import logging
import re
import warnings
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from cxr.data.formats import MAX_PIXELS, BadImage
from cxr.errors import printable

if TYPE_CHECKING:
    from pydicom import Dataset

PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
MODALITIES = ("CR", "DX", "DR", "RG", "RF")  # DR is met, though the standard has no such modality
RLE, JPEG_2000 = "1.2.840.10008.1.2.5", ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
# How pixels may be compressed: not at all (three orders of bytes), as JPEG (baseline, extended, two lossless kinds),
# JPEG 2000 (two) or RLE. Not deflated: such a file is inflated whole, to any size.
SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"),
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)),
    *JPEG_2000,
    RLE,
)
# A header may name the part of the body in any language, or leave it out.
CHEST = re.compile("CHEST|THORA|TORA|TORSO|LUNG|PULM|RIB|BRUST|POUMON|PECHO|胸|흉", re.IGNORECASE)
# What is written for all patients whose identity has been removed.
NOBODY = re.compile(r"(anon\w*|unknown|none|null|nobody|dummy|test|patient|removed|de-?identified|[0x?*-]+)", re.I)
NEEDED = "a DICOM image: pip install -e '.[dicom]' lets cxr read it"
VIEWS = ("PA", "AP", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT", "LATERAL")
SEXES = ("F", "M", "O")
BANDS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"), (150, "80+"))  # years below which, and their name
TAGS = [
    *("Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType", "NumberOfFrames"),
    *("PatientID", "IssuerOfPatientID", "PatientSex", "PatientAge", "InstitutionName"),
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope"),
    *("RescaleIntercept", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "PixelData"),
]


class Header(NamedTuple):
    """What the header of a DICOM file says of its image, each "" if unknown: the patient, as `data.dicom_patient` has
    it; the view (PA, AP, LL …); the sex (F, M or O); the age in years as a band, such as 40-59; and, only
    where `data.hospital` asks for it, the name of the institution."""

    patient: str = ""
    view: str = ""
    sex: str = ""
    age: str = ""
    hospital: str = ""


class NoReader(BadImage):
    """A DICOM file, while the extra `dicom` is not installed."""


@cache
def is_installed() -> bool:
    """Whether the extra is there."""
    return all(find_spec(name) for name in ("pydicom", "openjpeg", "libjpeg", "rle"))


def read_dicom(data: bytes, dicom_patient: str, with_hospital: bool) -> tuple[Image.Image, Header]:
    """The image of a DICOM file as it is meant to be looked at, and what its header says.

    The transformation of the modality and the first one for looking at it (VOI: a table or a window of any shape) are
    applied, then MONOCHROME1 is inverted. Padding becomes black, overlays are left out. Pixels that are not square need
    no care, for all images are stretched to squares.

    Args:
        data: the whole file.
        dicom_patient: the option `data.dicom_patient`: hash, keep or ignore.
        with_hospital: whether `data.hospital` is dicom.

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
    try:
        check_syntax(data)
        header = pydicom.dcmread(io.BytesIO(data), specific_tags=TAGS)
        check_radiograph(header)
        return to_image(header, stored_values(header)), read_header(header, dicom_patient, with_hospital)
    except (BadImage, MemoryError):
        raise
    except BaseException as error:  # a damaged or hostile file can make pydicom and its decoders raise anything
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Rust's, for a bug there
            raise
        raise BadImage(f"a DICOM file that is damaged ({type(error).__name__})") from None


def check_syntax(data: bytes) -> None:
    """Raise BadImage if pixels are compressed in a way that is none of SYNTAXES."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = meta.get("TransferSyntaxUID", SYNTAXES[0])
    if syntax not in SYNTAXES:
        how = clean(syntax.name, 60) or "nothing that is known"
        raise BadImage(f"a DICOM file compressed as {how}: save it without compression")


def check_radiograph(header: "Dataset") -> None:
    """Raise BadImage, saying what it is, if a file is not a single gray radiograph of a chest."""
    modality, body = clean(header.get("Modality")), clean(header.get("BodyPartExamined"))
    if "PixelData" not in header:
        raise BadImage(f"a DICOM file without an image (modality {modality or 'unknown'})")
    if modality not in MODALITIES:
        raise BadImage(f"a DICOM image of modality {modality or 'unknown'}, not a radiograph ({', '.join(MODALITIES)})")
    if body and not CHEST.search(str(header.BodyPartExamined)):
        raise BadImage(f"a DICOM image of another part of the body ({body})")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise BadImage(f"a DICOM series of {frames} images")
    if header.get("SamplesPerPixel") != 1 or header.get("PhotometricInterpretation") not in PHOTOMETRIC:
        raise BadImage("a DICOM image in colour, such as a screenshot")
    if header.get("PresentationIntentType") == "FOR PROCESSING":
        raise BadImage("a DICOM image as the detector saw it (FOR PROCESSING): export the one FOR PRESENTATION")
    width, height, bits = int(header.Columns), int(header.Rows), int(header.BitsStored)
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} pixels, far more than any image has (at most {MAX_PIXELS:,})")
    if header.BitsAllocated not in (8, 16) or not 0 < bits <= header.BitsAllocated or header.HighBit != bits - 1:
        raise BadImage(f"a DICOM image that stores {bits} of {int(header.BitsAllocated)} bits in an unusual way")


def stored_values(header: "Dataset") -> np.ndarray:
    """The pixels as they are stored: unsigned integers (H, W) without what stands in unused bits, such as overlays."""
    from pydicom.pixels import pixel_array

    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLE:
        check_size(header, syntax)
    # pydicom's decoder of RLE is slow, and writes as much as a hostile file says; the other ends where the image does.
    pixels = pixel_array(header, raw=True, decoding_plugin="pylibjpeg" if syntax == RLE else "")
    used = np.array(2**header.BitsStored - 1, dtype=f"u{pixels.itemsize}")
    return pixels.view(used.dtype) & used


def check_size(header: "Dataset", syntax: str) -> None:
    """Raise BadImage if the compressed image has another size than the header says: decoders take as much memory as it
    wants."""
    import libjpeg
    import openjpeg
    from pydicom.encaps import get_frame

    decoder = openjpeg if syntax in JPEG_2000 else libjpeg
    inner = decoder.get_parameters(get_frame(header.PixelData, 0, number_of_frames=1))
    if (inner["rows"], inner["columns"]) != (header.Rows, header.Columns):
        raise BadImage("a DICOM file that is damaged: its image has another size than its header says")


def to_image(header: "Dataset", stored: np.ndarray) -> Image.Image:
    """The image of stored pixels (H, W), see read_dicom(). All is computed for the 256 to 65536 values that a pixel can
    have, not for the pixels."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    bits = int(header.BitsStored)
    values = np.arange(2**bits)
    signed = header.get("PixelRepresentation") == 1
    values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if signed else values
    levels = apply_voi_lut(apply_modality_lut(values, header), header).astype(np.float64)
    if header.PhotometricInterpretation == "MONOCHROME1":
        levels = -levels
    padding = is_padding(header, values)
    # Up to 8 bits, the whole range is kept, as in a PNG of 8 bits; above, that of the pixels, for few files use all.
    used = np.full(len(values), bits <= 8)
    for row in stored:  # all at once, NumPy would need eight bytes for each pixel
        used[row] = True
    used &= ~padding
    if not np.isfinite(levels).all() or not used.any():
        raise BadImage("a DICOM file that is damaged: its pixels have no values that can be shown")
    low, high = levels[used].min(), levels[used].max()
    full = 255 if bits <= 8 else 65535
    gray = np.clip((levels - low) * (full / max(high - low, 1e-9)), 0, full).round()
    gray[padding] = 0
    gray = gray.astype(np.uint8 if bits <= 8 else np.uint16)
    image = np.empty(stored.shape, dtype=gray.dtype)
    for stored_row, image_row in zip(stored, image, strict=True):
        image_row[:] = gray[stored_row]
    return Image.fromarray(image)


def is_padding(header: "Dataset", values: np.ndarray) -> np.ndarray:
    """Which values, bool (N,), stand for pixels outside of the image."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(len(values), dtype=bool)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (values >= low) & (values <= high)


def read_header(header: "Dataset", dicom_patient: str, with_hospital: bool) -> Header:
    """The part of a header that leaves this module."""
    patient = str(header.get("PatientID") or "").strip()
    if not patient or NOBODY.fullmatch(patient) or dicom_patient == "ignore":
        patient = ""
    elif dicom_patient == "hash":
        issuer = str(header.get("IssuerOfPatientID") or "").strip()
        patient = hashlib.sha256(f"{issuer}\n{patient}".encode()).hexdigest()[:16]
    view, sex = (str(header.get(name) or "").strip().upper() for name in ("ViewPosition", "PatientSex"))
    age = re.fullmatch(r"(\d{3})([YMWD])", str(header.get("PatientAge") or "").strip())
    years = (int(age[1]) if age[2] == "Y" else 0) if age else None
    band = next((name for below, name in BANDS if years is not None and years < below), "")
    hospital = printable(str(header.get("InstitutionName") or "").strip()) if with_hospital else ""
    return Header(patient, view if view in VIEWS else "", sex if sex in SEXES else "", band, hospital)


def clean(value: object, longest: int = 16) -> str:
    """A coded value of a header, such as CR or PA; "" for what is longer than a code, and so may be anything."""
    text = str(value or "").strip().upper()
    return text if re.fullmatch(rf"[A-Z0-9 _.,:()-]{{1,{longest}}}", text) else ""
