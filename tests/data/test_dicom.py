"""DICOM: what a chest radiograph looks like, whatever its encoding."""

import copy
import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_dicom import compressed, dicom, grey, ramp, ramp8, real, save_dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from cxr.data.codestreams import read_run_lengths


def row(tmp_path: Path, header: Dataset) -> np.ndarray:
    """The grey levels of a ramp of 4096 values in a DICOM file, at every 16th value."""
    return grey(save_dicom(tmp_path / "ramp.dcm", header))[128]


def test_a_chest_radiograph_looks_the_same_in_each_form(tmp_path):
    header = pydicom.dcmread(real("RG1_UNCR.dcm"))
    expected = grey(real("RG1_UNCR.dcm"))
    assert expected.std() > 40 and expected[128, 128] > expected[128, 64]  # the spine is brighter than a lung
    for how in ("UNCI", "J2KI"):  # another order of bytes, and lossy
        assert np.abs(grey(real(f"RG1_{how}.dcm")) - expected).max() <= 2, how
    small = np.ascontiguousarray(header.pixel_array[::4, ::4])  # MONOCHROME1, 15 bits
    header.PixelData, (header.Rows, header.Columns) = small.tobytes(), small.shape
    expected = grey(save_dicom(tmp_path / "small.dcm", header))
    assert expected.std() > 40
    for syntax in (RLELossless, JPEG2000Lossless):
        other = copy.deepcopy(header)
        other.compress(syntax)
        assert (grey(save_dicom(tmp_path / "compressed.dcm", other)) == expected).all(), syntax.name
    inverted = 2**15 - 1 - small.astype(int)
    window = np.clip(inverted, 2**15 - 30000, 2**15 - 1).astype(np.uint16)  # 0 to 30000, inverted
    Image.fromarray(window).save(tmp_path / "16 bits.png")
    twin = save_dicom(tmp_path / "twin.dcm", dicom(inverted.astype(np.uint16), 15))
    for file in (tmp_path / "16 bits.png", twin):
        assert np.abs(grey(file) - expected).max() <= 2, file.name


def test_run_lengths_of_noise_and_of_plains():
    """Of one and two bytes a pixel; a run may end a byte behind the image."""
    rng = np.random.default_rng(0)
    for pixels in (rng.integers(0, 65536, (37, 41), np.uint16), np.zeros((50, 50), np.uint8), ramp8):
        header = dicom(pixels, 8 * pixels.itemsize)
        header.compress(RLELossless)
        stream = get_frame(header.PixelData, 0, number_of_frames=1)
        assert np.array_equal(read_run_lengths(stream, *pixels.shape, pixels.itemsize), pixels)
    start = np.array([1, 64, *[0] * 14], "<u4").tobytes()
    assert read_run_lengths(start + b"\x80\xfc\x07\x01\x08\x09", 1, 7, 1).tolist() == [[7, 7, 7, 7, 7, 8, 9]]
    assert read_run_lengths(start + b"\xfa\x07\0\0", 1, 7, 1).tolist() == [[7] * 7]


def test_lossless_and_baseline_jpeg(tmp_path):
    lossless = pydicom.dcmread(real("JPGLosslessP14SV1_1s_1f_8b.dcm"))  # an ultrasound image
    assert lossless.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    lossless.Modality = "CR"
    assert grey(save_dicom(tmp_path / "lossless.dcm", lossless)).std() > 10
    file = io.BytesIO()
    Image.fromarray(ramp8).save(file, "JPEG", quality=95)
    baseline = save_dicom(tmp_path / "baseline.dcm", compressed(ramp8, 8, JPEGBaseline8Bit, file.getvalue()))
    assert np.abs(grey(baseline)[128] - np.arange(256)).max() <= 3


def test_jpeg_of_12_bits(tmp_path):
    extended = pydicom.dcmread(real("JPGExtended.dcm"))  # a bone scan
    assert extended.file_meta.TransferSyntaxUID == JPEGExtended12Bit and extended.BitsStored > 8
    extended.Modality, extended.BodyPartExamined, extended.NumberOfFrames = "CR", "CHEST", 1
    assert grey(save_dicom(tmp_path / "extended.dcm", extended)).std() > 5


def test_only_images_of_more_than_8_bits_are_stretched_to_the_range_of_their_pixels(tmp_path):
    for pixels, bits, darkest, brightest in ((ramp8 // 4 + 96, 8, 96, 159), (ramp // 4 + 1536, 12, 0, 255)):
        image = grey(save_dicom(tmp_path / "dull.dcm", dicom(pixels, bits)))
        assert abs(image.min() - darkest) <= 1 and abs(image.max() - brightest) <= 1, bits


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
    image = grey(save_dicom(tmp_path / "padded.dcm", dicom(padded, PixelPaddingValue=4095)), 256)
    assert (image[:60] == 0).all() and image[128].max() == 255 and image[128, 128] == pytest.approx(134, abs=4)


def test_empty_values_count_as_none(tmp_path):
    expected = row(tmp_path, dicom())
    assert (row(tmp_path, dicom(RescaleSlope="", RescaleIntercept="")) == expected).all()
    assert (row(tmp_path, dicom(RescaleSlope="2", RescaleIntercept="")) == expected).all()
