"""A store in several files, and a build of it that was killed."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from cxr.data import building
from cxr.data.building import JOURNAL
from cxr.data.decode import decode
from cxr.data.sources import read_folder
from cxr.data.store import open_store

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
    """A folder of 160 images of one's own."""
    shutil.copytree(drawn, tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def killed(images, tmp_path):
    """The journal of a build of these images that was killed in the middle."""
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(images), str(tmp_path / "cache")])
    until, journal = time.monotonic() + 30, None
    while (journal is None or len(lines(journal)) < 16) and time.monotonic() < until:
        time.sleep(0.02)
        journal = next((tmp_path / "cache").glob(f"*/.building-*/{JOURNAL}"), None)
    process.kill()
    process.wait()
    assert 16 <= len(lines(journal)) < 160
    # Its workers end a moment later: under another name, they write nothing more into what a test spoils.
    return journal.parent.rename(journal.parent.with_name(".building-killed")) / JOURNAL


@pytest.fixture
def resumed(images, tmp_path, monkeypatch):
    """Build the store of these images: the store, its table, and the files that were decoded for it."""
    said = tmp_path / "decoded"

    def noted(path, size):  # by one of several processes
        with said.open("a") as out:
            out.write(f"{path.relative_to(images).as_posix()}\n")
        return decode(path, size)

    monkeypatch.setattr(building, "decode", noted)

    def build():
        said.write_text("")
        store, table = open_store(read_folder(images), 32, tmp_path / "cache", shard=50)
        return store, table, said.read_text().split()

    return build


def lines(journal):
    """The names in a journal, less a line that is being written."""
    return [json.loads(text)[0] for text in journal.read_text().splitlines(keepends=True) if text.endswith("\n")]


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
    assert np.array_equal(np.concatenate([*many.parts(33)]), one[:])
    check(many, table)


def test_a_killed_build_goes_on_where_it_was(killed, resumed, tmp_path):
    before = lines(killed)
    store, table, decoded = resumed()
    assert sorted(before + decoded) == table.file.tolist(), "each image was decoded once, before or after"
    check(store, table)
    assert resumed()[2] == [] and not [*tmp_path.glob("cache/*/.building-*")]
    (built,) = (p for p in tmp_path.glob("cache/*/*") if p.is_dir())
    assert sorted(p.name for p in built.iterdir()) == [*(f"images-0000{i}.npy" for i in range(4)), "index.csv"]


@pytest.mark.parametrize("end", [b'["train/NORMAL/draw', b"\0" * 50, b"[]\n", b"\xff\n"])
def test_the_torn_end_of_a_journal_is_dropped(killed, resumed, end):
    before = lines(killed)
    killed.write_bytes(killed.read_bytes()[: len(killed.read_text().rpartition("\n")[0]) + 1] + end)
    store, table, decoded = resumed()
    assert sorted(before + decoded) == table.file.tolist()
    check(store, table)


def test_what_changed_after_a_kill_is_decoded_again(images, killed, resumed, image):
    first, second, third, *others = lines(killed)
    image(images / first, seed=5)
    (images / second).unlink()
    os.utime(images / third, (1, 1))
    image(images / "train" / "NORMAL" / "0new.png", seed=6)  # every later image is in another row now
    store, table, decoded = resumed()
    assert len(table) == 160 and {first, third, "train/NORMAL/0new.png"} <= {*decoded}
    assert not {*others} & {*decoded}, "what did not change stays, whatever becomes of the table"
    check(store, table)


def test_a_build_that_is_killed_again_goes_on_again(images, killed, resumed, tmp_path):
    first = lines(killed)
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(images), str(tmp_path / "cache")])
    until, journals = time.monotonic() + 30, []
    while (not journals or len(lines(journals[0])) < len(first) + 16) and time.monotonic() < until:
        time.sleep(0.02)
        journals = [j for j in tmp_path.glob(f"cache/*/.building-*/{JOURNAL}") if j != killed]
    process.kill()
    process.wait()
    assert len([*tmp_path.glob("cache/*/.building-*")]) == 1
    done = lines(journals[0])
    store, table, decoded = resumed()
    assert {*first} < {*done} and not {*done} & {*decoded}
    check(store, table)


def test_images_of_a_lost_file_are_decoded_again(killed, resumed):
    before = lines(killed)
    os.truncate(killed.with_name("images-00000.npy"), 128 + 10 * 32**2)
    store, table, decoded = resumed()
    kept = [file for row, file in enumerate(table.file.tolist()) if file in before and not 10 <= row < 50]
    assert kept and sorted(kept + decoded) == table.file.tolist()
    check(store, table)


def test_a_killed_build_takes_over_an_earlier_store_too(images, killed, resumed, image):
    resumed()
    image(images / "train" / "NORMAL" / "0.png", seed=7)
    store, table, decoded = resumed()
    assert decoded == ["train/NORMAL/0.png"] and len(table) == 161
    check(store, table)
