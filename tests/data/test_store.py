import hashlib
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from cxr.data.building import BLOCK
from cxr.data.decode import decode
from cxr.data.shards import read_shard
from cxr.data.sources import read_folder
from cxr.data.store import open_store
from cxr.errors import UserError


@pytest.fixture
def ramp():
    """An image brighter to the right and, less, to the bottom: every flip and turn shows."""
    x, y = np.meshgrid(np.linspace(0, 200, 96), np.linspace(0, 50, 64))
    return (x + y).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "L"),
        ("a.jpg", "L"),
        ("a.jpg", "RGB"),
        ("a.png", "RGBA"),
        ("a.png", "P"),
        ("a.jpg", "CMYK"),
        ("a.png", "LA"),
    ],
)
def test_any_mode_becomes_the_same_grey(tmp_path, ramp, name, mode):
    Image.fromarray(ramp).convert("RGB").convert(mode).save(tmp_path / name)
    image = decode(tmp_path / name, 32).pixels
    want = np.asarray(Image.fromarray(ramp).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert image.shape == (32, 32) and image.dtype == np.uint8
    assert abs(image.astype(int) - want).mean() < 3


def test_sixteen_bits_keep_their_contrast(tmp_path, ramp):
    Image.fromarray(ramp.astype(np.uint16) * 16).save(tmp_path / "a.png")  # 12 of 16 bits, as detectors give
    image = decode(tmp_path / "a.png", 32).pixels
    assert image.min() < 10 and image.max() > 245 and image[0, 0] < image[0, -1]


def test_exif_rotation_and_wrong_extension(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif)
    image = decode(tmp_path / "a.jpg", 32).pixels.astype(int)
    assert image[-1].mean() - image[0].mean() > 100, "left to right has become top to bottom"
    Image.fromarray(ramp).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "named.jpg")
    assert decode(tmp_path / "named.jpg", 32).pixels.shape == (32, 32)


def bad_files(folder, image):
    whole = image(folder / "whole.jpg", size=(300, 300)).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    Image.new("L", (8, 8)).save(folder / "tiff.png", format="TIFF")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    return ["truncated.jpg", "zero.jpg", "text.png", "tiff.png", "bomb.png"]


def test_bad_files_are_named_and_the_rest_is_used(tmp_path, image):
    bad = bad_files(tmp_path / "in" / "NORMAL", image)
    image(tmp_path / "in" / "TB" / "x.png", seed=1)
    images = read_folder(tmp_path / "in")
    store, used = open_store(images, 16, tmp_path / "cache")
    assert used.file.tolist() == ["NORMAL/whole.jpg", "TB/x.png"]
    assert {file for file, _ in used.rejected} == {f"NORMAL/{name}" for name in bad}
    assert all(why for _, why in used.rejected)
    assert len(store) == 2 and store.size == 16
    for row, file in enumerate(used.file):
        assert np.array_equal(store[row], decode(images.root / file, 16).pixels)


def test_only_what_changed_is_decoded_anew(tmp_path, image, monkeypatch):
    from cxr.data import building as module

    image(tmp_path / "in" / "NORMAL" / "y.png")
    changed = image(tmp_path / "in" / "TB" / "x.png")
    decoded = []
    monkeypatch.setattr(module, "decode", lambda path, *more: decoded.append(path.name) or decode(path, *more))
    open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    before, _ = open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    assert decoded == ["y.png", "x.png"]
    old = before[:].copy()
    image(changed, seed=9, size=(50, 50))
    image(tmp_path / "in" / "NORMAL" / "a.png", seed=4)
    store, _ = open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    assert decoded[2:] == ["a.png", "x.png"]
    assert np.array_equal(store[1], old[0]), "copied to its new place"
    assert np.array_equal(store[2], decode(changed, 16).pixels)
    assert np.array_equal(before[:], old), "a run that has the earlier store open keeps its images"


