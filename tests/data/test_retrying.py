"""A disk or network share that fails: for a moment, or for good."""

import errno
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr import predict
from cxr.data import building, retrying
from cxr.data.decode import UNREADABLE, decode
from cxr.data.files import list_files
from cxr.data.retrying import ReadFailed
from cxr.data.sources import read_folder
from cxr.data.store import open_store
from cxr.errors import UserError
from cxr.files.writing import read_json, read_table
from cxr.train import main

MOMENTARY = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM]
# A file that the system really fails to read (EIO): no process has memory at its address 0.
FAILING = Path("/proc/self/mem")
real = pytest.mark.skipif(not FAILING.exists(), reason="needs Linux's /proc")


class Disk:
    """Reads of a file, some of which fail with an error of the system."""

    def __init__(self, number=errno.EIO):
        self.number, self.reads, self.failing = number, 0, range(0)

    def open(self, path, mode):
        return io.BufferedReader(FileOn(self, path, mode))


class FileOn(io.FileIO):
    def __init__(self, disk, path, mode):
        self.disk = disk
        super().__init__(path, mode)

    def readinto(self, buffer):
        self.disk.reads += 1
        if self.disk.reads - 1 in self.disk.failing:
            raise OSError(self.disk.number, os.strerror(self.disk.number))
        return super().readinto(buffer)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(retrying, "WAITS", (0, 0, 0))


@pytest.fixture
def disk(monkeypatch):
    """Makes the disk from which images are read; its file names the numbers of the reads that fail."""

    def make(number=errno.EIO):
        disk = Disk(number)
        monkeypatch.setattr(Path, "open", lambda path, mode: disk.open(path, mode))
        return disk

    return make


@pytest.fixture
def folder(tmp_path, image):
    for i, name in enumerate(("NORMAL/a.png", "NORMAL/b.png", "TB/c.png")):
        image(tmp_path / "in" / name, seed=i)
    return tmp_path / "in"


@pytest.mark.parametrize("number", MOMENTARY)
def test_an_image_is_read_once_the_disk_answers_again(tmp_path, image, disk, number):
    path = image(tmp_path / "a.png")
    whole, disk = decode(path, 16), disk(number)
    for tries in (1, 2, 3):
        disk.failing = range(disk.reads, disk.reads + tries)
        again = decode(path, 16)
        assert np.array_equal(again.pixels, whole.pixels) and again[1:] == whole[1:]
    disk.failing = range(disk.reads, disk.reads + 4)
    with pytest.raises(ReadFailed) as caught:
        decode(path, 16)
    assert str(caught.value).startswith(f"{path}: {os.strerror(number).lower()} (tried 4 times); check the disk ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive JPEG", "16-bit PNG", "damaged JPEG"])
def test_no_read_that_fails_is_blamed_on_the_image(tmp_path, disk, kind):
    """Whichever of the reads it is: those of the check sum, of the header, or of the pixels."""
    path, pixels = tmp_path / "a", np.random.default_rng(0).integers(0, 256, (400, 400))
    deep = kind == "16-bit PNG"
    made = Image.fromarray((pixels * 256).astype(np.uint16) if deep else pixels.astype(np.uint8))
    made.save(path, kind.split()[-1], **({"progressive": True} if "progressive" in kind else {}))
    if kind == "damaged JPEG":
        path.write_bytes(path.read_bytes()[:-90_000])

    def result():
        try:
            return decode(path, 16).pixels.tolist()
        except UNREADABLE as error:
            return str(error)

    want, disk = result(), disk()
    assert result() == want
    for read in range(disk.reads):
        disk.reads, disk.failing = 0, range(read, read + 1)
        assert result() == want, f"read {read} failed once"
        disk.reads, disk.failing = 0, range(read, 1_000_000)
        with pytest.raises(ReadFailed):
            result()


@pytest.mark.parametrize("number", MOMENTARY)
def test_no_store_has_an_image_that_the_disk_failed_to_read(folder, tmp_path, monkeypatch, number):
    def failing(path, *more):
        def read():
            if path.name == "b.png":
                raise OSError(number, os.strerror(number), str(path))
            return decode(path, *more)

        return retrying.patiently(path, read)

    with monkeypatch.context() as patch:
        patch.setattr(building, "decode", failing)
        for _ in range(2):
            with pytest.raises(UserError, match=f"NORMAL/b.png: {os.strerror(number).lower()}") as caught:
                open_store(read_folder(folder), 16, tmp_path / "cache", shard=1)
            assert "\n" not in str(caught.value)
            assert not [*tmp_path.glob("cache/*/*/*")], "there is no store"
    store, table = open_store(read_folder(folder), 16, tmp_path / "cache", shard=1)
    assert table.rejected == ()
    for row, file in enumerate(table.file.tolist()):
        assert np.array_equal(store[row], decode(folder / file, 16).pixels)


