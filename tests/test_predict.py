"""What a trained network says of images without labels."""

import csv
import io
import shutil
import sys

import numpy as np
import pytest
import torch
from bad_images import BAD_IMAGES, USED
from PIL import Image

from cxr import predict
from cxr.files.writing import read_table
from cxr.models import precision


@pytest.fixture
def images(drawn, tmp_path):
    """A folder of two images and three files that are none, with names that shells and grammars dislike."""
    folder = tmp_path / "새 폴더, [1]=a"
    (folder / "deep").mkdir(parents=True)
    originals = sorted((drawn / "test" / "NORMAL").iterdir())[:2]
    for path, name in zip(originals, ("COVID19(277).jpg", 'deep/a\'b "c".png'), strict=True):
        (folder / name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    return folder


@pytest.fixture
def tested(folder, drawn, tmp_path):
    """The test images of the runs, alone in a folder."""
    for row in read_table(folder / "predictions.csv"):
        (tmp_path / "tested").mkdir(exist_ok=True)
        shutil.copy(drawn / row["file"], tmp_path / "tested")
    return tmp_path / "tested"


def test_predict_files_of_any_name(run, sweep, tmp_path):
    for number, odd in enumerate(BAD_IMAGES.values()):
        (tmp_path / "in" / f"{number:02}").mkdir(parents=True)
        odd.write(tmp_path / "in" / f"{number:02}" / odd.name)
    ckpt = sweep / "cnn_aug-on_seed-0" / "checkpoints" / "best.ckpt"
    code, out, _ = run(predict.main, f"ckpt={ckpt}", f"source={tmp_path / 'in'}")
    rows = {row["file"].split("/in/")[1]: row for row in csv.DictReader(io.StringIO(out, newline=""))}
    assert code == 1 and len(rows) == len(BAD_IMAGES)
    for number, odd in enumerate(BAD_IMAGES.values()):
        row = rows[f"{number:02}/{odd.name}".encode("utf-8", "backslashreplace").decode()]
        assert (row["prediction"] != "") == (odd.expected == USED) and (
            odd.expected == USED or odd.expected in row["error"]
        )


def test_predict_a_folder(run, sweep, images, tmp_path):
    out = tmp_path / "preds=1, 한글.csv"
    ckpt = sweep / "cnn_aug-on_seed-0" / "checkpoints" / "best.ckpt"
    code, _, err = run(predict.main, f"ckpt={ckpt}", f"source={images}", f"out={out}")
    assert code == 1 and "2 images predicted, 2 files could not be read" in err
    rows = {r["file"].removeprefix(f"{images}/"): r for r in read_table(out)}
    assert rows.keys() == {"COVID19(277).jpg", 'deep/a\'b "c".png', "broken.jpg", "notes.txt"}
    assert rows["broken.jpg"]["error"] == "not a JPEG, PNG or DICOM image" and rows["broken.jpg"]["prediction"] == ""
    good = rows["COVID19(277).jpg"]
    assert good["error"] == "" and good["prediction"] in ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS")
    assert sum(float(v) for k, v in good.items() if k.startswith("prob_")) == pytest.approx(1, abs=1e-6)
    again = run(predict.main, f"ckpt={ckpt}", f"source={images}", f"out={out}")
    assert again[0] == 2 and "does not exist yet" in again[2], "an earlier result is not overwritten"


def probabilities(rows):
    """By the name of the file, which no two images share."""
    return {
        row["file"].rsplit("/", 1)[-1]: [float(value) for key, value in row.items() if key.startswith("prob_")]
        for row in rows
    }


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("trained", ["folder", "bf16_folder"])
def test_predictions_are_those_of_the_test(run, request, tested, trained, batch):
    """In the precision of the run, whatever the batches."""
    of_run = request.getfixturevalue(trained)
    words = (f"ckpt={of_run / 'checkpoints' / 'best.ckpt'}", f"source={tested}", "trainer.accelerator=cpu")
    code, out, err = run(predict.main, *words, f"data.batch_size={batch}")
    assert code == 0 and err.count("\n") == 1
    ours = probabilities(csv.DictReader(out.splitlines()))
    theirs = probabilities(read_table(of_run / "predictions.csv"))
    assert ours.keys() == theirs.keys()
    for name, row in theirs.items():
        assert ours[name] == pytest.approx(row, abs=1e-4)


def test_a_device_without_bf16_predicts_in_fp32_and_says_so_once(run, bf16_folder, tested, monkeypatch, caplog):
    monkeypatch.setattr(precision, "can_compute", lambda dtype, device: False)
    precision.possible.cache_clear()
    words = (f"ckpt={bf16_folder / 'checkpoints' / 'best.ckpt'}", f"source={tested}", "trainer.accelerator=cpu")
    code, out, _ = run(predict.main, *words, "data.batch_size=7")
    precision.possible.cache_clear()
    (warned,) = caplog.messages
    assert code == 0 and "this device (cpu) cannot compute in bf16-mixed" in warned
    ours, theirs = (
        probabilities(csv.DictReader(out.splitlines())),
        probabilities(read_table(bf16_folder / "predictions.csv")),
    )
    far = max(abs(a - b) for name, row in theirs.items() for a, b in zip(ours[name], row, strict=True))
    assert 1e-4 < far < 0.1, "another precision, and the same network"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ckpt={ckpt}"], "source is missing"),
        (["ckpt=/no.ckpt", "source=."], "ckpt=/no.ckpt: nothing is there; must be a checkpoint"),
        (["ckpt={ckpt}", "source=/no"], "source=/no: nothing is there; must be an image or a folder"),
        (["ckpt={ckpt}", "source={ckpt}", "heatmaps={ckpt}"], "best.ckpt: must be a folder, or one that does not"),
        (["ckpt={ckpt}", "source={ckpt}", "heatmaps=/no/where"], "heatmaps=/no/where: must be a folder"),
        (["ckpt={ckpt}", "source={ckpt}", "batch=3"], "did you mean data.batch_size?"),
        (["ckpt={folder}/metrics.json", "source={ckpt}"], "not a checkpoint that cxr wrote"),
        (["ckpt={ckpt}", "source={ckpt}", "trainer.accelerator=mps"], "no such device was found"),
    ],
)
def test_predict_wrong_options(run, folder, words, says):
    if "mps" in says and torch.backends.mps.is_available():
        pytest.skip("there is such a device here")
    ckpt = folder / "checkpoints" / "best.ckpt"
    code, out, err = run(predict.main, *(w.format(ckpt=ckpt, folder=folder) for w in words))
    assert code == 2 and out == "" and err.startswith("cxr: ") and err.count("\n") == 1 and says in err


