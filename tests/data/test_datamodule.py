import errno
import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxr.data import building, datamodule
from cxr.data.audit import SIZE
from cxr.data.batches import Batch, SeededOrder, copy_images
from cxr.data.datamodule import CXRDataModule
from cxr.data.decode import BadImage, decode
from cxr.data.run_tables import write_tables
from cxr.errors import UserError
from cxr.files.writing import read_table

AUG = {"flip": 0.5, "degrees": 10, "crop": 0.1}


@pytest.fixture
def build(cache):
    def make(root, **options):
        data = {
            "source": "folder",
            "root": str(root),
            "image_size": 32,
            "split": "pooled",
            "folds": 5,
            "fold": 0,
            "hold_out": None,
            "sampler": "uniform",
            "split_seed": 0,
            "test_fraction": 0.2,
            "val_fraction": 0.1,
            "on_leak": "drop",
            "copies": "near",
            "on_bad": "skip",
            "negatives": "keep",
            "dicom_patient": "hash",
            "dicom_unknown_parts": "reject",
            "batch_size": 16,
            "num_workers": "auto",
            "resident": "auto",
        }
        module = CXRDataModule(data | options, AUG, seed=0, cache=cache)
        module.setup()
        return module

    return make


def test_batches_hold_each_image_of_a_split_once(build, drawn):
    module = build(drawn)
    for split in ("train", "val", "test"):
        batches = list(module.loader(split))
        index = torch.cat([b.index for b in batches])
        assert sorted(index.tolist()) == module.rows(split).tolist()
        for b in batches:
            assert b.images.dtype == torch.uint8 and b.images.shape[1:] == (1, 32, 32)
            assert np.array_equal(b.images[:, 0].numpy(), module.store[b.index.numpy()])
            assert np.array_equal(b.labels.numpy(), module.images.label[b.index])


def test_workers_change_nothing(build, drawn):
    alone, helped = (list(build(drawn, num_workers=n).loader("train")) for n in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.index, b.index)


def test_images_kept_on_a_device_make_the_same_batches(build, drawn):
    """The device is the CPU here: what a GPU is given is the same copy, cut by the same code."""
    module = build(drawn)
    mapped = list(module.loader("train"))
    copy = copy_images(module.store, torch.device("cpu"))
    assert copy.shape == (len(module.images), 1, 32, 32) and copy.dtype == torch.uint8
    module.place_images = lambda device: copy
    for a, b in zip(mapped, module.loader("train"), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.index, b.index)


