"""What the header of a DICOM file says: whether it is one radiograph of a chest, and what else is kept of it.

Nothing of a header leaves this module but what Header holds, and words of the lists below in a reason for a rejection.
"""

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from cxr.data.formats import MAX_PIXELS, BadImage
from cxr.errors import printable

if TYPE_CHECKING:
    from pydicom import Dataset

# What holds no image: the beginning of its SOP class, its modality, and what it is.
STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_IMAGES = (
    ("1.2.840.10008.1.3.10", "", "an index of DICOM files (DICOMDIR)"),
    (STORAGE + "88.59", "KO", "a list of selected images (key objects)"),
    (STORAGE + "88", "SR", "a report"),
    (STORAGE + "11", "PR", "how a viewer showed an image (presentation state)"),
    (STORAGE + "104", "DOC", "a document, such as a PDF"),
    (STORAGE + "9", "ECG", "a recording, such as an ECG"),
    (STORAGE + "66", "SEG", "a segmentation or raw data"),
    (STORAGE + "481", "RTPLAN", "a plan of radiotherapy"),
)
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
MODALITIES = ("CR", "DX", "DR", "RG", "RF")  # DR is met, though the standard has no such modality
# A header may name the part of the body in any language, or leave it out.
CHEST = re.compile(
    "CHEST|CHST|CXR|THORA|T.{0,3}RAX|THX|TORSO|TRUNK|LUNG|PULM|RIB|BRUST|BORST|POUMON|POITRINE|PECHO|KLATKA|胸|흉", re.I
)  # T.{0,3}RAX: TORAX, and what is left where Ó was dropped or could not be read, such as T-RAX
SPINE = re.compile("SPINE|VERTEB|WIRBEL|COLUMNA|RACHIS", re.I)
UNSAID = ("", "UNKNOWN", "OTHER", "NONE", "N/A")
# What reasons quote; anything else that stands there may be somebody's name.
OTHER_MODALITIES = re.compile(
    "CT|MR|US|NM|PT|XA|MG|OT|SC|SR|PR|KO|SEG|ECG|ES|XC|PX|IO|DOC|RTDOSE|RTSTRUCT|RTPLAN|RTIMAGE"
)
OTHER_PARTS = re.compile(
    r"\b(?:HAND|FOOT|KNEE|HIP|PELVIS|ABDOMEN|SKULL|HEAD|NECK|SHOULDER|ELBOW|WRIST|ANKLE|LEG|ARM|EXTREMITY|BREAST|JAW|CSPINE|"
    r"TSPINE|LSPINE|SPINE|FINGER|FEMUR|CLAVICLE)\b",
    re.I,
)
# What is written for all patients whose identity has been removed.
NOBODY = re.compile(
    r"(anon|anonym(ous|i[sz]ed|isiert)?|unknown|none|null|nobody|dummy|test|patient|removed|de-?identified|[0x?*-]+)",
    re.I,
)
VIEWS = ("PA", "AP", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT", "LATERAL")
SEXES = ("F", "M", "O")
BANDS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"), (150, "80+"))  # years below which, and their name


class Header(NamedTuple):
    """What the header of a DICOM file says of its image, each "" if unknown: the patient, as `data.dicom_patient` has
    it; the view (PA, AP, LL …); the sex (F, M or O); the age in years as a band, such as 40-59; and, only
    where `data.hospital` asks for it, the name of the institution."""

    patient: str = ""
    view: str = ""
    sex: str = ""
    age: str = ""
    hospital: str = ""


def check_radiograph(header: "Dataset", unknown_parts: str) -> None:
    """Raise BadImage, saying what it is, if a file is not a single grey radiograph of a chest. `unknown_parts` is the
    option `data.dicom_unknown_parts`."""
    modality = str(header.get("Modality") or "").strip().upper()
    named = modality if modality in MODALITIES or OTHER_MODALITIES.fullmatch(modality) else "unknown"
    if "PixelData" not in header:
        raise BadImage(what_it_is(header, modality, named))
    if modality not in MODALITIES:
        raise BadImage(f"a DICOM image of modality {named}, not a radiograph ({', '.join(MODALITIES)})")
    check_part(str(header.get("BodyPartExamined") or ""), unknown_parts)
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise BadImage(f"a DICOM series of {frames} images")
    if header.get("SamplesPerPixel") != 1 or header.get("PhotometricInterpretation") not in PHOTOMETRIC:
        raise BadImage("a DICOM image in colour, such as a screenshot")
    if header.get("PresentationIntentType") == "FOR PROCESSING":
        raise BadImage("a DICOM image as the detector saw it (FOR PROCESSING): export the one FOR PRESENTATION")
    check_size(header)


def check_size(header: "Dataset") -> None:
    """Raise BadImage if an image has no size, an impossible one, or an unusual number of bits."""
    if not header.get("Rows") or not header.get("Columns"):
        raise BadImage("a DICOM file that is damaged: its header has no number of rows or columns")
    width, height, bits = int(header.Columns), int(header.Rows), int(header.BitsStored)
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} pixels, far more than any image has (at most {MAX_PIXELS:,})")
    if header.BitsAllocated not in (8, 16) or not 0 < bits <= header.BitsAllocated or header.HighBit != bits - 1:
        raise BadImage(f"a DICOM image that stores {bits} of {int(header.BitsAllocated)} bits in an unusual way")


