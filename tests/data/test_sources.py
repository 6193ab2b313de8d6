import csv
import stat
import tarfile
import unicodedata
import zipfile

import pytest

from cxr.data import sources
from cxr.data.class_names import class_name
from cxr.data.naming import AS_USUAL
from cxr.data.sources import read_folder, read_images
from cxr.errors import UserError


@pytest.mark.parametrize(
    ("spelt", "standard"),
    [
        ("TURBERCULOSIS", "TUBERCULOSIS"),
        ("tb", "TUBERCULOSIS"),
        ("Tuberculosis", "TUBERCULOSIS"),
        ("COVID-19", "COVID19"),
        ("covid_19", "COVID19"),
        ("Covid", "COVID19"),
        ("normal", "NORMAL"),
        ("Pneumonia", "PNEUMONIA"),
        ("Lung Opacity", "LUNG OPACITY"),
        ("No Finding", "NORMAL"),
        ("No_findings", "NORMAL"),
        ("0_normal", "NORMAL"),
        ("healthy", "NORMAL"),
        ("정상", "NORMAL"),
        (unicodedata.normalize("NFD", "정상"), "NORMAL"),
        ("폐렴", "PNEUMONIA"),
        ("결핵", "TUBERCULOSIS"),
        ("코로나19", "COVID19"),
        ("Covid-19", "COVID19"),
        ("Viral Pneumonia", "PNEUMONIA"),
        (unicodedata.normalize("NFD", "기흉"), "기흉"),
    ],
)
def test_class_names(spelt, standard):
    assert class_name(spelt) == standard


@pytest.mark.parametrize(
    ("file", "patient"),
    [
        ("train/PNEUMONIA/person1004_virus_1686.jpeg", "person1004"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("a/NORMAL2-IM-1427-0001.jpeg", "NORMAL2-IM-1427"),
        ("Tuberculosis-12.png", ""),
        ("myperson3_x.png", ""),
        ("BACTERIA-1008087-0001.jpeg", "BACTERIA-1008087"),
        ("TB/00001280_004.png", "00001280"),
        ("train/patient00001/study1/view1_frontal.jpg", "patient00001"),
        ("p10/p10000032/s50414267/02aa804e-bde0afdd.jpg", "p10000032"),
        ("sub-S03047_ses-E06171_run-1_bp-chest_cr.png", "sub-S03047"),
        ("COVID-19-AR/COVID-19-AR-16406488/1.jpg", "COVID-19-AR-16406488"),
    ],
)
def test_patient_from_file_name(file, patient):
    assert AS_USUAL.patient_of(file) == patient


def test_class_folders_directly_in_the_root(tmp_path, image):
    image(tmp_path / "tb" / "a.PNG")
    image(tmp_path / "Normal" / "deep" / "IM-0001-0001.jpeg")
    image(tmp_path / "Edema" / "c.jpg")
    images = read_folder(tmp_path)
    assert images.classes == ("NORMAL", "TUBERCULOSIS", "EDEMA")
    assert images.file.tolist() == ["Edema/c.jpg", "Normal/deep/IM-0001-0001.jpeg", "tb/a.PNG"]
    assert images.label.tolist() == [2, 0, 1]
    assert images.patient.tolist() == ["", "IM-0001", ""]
    assert images.split.tolist() == ["", "", ""]


def test_given_folders_any_case_and_what_lies_beside_them(tmp_path, image):
    image(tmp_path / "Train" / "NORMAL" / "a.jpg")
    image(tmp_path / "Validation" / "NORMAL" / "b.jpg")
    image(tmp_path / "TEST" / "COVID-19" / "c.jpg")
    image(tmp_path / "extra" / "NORMAL" / "d.jpg")
    (tmp_path / "Train" / "NORMAL" / "notes.txt").write_text("x")
    (tmp_path / "Train" / "NORMAL" / ".DS_Store").write_text("x")
    image(tmp_path / "Train" / ".ipynb_checkpoints" / "x.jpg")
    image(tmp_path / "Train" / "NORMAL" / ".thumbs" / "x.jpg")
    image(tmp_path / "loose.jpg")
    image(tmp_path / "Train" / "loose.jpg")
    (tmp_path / "Train" / "NORMAL" / "link.jpg").symlink_to(tmp_path / "gone")
    images = read_folder(tmp_path)
    assert dict(zip(images.file.tolist(), images.split.tolist(), strict=True)) == {
        "Train/NORMAL/a.jpg": "train",
        "Validation/NORMAL/b.jpg": "val",
        "TEST/COVID-19/c.jpg": "test",
    }
    assert dict(images.rejected).keys() == {
        *("extra/NORMAL/d.jpg", "Train/NORMAL/notes.txt", "loose.jpg", "Train/loose.jpg", "Train/NORMAL/link.jpg")
    }
    assert images.classes == ("NORMAL", "COVID19")


def test_manifest_gives_patients_and_splits(tmp_path, image):
    for name in ("person1_a.jpg", "b.jpg", "c.jpg"):
        image(tmp_path / "train" / "NORMAL" / name)
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("file", "label", "patient", "split"),
                ("train/NORMAL/person1_a.jpg", "TB", "p-7", "test"),
                ("train/NORMAL/b.jpg", "NORMAL", "", "extra"),
                ("train/NORMAL/gone.jpg", "NORMAL", "p-9", "train"),
            ]
        )
    images = read_folder(tmp_path)
    rows = {
        f: (images.classes[lab], p, s)
        for f, lab, p, s in zip(images.file, images.label, images.patient, images.split, strict=True)
    }
    assert rows["train/NORMAL/person1_a.jpg"] == ("TUBERCULOSIS", "p-7", "test")
    assert rows["train/NORMAL/b.jpg"] == ("NORMAL", "", "train"), "another split value: the folder decides"
    assert rows["train/NORMAL/c.jpg"] == ("NORMAL", "", "train")
    assert dict(images.rejected) == {"train/NORMAL/gone.jpg": "in manifest.csv, but not in a class folder"}


