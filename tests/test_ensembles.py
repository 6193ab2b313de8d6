"""Several networks as one: what cxr.predict and cxr.evaluate make of the checkpoints of a sweep."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn import metrics as sk

from cxr import evaluate, predict
from cxr.errors import UserError
from cxr.evaluation.averaging import log_mean
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.screening import choose_threshold
from cxr.files.predictions import read_predictions
from cxr.files.run_folder import VAL_PREDICTIONS
from cxr.files.status import write_status
from cxr.files.writing import read_json, read_table, write_json
from cxr.jobs import file_predictions
from cxr.jobs.members import find_checkpoints
from cxr.train import main

CKPT = "checkpoints/best.ckpt"
pytestmark = pytest.mark.filterwarnings("ignore:No (positive|negative) samples")


@pytest.fixture(scope="module")
def train(small, tmp_path_factory):
    """Train in a new folder, whose name has a comma."""

    def make(*words):
        folder = tmp_path_factory.mktemp("a, b") / "s"
        kind = "sweep" if "-m" in words else "run"
        with pytest.MonkeyPatch.context() as patch:
            words = [*words, "trainer=cpu", "trainer.max_epochs=2", "optim.lr=0.003", f"hydra.{kind}.dir={folder}"]
            options = [word for word in small if word.partition("=")[0] not in {w.partition("=")[0] for w in words}]
            patch.setattr("sys.argv", ["train", *words, *options])
            main()
        return folder

    return make


@pytest.fixture(scope="module")
def seeds(train):
    """A sweep of one recipe, with enough validation images for a threshold."""
    return train("-m", "seed=0,1", "data.val_fraction=0.3", "screen.sensitivity=0.5", "screen.confidence=0.6")


@pytest.fixture(scope="module")
def folds(train):
    return train("-m", "data.split=folds", "data.folds=2", "data.fold=all")


def runs_of(sweep):
    return sorted(path.parent for path in sweep.glob("*/status.json"))


@pytest.fixture
def predicted(run, drawn):
    """Predict all drawn images: {file: its row's prediction and probabilities}, and the lines on the console."""

    def call(*ckpt):
        words = (f"ckpt={','.join(map(str, ckpt))}", f"source={drawn}", "trainer.accelerator=cpu")
        code, out, err = run(predict.main, *words)
        assert code == 1 and "160 images predicted, 1 file could not be read" in err  # manifest.csv
        rows = [row for row in csv.DictReader(out.splitlines()) if not row["error"]]
        return {row.pop("file").removeprefix(f"{drawn}/"): row for row in rows}, err

    return call


def as_array(rows, files):
    columns = [key for key in next(iter(rows.values())) if key.startswith("prob_")]
    return np.array([[float(rows[file][key]) for key in columns] for file in files])


def as_together(runs, name):
    """The logarithm of the mean of the runs' probabilities, the numbers of the classes, and the first run's table."""
    parts = [read_predictions(run, name) for run in runs]
    assert len({tuple(part["files"]) for part in parts}) == 1
    labels = np.array([parts[0]["classes"].index(label) for label in parts[0]["labels"]])
    return log_mean([part["probabilities"] for part in parts]), labels, parts[0]


def test_a_run_keeps_its_validation_predictions(folder):
    rows, split = read_table(folder / VAL_PREDICTIONS), read_table(folder / "split.csv")
    assert [row["file"] for row in rows] == [row["file"] for row in split if row["split"] == "val"]
    confusion = np.array(read_json(folder / "metrics.json")["val"]["confusion_matrix"])
    assert sum(row["label"] == row["prediction"] for row in rows) == confusion.trace() and len(rows) == confusion.sum()


def test_a_sweep_predicts_the_calibrated_mean_and_the_classes_that_the_leaderboard_counts(seeds, predicted):
    rows, err = predicted(seeds)
    log_probabilities, labels, _ = as_together(runs_of(seeds), VAL_PREDICTIONS)
    temperature = fit_temperature(log_probabilities, labels)
    assert f"ensemble of 2 networks, calibrated again on the {len(labels)} images that all validated on" in err
    assert f"(temperature {temperature:.3g})" in err
    log_probabilities, labels, tested = as_together(runs_of(seeds), "predictions.csv")
    ours = as_array(rows, tested["files"])
    assert ours == pytest.approx(softmax(log_probabilities / temperature, axis=1), abs=1e-4)
    (summary,) = read_json(seeds / "comparisons.json")["recipes"]
    truth, classes = tested["labels"], [rows[file]["prediction"] for file in tested["files"]]
    assert summary["ensemble"]["accuracy"]["mean"] == pytest.approx(sk.accuracy_score(truth, classes))
    assert summary["ensemble"]["f1_macro"]["mean"] == pytest.approx(sk.f1_score(truth, classes, average="macro"))
    assert "ensemble of 2 seeds" in (seeds / "leaderboard.md").read_text()

    first, second = runs_of(seeds)
    assert predicted(first / CKPT, second)[0] == rows, "named one by one: a checkpoint, and a run folder"
    alone, err = predicted(first)
    assert alone == predicted(first / CKPT)[0] != rows and "ensemble" not in err


def test_networks_of_other_sizes_and_precisions_compute_as_they_were_trained(
    train, bf16_folder, folder, predicted, monkeypatch
):
    """Three networks of two image sizes: two decodings of each file, and the mean of what each predicts alone."""
    larger = train("data.image_size=48")
    each, decoded, decode = [predicted(run)[0] for run in (folder, bf16_folder, larger)], [], file_predictions.decode
    monkeypatch.setattr(file_predictions, "decode", lambda *args: decoded.append(args) or decode(*args))
    rows, err = predicted(folder, bf16_folder, larger)
    assert len(decoded) == len(set(decoded)) == 2 * len(rows) and {size for _, size, _ in decoded} == {32, 48}
    (temperature,) = [float(line.split("temperature ")[1][:-1]) for line in err.splitlines() if "temperature" in line]
    mean = log_mean([as_array(of_one, rows).astype(np.float32) for of_one in each])
    assert as_array(rows, rows) == pytest.approx(softmax(mean / temperature, axis=1), abs=2e-3)  # it is rounded


@pytest.mark.long
def test_without_common_validation_images_the_mean_stays_as_it_is(folds, seeds, predicted, tmp_path):
    first, second = runs_of(folds)
    rows, err = predicted(folds)
    assert "ensemble of 2 networks, not calibrated again: no image was validated by all of them\n" in err
    mean = np.mean([as_array(predicted(run)[0], rows) for run in (first, second)], axis=0)
    assert as_array(rows, rows) == pytest.approx(mean, abs=1e-6)
    for number, run in enumerate(runs_of(seeds)):
        shutil.copy(run / CKPT, tmp_path / f"{number}.ckpt")
    rows, err = predicted(tmp_path / "0.ckpt", tmp_path / "1.ckpt")
    assert f"not calibrated again: {tmp_path.resolve()}/0.ckpt is not in its run folder, or this lacks metrics." in err
    mean = np.mean([as_array(predicted(run)[0], rows) for run in runs_of(seeds)], axis=0)
    assert as_array(rows, rows) == pytest.approx(mean, abs=1e-6)
    last = first / "checkpoints" / "last.ckpt"
    assert f"{last} is not the checkpoint that its run has tested, best.ckpt" in predicted(last, second)[1]


def test_images_of_the_same_name_are_not_the_same(seeds, predicted, tmp_path):
    first, second = runs_of(seeds)
    other = shutil.copytree(second, tmp_path / "other")
    kept = dict(np.load(other / "checkpoints" / "images.npz"))
    kept["sha256"] = np.array([text[::-1] for text in kept["sha256"]])
    with (other / "checkpoints" / "images.npz").open("wb") as file:
        np.savez(file, **kept)
    assert "no image was validated by all of them" in predicted(first, other)[1]


def renamed(checkpoint, path):
    """The same network with another class."""
    kept = torch.load(checkpoint, weights_only=True)
    kept["hyper_parameters"]["classes"] = [*kept["hyper_parameters"]["classes"][:3], "EFFUSION"]
    torch.save(kept, path)
    return path


def test_networks_that_do_not_belong_together_get_one_line(run, sweep, folder, drawn, tmp_path):
    other = renamed(folder / CKPT, tmp_path / "other.ckpt")
    on, off = sweep / "cnn_aug-on_seed-0", sweep / "cnn_aug-off_seed-0"
    for ckpt, says in {
        sweep: f"this sweep has 2 recipes, which differ in aug; name the runs of one, such as ckpt={on}\n",
        f"{on},{other}": f"these networks have different classes: {on / CKPT} (NORMAL, PNEUMONIA, COVID19, TUBERC",
        f"{on},{off},{on / CKPT}": f"ckpt={on / CKPT}: this checkpoint is named twice",
        f"{on},{tmp_path / 'no.ckpt'},{off}": f"ckpt={tmp_path / 'no.ckpt'}: nothing is there; must be a checkpoint",
    }.items():
        code, out, err = run(predict.main, f"ckpt={ckpt}", f"source={drawn}")
        assert (code, out) == (2, "") and err.count("\n") == 1 and says in err


def test_a_damaged_run_folder_is_one_line(run, seeds, drawn, tmp_path):
    moved = shutil.copytree(seeds, tmp_path / "moved")
    file = runs_of(moved)[1] / VAL_PREDICTIONS
    for text in ("", file.read_text().replace("0.", "x."), file.read_text().replace("NORMAL", "?")):
        file.write_text(text)
        code, _, err = run(predict.main, f"ckpt={moved}", f"source={drawn}")
        assert code == 2 and err.count("\n") == 1 and "val_predictions.csv, split.csv or metrics.json is damaged" in err


def test_which_runs_of_a_sweep_count(tmp_path):
    """The finished ones; the others are named. One without validation images has tested its last epoch."""

    def add(seed, status, val, name):
        run = tmp_path / f"r{seed}"
        (run / "checkpoints").mkdir(parents=True)
        write_status(run, status, choices={"model": "cnn", "seed": seed}, started=seed)
        write_json(run / "metrics.json", {"val": val})
        (run / "checkpoints" / name).touch()
        return run / "checkpoints" / name

    add(0, "failed", None, "best.ckpt")
    with pytest.raises(UserError, match="no run of this sweep is finished"):
        find_checkpoints([tmp_path])
    done = [add(1, "done", {}, "best.ckpt"), add(2, "done", None, "last.ckpt")]
    add(3, "failed", {}, "best.ckpt")
    assert find_checkpoints([tmp_path]) == (done, ["without runs that are not finished: r0 (failed), r3 (failed)"])
    done[0].unlink()
    with pytest.raises(UserError, match=r"r1/checkpoints/best.ckpt: there is no such checkpoint"):
        find_checkpoints([tmp_path / "r2", tmp_path / "r1"])


@pytest.fixture
def evaluated(run, cache, drawn, tmp_path, monkeypatch):
    """Evaluate on all drawn images: evaluation.json, the console, and the output folder."""
    monkeypatch.chdir(tmp_path)

    def call(ckpt, *words):
        options = (f"ckpt={ckpt}", "name=e", f"cache_dir={cache}", "trainer=cpu", f"data.root={drawn}", *words)
        code, out, err = run(evaluate.main, *options)
        assert code == 0, err
        return json.loads((tmp_path / "runs" / "e" / "evaluation.json").read_text()), out, tmp_path / "runs" / "e"

    return call


def test_an_ensemble_is_evaluated_with_its_own_internal_figures_and_threshold(seeds, train, predicted, evaluated):
    """Another image size among its networks."""
    larger = train(
        "seed=2", "data.image_size=48", "data.val_fraction=0.3", "screen.sensitivity=0.5", "screen.confidence=0.6"
    )
    ckpt, runs = f"{seeds},{larger}", [*runs_of(seeds), larger]
    found, out, made = evaluated(ckpt, "data.on_leak=keep")
    rows = predicted(ckpt)[0]
    ours = {row["file"]: row for row in read_table(made / "predictions.csv")}
    assert as_array(ours, rows) == pytest.approx(as_array(rows, rows), abs=1e-4), "as cxr.predict has them"

    val, val_labels, of_val = as_together(runs, VAL_PREDICTIONS)
    temperature = fit_temperature(val, val_labels)
    assert found["calibration"]["temperature"] == pytest.approx(temperature)
    logits, labels, tested = as_together(runs, "predictions.csv")
    internal = found["internal"]
    assert internal["n_test"] == len(labels)
    assert internal["test"]["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    right = softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]
    assert internal["calibration"]["nll"] == pytest.approx(-np.log(right).mean(), abs=1e-5)
    there = [ours[file]["prediction"] == label for file, label in zip(tested["files"], tested["labels"], strict=True)]
    assert np.mean(there) == internal["test"]["accuracy"]

    label = found["classes"].index("TUBERCULOSIS")
    positive = val_labels == label
    scores = softmax(val / np.float32(temperature), axis=1)[positive, label]
    chosen = choose_threshold(scores, of_val["group"][positive], 0.5, 0.6)
    assert chosen["promised"] and chosen.items() <= found["screening"].items()
    assert chosen["threshold"] not in [read_json(run / "metrics.json")["screening"]["threshold"] for run in runs]
    called = softmax(logits / np.float32(temperature), axis=1)[:, label] >= chosen["threshold"]
    assert internal["screening"]["sensitivity"] == pytest.approx(called[labels == label].mean())
    assert "Ensemble of 3 networks, calibrated again on" in out and "there are no" not in out
    assert list(found["networks"]) == [str(run / CKPT) for run in runs]


def test_images_that_any_network_has_seen_are_left_out(folds, evaluated, drawn):
    """Of two folds, each image was tested by one and seen by the other."""
    first, second = runs_of(folds)
    found, out, _ = evaluated(folds, "data.on_leak=keep")
    tested = [len(read_table(run / "predictions.csv")) for run in (first, second)]
    assert found["n_test"] == len(found["matches"]["trained"]) == sum(tested) and found["matches"]["tested"] == []
    assert [counts["tested"] for counts in found["networks"].values()] == tested
    assert found["internal"] is None and found["screening"] is None and found["calibration"]["temperature"] == 1
    assert "There are no internal figures: the networks were not tested on the same images." in out
    assert "There are no screening thresholds: they need images that all networks validated on." in out


@pytest.mark.long
def test_what_is_left_out_names_the_networks(seeds, train, evaluated, tmp_path):
    """Another split: its validation and training images differ from those of the sweep."""
    other = train("data.split_seed=1", "data.val_fraction=0.3")
    checkpoints = [*(run / CKPT for run in runs_of(seeds)), other / CKPT]
    found, out, made = evaluated(f"{seeds},{other}")
    splits = [{row["file"]: row["split"] for row in read_table(p.parents[1] / "split.csv")} for p in checkpoints]
    seen = {file for split in splits for file, name in split.items() if name != "test"}
    reasons = {row["file"]: row["reason"] for row in read_table(made / "rejected.csv")}
    assert seen <= reasons.keys() and found["n_test"] == len(splits[0].keys() - reasons.keys())
    for file in seen:
        names = [str(path) for path, split in zip(checkpoints, splits, strict=True) if split[file] != "test"]
        assert reasons[file] == f"a copy of the training image {file} of {', '.join(names)}"
    counts = [counts["trained"] for counts in found["networks"].values()]
    assert (
        f"By network: {checkpoints[0]} {counts[0]}, {checkpoints[1]} {counts[1]}, {checkpoints[2]} {counts[2]}." in out
    )
    assert found["internal"] is None and found["screening"] is None, "the other run asks for another sensitivity"
    both = set.intersection(*({file for file, name in split.items() if name == "val"} for split in splits))
    assert f"on the {len(both)} images" in found["remarks"][0]


def test_a_network_without_its_run_folder_is_named(seeds, evaluated, tmp_path):
    first, second = runs_of(seeds)
    shutil.copy(second / CKPT, tmp_path / "alone.ckpt")
    found, out, _ = evaluated(f"{first},{tmp_path}/alone.ckpt")
    assert found["networks"][f"{tmp_path}/alone.ckpt"] is None and found["matches"]["trained"]
    assert f"WARNING: images.npz is not beside the checkpoint {tmp_path}/alone.ckpt: its training images may" in out
    assert out.count("alone.ckpt is not in its run folder") == 2, "for the temperature, and for the internal figures"
