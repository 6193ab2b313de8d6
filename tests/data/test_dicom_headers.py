"""DICOM: what leaves a header, and what does not."""

import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from drawn_dicom import dicom, ramp, save_dicom
from PIL import Image

from cxr.data import building
from cxr.data import dicom as reader
from cxr.data.decode import Reading, decode
from cxr.data.groups import group_images
from cxr.data.sources import read_folder
from cxr.data.split import split_images
from cxr.data.store import open_store


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


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """40 DICOM files of 20 patients in two classes; some without an ending. Tests that change them copy them."""
    root = tmp_path_factory.mktemp("hospital")
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 4096, (40, 40), np.uint16)
        header = dicom(pixels, PatientID=f"MRN-{number // 2}", PatientAge=f"{30 + number:03}Y")
        kind = ("NORMAL", "TB")[number // 2 % 2]
        save_dicom(root / kind / (f"IM{number}" if number % 3 else f"{number}.dcm"), header)
    return root


def test_a_folder_of_dicom_files(hospital, tmp_path):
    """Patients of the headers keep their images on one side, and nothing else of a header is in the store."""
    store, images = open_store(read_folder(hospital), 64, tmp_path / "cache")
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


def test_a_manifest_goes_before_the_header(hospital, tmp_path):
    root = shutil.copytree(hospital, tmp_path / "set")
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


def test_files_are_read_once_the_extra_is_installed(hospital, tmp_path, monkeypatch):
    root = shutil.copytree(hospital, tmp_path / "set")
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
