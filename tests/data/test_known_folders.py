"""Known sets that come as folders, in one word."""

import pytest
from known_sets import by_name, has_remark, read


@pytest.mark.parametrize("inside", ["", "COVID-19_Radiography_Dataset"])
def test_covid_radiography(tmp_path, image, inside):
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for folder, name in (("COVID", "COVID"), ("Lung_Opacity", "Lung_Opacity"), ("Normal", "Normal")):
        for kind in ("images", "masks"):
            image(root / folder / kind / f"{name}-1.png", seed=len(name))
    image(root / "Viral Pneumonia" / "images" / "Viral Pneumonia-1.png")
    (root / "COVID.metadata.xlsx").write_bytes(b"x")
    images = read("covid_radiography", tmp_path / inside)
    assert images.counts() == {"NORMAL": 1, "PNEUMONIA": 1, "COVID19": 1, "LUNG_OPACITY": 1}
    assert has_remark(images, "left out: 3 files in folders of masks") and not any(images.patient)


def test_kermany_as_kaggle_packs_it_twice(tmp_path, image):
    files = (
        *("train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_bacteria_1.jpeg"),
        *("val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg"),
    )
    for folder in ("chest_xray", "chest_xray/chest_xray"):
        for number, file in enumerate(files):
            image(tmp_path / folder / file, seed=number)
    images = read("kermany", tmp_path)
    assert by_name(images) == {
        "IM-0115-0001.jpeg": ("NORMAL", "IM-0115", "train"),
        "person1_bacteria_1.jpeg": ("PNEUMONIA", "person1", "train"),
        "NORMAL2-IM-1427-0001.jpeg": ("NORMAL", "NORMAL2-IM-1427", "val"),
        "person1_virus_6.jpeg": ("PNEUMONIA", "person1", "test"),
    }
    assert [reason for _, reason in images.rejected] == ["not in a class folder"] * 4


def test_tbx11k_without_what_has_no_label(tmp_path, image):
    root = tmp_path / "TBX11K"
    names = ("health/h0001.png", "sick/s0001.png", "tb/tb0003.png", "health/h0002.png", "tb/tb0005.png")
    extra = ("test/test_0001.png", "extra/da+db/train/p001.png", "extra/shenzhen/train/CHNCXR_0001_0.png")
    for number, name in enumerate((*names, *extra)):
        image(root / "imgs" / name, seed=number)
    (root / "annotations" / "xml").mkdir(parents=True)
    (root / "annotations" / "xml" / "tb0003.xml").write_text("<annotation/>")
    (root / "lists").mkdir()
    lists = {"train": names[:3], "val": names[3:], "trainval": names}
    for split, listed in lists.items():
        (root / "lists" / f"TBX11K_{split}.txt").write_text("\n".join(listed) + "\n")
        (root / "lists" / f"all_{split}.txt").write_text("\n".join([*listed, *extra[1:]]) + "\n")
    for given in (root, tmp_path):
        images = read("tbx11k", given)
        assert by_name(images) == {
            "h0001.png": ("NORMAL", "", "train"),
            "s0001.png": ("SICK", "", "train"),
            "tb0003.png": ("TUBERCULOSIS", "", "train"),
            "h0002.png": ("NORMAL", "", "test"),
            "tb0005.png": ("TUBERCULOSIS", "", "test"),
        }
        assert has_remark(images, "left out by data.label_pattern: 9 files whose path it does not fit")
        assert has_remark(images, "left out by data.classes, with their images: test (1)") and not images.rejected


def test_names_that_say_the_class(tmp_path, image):
    """Shenzhen's and Montgomery's form."""
    for number, name in enumerate(("CHNCXR_0001_0.png", "CHNCXR_0327_1.png", "MCUCXR_0001_0.png", "mask.png")):
        image(tmp_path / "CXR_png" / name, seed=number)
    images = read("folder", tmp_path, label_pattern=r"_([01])\.png", classes={"0": "NORMAL", "1": "TB"})
    assert images.counts() == {"NORMAL": 2, "TUBERCULOSIS": 1}
    assert has_remark(images, "left out by data.label_pattern: 1 file whose path it does not fit (CXR_png/mask")
