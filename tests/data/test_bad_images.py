"""However bad an image's file is: it is used, or listed with its reason."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bad_images import BAD_IMAGES, USED, ramp
from PIL import Image

from cxr.data import building, grey
from cxr.data import decode as decode_module
from cxr.data.building import BLOCK
from cxr.data.cache import built
from cxr.data.datamodule import CXRDataModule
from cxr.data.decode import MAX_PIXELS, decode
from cxr.data.files import list_files, not_an_image
from cxr.data.run_tables import write_tables
from cxr.data.sources import read_folder
from cxr.data.store import open_store
from cxr.errors import UserError, printable
from cxr.files.writing import read_json, read_table, write_json, write_table


@pytest.fixture
def good(tmp_path, image):
    """A folder of two images, one a class."""
    for i, name in enumerate(("NORMAL/good.png", "TB/good.png")):
        image(tmp_path / "in" / name, seed=i)
    return tmp_path / "in"


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_used_or_listed_with_its_reason(good, tmp_path, kind):
    odd = BAD_IMAGES[kind]
    name = f"NORMAL/deep/{odd.name}"
    (good / "NORMAL" / "deep").mkdir()
    odd.write(good / name)
    store, images = open_store(read_folder(good), 32, tmp_path / "cache")
    assert sorted({*images.file.tolist(), *dict(images.rejected)}) == sorted({name, "NORMAL/good.png", "TB/good.png"})
    if odd.expected != USED:
        assert odd.expected in dict(images.rejected)[name] and len(store) == 2
        return
    assert images.rejected == () and len(store) == 3
    corners = store[images.file.tolist().index(name)][[2, 2, -3, -3], [2, -3, 2, -3]].tolist()
    brightest = {"EXIF-rotated JPEG": 2, "EXIF-rotated PNG": 1}.get(kind, 3)
    assert max(corners) - min(corners) > 80 and corners.index(max(corners)) == brightest, "a ramp, the right way up"


def test_grey_is_made_band_by_band_to_the_same_bytes(tmp_path, monkeypatch):
    for name, odd in BAD_IMAGES.items():
        if odd.expected != USED:
            continue
        path = tmp_path / "in" / "NORMAL" / name / "odd"
        path.parent.mkdir(parents=True)
        odd.write(path)
        whole = decode(path, 24)
        with monkeypatch.context() as patch:
            patch.setattr(grey, "BAND", 700)
            banded = decode(path, 24)
        assert np.array_equal(whole.pixels, banded.pixels) and whole[1:] == banded[1:], name


def test_an_error_that_is_not_the_image_s_names_the_image(tmp_path, image, monkeypatch):
    path = image(tmp_path / "a\n.png")
    monkeypatch.setattr(decode_module, "to_grey", lambda image: 1 / 0)
    monkeypatch.setattr(decode_module, "UNREADABLE", ())
    with pytest.raises(ZeroDivisionError) as caught:
        decode(path, 16)
    assert caught.value.__notes__ == [f"while decoding {tmp_path}/a\\n.png"]


# Opens a store twice with little memory left, then with all of it.
LIMITED = """
import resource, sys
from pathlib import Path
from cxr.data.sources import read_folder
from cxr.data.store import open_store
folder, cache = map(Path, sys.argv[1:])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, hard))
for _ in range(2):
    table = open_store(read_folder(folder), 16, cache)[1]
    print(len(table), table.rejected)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
