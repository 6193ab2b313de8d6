"""Folders and names as people have them: levels, masks, Korean, patients in file names."""

import unicodedata

import pytest

from cxr import audit
from cxr.data.files import is_mask
from cxr.data.naming import AS_USUAL, Naming, hint
from cxr.data.sources import read_folder
from cxr.errors import UserError
from cxr.files.writing import write_table

NFC, NFD = (unicodedata.normalize(form, "정상") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path, image):
    """Write images of these names below a folder, which is returned."""

    def write(*names):
        for seed, name in enumerate(names):
            image(tmp_path / "in" / name, seed=seed)
        return tmp_path / "in"

    return write


def test_macos_and_others_write_a_class_alike(folder):
    root = folder(f"{NFC}/a.png", f"{NFD}/b.png", "결핵/c.png", f"결핵/{NFD}.png")
    write_table(root / "manifest.csv", ("file", "patient"), [(f"결핵/{NFC}.png", "p-1")])
    images = read_folder(root)
    assert images.counts() == {"NORMAL": 2, "TUBERCULOSIS": 2} and not images.rejected
    assert sorted(images.patient.tolist()) == ["", "", "", "p-1"], "the manifest writes it in another form"
    assert any("정상 is NORMAL" in remark and "결핵 is TUBERCULOSIS" in remark for remark in images.remarks)


def test_masks_beside_images_are_left_out(folder):
    root = folder(*(f"{c}/{kind}/a.png" for c in ("COVID", "Normal") for kind in ("images", "masks", "Lung Masks")))
    images = read_folder(root)
    assert images.file.tolist() == ["COVID/images/a.png", "Normal/images/a.png"]
    assert "left out: 4 files in folders of masks" in images.remarks


def test_folders_that_an_archive_wraps_around_its_content_are_passed(folder):
    root = folder("chest_xray/chest_xray/train/NORMAL/a.png", "chest_xray/chest_xray/test/TB/b.png", "__MACOSX/x/c.png")
    images = read_folder(root)
    assert images.classes == ("NORMAL", "TUBERCULOSIS") and images.root == (root / "chest_xray/chest_xray").resolve()
    assert images.remarks[0] == f"read: {root}/chest_xray/chest_xray, all that {root} holds"


def test_years_below_the_only_class_are_no_classes(folder):
    assert read_folder(folder("NORMAL/2020/a.png", "NORMAL/2021/b.png")).classes == ("NORMAL",)


def test_classes_are_renamed_merged_and_left_out(folder):
    root = folder("Well/a.png", "fine/b.png", "old/c.png", "Viral Pneumonia/d.png", "Bacterial Pneumonia/e.png")
    naming = Naming({"well": "healthy", "FINE": "Normal", "old": None, "viral pneumonia": "Viral"})
    images = read_folder(root, naming)
    assert images.counts() == {"NORMAL": 2, "PNEUMONIA": 1, "VIRAL": 1}
    assert "left out by data.classes, with their images: old (1)" in images.remarks
    assert any(
        "Bacterial Pneumonia and Viral Pneumonia are one class, PNEUMONIA" in r for r in read_folder(root).remarks
    )
    with pytest.raises(UserError, match="data.classes: no class odl in this set, which has Bacterial"):
        read_folder(root, Naming({"odl": None}))
    with pytest.raises(UserError, match="leaves out every class"):
        read_folder(root, Naming({name.name: None for name in root.iterdir()}))


def test_a_folder_that_is_hardly_a_class_is_asked_about(folder):
    images = read_folder(folder(*(f"{c}/{i}.png" for c in ("NORMAL", "TB") for i in range(6)), "plots/a.png"))
    assert "hardly classes: plots (1 image); data.classes='{plots: null}' leaves one out" in images.remarks


