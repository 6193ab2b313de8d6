"""DICOM: what a chest radiograph looks like, what is no such thing, and what leaves a header."""

import copy
import io
import json
import logging
import random
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_dicom import dicom, ramp, save_dicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
    XRayRadiationDoseSRStorage,
)

from cxr.data import building
from cxr.data import dicom as reader
from cxr.data.decode import UNREADABLE, Reading, decode, why_unreadable
from cxr.data.formats import BadImage
from cxr.data.sources import read_folder
from cxr.data.split import group_images, split_images
from cxr.data.store import open_store


def real(name: str) -> Path:
    """A file of pydicom-data."""
    return Path(get_testdata_file(name, download=False))


def gray(path: Path, size: int = 256) -> np.ndarray:
    return decode(path, size).pixels.astype(int)


def row(tmp_path: Path, header: Dataset) -> np.ndarray:
    """The gray levels of a ramp of 4096 values in a DICOM file, at every 16th value."""
    return gray(save_dicom(tmp_path / "ramp.dcm", header))[128]


def why(path: Path) -> str:
    with pytest.raises(UNREADABLE) as caught:
        decode(path, 64)
    return why_unreadable(caught.value)


def test_a_chest_radiograph_looks_the_same_in_each_form(tmp_path):
    header = pydicom.dcmread(real("RG1_UNCR.dcm"))
    pixels = header.pixel_array  # MONOCHROME1, 15 bits
    expected = gray(real("RG1_UNCR.dcm"))
    assert expected.std() > 40 and expected[128, 128] > expected[128, 64]  # the spine is brighter than a lung
    header.compress(RLELossless)
    files = [real(f"RG1_{how}.dcm") for how in ("UNCI", "J2KI", "J2KR")] + [save_dicom(tmp_path / "rle.dcm", header)]
    files += [tmp_path / "16 bits.png", save_dicom(tmp_path / "twin.dcm", dicom(2**15 - 1 - pixels, 15))]
    window = np.clip(2**15 - 1 - pixels.astype(int), 2**15 - 30000, 2**15 - 1).astype(np.uint16)  # 0 to 30000, inverted
    Image.fromarray(window).save(files[4])
    for file in files:
        assert np.abs(gray(file) - expected).max() <= 2, file.name


def test_lossless_and_baseline_jpeg(tmp_path):
    lossless = pydicom.dcmread(real("JPGLosslessP14SV1_1s_1f_8b.dcm"))  # an ultrasound image
    assert lossless.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    lossless.Modality = "CR"
    assert np.abs(gray(save_dicom(tmp_path / "lossless.dcm", lossless), 768) - 0).std() > 10
    small = (ramp[:, ::16] >> 4).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).save(file, "JPEG", quality=95)
    header = dicom(small, 8, PixelData=encapsulate([file.getvalue()]))
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header["PixelData"].is_undefined_length = True
    assert np.abs(gray(save_dicom(tmp_path / "baseline.dcm", header))[128] - np.arange(256)).max() <= 3


