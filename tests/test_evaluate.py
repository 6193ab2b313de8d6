"""A network on images from elsewhere: what it has seen is left out, and the figures are those of the rest."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from cxr import evaluate
from cxr.files.writing import read_table

CKPT = "checkpoints/best.ckpt"
pytestmark = pytest.mark.filterwarnings(
    "ignore:No (positive|negative) samples"
)  # as cxr.jobs.external_evaluation has it


@pytest.fixture(scope="module")
def other(folder, drawn, tmp_path_factory):
    """All test images of the run but those of tuberculosis; beside them, altered copies of three training images, two
    images with a training patient's name, four images of an unknown class, and a file that is no image."""
    root = tmp_path_factory.mktemp("other")
    rows, manifest = read_table(folder / "split.csv"), ["file,label,patient"]
    for row in rows:
        if row["split"] == "test" and row["label"] != "TUBERCULOSIS":
            name = row["file"].rsplit("/", 1)[-1]
            (root / row["label"]).mkdir(exist_ok=True)
            shutil.copy(drawn / row["file"], root / row["label"] / name)
            manifest.append(f"{row['label']}/{name},{row['label']},{row['patient']}")
    trained = [row for row in rows if row["split"] == "train" and row["label"] == "NORMAL"]
    for number, row in enumerate(trained[:3]):
        image = Image.open(drawn / row["file"]).convert("L")
        image = image.resize([side * 3 // 4 for side in image.size], Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60)
        (root / "NORMAL" / f"copy{number}.jpg").write_bytes(file.getvalue())
        manifest.append(f"NORMAL/copy{number}.jpg,NORMAL,new-{number}")
    rng = np.random.default_rng(0)
    (root / "EFFUSION").mkdir()
    for number in range(6):
        label = "NORMAL" if number < 2 else "EFFUSION"
        noise = Image.fromarray(rng.integers(0, 256, (130, 150), dtype=np.uint8))
        noise.save(root / label / f"noise{number}.png")
        patient = trained[0]["patient"] if number < 2 else ""
        manifest.append(f"{label}/noise{number}.png,{label},{patient}")
    (root / "NORMAL" / "broken.png").write_text("no image")
    (root / "manifest.csv").write_text("\n".join(manifest))
    return root


@pytest.fixture
def evaluated(run, folder, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words, ckpt=folder / CKPT):
        options = (f"ckpt={ckpt}", "name=e", f"cache_dir={cache}")
        return (*run(evaluate.main, *options, *words), tmp_path / "runs" / "e")

    return call


def test_seen_images_and_unknown_classes_are_left_out_and_the_rest_is_scored(evaluated, other, folder):
    code, out, _, made = evaluated(f"data.root={other}")
    assert code == 0
    found = json.loads((made / "evaluation.json").read_text())
    at_home = {r["file"].rsplit("/", 1)[-1]: r for r in read_table(folder / "predictions.csv")}
    tested = sum(r["label"] != "TUBERCULOSIS" for r in at_home.values())
    assert {kind: len(files) for kind, files in found["matches"].items()} == {
        "trained": 3,
        "tested": tested,
        "patients": 2,
    }
    assert (
        found["unknown_classes"]["EFFUSION"]["images"]
        == 4
        == sum(found["unknown_classes"]["EFFUSION"]["predicted"].values())
    )
    assert found["classes_without_images"] == ["TUBERCULOSIS"]
    reasons = {row["file"]: row["reason"] for row in read_table(made / "rejected.csv")}
    assert (
        len(reasons) == 3 + 4 + 1 == found["left_out"] and "copy of the training image" in reasons["NORMAL/copy0.jpg"]
    )

    rows = read_table(made / "predictions.csv")
    assert len(rows) == found["n_test"] == tested + 2, "with the two of a patient's name that training has too"
    present = ["NORMAL", "PNEUMONIA", "COVID19"]
    own = [row for row in at_home.values() if row["label"] in present]
    for side, said in ((found, rows), (found["internal"], own)):
        labels, classes = [r["label"] for r in said], [r["prediction"] for r in said]
        macro = sk.f1_score(labels, classes, labels=present, average="macro", zero_division=0)
        assert side["test"]["f1_macro"] == pytest.approx(macro), "the mean of the classes that are there, on both sides"
        assert side["test"]["accuracy"] == pytest.approx(sk.accuracy_score(labels, classes))
    for row in rows:
        if "noise" not in row["file"]:
            assert row["prediction"] == at_home[row["file"].rsplit("/", 1)[-1]]["prediction"]
    lost = found["test"]["f1_macro"] - found["internal"]["test"]["f1_macro"]
    assert found["difference"]["f1_macro"]["difference"] == pytest.approx(lost, abs=1e-6)
    screening = json.loads((folder / "metrics.json").read_text())["screening"]
    assert (
        found["screening"]["threshold"] == screening["threshold"] and found["screening"]["test"]["sensitivity"] is None
    )
    assert "Left out as copies of training images: 3." in out and "of a training image's patient: 2." in out
    assert f"copies of images that the run was tested on: {tested}." in out and "No images of TUBERCULOSIS" in out
    assert "EFFUSION: a class that the network does not know" in out
    assert (made / "evaluation.md").read_text() in out
    assert json.loads((made / "audit.json").read_text())["rejected"][0]["file"] == "NORMAL/broken.png"


def test_seen_images_can_be_scored_or_end_it(evaluated, other):
    code, _, err, made = evaluated(f"data.root={other}", "data.on_leak=fail")
    assert code == 2 and "data.on_leak=fail: copies of images that the network was trained on: 3, such as" in err
    assert not made.exists(), "the name can be used again"
    code, _, err, _ = evaluated(f"data.root={other}", "data.on_leak=keep")
    assert code == 0 and "available" not in err and "Tip" not in err, "Lightning's own lines"
    found = json.loads((made / "evaluation.json").read_text())
    assert found["n_test"] == len(read_table(made / "predictions.csv"))
    assert "copies of training images that are scored (data.on_leak=keep): 3." in (made / "evaluation.md").read_text()


def test_the_internal_side_has_the_figures_of_the_run_itself(evaluated, drawn, folder):
    """To the ends of the intervals, where OTHER has all classes."""
    code, _, _, made = evaluated(f"data.root={drawn}", "data.on_leak=keep")
    metrics = json.loads((folder / "metrics.json").read_text())
    internal = json.loads((made / "evaluation.json").read_text())["internal"]
    assert code == 0 and internal["n_test"] == metrics["n_test"]
    for key in ("f1_macro", "accuracy", "auroc_macro"):
        assert internal["test"][key] == pytest.approx(metrics["test"][key])
        assert internal["test"]["ci95"][key] == pytest.approx(metrics["test"]["ci95"][key])
    assert internal["calibration"]["ci95"]["ece"] == pytest.approx(metrics["calibration"]["after"]["ci95"]["ece"])


@pytest.mark.parametrize("trained", ["folder", "bf16_folder"])
def test_predictions_are_those_of_the_runs_own_test(evaluated, request, drawn, trained):
    """In the precision of the run, with batches of another size."""
    of_run = request.getfixturevalue(trained)
    words = (f"data.root={drawn}", "data.on_leak=keep", "data.batch_size=7", "trainer=cpu")
    code, _, _, made = evaluated(*words, ckpt=of_run / CKPT)
    ours = {row["file"]: row for row in read_table(made / "predictions.csv")}
    theirs = read_table(of_run / "predictions.csv")
    assert code == 0 and len(ours) > len(theirs) > 0
    for row in theirs:
        assert ours[row["file"]]["label"] == row["label"]
        for key in (key for key in row if key.startswith("prob_")):
            assert float(ours[row["file"]][key]) == pytest.approx(float(row[key]), abs=1e-4)


def test_a_checkpoint_alone_is_scored_and_says_what_is_not_known(evaluated, other, folder, tmp_path):
    shutil.copy(folder / CKPT, tmp_path / "best.ckpt")
    code, out, _, made = evaluated(f"data.root={other}", ckpt=tmp_path / "best.ckpt")
    found = json.loads((made / "evaluation.json").read_text())
    assert code == 0 and found["matches"] is None and found["internal"] is None
    assert "images.npz is not beside the checkpoint" in out and "is not in its run folder" in out


@pytest.mark.parametrize("name", ["checkpoints/images.npz", "predictions.csv", "metrics.json"])
def test_a_damaged_run_folder_is_one_line(evaluated, other, folder, tmp_path, name):
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / name).write_bytes((moved / name).read_bytes()[: 3000 if "npz" in name else 1])
    code, _, err, made = evaluated(f"data.root={other}", ckpt=moved / CKPT)
    assert code == 2 and "damaged" in err and name.split("/")[-1] in err and not made.exists()


def test_of_images_of_one_class(evaluated, drawn, tmp_path):
    shutil.copytree(drawn / "test" / "COVID19", tmp_path / "one" / "covid")
    code, out, _, made = evaluated(f"data.root={tmp_path / 'one'}", "data.on_leak=keep")
    test = json.loads((made / "evaluation.json").read_text())["test"]
    assert code == 0 and test["auroc_macro"] is None and "nan" not in out
    assert test["recall_macro"] == test["accuracy"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ckpt=/no/such.ckpt", "data.root=."], "ckpt=/no/such.ckpt: nothing is there; must be a checkpoint"),
        ([], "data.root is missing"),
        (["data.root=/no/such"], "data.root=/no/such: no such folder"),
        (["data.root=.", "data.image_size=64"], "data.image_size=64: cxr.evaluate uses that of the network's training"),
        (["data.root=.", "trainer.precision=32-true"], "trainer.precision=32-true: cxr.evaluate uses that of"),
        (["data.root=.", "+trainer.precision=32"], "+trainer.precision=32: cxr.evaluate uses that of"),
        (["data.root=.", "model=cnn"], "model"),
        (["data.root=.", "data.split=given"], "data.split=given: no such option"),
    ],
)
def test_wrong_options_get_one_line(evaluated, words, says):
    code, _, err, made = evaluated(*words)
    assert code == 2 and err.startswith("cxr: ") and says in err and err.count("\n") == 1
    assert not made.exists(), "the name can be used again"


def test_images_that_cannot_be_scored_get_one_line(evaluated, folder, drawn, image, tmp_path):
    image(tmp_path / "unknown" / "EFFUSION" / "a.png")
    code, _, err, _ = evaluated(f"data.root={tmp_path}/unknown")
    assert code == 2 and "none of the images has a class that this network knows (NORMAL, PNEUMONIA" in err
    row = next(row for row in read_table(folder / "split.csv") if row["split"] == "train")
    (tmp_path / "seen" / row["label"]).mkdir(parents=True)
    shutil.copy(drawn / row["file"], tmp_path / "seen" / row["label"])
    code, _, err, made = evaluated(f"data.root={tmp_path}/seen")
    assert code == 2 and "the network was trained on all of these images" in err and not made.exists()