@real
def test_a_real_failure_in_one_of_many_processes(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "BLOCK", 8)
    root = tmp_path / "in"
    shutil.copytree(drawn, root)
    bad = root / "train" / "PNEUMONIA" / "bad.png"
    bad.symlink_to(FAILING)
    with pytest.raises(UserError, match=r"PNEUMONIA/bad.png: input/output error \(tried 4 times\)"):
        open_store(read_folder(root), 16, tmp_path / "cache", shard=10)
    assert [*tmp_path.glob("cache/*/.building-*/images-*.json")], "what was read before is kept"
    bad.unlink()
    shutil.copy(next(root.glob("train/NORMAL/*.png")), bad)
    store, table = open_store(read_folder(root), 16, tmp_path / "cache", shard=10)
    assert len(store) == 161 and table.rejected == ()


@pytest.mark.long
@real
def test_a_run_ends_with_one_line_and_the_next_start_has_all_images(run, tmp_path, drawn, tiny):
    root = tmp_path / "in"
    shutil.copytree(drawn, root)
    bad = root / "train" / "NORMAL" / "bad.png"
    bad.symlink_to(FAILING)
    words = (f"data.root={root}", "data=folder", *tiny, "trainer.max_epochs=1")
    words = [*words, f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"]
    code, _, err = run(main, *words)
    assert code == 1 and err.splitlines()[-1].startswith(f"cxr: {bad}: input/output error (tried 4 times)")
    assert "Traceback" not in err and read_json(tmp_path / "run" / "status.json")["status"] == "failed"
    bad.unlink()
    shutil.copy(next(root.glob("train/NORMAL/*.png")), bad)
    assert run(main, *words)[0] == 0
    assert read_table(tmp_path / "run" / "rejected.csv") == []


@real
def test_predict_lists_what_the_disk_failed_to_read(run, folder, sweep, tmp_path, image):
    image(tmp_path / "new" / "a.png")
    (tmp_path / "new" / "b.png").symlink_to(FAILING)
    ckpt = sweep / "cnn_aug-on_seed-0" / "checkpoints" / "best.ckpt"
    code, _, _ = run(predict.main, f"ckpt={ckpt}", f"source={tmp_path / 'new'}", f"out={tmp_path / 'out.csv'}")
    assert code == 1 and [row["error"] for row in read_table(tmp_path / "out.csv")] == ["", "input/output error"]


def test_a_damaged_image_is_not_tried_again(folder, tmp_path, monkeypatch):
    (folder / "NORMAL" / "b.png").write_bytes((folder / "NORMAL" / "b.png").read_bytes()[:-99])
    (why,) = dict(open_store(read_folder(folder), 16, tmp_path / "cache")[1].rejected).values()
    monkeypatch.setattr(building, "decode", None)
    assert dict(open_store(read_folder(folder), 16, tmp_path / "cache")[1].rejected) == {"NORMAL/b.png": why}


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT])
def test_a_missing_or_closed_image_is_rejected_until_it_can_be_opened(folder, tmp_path, monkeypatch, number):
    """Until then, each start opens it, and decodes nothing."""
    opened, decoded = [], []

    def closed(path, mode, open_file=Path.open):
        if path.name == "b.png":
            opened.append(path)
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, mode)

    monkeypatch.setattr(building, "decode", lambda path, *more: decoded.append(path.name) or decode(path, *more))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", closed)
        for attempt in range(1, 4):
            _, table = open_store(read_folder(folder), 16, tmp_path / "cache")
            assert len(table) == 2 and [file for file, _ in table.rejected] == ["NORMAL/b.png"]
            assert len(opened) == attempt and decoded == ["a.png", "b.png", "c.png"]
    store, table = open_store(read_folder(folder), 16, tmp_path / "cache")
    assert len(table) == 3 and decoded[3:] == ["b.png"] and not table.rejected
    assert np.array_equal(store[1], decode(folder / "NORMAL" / "b.png", 16).pixels)


class Failing:
    """Calls of a function of the system, the first of which fail."""

    def __init__(self, function, times, path):
        self.function, self.left, self.path = function, times, str(path)

    def __call__(self, path=".", *arguments, **options):
        if str(path) == self.path and self.left:
            self.left -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return self.function(path, *arguments, **options)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *(("scandir", where) for where in ("", "TB", "NORMAL/deep")),
        *(("stat", where) for where in ("", "manifest.csv", "NORMAL/b.png")),
    ],
)
def test_nothing_is_missing_from_a_folder_that_the_disk_failed_to_list(folder, image, monkeypatch, name, where):
    """Neither an image or class, nor a manifest: without it, patients would be torn apart."""
    image(folder / "NORMAL" / "deep" / "d.png")
    (folder / "manifest.csv").write_text("file,patient\nNORMAL/a.png,p7\n")
    whole = read_folder(folder)
    assert len(whole) == 4 and whole.patient.tolist()[0] == "p7"
    for times in (1, 3):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, Failing(getattr(os, name), times, folder / where))
            again = read_folder(folder)
        assert again.file.tolist() == whole.file.tolist() and again.patient.tolist() == whole.patient.tolist()
        assert again.rejected == ()
    monkeypatch.setattr(os, name, Failing(getattr(os, name), 99, folder / where))
    with pytest.raises(ReadFailed, match=f"{folder / where}: stale file handle"):
        read_folder(folder)


def test_a_closed_folder_is_still_listed(folder, monkeypatch):
    def closed(path, scandir=os.scandir):
        if str(path).endswith("TB"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert folder / "TB" in list_files(folder)
    assert dict(read_folder(folder).rejected) == {"TB": "a folder that cannot be read: permission denied"}