def test_windows(tmp_path):
    steps = np.arange(0, 4096, 16) + 7.5
    linear = row(tmp_path, dicom(WindowCenter=2048, WindowWidth=1024))
    assert np.abs(linear - np.clip((steps - 2047.5) / 1023 + 0.5, 0, 1) * 255).max() <= 2  # PS3.3 C.11.2.1.2
    several = row(tmp_path, dicom(WindowCenter=[2048, 100], WindowWidth=[1024, 10]))
    assert (several == linear).all()  # the first
    sigmoid = row(tmp_path, dicom(WindowCenter=2048, WindowWidth=1024, VOILUTFunction="SIGMOID"))
    assert np.abs(sigmoid - 255 / (1 + np.exp(-4 * (steps - 2048) / 1024))).max() <= 2
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], (np.arange(4096) ** 2 // 256).astype("<u2").tobytes()
    assert np.abs(row(tmp_path, dicom(VOILUTSequence=[table])) - (steps / 4096) ** 2 * 255).max() <= 2
    # MONOCHROME1 after the window: its low end is white.
    inverted = row(tmp_path, dicom(WindowCenter=2048, WindowWidth=1024, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(255 - inverted - linear).max() <= 1


@pytest.mark.parametrize("width", [0, -5, "text", 1e30, float("nan"), float("inf"), [0, 3000]])
def test_a_window_that_shows_nothing_is_ignored_as_viewers_do(tmp_path, width):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, as it writes such values
        header = dicom(WindowCenter=2048 if not isinstance(width, list) else [2048, 2048])
        header["WindowCenter"]
        header.add_new("WindowWidth", "LO" if isinstance(width, str) else "DS", width)
        assert (row(tmp_path, header) == row(tmp_path, dicom())).all()


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
        "a DICOM image of a part of the body that cxr does not know (its word is not shown: it may be a name); "
        "data.dicom_unknown_parts=keep uses it as a chest"
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


def test_signed_pixels_rescaled_padded_and_with_an_overlay_in_unused_bits(tmp_path):
    expected = row(tmp_path, dicom())
    assert np.abs(expected - np.arange(256)).max() <= 1
    signed = ramp.astype(np.int16) - 2048
    assert (row(tmp_path, dicom(signed)) == expected).all()
    rescaled = dicom(signed, RescaleSlope=2, RescaleIntercept=100, WindowCenter=100, WindowWidth=8192)
    assert np.abs(row(tmp_path, rescaled) - expected).max() <= 1
    overlay = ramp | ((ramp > 2000).astype(np.uint16) << 12)  # as overlays of group 6000 once were kept
    assert (row(tmp_path, dicom(overlay)) == expected).all()
    padded = np.clip(ramp, 1000, 3000)
    padded[:8] = 4095  # a white frame that is no part of the image
    image = gray(save_dicom(tmp_path / "padded.dcm", dicom(padded, PixelPaddingValue=4095)), 256)
    assert (image[:60] == 0).all() and image[128].max() == 255 and image[128, 128] == pytest.approx(134, abs=4)


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


def test_other_files_that_are_no_single_gray_image(tmp_path):
    def reason(pixels: np.ndarray = ramp, bits: int = 12, **tags) -> str:
        return why(save_dicom(tmp_path / "odd.dcm", dicom(pixels, bits, **tags)))

    assert reason(NumberOfFrames=8) == "a DICOM series of 8 images"
    assert reason(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0).endswith("a screenshot")
    assert "FOR PRESENTATION" in reason(PresentationIntentType="FOR PROCESSING")
    assert "15 of 16 bits in an unusual way" in reason(BitsStored=15)
    # What is none of the usual words may be anybody's name.
    assert reason(Modality=None) == reason(Modality="DOE JANE BORN 1980").replace("DOE JANE BORN 1980", "unknown")


def test_damage_is_named(tmp_path):
    def reason(keep: float = 1, syntax: UID | None = None, **tags) -> str:
        header = dicom(np.ascontiguousarray(ramp[:, ::32]), **tags)
        if syntax:
            header.compress(syntax)
        data = save_dicom(tmp_path / "a.dcm", header).read_bytes()
        (tmp_path / "a.dcm").write_bytes(data[: int(keep * len(data))])
        return why(tmp_path / "a.dcm")

    half = np.ascontiguousarray(ramp[:, ::32]).tobytes()[:-100]
    assert reason(PixelData=half) == "a DICOM file that is truncated: 8,092 of 8,192 bytes of its pixels are there"
    assert re.match(r"a DICOM file that is truncated: 7,\d\d\d of 8,192 bytes", reason(keep=0.9))
    assert reason(PixelData=b"").startswith("a DICOM file that is truncated: 0 of 8,192 bytes")
    for size in ({"Rows": 0}, {"Columns": None}):
        assert reason(**size) == "a DICOM file that is damaged: its header has no number of rows or columns"
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4096, 0, 16], b"\0\0", "US"
    assert reason(ModalityLUTSequence=[table]).startswith("a DICOM file that is damaged: its lookup table")
    for syntax in (RLELossless, JPEG2000Lossless):
        assert reason(keep=0.9, syntax=syntax) == "a DICOM file that is truncated or damaged"
    for syntax, kind in ((RLELossless, "RLE"), (JPEG2000Lossless, "JPEG 2000"), (JPEGBaseline8Bit, "JPEG")):
        header = dicom(np.ascontiguousarray(ramp[:, ::32]), PixelData=encapsulate([bytes(60)]))
        header.file_meta.TransferSyntaxUID, header["PixelData"].is_undefined_length = syntax, True
        assert re.match(
            f"a DICOM file that is damaged: its ({kind} )?image", why(save_dicom(tmp_path / "b.dcm", header))
        )


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    huge = dicom(Rows=60000, Columns=6000)
    assert "6000x60000 pixels, far more than any image has" in why(save_dicom(tmp_path / "a.dcm", huge))
    large = dicom(np.zeros((4000, 4000), np.uint16))
    large.compress(JPEG2000Lossless)
    large.Rows = large.Columns = 100  # the header does not say what the stream holds
    assert "another size than its header says" in why(save_dicom(tmp_path / "b.dcm", large))
    deflated = dicom()
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "Deflated" in why(save_dicom(tmp_path / "c.dcm", deflated))
    run_length = dicom(np.zeros((100, 100), np.uint8), 8)
    stream = np.array([1, 64, *[0] * 14], "<u4").tobytes() + b"\x81\0" * 10_000_000  # 1.3 GB of zeros
    run_length.PixelData, run_length.file_meta.TransferSyntaxUID = encapsulate([stream]), RLELossless
    run_length["PixelData"].is_undefined_length = True
    start = time.monotonic()
    assert "more pixels than its header says" in why(save_dicom(tmp_path / "d.dcm", run_length))
    assert time.monotonic() - start < 2


def edited(header: Dataset, path: Path, edit) -> Path:
    """A file whose compressed image is changed by `edit`."""
    frame = pydicom.encaps.get_frame(header.PixelData, 0, number_of_frames=1)
    header.PixelData = encapsulate([edit(frame)])
    header["PixelData"].is_undefined_length = True
    return save_dicom(path, header)


def test_streams_that_ask_for_more_than_their_header_says(tmp_path):
    """A few bytes of JPEG 2000 or JPEG may name thousands of tiles or hundreds of colours."""
    wavelet = dicom(np.zeros((6000, 6000), np.uint16))
    wavelet.compress(JPEG2000Lossless)
    stream = pydicom.encaps.get_frame(wavelet.PixelData, 0, number_of_frames=1)
    size = stream.index(b"\xff\x51") + 4  # behind the marker and its length
    tiles = lambda s: s[: size + 18] + (24).to_bytes(4, "big") * 2 + s[size + 26 :]  # noqa: E731
    assert "of too many parts" in why(edited(copy.deepcopy(wavelet), tmp_path / "tiles.dcm", tiles))
    style = stream.index(b"\xff\x52")

    def precincts(s: bytes) -> bytes:
        length = int.from_bytes(s[style + 2 : style + 4], "big")
        levels = s[style + 9]
        changed = bytearray(s[: style + 2 + length] + bytes([0x11] * (levels + 1)) + s[style + 2 + length :])
        changed[style + 2 : style + 4] = (length + levels + 1).to_bytes(2, "big")
        changed[style + 4] |= 1
        return bytes(changed)

    assert "of too many parts" in why(edited(copy.deepcopy(wavelet), tmp_path / "precincts.dcm", precincts))
    small = (ramp[:, ::16] >> 4).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.stack([small] * 3, 2)).save(file, "JPEG")
    colours = dicom(small, 8, PixelData=encapsulate([file.getvalue()]))
    colours.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    colours["PixelData"].is_undefined_length = True
    assert "its image has colours" in why(save_dicom(tmp_path / "colours.dcm", colours))


@pytest.mark.parametrize(("rows", "columns"), [(0, 256), (65535, 65535), (20000, 256)])
def test_a_jpeg_that_names_another_size_is_refused_before_a_decoder_takes_memory(tmp_path, rows, columns):
    file = io.BytesIO()
    Image.fromarray((ramp[:, ::16] >> 4).astype(np.uint8)).save(file, "JPEG")
    stream = bytearray(file.getvalue())
    at = stream.index(b"\xff\xc0") + 5
    stream[at : at + 4] = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    for syntax in (JPEGBaseline8Bit, JPEGLosslessSV1):
        header = dicom((ramp[:, ::16] >> 4).astype(np.uint8), 8, PixelData=encapsulate([bytes(stream)]))
        header.file_meta.TransferSyntaxUID = syntax
        header["PixelData"].is_undefined_length = True
        assert "another size than its header says" in why(save_dicom(tmp_path / "a.dcm", header))


def test_empty_values_count_as_none(tmp_path):
    expected = row(tmp_path, dicom())
    assert (row(tmp_path, dicom(RescaleSlope="", RescaleIntercept="")) == expected).all()
    assert (row(tmp_path, dicom(RescaleSlope="2", RescaleIntercept="")) == expected).all()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_truncated_jpeg_is_not_filled_up_with_gray(tmp_path, share):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)).save(file, "JPEG")
    header = dicom(
        np.zeros((128, 128), np.uint8), 8, PixelData=encapsulate([file.getvalue()[: int(share * len(file.getvalue()))]])
    )
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header["PixelData"].is_undefined_length = True
    assert why(save_dicom(tmp_path / "cut.dcm", header)).startswith("a DICOM file that is damaged")


