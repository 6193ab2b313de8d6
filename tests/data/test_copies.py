"""Planted copies are found, and nothing else is."""

import io
import logging
import shutil
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from cxr.data.audit import SIZE, audit, load_copies, log_findings, same_bytes
from cxr.data.audit_lines import summarise_audit
from cxr.data.copies import find_common, find_copies
from cxr.data.decode import Reading
from cxr.data.fingerprints import small_images
from cxr.data.sources import read_folder
from cxr.data.store import open_store


def copy_of(path, rng):
    """The image as it comes back from elsewhere: cropped by 3 %, resized, brighter or darker, saved at low quality."""
    image = Image.open(path).convert("L")
    width, height = image.size
    left, top = (round(rng.uniform(0, 0.03) * side) for side in image.size)
    image = image.crop((left, top, left + round(0.97 * width), top + round(0.97 * height)))
    image = image.resize([round(side * rng.uniform(0.6, 1.4)) for side in image.size], Image.Resampling.LANCZOS)
    gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-20, 20)
    image = image.point(lambda value: min(max(value * gain + offset, 0), 255))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(35, 80)))
    return file.getvalue()


def plant(images, folder, number):
    """Copy the images of a table to a folder, and `number` altered copies of some beside them, by name."""
    rng = np.random.default_rng(0)
    for file in images:
        (folder / "A").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / "A" / file.name)
    (folder / "B").mkdir()
    chosen = rng.choice(len(images), number, replace=False)
    for row in chosen:
        (folder / "B" / f"{images[row].stem}.jpg").write_bytes(copy_of(images[row], rng))


def copies_of(images, cache, how):
    return load_copies(open_store(images, SIZE, cache)[0], cache, how)


def found_in(folder, cache):
    images = read_folder(folder)
    names = [file.rsplit("/", 1)[-1].rsplit(".", 1)[0] for file in images.file.tolist()]
    return [(names[first], names[second]) for first, second, _ in copies_of(images, cache, "near")]


def test_planted_copies_of_real_images(cxr4, tmp_path):
    """Of 400 images, 20 planted: at least 19 are found, and no independent image is flagged."""
    rng = np.random.default_rng(1)
    images = sorted((cxr4 / "train").glob("NORMAL/*")) + sorted((cxr4 / "train").glob("PNEUMONIA/*"))
    plant([images[i] for i in rng.choice(len(images), 400, replace=False)], tmp_path / "images", 20)
    found = found_in(tmp_path / "images", tmp_path / "cache")
    assert all(first == second for first, second in found), "a pair of images that show different patients"
    assert len(found) >= 19


def test_planted_copies_are_found_in_another_set_though_kept_small(cxr4, tmp_path):
    """Of 20 altered copies, at least 19 find their image among 300, at the size that lies beside a checkpoint."""
    rng = np.random.default_rng(2)
    images = sorted((cxr4 / "train").glob("PNEUMONIA/*"))
    plant([images[i] for i in rng.choice(len(images), 300, replace=False)], tmp_path / "images", 20)
    (tmp_path / "altered").mkdir()
    (tmp_path / "images" / "B").rename(tmp_path / "altered" / "B")
    tables = [read_folder(tmp_path / name) for name in ("altered", "images")]
    stores = [small_images(open_store(table, SIZE, tmp_path / "cache")[0]) for table in tables]
    found = find_common(*stores)
    stems = [[file.rsplit("/", 1)[-1].rsplit(".", 1)[0] for file in table.file.tolist()] for table in tables]
    assert all(stems[0][ours] == stems[1][theirs] for ours, theirs, _ in found)
    assert len(found) >= 19


def test_known_copies_of_the_reference_set(cxr4, tmp_path):
    """Two that were known beforehand, among 300 others; more in the notes of the commit."""
    names = ["train/COVID19/COVID19(277).jpg", "train/PNEUMONIA/person1004_virus_1686.jpg"]
    names += ["train/COVID19/COVID19(265).jpg", "test/COVID19/COVID19(516).jpg"]
    others = sorted(cxr4.glob("train/TURBERCULOSIS/*"))[:100]
    for file in [cxr4 / name for name in names] + others:
        (tmp_path / "images" / "X").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "images" / "X" / file.name)
    found = {frozenset(pair) for pair in found_in(tmp_path / "images", tmp_path / "cache")}
    assert found == {frozenset(("COVID19(277)", "person1004_virus_1686")), frozenset(("COVID19(265)", "COVID19(516)"))}


def test_planted_copies_of_drawn_images(drawn, tmp_path):
    images = sorted(path for path in (drawn / "train").rglob("*") if path.is_file())
    plant(images, tmp_path / "images", 10)
    found = found_in(tmp_path / "images", tmp_path / "cache")
    # Two drawings of one patient may differ in little but their noise.
    assert all(first.split("-")[0] == second.split("-")[0] for first, second in found)
    assert sum(first == second for first, second in found) >= 9


def test_images_are_compared_once_whatever_they_are_called(image, tmp_path, monkeypatch):
    image(tmp_path / "in" / "NORMAL" / "a.png", size=(200, 200))
    image(tmp_path / "in" / "TB" / "b.png", size=(200, 200))
    image(tmp_path / "in" / "TB" / "c.png", size=(200, 200), seed=1)
    (tmp_path / "in" / "NORMAL" / "0.png").write_text("no image")
    assert copies_of(read_folder(tmp_path / "in"), tmp_path / "cache", "near") == [(0, 1, pytest.approx(1))]
    monkeypatch.setattr("cxr.data.copies.find_copies", None)
    (tmp_path / "in" / "TB" / "c.png").rename(tmp_path / "in" / "TB" / "d.png")
    assert copies_of(read_folder(tmp_path / "in"), tmp_path / "cache", "near") == [(0, 1, pytest.approx(1))]