def test_heatmaps_stand_beside_the_rows(run, folder, drawn, tmp_path):
    """One picture for each image that is predicted, under a name of its own, whatever its file is called."""
    pytest.importorskip("captum", reason="captum is not installed (pip install captum)")
    original = sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()
    names = ("a/x.jpg", "b/x.jpg", "폐\n렴.jpg", f"{'각' * 80}.jpg", "c:d.jpg")
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(original)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "maps").mkdir()
    words = [f"ckpt={folder}", f"source={tmp_path / 'in'}", f"heatmaps={tmp_path / 'maps'}", "data.batch_size=2"]
    code, out, err = run(predict.main, *words, f"out={tmp_path / 'out.csv'}")
    assert code == 1 and out == "" and "cxr: Deletion test" in err and "cxr: Sanity check" in err
    rows = {row["file"].removeprefix(f"{tmp_path / 'in'}/"): row for row in read_table(tmp_path / "out.csv")}
    assert rows.pop("broken.jpg")["heatmap"] == "" and rows.keys() == set(names)
    pictures = {row["heatmap"] for row in rows.values()}
    assert len(pictures) == len(names) and pictures == {path.name for path in (tmp_path / "maps").iterdir()}
    assert rows["a/x.jpg"]["heatmap"].endswith("_x.jpg.png") and rows["폐\n렴.jpg"]["heatmap"].endswith(
        "_폐_렴.jpg.png"
    )
    for name in pictures:
        with Image.open(tmp_path / "maps" / name) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        middle = pixels.shape[1] // 2
        coloured = np.ptp(pixels[60:-60], axis=2) > 60
        assert picture.format == "PNG" and not coloured[:, :middle].any() and coloured[:, middle:].mean() > 0.02
    code, out, err = run(predict.main, *words)
    assert (code, out) == (2, "") and "must be a folder that is empty or does not exist yet" in err


def test_without_captum_one_line_before_any_image(run, folder, drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)  # as import itself marks what is not there
    code, out, err = run(predict.main, f"ckpt={folder}", f"source={drawn}", f"heatmaps={tmp_path / 'maps'}")
    assert (code, out) == (2, "") and err.endswith("heatmaps need captum: pip install 'cxr[explain]'\n")
    assert err.count("\n") == 1 and not (tmp_path / "maps").exists()