@pytest.mark.parametrize(
    "content",
    [b"name,label\nx,y\n", b"file,label,person\nx,y,z\n", b"file,patient\nx,1\nx,2\n", b"\xff\xfe\x00f"],
)
def test_a_manifest_that_cannot_be_used(tmp_path, image, content):
    image(tmp_path / "NORMAL" / "a.jpg")
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(UserError, match="manifest.csv"):
        read_folder(tmp_path)


def test_missing_and_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "nope")
    with pytest.raises(UserError, match="no images found"):
        read_folder(tmp_path)


def test_phantom_is_drawn_once_and_says_so(tmp_path):
    options = {"source": "phantom", "images": 100, "seed": 1}
    images = read_images(options, tmp_path)
    assert len(images) == 100
    assert images.note == "drawn images (phantom): say nothing about patients"
    made = images.root.stat().st_mtime_ns
    assert read_images(options, tmp_path).root.stat().st_mtime_ns == made


def test_reference_set(cxr4):
    images = read_folder(cxr4)
    assert images.counts() == {"NORMAL": 1579, "PNEUMONIA": 4245, "COVID19": 576, "TUBERCULOSIS": 703}
    assert {s: int((images.split == s).sum()) for s in ("train", "val", "test")} == {
        "train": 6325,
        "val": 38,
        "test": 740,
    }
    assert images.rejected == ()


def test_kaggle_reads_what_kagglehub_downloads(monkeypatch, tmp_path, image):
    """kagglehub itself needs the network: a stand-in with its one function that we call."""
    image(tmp_path / "wrapped" / "train" / "NORMAL" / "a.jpg")
    image(tmp_path / "wrapped" / "test" / "TB" / "b.jpg")
    asked = []
    module = type(sources)("kagglehub")
    module.dataset_download = lambda name: asked.append(name) or str(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", module)
    images = read_images({"source": "kaggle"}, tmp_path)
    assert asked == ["jtiptj/chest-xray-pneumoniacovid19tuberculosis"]
    assert images.file.tolist() == ["test/TB/b.jpg", "train/NORMAL/a.jpg"]

    def offline(name):
        raise ConnectionError("no network")

    module.dataset_download = offline
    with pytest.raises(UserError, match="by hand.*data=folder"):
        read_images({"source": "kaggle"}, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", None)
    with pytest.raises(UserError, match="pip install"):
        read_images({"source": "kaggle"}, tmp_path)


@pytest.fixture
def kagglehub(monkeypatch, tmp_path):
    """A stand-in that unpacks the archive which it is given, as kagglehub does."""

    def serve(archive):
        def download(_):
            if tarfile.is_tarfile(archive):
                with tarfile.open(archive) as f:
                    f.extractall(tmp_path / "set", filter="data")
            else:
                with zipfile.ZipFile(archive) as f:
                    f.extractall(tmp_path / "set")
            return str(tmp_path / "set")

        module = type(sources)("kagglehub")
        module.dataset_download = download
        monkeypatch.setitem(__import__("sys").modules, "kagglehub", module)

    return serve


def test_an_archive_writes_nothing_outside_and_makes_no_links(kagglehub, image, tmp_path):
    picture = image(tmp_path / "a.jpg").read_bytes()
    link = zipfile.ZipInfo("train/NORMAL/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train/NORMAL/a.jpg", "../../train/NORMAL/b.jpg", f"{tmp_path}/train/NORMAL/c.jpg"):
            archive.writestr(name, picture)
        archive.writestr(link, "/etc/hostname")
    kagglehub(tmp_path / "a.zip")
    assert read_images({"source": "kaggle"}, tmp_path).root.is_relative_to(tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.zip", "set"]
    assert not any(path.is_symlink() for path in (tmp_path / "set").rglob("*"))


@pytest.mark.parametrize(("name", "target"), [("../x", None), ("train/NORMAL/x.jpg", "/etc/hostname")])
def test_a_tar_file_that_leads_outside_is_one_line(kagglehub, tmp_path, name, target):
    entry = tarfile.TarInfo(name)
    if target:
        entry.type, entry.linkname = tarfile.SYMTYPE, target
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(entry)
    kagglehub(tmp_path / "a.tar")
    with pytest.raises(UserError, match="download failed"):
        read_images({"source": "kaggle"}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) in (["a.tar"], ["a.tar", "set"])


def test_links_out_of_a_downloaded_set_are_refused(monkeypatch, image, tmp_path):
    image(tmp_path / "outside" / "NORMAL" / "a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "outside")
    module = type(sources)("kagglehub")
    module.dataset_download = lambda _: str(tmp_path / "set")
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", module)
    with pytest.raises(UserError, match="train is a link that leads out of the data set"):
        read_images({"source": "kaggle"}, tmp_path)