print(len(open_store(read_folder(folder), 16, cache)[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_an_image_for_which_memory_runs_out_is_named_and_the_others_are_used(tmp_path, image):
    for number in range(4):
        image(tmp_path / "in" / ("NORMAL", "TB")[number % 2] / f"{number}.png")
    Image.new("L", (10_000, 3_500)).save(tmp_path / "in" / "TB" / "large.png", compress_level=1)
    command = [sys.executable, "-c", LIMITED, tmp_path / "in", tmp_path / "cache"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    reason = "needs more memory than this machine has free (500 MB per core are enough)"
    assert ended.stdout.splitlines() == [f"4 (('TB/large.png', '{reason}'),)"] * 2 + ["5"]


def test_ranks_do_not_look_again_for_memory_but_wait_for_the_next_command(good, tmp_path, monkeypatch):
    """Each would look at another moment, and could have other images."""
    path, to_grey = good / "NORMAL" / "good.png", decode_module.to_grey
    Image.open(path).resize((90, 90)).save(path)
    monkeypatch.setattr(decode_module, "to_grey", lambda i: to_grey(i) if i.size != (90, 90) else bytearray(2**62))
    assert [file for file, _ in open_store(read_folder(good), 16, tmp_path / "cache")[1].rejected] == [
        "NORMAL/good.png"
    ]
    monkeypatch.setattr(decode_module, "to_grey", to_grey)
    with monkeypatch.context() as ranks:
        ranks.setenv("RANK", "1")
        assert len(open_store(read_folder(good), 16, tmp_path / "cache")[1].rejected) == 1
    assert not open_store(read_folder(good), 16, tmp_path / "cache")[1].rejected


# The costliest kinds: a progressive JPEG, of which libjpeg keeps all coefficients, and four bytes a pixel with alpha.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_no_file_takes_more_than_500_mb(tmp_path, kind):
    part = 4  # of the most pixels there may be: memory grows with them, and so does the time of this test
    path, size = tmp_path / "large", (MAX_PIXELS // part // 600, 600)
    if kind == "JPEG":
        Image.new("CMYK", size).save(path, kind, progressive=True, subsampling=0)
    else:
        Image.new("RGBA", size).save(path, kind, compress_level=1)
    code = (
        "import sys, re; from pathlib import Path; from cxr.data.decode import decode\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1e3\n"
        "decode(Path(sys.argv[2]), 224); before = peak(); decode(Path(sys.argv[1]), 224); print(peak() - before)"
    )
    ramp().save(tmp_path / "small.png")
    command = [sys.executable, "-c", code, path, tmp_path / "small.png"]
    taken = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 100 < part * taken < 500


# Reads a folder as a user who is not root, who may read everything.
READ = """
import json, mmap, os, sys, tempfile
from pathlib import Path
from PIL import Image
from cxr.data.sources import read_folder
from cxr.data.store import open_store
from cxr.errors import UserError
Image.preinit()
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
root = Path(sys.argv[1])
if not os.access(root.parent, os.X_OK):
    sys.exit(3)
try:
    images = read_folder(root)
except UserError as error:
    print(error)
    sys.exit(2)
with tempfile.TemporaryDirectory() as cache:
    images = open_store(images, 16, Path(cache))[1]
print(json.dumps([images.file.tolist(), dict(images.rejected)]))
"""


@pytest.fixture
def read_closed(good):
    """Takes all permissions from paths below a folder, and reads it; gives them back, so that it can be removed."""
    before = {}
    for folder in good.parents:  # another user has to come so far; what lies beside it stays unseen
        if folder.stat().st_uid == os.getuid() and Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o011)

    def read(*closed):
        for path in closed:
            before[path] = path.stat().st_mode
            path.chmod(0)
        done = subprocess.run([sys.executable, "-c", READ, str(good)], capture_output=True, text=True)
        if done.returncode == 3:
            pytest.skip("another user cannot come to the temporary folder of this test")
        assert not done.stderr
        return done.stdout.strip()

    yield read
    for path, mode in reversed(before.items()):
        path.chmod(mode)


@pytest.mark.parametrize(
    ("closed", "reason"),
    [
        ("NORMAL/b.png", "permission denied"),
        ("NORMAL/deep", "a folder that cannot be read: permission denied"),
        ("COVID", "a folder that cannot be read: permission denied"),
    ],
)
def test_what_we_may_not_read_is_listed(good, read_closed, image, closed, reason):
    for name in ("NORMAL/b.png", "NORMAL/deep/c.png", "COVID/d.png"):
        image(good / name)
    files, rejected = json.loads(read_closed(good / closed))
    assert rejected == {closed: reason} and len(files) == 4


def test_closed_split_folders_are_listed_or_one_line(good, read_closed, image):
    for name in ("train/NORMAL/a.png", "train/TB/b.png", "test/NORMAL/c.png"):
        image(good / name)
    files, rejected = json.loads(read_closed(good / "test"))
    assert len(files) == 2 and rejected["test"] == "a folder that cannot be read: permission denied"
    message = read_closed(good / "train")
    assert "no images found" in message and "permission denied" in message and "\n" not in message


def test_a_closed_root_is_one_line(good, read_closed):
    assert read_closed(good) == f"data.root={good}: a folder that cannot be read: permission denied"


def test_links_to_folders_that_are_not_there_are_listed(good):
    (good / "COVID").symlink_to("/not/mounted")
    assert read_folder(good).rejected == (("COVID", "a broken link"),)


def test_nothing_but_files_is_opened_by_predict(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (path,) = list_files(tmp_path)
    assert not_an_image(path) == "a pipe, socket or device, not a file"


def options(root, **more):
    return {
        **{"source": "folder", "root": str(root), "image_size": 32, "split": "pooled", "split_seed": 0},
        **{"folds": 5, "fold": 0, "hold_out": None},
        **{
            "test_fraction": 0.2,
            "val_fraction": 0,
            "on_leak": "drop",
            "on_bad": "skip",
            "negatives": "keep",
            "dicom_patient": "hash",
            "dicom_unknown_parts": "reject",
            "copies": "near",
            "batch_size": 16,
        },
        **{"num_workers": 0, "resident": "auto"},
        **more,
    }


NO_AUG = {"flip": 0, "degrees": 0, "crop": 0}


@pytest.fixture
def all_kinds(tmp_path, image):
    """A folder with all kinds at once, beside twelve good images, and what was read of it."""
    root = tmp_path / "in"
    for i in range(12):
        image(root / ("NORMAL", "TB")[i % 2] / f"{i}.png", seed=i)
    names = {}
    for number, odd in enumerate(BAD_IMAGES.values()):
        name = f"NORMAL/{number:02}/{odd.name}"
        (root / name).parent.mkdir()
        odd.write(root / name)
        names[name] = odd.expected
    return root, names


def test_all_kinds_at_once_go_through_every_table(all_kinds, tmp_path, caplog, monkeypatch):
    root, names = all_kinds
    monkeypatch.setattr("cxr.data.copies.find_copies", lambda store: [])  # all ramps are copies of each other
    data = CXRDataModule(options(root), NO_AUG, 0, tmp_path / "cache")
    with caplog.at_level(logging.INFO):
        data.setup()
    lines = [record.getMessage() for record in caplog.records]
    assert all(line.isprintable() for line in lines) and not any(line.startswith("not used: b") for line in lines)
    assert dict(data.images.rejected).keys() == {name for name, expected in names.items() if expected != USED}
    (tmp_path / "out").mkdir()
    write_tables(data, tmp_path / "out")
    expected = {os.fsencode(name).decode("utf-8", "surrogateescape") for name in names}
    written = [r["file"] for name in ("split.csv", "rejected.csv") for r in read_table(tmp_path / "out" / name)]
    assert {n.encode("utf-8", "backslashreplace").decode() for n in expected} <= set(written)
    rejected = read_json(tmp_path / "out" / "audit.json")["rejected"]
    assert [(row["file"], row["reason"]) for row in rejected] == list(data.images.rejected)


def test_on_bad_fail_names_the_first_before_anything_is_trained(good, tmp_path):
    BAD_IMAGES["bad image with a newline"].write(good / "NORMAL" / "c\n.png")
    BAD_IMAGES["text"].write(good / "TB" / "d.png")
    with pytest.raises(UserError) as caught:
        CXRDataModule(options(good, on_bad="fail"), NO_AUG, 0, tmp_path / "cache").setup()
    message = str(caught.value)
    assert message.startswith(f"data.on_bad=fail: 2 files in {good} cannot be used (such as ")
    assert "NORMAL/c\\n.png: empty file)" in message and "\n" not in message and "use skip" in message


def test_a_name_stands_on_one_line_and_comes_back_from_json(tmp_path):
    name = os.fsdecode(b"a\n\x1b[2J\xff \xed\x95\x9c.png")
    assert printable(name) == "a\\n\\x1b[2J\\udcff 한.png"
    write_json(tmp_path / "a.json", {"file": name})
    assert read_json(tmp_path / "a.json") == {"file": name}
    write_table(tmp_path / "a.csv", ["file"], [[name]])
    assert read_table(tmp_path / "a.csv") == [{"file": name.replace("\udcff", "\\udcff")}]


def test_a_killed_process_is_one_line(drawn, tmp_path, monkeypatch):
    images = read_folder(drawn)
    killed = images.root / str(images.file[BLOCK + 3])
    decode = building.decode
    monkeypatch.setattr(
        building, "decode", lambda path, *more: os.kill(os.getpid(), 9) if path == killed else decode(path, *more)
    )
    with pytest.raises(UserError, match="was killed, most likely because memory ran out") as caught:
        open_store(images, 16, tmp_path)
    assert str(images.root / str(images.file[BLOCK])) in str(caught.value)
    monkeypatch.setattr(building, "decode", decode)
    assert len(open_store(images, 16, tmp_path)[0]) == len(images), "goes on with what the others decoded"
    assert not list(tmp_path.glob("*/.building-*"))


@pytest.mark.parametrize("damage", ["gone", "empty", "another shape", "list cut", "an image short"])
def test_a_damaged_store_is_built_anew(good, tmp_path, damage):
    before, images = open_store(read_folder(good), 16, tmp_path / "cache")
    pixels = before[:].copy()
    (shard,) = (tmp_path / "cache").glob("*/*/images-00000.npy")
    records = shard.with_suffix(".json")
    match damage:
        case "gone":
            shard.unlink()
        case "empty":
            shard.write_bytes(b"")
        case "another shape":
            np.save(shard, np.zeros((2, 8, 8), dtype=np.uint8))
        case "list cut":
            records.write_text(records.read_text()[:-9])
        case "an image short":
            records.write_text(json.dumps(json.loads(records.read_text())[:-1]))
    store, again = open_store(read_folder(good), 16, tmp_path / "cache")
    assert np.array_equal(store[:], pixels) and again.file.tolist() == images.file.tolist()


def test_what_killed_builds_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".building-1234").mkdir()
    (tmp_path / ".building-1234" / "half.png").write_bytes(b"x")
    with built(tmp_path / "whole", lambda folder: (folder / "a").write_text("x")) as folder:
        assert (folder / "a").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "whole"]