def test_headers_of_too_many_parts(tmp_path):
    sequence = dicom()
    sequence.VOILUTSequence = [Dataset() for _ in range(30_000)]
    assert "its header has too many parts" in why(save_dicom(tmp_path / "items.dcm", sequence))


def mutants(number: int, seed: int, folder: Path):
    """Files with changed, inserted and lost bytes, of each encoding."""
    pixels = np.ascontiguousarray(ramp[:, ::32])
    plain, run_length, wavelet = (dicom(pixels, WindowCenter=2000, WindowWidth=3000) for _ in range(3))
    run_length.compress(RLELossless)
    wavelet.compress(JPEG2000Lossless)
    files = [save_dicom(folder / f"{i}.dcm", header) for i, header in enumerate((plain, run_length, wavelet))]
    sources = [file.read_bytes() for file in (*files, real("JPGLosslessP14SV1_1s_1f_8b.dcm"))]
    sources[3] = sources[3].replace(b"CS\x02\0US", b"CS\x02\0CR", 1)
    random_ = random.Random(seed)
    for _ in range(number):
        data = bytearray(random_.choice(sources))
        end = min(len(data), random_.choice([600, 1200, len(data)]))
        at = random_.randrange(132, end - 4)
        match random_.randrange(4):
            case 0:
                for _ in range(random_.randrange(1, 9)):
                    data[random_.randrange(132, end)] = random_.randrange(256)
            case 1:
                data = data[:at]
            case 2:
                data[at : at + 4] = random_.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]
                )
            case _:
                data[at:at] = random_.randbytes(random_.randrange(1, 200))
        yield bytes(data)


