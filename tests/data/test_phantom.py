"""The drawn images: the same from the same seed, laid out like the reference set, and without shortcuts."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.data.decode import decode
from cxr.data.phantom import Drawing, draw_phantom, plan_images, write_image
from cxr.data.phantom_chest import chest
from cxr.data.sources import read_folder
from cxr.files.writing import read_table

LABELS = {"COVID19", "NORMAL", "PNEUMONIA", "TURBERCULOSIS"}
IMAGES = 80


def _read(root: Path) -> list[dict[str, str]]:
    return read_table(root / "manifest.csv")


def _bytes(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    draw_phantom(root, IMAGES, seed=3)
    return root


def test_same_seed_same_bytes(drawn: Path, tmp_path: Path) -> None:
    draw_phantom(tmp_path, IMAGES, seed=3)
    assert _bytes(tmp_path) == _bytes(drawn)


def test_other_seed_other_images(tmp_path: Path) -> None:
    for seed in (0, 1):
        draw_phantom(tmp_path / str(seed), 40, seed)
    first, second = ({*_bytes(tmp_path / seed).values()} for seed in "01")
    assert not first & second


def test_manifest_lists_the_tree(drawn: Path) -> None:
    rows = _read(drawn)
    assert len(rows) == IMAGES
    assert {row["file"] for row in rows} == _bytes(drawn).keys() - {"manifest.csv"}
    for row in rows:
        split, label, name = row["file"].split("/")
        assert (split, label) == (row["split"], row["label"])
        assert name.startswith(row["patient"].replace("-", "") + "-")
    folders = Counter((row["split"], row["label"]) for row in rows)
    assert folders.keys() == {(split, label) for split in ("train", "val", "test") for label in LABELS}
    assert min(folders.values()) >= 2


def test_every_image_is_another(drawn: Path) -> None:
    assert len(set(_bytes(drawn).values())) == IMAGES + 1  # and the manifest


def test_proportions_and_patients_of_the_default_set() -> None:
    plan = list(plan_images(600, seed=0))
    assert len(plan) == len({image.file for image in plan}) == 600
    shares = {label: count / 600 for label, count in Counter(image.label for image in plan).items()}
    counts = {"COVID19": 576, "NORMAL": 1579, "PNEUMONIA": 4245, "TURBERCULOSIS": 703}
    reference = {label: count / 7103 for label, count in counts.items()}
    assert shares == pytest.approx(reference, abs=0.02)
    splits, labels = defaultdict(set), defaultdict(set)
    for image in plan:
        splits[image.patient].add(image.split)
        labels[image.patient].add(image.label)
    assert all(len(found) == 1 for found in labels.values())
    straddling = [found for found in splits.values() if len(found) > 1]
    assert straddling and all(found == {"train", "test"} for found in straddling)
    assert len(straddling) < 0.05 * len(splits)
    assert max(Counter(image.patient for image in plan).values()) > 1


def test_formats_modes_and_sizes_are_mixed_in_every_class(drawn: Path) -> None:
    seen, shorter = defaultdict(set), defaultdict(list)
    for row in _read(drawn):
        with Image.open(drawn / row["file"]) as image:
            seen[row["label"]] |= {image.format, image.mode}
            shorter[row["label"]].append(min(image.size))
            assert image.format == ("PNG" if row["file"].endswith("png") else "JPEG")
    for label in LABELS:
        assert seen[label] == {"JPEG", "PNG", "L", "RGB"}
        assert 160 <= min(shorter[label]) < 220 < max(shorter[label]) <= 300


def test_file_names_do_not_depend_on_the_label() -> None:
    png = defaultdict(list)
    for image in plan_images(7000, seed=0):
        png[image.label].append(image.file.endswith("png"))
    assert all(abs(np.mean(found) - 1 / 3) < 0.07 for found in png.values())


def test_modes_and_sizes_do_not_depend_on_the_label(tmp_path: Path) -> None:
    """The same patients' images with other findings have the same mode and size, and another picture."""
    images = [Drawing("train", label, 7, 2, f"{label}.png") for label in sorted(LABELS)]
    for image in images:
        write_image(tmp_path, 0, image)
    pictures = [Image.open(tmp_path / image.file) for image in images]
    assert len({(picture.mode, picture.size) for picture in pictures}) == 1
    assert len({picture.tobytes() for picture in pictures}) == len(LABELS)


@pytest.mark.parametrize("label", sorted(LABELS - {"NORMAL"}))
@pytest.mark.parametrize("patient", range(4))
def test_a_finding_shows_in_the_lungs_and_nowhere_else(label: str, patient: int) -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:128j].astype(np.float32)
    with_finding, without = (
        chest(name, x, y, np.random.default_rng([0, patient]), np.random.default_rng(1)) for name in (label, "NORMAL")
    )
    finding = with_finding - without
    assert finding.max() > 0.1
    assert np.abs(finding[(np.abs(x) > 0.9) | (np.abs(y) > 0.95) | (np.abs(x) < 0.03)]).max() < 0.02
    if label == "TURBERCULOSIS":
        assert np.abs(finding[y > 0.2]).max() < 0.02  # the apices
    if label == "COVID19":
        assert finding[x < 0].max() > 0.05 and finding[x > 0].max() > 0.05  # both sides
    if label == "PNEUMONIA":
        assert (finding[x < 0].max() > 0.05) != (finding[x > 0].max() > 0.05)  # one side


def test_images_of_a_patient_share_the_anatomy_but_not_the_picture(drawn: Path) -> None:
    """Thumbnails of the same patient are more alike than those of different patients; none are equal."""
    rows = _read(drawn)
    thumbs = []
    for row in rows:
        thumb = np.asarray(Image.open(drawn / row["file"]).convert("L").resize((32, 32)), np.float32).ravel()
        thumbs.append((thumb - thumb.mean()) / thumb.std())
    stack = np.stack(thumbs)
    far = np.sqrt(((stack[:, None] - stack) ** 2).mean(-1))
    patient = np.array([row["patient"] for row in rows])
    same = (patient[:, None] == patient) & ~np.eye(len(rows), dtype=bool)
    assert far[same].min() > 0 and far[same].mean() < 0.95 * far[patient[:, None] != patient].mean()


def test_whole_pictures_give_nothing_away(drawn):
    """The nearest other patient's image, as a thumbnail, knows the class hardly better than always saying PNEUMONIA."""
    images = read_folder(drawn)
    thumbnails = np.stack([decode(images.root / file, 32).pixels.ravel() for file in images.file]).astype(np.float32)
    thumbnails -= thumbnails.mean(1, keepdims=True)
    thumbnails /= thumbnails.std(1, keepdims=True)
    likeness = thumbnails @ thumbnails.T
    likeness[images.patient[:, None] == images.patient] = -np.inf
    right = images.label[likeness.argmax(1)] == images.label
    majority = np.bincount(images.label).max() / len(images)
    assert right.mean() < majority + 0.05