def test_images_go_to_a_gpu_where_they_fit(build, drawn, monkeypatch):
    module, gpu = build(drawn), torch.device("cuda", 0)
    needed = module.store.nbytes
    monkeypatch.setattr(datamodule, "copy_images", lambda store, device: torch.empty(1))
    for free, fits in ((4 * needed, True), (4 * needed - 4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert isinstance(module.place_images(gpu), torch.Tensor) == fits
    assert build(drawn, resident=True).place_images(gpu) is not module.store
    assert build(drawn, num_workers=2).place_images(gpu).size == 32, "workers cannot read from a GPU"
    with pytest.raises(UserError, match="no GPU was found"):
        build(drawn, resident=True).place_images(torch.device("cpu"))
    with pytest.raises(UserError, match="workers cannot read from a GPU"):
        build(drawn, resident=True, num_workers=2).place_images(gpu)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = SeededOrder(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert sorted(order(1, 2)) == list(range(50))
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_no_batch_of_one_image_in_training(build, drawn):
    n = len(build(drawn).rows("train"))
    batches = [len(b.labels) for b in build(drawn, batch_size=n - 1).loader("train")]
    assert batches == [n - 1]


def test_tables(build, drawn, tmp_path):
    module = build(drawn, split="given")
    assert module.leak_counts() == {"on_leak": "drop", "images": int((module.split == "unused").sum())}
    write_tables(module, tmp_path)
    rows = read_table(tmp_path / "split.csv")
    assert [r["file"] for r in rows] == module.images.file.tolist()
    assert {r["split"] for r in rows} == {"train", "val", "test", "unused"}
    sides = {}
    for r in rows:
        if r["split"] != "unused":
            sides.setdefault(r["patient"], set()).add(r["split"])
    assert all(len(s) == 1 for s in sides.values())
    assert (tmp_path / "rejected.csv").read_text() == "file,reason\n"


def test_examples_show_the_same_images_before_and_after(build, drawn):
    before, after, rows = build(drawn).examples(8)
    assert before.shape == after.shape == (8, 32, 32)
    assert len(set(rows.tolist())) == 8
    for images in (before, after):
        assert images.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
    assert np.abs(before.mean((1, 2)) - after.mean((1, 2))).max() < 0.15, "of one scale"
    assert not np.allclose(before, after)


def test_one_class_is_no_task(build, tmp_path, image):
    for i in range(9):
        image(tmp_path / "NORMAL" / f"{i}.png", seed=i)
    with pytest.raises(UserError, match="one class only"):
        build(tmp_path)


def test_what_is_hidden_is_hidden_from_the_network_alone(build, drawn):
    module = build(drawn)
    module.trainer = SimpleNamespace(training=False)
    batch = Batch(torch.from_numpy(module.store[:4])[:, None], torch.zeros(4), torch.arange(4), 4)
    module.hidden = "lungs"
    seen = module.on_after_batch_transfer(batch, 0).images
    assert (seen[:, :, 16, 16] == 0).all() and (seen[:, :, 0] == batch.images[:, :, 0] / 255).all()
    module.hidden = ""
    assert torch.equal(module.on_after_batch_transfer(batch, 0).images, batch.images / 255)


def test_rules_are_worked_out_once_a_split(build, drawn, monkeypatch):
    module = build(drawn)
    first = module.shortcut_predictions(module.rows("test"))
    monkeypatch.setattr(
        "cxr.data.shortcuts.shortcut_predictions", lambda *arguments: dict.fromkeys(first, arguments[3] * 0)
    )
    again = build(drawn).shortcut_predictions(module.rows("test"))
    assert first.keys() == again.keys() and all(np.array_equal(first[name], again[name]) for name in first)
    other = build(drawn, split_seed=1)
    assert not any(other.shortcut_predictions(other.rows("test"))["majority_class"])


@pytest.mark.parametrize("refused", [32, SIZE])
@pytest.mark.parametrize("error", [BadImage("damaged"), PermissionError(errno.EACCES, "Permission denied")])
def test_an_image_that_one_store_lacks_is_a_row_of_none(build, drawn, tmp_path, monkeypatch, refused, error):
    """Copies, shortcuts and fingerprints look at one store, training at the other, by the same rows."""
    shutil.copytree(drawn, tmp_path / "in")
    lost = "train/NORMAL/" + sorted(path.name for path in (tmp_path / "in" / "train" / "NORMAL").iterdir())[3]

    def read(path, size, reading):
        if size == refused and path == tmp_path / "in" / lost:
            raise error
        return decode(path, size, reading)

    with monkeypatch.context() as patch:
        patch.setattr(building, "decode", read)
        module = build(tmp_path / "in")
    assert len(module.images) == 159 and [file for file, _ in module.images.rejected] == [lost]
    for row, file in enumerate(module.images.file.tolist()):
        path = tmp_path / "in" / file
        assert np.array_equal(module.store[row], decode(path, 32).pixels)
        assert np.array_equal(module.compared[row], decode(path, SIZE).pixels)
        assert module.compared.facts["sha256"][row] == hashlib.sha256(path.read_bytes()).hexdigest()
    again = build(tmp_path / "in")
    assert len(again.images) == (159 if isinstance(error, BadImage) else 160)


def test_training_says_loudly_that_no_patient_is_known(build, drawn, tmp_path, caplog):
    for number, path in enumerate(sorted(drawn.rglob("*.*g"))):
        (tmp_path / "set" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "set" / path.parent.name / f"{number}{path.suffix}")
    build(tmp_path / "set")
    (warning,) = [record for record in caplog.records if "no patient is known" in record.message]
    assert warning.levelname == "WARNING" and "each of the 160 images counts as a patient of its own" in warning.message