@pytest.mark.parametrize(
    ("number", "seed"), [(300, 0), pytest.param(6000, 1, marks=pytest.mark.long)], ids=["fast", "long"]
)
def test_damaged_and_hostile_files(tmp_path, number, seed):
    """Each is decoded or refused with a reason, in 5 seconds; nothing else is raised."""
    path, outcomes = tmp_path / "mutant.dcm", set()
    for data in mutants(number, seed, tmp_path):
        path.write_bytes(data)
        start = time.monotonic()
        try:
            decode(path, 64)
            outcomes.add("decoded")
        except UNREADABLE as error:
            assert "Doe" not in str(error) and "4711" not in str(error)
            outcomes.add(str(error))
        assert time.monotonic() - start < 5
    assert "decoded" in outcomes and len(outcomes) > 10


def test_patients(tmp_path):
    def patient(choice: str, **tags) -> str:
        return decode(save_dicom(tmp_path / "a.dcm", dicom(**tags)), 64, Reading("keep", choice)).patient

    digest = patient("hash")
    assert len(digest) == 16 and patient("hash", PatientID="MRN-4712") != digest
    assert patient("hash", IssuerOfPatientID="another hospital") != digest
    assert patient("keep") == "MRN-4711" and patient("ignore") == ""
    assert patient("keep", PatientID="ANON0001") == "ANON0001", "a pseudonym is one person's"
    for nobody in ("", "ANONYMOUS", "anon", "0000", "REMOVED", "De-Identified", "?"):
        assert patient("keep", PatientID=nobody) == "", nobody
    decoded = decode(save_dicom(tmp_path / "a.dcm", dicom(PatientAge="008M", ViewPosition="ap")), 64)
    assert (decoded.view, decoded.sex, decoded.age) == ("AP", "F", "0-17")
    decoded = decode(save_dicom(tmp_path / "a.dcm", dicom(PatientAge="old", ViewPosition="as Dr. Doe said")), 64)
    assert (decoded.view, decoded.age) == ("", "")


