"""What a trained network says of images without labels."""

import csv
import io
import shutil

import pytest
import torch
from bad_images import BAD_IMAGES, USED

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
        (["ckpt=/no.ckpt", "source=."], "ckpt=/no.ckpt: must be a checkpoint"),
        (["ckpt={ckpt}", "source=/no"], "source=/no: must be an image or a folder"),
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
