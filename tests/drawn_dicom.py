"""DICOM files drawn for tests, and what becomes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from cxr.data.decode import UNREADABLE, decode, why_unreadable

ramp = np.tile(np.arange(4096, dtype=np.uint16), (32, 1))  # each value of 12 bits
narrow = np.ascontiguousarray(ramp[:, ::32])
ramp8 = (ramp[:, ::16] >> 4).astype(np.uint8)  # each value of 8 bits


def dicom(pixels: np.ndarray = ramp, bits: int = 12, **tags: Any) -> Dataset:
    """A radiograph of a chest with these stored pixels (H, W); `tags` are further ones, or None to remove one."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    header.Modality, header.BodyPartExamined, header.ViewPosition = "CR", "CHEST", "PA"
    header.PatientName, header.PatientID, header.InstitutionName = "Doe^Jane", "MRN-4711", "St. Elsewhere"
    header.PatientSex, header.PatientAge, header.PatientBirthDate = "F", "045Y", "19800229"
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 8 * pixels.itemsize, bits, bits - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    return header


def save_dicom(path: Path, header: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def compressed(pixels: np.ndarray, bits: int, syntax: UID, stream: bytes) -> Dataset:
    """A radiograph of the size of these pixels, whose compressed image is `stream`."""
    header = dicom(pixels, bits, PixelData=encapsulate([stream]))
    header.file_meta.TransferSyntaxUID = syntax
    header["PixelData"].is_undefined_length = True
    return header


def real(name: str) -> Path:
    """A file of pydicom-data."""
    return Path(get_testdata_file(name, download=False))


def grey(path: Path, size: int = 256) -> np.ndarray:
    return decode(path, size).pixels.astype(int)


def why(path: Path) -> str:
    with pytest.raises(UNREADABLE) as caught:
        decode(path, 64)
    return why_unreadable(caught.value)