def hospital(root: Path, names: bool = False) -> Path:
    """40 DICOM files of 20 patients in two classes; some without an ending."""
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 4096, (40, 40), np.uint16)
        header = dicom(pixels, PatientID=f"MRN-{number // 2}", PatientAge=f"{30 + number:03}Y")
        kind = ("NORMAL", "TB")[number // 2 % 2]
        save_dicom(root / kind / (f"IM{number}" if number % 3 else f"{number}.dcm"), header)
    return root


def test_a_folder_of_dicom_files(tmp_path):
    """Patients of the headers keep their images on one side, and nothing else of a header is in the store."""
    store, images = open_store(read_folder(hospital(tmp_path / "set")), 64, tmp_path / "cache")
    assert len(images) == 40 and len(set(images.patient.tolist())) == 20
    assert "patients from DICOM headers: 20, in 40 images" in images.remarks
    assert set(images.slices) == {"view", "sex", "age"} and set(images.slices["age"].tolist()) == {
        "18-39",
        "40-59",
        "60-79",
    }
    assert set(store.facts["format"].tolist()) == {"DICOM"}
    split = split_images(images, group_images(images.patient), "pooled", 0, 0.2, 0.1, "drop", 5, 0)
    sides = {patient: set(split[images.patient == patient].tolist()) for patient in images.patient.tolist()}
    assert all(len(side) == 1 for side in sides.values()) and len(set(split.tolist())) == 3
    kept = b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert not any(secret in kept for secret in (b"MRN", b"Doe", b"Elsewhere", b"19800229"))


def test_a_manifest_goes_before_the_header(tmp_path):
    root = hospital(tmp_path / "set")
    (root / "manifest.csv").write_text("file,patient,view\n" + "\n".join(f"TB/IM{n},P{n},lateral" for n in (2, 7)))
    images = open_store(read_folder(root), 64, tmp_path / "cache")[1]
    at = images.file.tolist().index("TB/IM2")
    assert images.patient[at] == "P2" and images.slices["view"][at] == "lateral" and "sex" in images.slices


def test_nothing_of_a_header_is_logged(tmp_path, caplog, capfd):
    """pydicom warns of values that break the standard, and quotes them."""
    caplog.set_level(logging.DEBUG)
    with pytest.warns(UserWarning, match="Jane Doe"):  # the file does have such a value
        save_dicom(tmp_path / "a.dcm", dicom(PatientAge="Jane Doe"))
    decode(tmp_path / "a.dcm", 64)
    assert "Doe" not in caplog.text + "".join(capfd.readouterr())


def test_pydicom_is_imported_for_dicom_files_only(tmp_path):
    Image.fromarray((ramp[:, ::64] >> 4).astype(np.uint8)).save(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from cxr.data.decode import decode; "
        f"decode(Path({str(tmp_path / 'a.png')!r}), 32); assert 'pydicom' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_are_read_once_the_extra_is_installed(tmp_path, monkeypatch):
    root = hospital(tmp_path / "set")
    Image.fromarray((ramp[:, ::64] >> 4).astype(np.uint8)).save(root / "TB" / "a.png")
    with monkeypatch.context() as missing:
        missing.setattr(reader, "is_installed", lambda: False)
        missing.setattr(building, "is_installed", lambda: False)
        images = open_store(read_folder(root), 64, tmp_path / "cache")[1]
        assert images.file.tolist() == ["TB/a.png"]
        assert {reason for _, reason in images.rejected} == {
            "a DICOM image: pip install -e '.[dicom]' lets cxr read it"
        }
        state = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy"))
        open_store(read_folder(root), 64, tmp_path / "cache")  # nothing has changed, and nothing is decoded
        assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")) == state
    assert len(open_store(read_folder(root), 64, tmp_path / "cache")[1]) == 41


def test_plain_headers_survive_json(tmp_path):
    """A patient that is kept may hold any character; the store's lists are ASCII."""
    root = tmp_path / "set"
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 4096, (40, 40), np.uint16)
        header = dicom(pixels, SpecificCharacterSet="ISO_IR 192", PatientID=f"환자 {number}")
        save_dicom(root / ("NORMAL", "TB")[number % 2] / f"{number}.dcm", header)
    images = open_store(read_folder(root), 64, tmp_path / "cache", Reading("keep", "keep"))[1]
    assert sorted(images.patient.tolist()) == [f"환자 {number}" for number in range(4)]
    json.dumps(images.patient.tolist())
    assert ExplicitVRLittleEndian  # the encoding of these files
