"""DICOM: what is no radiograph of a chest is named."""

import re
from pathlib import Path

import numpy as np
import pytest
from drawn_dicom import dicom, ramp, real, save_dicom, why
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    XRayRadiationDoseSRStorage,
)

from cxr.data.decode import Reading, decode
from cxr.data.formats import BadImage


@pytest.mark.parametrize(
    ("body", "named"),
    [("LEFT HAND AND WRIST", " (HAND)"), ("THORACIC SPINE", " (SPINE)"), ("RACHIS DORSAL THORAX", "")],
)
def test_other_parts_of_the_body(tmp_path, body, named):
    path = save_dicom(tmp_path / "a.dcm", dicom(BodyPartExamined=body))
    assert why(path) == f"a DICOM image of another part of the body{named}"
    with pytest.raises(BadImage, match="another part of the body"):
        decode(path, 64, Reading(dicom_unknown_parts="keep"))


def of_part(path: Path, body: bytes) -> Path:
    """A file with these bytes as its BodyPartExamined, whatever the standard allows there."""
    body += b" " * (len(body) % 2)
    data = save_dicom(path, dicom(BodyPartExamined="ABCDEFGH")).read_bytes()
    path.write_bytes(data.replace(b"\x08\0ABCDEFGH", len(body).to_bytes(2, "little") + body))
    return path


def test_a_part_of_the_body_that_cxr_does_not_know_may_be_a_name(tmp_path):
    path = of_part(tmp_path / "a.dcm", b"DOE JANE ARMSTRONG")
    assert why(path) == (
        "a DICOM image of a part of the body that cxr does not know (not shown, for it may be a name; "
        "data.dicom_unknown_parts=keep uses it as a chest)"
    )
    decode(path, 64, Reading(dicom_unknown_parts="keep"))


@pytest.mark.parametrize(
    "body",
    [
        *("", "UNKNOWN", "CXR", "PORTABLE CHEST 1 VIEW", "POITRINE F", "thorax", "TORAX", "T-RAX", "T?RAX"),
        *("TÓRAX".encode("latin-1"), "TÓRAX".encode(), "흉부".encode("cp949"), "PA 흉부".encode(), "胸部".encode()),
    ],
)
def test_chests_in_other_words(tmp_path, body):
    decode(of_part(tmp_path / "a.dcm", body if isinstance(body, bytes) else body.encode()), 64)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RG3_UNCI.dcm", r"another part of the body \(EXTREMITY\)"),
        ("CT_small.dcm", "of modality CT, not a radiograph"),
        ("MR_small.dcm", "of modality MR, not a radiograph"),
        ("SC_rgb.dcm", "of modality OT, not a radiograph"),
        ("emri_small_jpeg_ls_lossless.dcm", "compressed as JPEG-LS Lossless Image Compression: save it without"),
        ("image_dfl.dcm", "compressed as Deflated Explicit VR Little Endian"),
    ],
)
def test_what_is_no_chest_radiograph_is_named(name, reason):
    assert re.search(f"^a DICOM (image|file) .*{reason}", why(real(name)))


def test_what_is_no_image_is_named(tmp_path):
    def reason(kind: UID, **tags) -> str:
        header = dicom(PixelData=None, SOPClassUID=kind, **tags)
        header.file_meta.MediaStorageSOPClassUID = kind
        return why(save_dicom(tmp_path / "a.dcm", header))

    assert why(real("DICOMDIR-empty.dcm")) == "an index of DICOM files (DICOMDIR), not an image"
    assert why(real("reportsi.dcm")) == "a report, not an image"
    assert reason(XRayRadiationDoseSRStorage, Modality="DX") == "a report, not an image"
    assert reason(KeyObjectSelectionDocumentStorage).startswith("a list of selected images")
    assert reason(GrayscaleSoftcopyPresentationStateStorage).startswith("how a viewer showed an image")
    assert reason(EncapsulatedPDFStorage) == "a document, such as a PDF, not an image"
    assert reason(ComputedRadiographyImageStorage, Modality="ECG") == "a recording, such as an ECG, not an image"
    assert reason(ComputedRadiographyImageStorage) == (
        "a DICOM file without an image, or truncated before it (modality CR)"
    )


def test_other_files_that_are_no_single_grey_image(tmp_path):
    def reason(pixels: np.ndarray = ramp, bits: int = 12, **tags) -> str:
        return why(save_dicom(tmp_path / "odd.dcm", dicom(pixels, bits, **tags)))

    assert reason(NumberOfFrames=8) == "a DICOM series of 8 images"
    assert reason(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0).endswith("a screenshot")
    assert "FOR PRESENTATION" in reason(PresentationIntentType="FOR PROCESSING")
    assert "15 of 16 bits in an unusual way" in reason(BitsStored=15)
    # What is none of the usual words may be anybody's name.
    assert reason(Modality=None) == reason(Modality="DOE JANE BORN 1980").replace("DOE JANE BORN 1980", "unknown")