def test_classes_on_the_command_line(folder, run, tmp_path):
    root = folder(*(f"{c}/{i}.png" for c in ("well", "TB") for i in range(30)), "plots/a.png")
    words = ("data=folder", f"data.root={root}", f"cache_dir={tmp_path}", f"hydra.run.dir={tmp_path}/run")
    words += ("data.copies=exact",)
    code, out, err = run(audit.main, *words, "data.classes={well: NORMAL, plots: null}")
    assert code == 0, err
    lines = out.splitlines()
    assert f"1. 60 images in {root}: NORMAL 30, TUBERCULOSIS 30" in lines
    assert "2. names of classes: TB is TUBERCULOSIS, well is NORMAL; data.classes changes this" in lines
    assert "3. left out by data.classes, with their images: plots (1)" in lines
    assert any(line.startswith("4. no patient is known: each of the 60 images") for line in lines)
    code, _, err = run(audit.main, *words, "data.classes=[well]")
    assert code == 2 and "data.classes" in err.splitlines()[-1]
    code, _, err = run(audit.main, *words, "data.patient_pattern=(")
    assert code == 2 and "a regular expression with one group" in err.splitlines()[-1]


def test_patients_by_a_pattern(folder):
    root = folder("TB/p1_left.png", "TB/p1_right.png", "NORMAL/p2.png", "NORMAL/x.png")
    images = read_folder(root, Naming(patient_pattern=r"(p\d+)[_.]"))
    assert images.patient.tolist() == ["p2", "", "p1", "p1"]
    assert images.understood()[-2:] == [
        "patients by data.patient_pattern: 2, in 3 images",
        "patients are known for 3 of 4 images",
    ]


def test_names_that_share_a_stem_are_pointed_to():
    assert (
        hint([f"TB/{name}_{i}.png" for name in "abcdefgh" for i in range(2)])
        == " (are a_0.png and a_1.png of one patient?)"
    )
    assert hint([f"TB/Tuberculosis-{i}.png" for i in range(100)]) == ""


def test_no_patient_of_nih_is_on_two_sides(cxr4):
    root = cxr4.parent / "hospitals" / "nih"
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    patients = [AS_USUAL.patient_of(file) for file in files]
    assert len(files) == 811 and all(patients) and len(set(patients)) < len(files)
    assert all(patient == file.rsplit("/", 1)[-1][:8] for patient, file in zip(patients, files, strict=True))


def test_classes_that_hydra_s_grammar_cannot_name(folder, run, tmp_path):
    """Names in Korean, and with brackets and commas, as the audit itself proposes them."""
    sizes = {"NORMAL": 9, "TURBERCULOSIS": 9, "기흉 (의심)": 2, "a, b": 2}
    root = folder(*(f"{name}/{number}.png" for name, images in sizes.items() for number in range(images)))
    words = ["data=folder", f"data.root={root}", f"cache_dir={tmp_path}/cache", "data.copies=exact"]
    out = run(audit.main, *words, f"hydra.run.dir={tmp_path}/a")[1]
    assert """hardly classes: a, b (2 images), 기흉 (의심) (2 images); data.classes='{"a, b": null}' leaves""" in out
    choice = 'data.classes={기흉 (의심): null, "a, b": "새 클래스", TURBERCULOSIS: null}'
    out = run(audit.main, *words, choice, f"hydra.run.dir={tmp_path}/b")[1]
    assert "11 images in" in out and "NORMAL 9, 새 클래스 2" in out
    code, _, err = run(audit.main, *words, "data.classes={기흉: {: null}", f"hydra.run.dir={tmp_path}/c")
    assert code == 2 and err.endswith("cannot be read; put names with , : or * in quotes\n")


@pytest.mark.parametrize("folder", ["mask", "Lung_Mask_Images", "infection masks", "Segmentation Mask", "lungmask"])
def test_folders_of_masks_in_many_words(folder):
    assert is_mask(f"COVID/{folder}/a.png") and not is_mask(f"COVID/images/{folder}.png")
    assert not is_mask("unmasked/a.png")