@pytest.mark.parametrize("number", [1, 2, 70])
def test_few_images_and_images_without_content(number, tmp_path):
    """Black images are no copies of each other: there is nothing to compare. (Of the same bytes, the audit says so.)"""
    (tmp_path / "in" / "A").mkdir(parents=True)
    for i in range(number):
        Image.new("L", (50 + i, 50)).save(tmp_path / "in" / "A" / f"{i}.png")
    store, _ = open_store(read_folder(tmp_path / "in"), SIZE, tmp_path / "cache")
    assert find_copies(store) == []


@pytest.fixture
def four(image, tmp_path):
    """Two images of the same bytes, a third that is the first one saved anew, and one of its own."""
    first = image(tmp_path / "in" / "NORMAL" / "a.png", size=(200, 200))
    image(tmp_path / "in" / "TB" / "b.png", size=(200, 200))
    Image.open(first).save(tmp_path / "in" / "TB" / "c.jpg", quality=95)
    image(tmp_path / "in" / "TB" / "d.png", size=(200, 200), seed=1)
    return read_folder(tmp_path / "in")


def test_exact_copies_are_those_of_the_same_bytes(four, tmp_path):
    pairs = {how: [pair[:2] for pair in copies_of(four, tmp_path / "cache", how)] for how in ("exact", "near")}
    assert pairs["exact"] == [(0, 1)] and sorted(pairs["near"]) == [(0, 1), (0, 2), (1, 2)]
    assert same_bytes(["x", "y", "x", "z", "x"]) == [(0, 2, 1.0), (0, 4, 1.0)], (
        "one pair an image, however many are alike"
    )


def test_training_warns_of_copies_with_different_labels(four, tmp_path, caplog):
    store, images = open_store(four, SIZE, tmp_path / "cache")
    log_findings(images, load_copies(store, tmp_path / "cache", "near"))
    (warning,) = [record.message for record in caplog.records if "different labels" in record.message]
    assert (
        "copies with different labels: 2 pairs (such as NORMAL/a.png (NORMAL) and TB/b.png (TUBERCULOSIS))" in warning
    )
    assert "audit.json" in warning and "two_labels" in warning
    caplog.clear()
    log_findings(images, [(1, 2, 1.0)])
    assert "different labels" not in caplog.text, "both are called TB"


def test_images_that_are_alike_as_they_lie_are_not_laid_over_each_other(drawn, tmp_path, monkeypatch):
    """That takes most of the time: of 60 such images, for 1,770 pairs."""
    source = np.asarray(Image.open(sorted((drawn / "train" / "NORMAL").iterdir())[0]).convert("L")).astype(int)
    (tmp_path / "in" / "A").mkdir(parents=True)
    for seed in range(12):
        noisy = source + np.random.default_rng(seed).integers(-3, 4, source.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "in" / "A" / f"{seed}.png")
    store, _ = open_store(read_folder(tmp_path / "in"), SIZE, tmp_path / "cache")
    monkeypatch.setattr("cxr.data.copies.align", None)
    assert sorted(pair[:2] for pair in find_copies(store)) == list(combinations(range(12), 2))


def test_what_is_not_looked_for_in_many_images_is_said(four, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    assert len(copies_of(four, tmp_path / "cache", "auto")) == 3 and not caplog.text
    monkeypatch.setattr("cxr.data.audit.NEAR", 3)
    store, images = open_store(four, SIZE, tmp_path / "cache")
    copies = load_copies(store, tmp_path / "cache", "auto")
    assert [pair[:2] for pair in copies] == [(0, 1)]
    assert "near copies are not searched for in a set of 4 images" in caplog.text and "data.copies=near" in caplog.text
    lines = summarise_audit(audit(images, store, copies, "auto"))
    assert [line.key for line in lines if not line.searched] == ["same_pixels", "near"]
    caplog.clear()
    copies_of(four, tmp_path / "cache", "exact")
    assert not caplog.text, "no warning for data.copies=exact"


def test_however_many_images_memory_holds_a_few_at_a_time(image, tmp_path, monkeypatch):
    """Images are compared with some of the others at a time: with these few, each with itself and all others alone."""
    for i in range(30):
        image(tmp_path / "in" / "A" / f"{i:02}.png", seed=i % 20, size=(80, 80))
    store, _ = open_store(read_folder(tmp_path / "in"), SIZE, tmp_path / "cache")
    whole = find_copies(store)
    monkeypatch.setattr("cxr.data.copies.COLUMNS", 7)
    assert [pair[:2] for pair in find_copies(store)] == [pair[:2] for pair in whole] and len(whole) == 10


def test_a_negative_is_a_copy_of_its_positive_once_it_is_inverted(drawn, tmp_path):
    """The cache of pairs must not answer for pixels that an option has changed."""
    source = sorted((drawn / "train" / "NORMAL").iterdir())[0]
    positive = np.asarray(Image.open(source).convert("L"))
    (tmp_path / "in" / "A").mkdir(parents=True)
    Image.fromarray(positive).save(tmp_path / "in" / "A" / "positive.png")
    Image.fromarray(255 - positive).save(tmp_path / "in" / "A" / "negative.png")
    pairs = {}
    for negatives in ("keep", "invert"):
        store, _ = open_store(read_folder(tmp_path / "in"), SIZE, tmp_path / "cache", Reading(negatives))
        pairs[negatives] = [pair[:2] for pair in load_copies(store, tmp_path / "cache", "near")]
    assert pairs == {"keep": [], "invert": [(0, 1)]}
