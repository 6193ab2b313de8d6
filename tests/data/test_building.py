"""A store in several shards, and a build of it that was killed."""

import errno
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from cxr.data import building
from cxr.data.decode import decode
from cxr.data.shards import read_shard
from cxr.data.sources import read_folder
from cxr.data.store import open_store
from cxr.errors import UserError

# A build that takes its time: 160 images in 3 s on two cores.
BUILD = """
import sys, time
from pathlib import Path
from cxr.data import building, sources, store
fast = building.decode
building.BLOCK, building.decode = 8, lambda *image: time.sleep(0.04) or fast(*image)
store.open_store(sources.read_folder(Path(sys.argv[1])), 32, Path(sys.argv[2]), shard=50)
"""


@pytest.fixture
def images(drawn, tmp_path):
    """A folder of 160 images that a test may change."""
    shutil.copytree(drawn, tmp_path / "images")
    return tmp_path / "images"


def kill_a_build(images, cache, shards):
    """Kill a build of these images once this many shards are finished; the folder that it leaves."""
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(images), str(cache)])
    until = time.monotonic() + 30
    while len([*cache.glob("*/.building-*/images-*.json")]) < shards and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    (folder,) = cache.glob("*/.building-*")
    return folder


@pytest.fixture
def killed(images, tmp_path):
    """What a build of these images left that was killed in its second or third shard."""
    return kill_a_build(images, tmp_path / "cache", 1)


@pytest.fixture
def resumed(images, tmp_path, monkeypatch):
    """Build the store of these images: the store, its table, and the files that were decoded for it."""
    decoded = tmp_path / "decoded"

    def noting(path, *more):  # by one of several processes
        with decoded.open("a") as out:
            out.write(f"{path.relative_to(images).as_posix()}\n")
        return decode(path, *more)

    monkeypatch.setattr(building, "decode", noting)

    def build():
        decoded.write_text("")
        store, table = open_store(read_folder(images), 32, tmp_path / "cache", shard=50)
        return store, table, decoded.read_text().split()

    return build


def finished(folder):
    """The files whose images are in finished shards of a folder."""
    numbers = range(len([*folder.glob("images-*.json")]))
    return [record.file for number in numbers for record in read_shard(folder, number, 32)[1]]


def check(store, table):
    """Every image is what its file holds now."""
    for row, file in enumerate(table.file.tolist()):
        assert np.array_equal(store[row], decode(table.root / file, 32).pixels), file


def test_images_in_several_files(drawn, tmp_path):
    one, table = open_store(read_folder(drawn), 32, tmp_path)
    many, _ = open_store(read_folder(drawn), 32, tmp_path, shard=50)
    assert [len(shard) for shard in one.shards] == [160] and [len(shard) for shard in many.shards] == [50, 50, 50, 10]
    rows = np.random.default_rng(0).integers(0, 160, 40)
    for some in (rows, np.sort(rows), rows[:1], rows[:0], slice(40, 60), 157, np.int64(3), np.arange(160) % 7 == 0):
        assert np.array_equal(many[some], one[some]) and many[some].shape == one[some].shape
    assert np.array_equal(np.concatenate([images for _, images in many.parts(33)]), one[:])
    check(many, table)


def test_a_killed_build_keeps_its_finished_shards(killed, resumed, tmp_path):
    before = finished(killed)
    assert before and len(before) % 50 == 0
    store, table, decoded = resumed()
    assert sorted(before + decoded) == table.file.tolist(), "each image was decoded once, before or after"
    check(store, table)
    assert resumed()[2] == [] and not [*tmp_path.glob("cache/*/.building-*")]
    (built,) = (p for p in tmp_path.glob("cache/*/*") if p.is_dir())
    assert sorted(p.name for p in built.iterdir()) == [
        f"images-0000{i}.{end}" for i in range(4) for end in ("json", "npy")
    ]


@pytest.mark.parametrize("damage", ["torn list", "no list", "not a list", "bytes", "pixels cut", "no pixels"])
def test_a_damaged_shard_of_a_killed_build_is_decoded_again(killed, resumed, damage):
    lists, pixels = killed / "images-00000.json", killed / "images-00000.npy"
    match damage:
        case "torn list":
            lists.write_bytes(lists.read_bytes()[:-30])
        case "no list":
            lists.unlink()
        case "not a list":
            lists.write_text("[[]]")
        case "bytes":
            lists.write_bytes(b"\xff\0")
        case "pixels cut":
            os.truncate(pixels, 128 + 10 * 32**2)
        case "no pixels":
            pixels.unlink()
    store, table, decoded = resumed()
    assert {*table.file[:50].tolist()} <= {*decoded}
    check(store, table)


def test_what_changed_after_a_kill_is_decoded_again(images, killed, resumed, image):
    first, second, third, *others = finished(killed)
    image(images / first, seed=5)
    (images / second).unlink()
    os.utime(images / third, (1, 1))
    image(images / "train" / "NORMAL" / "0new.png", seed=6)  # every later image is in another row now
    store, table, decoded = resumed()
    assert len(table) == 160 and {first, third, "train/NORMAL/0new.png"} <= {*decoded}
    assert not {*others} & {*decoded}, "what did not change stays, whatever becomes of the table"
    check(store, table)


def test_a_build_that_is_killed_again_keeps_the_shards_of_both(images, killed, resumed, tmp_path):
    first = finished(killed)
    again = kill_a_build(images, tmp_path / "cache", len(first) // 50 + 1)
    done = finished(again)
    store, table, decoded = resumed()
    assert {*first} < {*done} and not {*done} & {*decoded}
    check(store, table)


def test_a_killed_build_takes_over_an_earlier_store_too(images, killed, resumed, image):
    resumed()
    image(images / "train" / "NORMAL" / "0.png", seed=7)
    store, table, decoded = resumed()
    assert decoded == ["train/NORMAL/0.png"] and len(table) == 161
    check(store, table)


def test_of_a_damaged_store_only_the_damaged_shard_is_decoded_again(resumed, tmp_path):
    _, table, _ = resumed()
    (shard,) = tmp_path.glob("cache/*/*/images-00001.npy")
    shard.write_bytes(b"half")
    store, table, decoded = resumed()
    assert sorted(decoded) == table.file[50:100].tolist()
    check(store, table)


def test_a_write_error_keeps_what_is_finished(images, resumed, tmp_path, monkeypatch):
    write = building.write_shard

    def full(folder, number, *shape_and_images):
        if number == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, number, *shape_and_images)

    with monkeypatch.context() as patch:
        patch.setattr(building, "write_shard", full)
        with pytest.raises(UserError, match="cache_dir.*No space left on device; choose another cache_dir"):
            resumed()
    store, table, decoded = resumed()
    assert sorted(decoded) == table.file[100:].tolist()
    check(store, table)


def test_a_write_that_the_system_cuts_short_is_never_taken_for_done(images, resumed, tmp_path):
    """The system writes a part of what it is given, and refuses the rest: here at a limit, elsewhere on a full disk."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n" + BUILD
    command = [sys.executable, "-c", limited, str(images), str(tmp_path / "cache")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1].endswith(
        "File too large; choose another cache_dir=DIR"
    )
    assert not [*tmp_path.glob("cache/*/*/*")], "a shard has 51,328 bytes"
    store, table, decoded = resumed()
    assert sorted(decoded) == table.file.tolist()
    check(store, table)