def what_it_is(header: "Dataset", modality: str, named: str) -> str:
    """Why a file without pixels is none to use; `named` is its modality if a reason may quote it."""
    kind = f"{header.file_meta.get('MediaStorageSOPClassUID', '')}."
    for begin, of_modality, words in NO_IMAGES:
        if kind.startswith(f"{begin}.") or (modality and modality == of_modality):
            return f"{words}, not an image"
    if not header:  # pydicom drops all that it has read of a file whose compressed image has no end
        return "a DICOM file that is truncated or damaged"
    return f"a DICOM file without an image, or truncated before it (modality {named})"


def check_part(body: str, unknown_parts: str) -> None:
    """Raise BadImage for another part of the body than the chest. Languages that Latin letters cannot write stand there
    against the standard, in bytes that pydicom takes for Latin ones."""
    as_bytes = body.encode("latin-1", "ignore")
    written = "\n".join([body, as_bytes.decode("utf-8", "ignore"), as_bytes.decode("cp949", "ignore")])
    spine, other = SPINE.search(written), OTHER_PARTS.search(written)
    if body.strip().upper() in UNSAID or (CHEST.search(written) and not spine):
        return
    if spine or other:
        raise BadImage("a DICOM image of another part of the body" + (f" ({other[0].upper()})" if other else ""))
    if unknown_parts == "reject":
        raise BadImage(
            "a DICOM image of a part of the body that cxr does not know (not shown, for it may be a name; "
            "data.dicom_unknown_parts=keep uses it as a chest)"
        )


def read_header(header: "Dataset", dicom_patient: str, with_hospital: bool) -> Header:
    """The part of a header that leaves this module."""
    patient = str(header.get("PatientID") or "").strip()
    if not patient or NOBODY.fullmatch(patient) or dicom_patient == "ignore":
        patient = ""
    elif dicom_patient == "keep":
        patient = printable(patient)[:64]
    else:
        issuer = str(header.get("IssuerOfPatientID") or "").strip()
        patient = hashlib.sha256(f"{issuer}\n{patient}".encode()).hexdigest()[:16]
    view, sex = (str(header.get(name) or "").strip().upper() for name in ("ViewPosition", "PatientSex"))
    age = re.fullmatch(r"(\d{3})([YMWD])", str(header.get("PatientAge") or "").strip())
    years = (int(age[1]) if age[2] == "Y" else 0) if age else None
    band = next((name for below, name in BANDS if years is not None and years < below), "")
    hospital = printable(str(header.get("InstitutionName") or "").strip()) if with_hospital else ""
    return Header(patient, view if view in VIEWS else "", sex if sex in SEXES else "", band, hospital)