# Another process, which tells what it sees in its store, and again for each line it is sent.
USER = """
import sys; from pathlib import Path; from cxr.data.sources import read_folder
from cxr.data.store import open_store
store, _ = open_store(read_folder(Path(sys.argv[1])), 16, Path(sys.argv[2]), shard=1)
print(store[:].sum(), flush=True)
for line in sys.stdin:
    print(store[:].sum(), flush=True)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_store_that_another_process_uses_is_not_removed(tmp_path, image, end):
    """On a network drive, the other process would die of a bus error where its images are no more."""

    def stores():
        return sorted(p.name for p in (tmp_path / "cache").glob("*/*") if p.is_dir())

    def open_again():
        return open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache", shard=1)[0]

    image(tmp_path / "in" / "NORMAL" / "a.png")
    changed = image(tmp_path / "in" / "TB" / "b.png", seed=1)
    open_again()
    (first,) = stores()
    command = [sys.executable, "-c", USER, str(tmp_path / "in"), str(tmp_path / "cache")]
    user = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seen = user.stdout.readline()
    for seed in (2, 3):
        image(changed, seed=seed)
        open_again()
        assert first in stores() and len(stores()) == 2, "of stores that nobody uses, only the newest stays"
    user.stdin.write("\n")
    user.stdin.flush()
    assert user.stdout.readline() == seen
    user.kill() if end == "kill" else user.stdin.close()
    user.wait()
    store = open_again()
    assert len(stores()) == 1 and first not in stores() and len(store) == 2


def test_a_store_is_free_again_once_nothing_of_it_is_used(tmp_path, image):
    path = image(tmp_path / "in" / "NORMAL" / "a.png")
    image(tmp_path / "in" / "TB" / "b.png")
    store, _ = open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    (folder,) = (p for p in (tmp_path / "cache").glob("*/*") if p.is_dir())
    rows = store[:1]  # a copy
    image(path, seed=2)
    for used in (True, False):
        open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
        assert folder.exists() == used
        store = None
    assert len(rows) == 1


def test_a_new_label_moves_no_image(tmp_path, image, monkeypatch):
    from cxr.data import building as module

    image(tmp_path / "in" / "NORMAL" / "a.png")
    image(tmp_path / "in" / "TB" / "b.png")
    before, _ = open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    folders = [*(tmp_path / "cache").glob("*/*")]
    monkeypatch.setattr(module, "decode", None)
    (tmp_path / "in" / "manifest.csv").write_text("file,label,patient\nTB/b.png,NORMAL,p7\n")
    store, images = open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    assert [*(tmp_path / "cache").glob("*/*")] == folders and np.array_equal(store[:], before[:])
    assert images.label.tolist() == [0, 0] and images.patient.tolist() == ["", "p7"]


def test_records_hold_what_each_image_was(tmp_path, image):
    path = image(tmp_path / "in" / "NORMAL" / "a, 'b' 한글.png", size=(40, 30))
    image(tmp_path / "in" / "TB" / "x.png")
    open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    (folder,) = {p.parent for p in (tmp_path / "cache").glob("*/*/images-00000.json")}
    record = read_shard(folder, 0, 16)[1][0]
    assert (record.file, record.width, record.height) == (f"NORMAL/{path.name}", 40, 30)
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and record.rejected == ""


def test_many_images_are_decoded_by_many_processes_as_by_one(drawn, tmp_path):
    images = read_folder(drawn)
    assert len(images) > 2 * BLOCK
    store, used = open_store(images, 32, tmp_path)
    for row in range(0, len(used), 7):
        assert np.array_equal(store[row], decode(images.root / str(used.file[row]), 32).pixels)


def test_two_processes_at_once_build_one_store(drawn, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cxr.data.sources import read_folder\n"
        "from cxr.data.store import open_store\n"
        "store, _ = open_store(read_folder(Path(sys.argv[1])), 64, Path(sys.argv[2])); print(store[:].sum())"
    )
    command = [sys.executable, "-c", code, str(drawn), str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sums[0] == sums[1] and int(sums[0]) > 0
    assert len(list(tmp_path.glob("*/*/images-00000.npy"))) == 1


def test_workers_end_with_a_killed_parent_and_free_the_lock(drawn, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from cxr.data import building, sources, store\n"
        "building.decode = lambda *_: time.sleep(600)\n"
        "store.open_store(sources.read_folder(Path(sys.argv[1])), 64, Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(drawn), str(tmp_path)])
    until = time.monotonic() + 20
    while not list(tmp_path.glob("*/.building-*/.images-00000.npy*")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)  # its workers are at work now
    process.kill()
    process.wait()
    lock = FileLock(next(tmp_path.glob("*/.lock")))
    lock.acquire(timeout=10)  # a worker that lived on would still hold it
    lock.release()
    store, _ = open_store(read_folder(drawn), 64, tmp_path)
    assert len(store) == 160 and not list(tmp_path.glob("*/.building-*"))


def test_too_little_room_is_said_before_anything_is_written(tmp_path, image, monkeypatch):
    from cxr.data import building as module

    image(tmp_path / "in" / "NORMAL" / "a.png")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(UserError, match="0 MB free.*choose another cache_dir"):
        open_store(read_folder(tmp_path / "in"), 64, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*/images-00000.npy"))


def test_the_odd_images_are_used_or_named(tmp_path, odd, image):
    folder = tmp_path / "in" / "NORMAL"
    folder.mkdir(parents=True)
    originals = [p for p in odd.iterdir() if p.name != "README.csv"]
    assert len(originals) == 10
    for path in originals:
        (folder / path.name).write_bytes(path.read_bytes())
    image(tmp_path / "in" / "TB" / "x.png")
    _, used = open_store(read_folder(tmp_path / "in"), 32, tmp_path / "cache")
    accounted = {*used.file.tolist(), *(file for file, _ in used.rejected)}
    assert accounted == {f"NORMAL/{p.name}" for p in originals} | {"TB/x.png"}
    assert {file.split("/")[1][:2] for file, _ in used.rejected} == {"01", "02", "03", "10"}


def test_no_image_that_can_be_read_is_one_line(tmp_path, image):
    for name in ("NORMAL/a.png", "TB/b.png"):
        image(tmp_path / "in" / name).write_text("no image")
    with pytest.raises(UserError, match="none of 2 images can be read .such as NORMAL/a.png: not a JPEG, PNG or DICOM"):
        open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")


def test_a_damaged_earlier_store_is_built_anew(tmp_path, image):
    image(tmp_path / "in" / "NORMAL" / "a.png")
    image(tmp_path / "in" / "TB" / "b.png", seed=1)
    open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    (damaged,) = (tmp_path / "cache").glob("*/*/images-00000.npy")
    damaged.write_bytes(b"half")
    image(tmp_path / "in" / "TB" / "c.png", seed=2)
    store, images = open_store(read_folder(tmp_path / "in"), 16, tmp_path / "cache")
    assert np.array_equal(store[0], decode(images.root / "NORMAL/a.png", 16).pixels)
