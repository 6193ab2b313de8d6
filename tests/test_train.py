"""The grid end to end, on drawn films: what the run folders, the leaderboard and TensorBoard hold, and predict."""

import csv
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxr import cell as cell_module
from cxr import predict
from cxr.models.classifier import Classifier, load_classifier
from cxr.train import main

# In fp32, so that figures can be compared to many digits wherever the tests run.
SMALL = ("trainer.precision=32-true", "data.image_size=32", "model.hidden=16", "model.widths=[4,8,8]")


@pytest.fixture(scope="module")
def sweep(drawn, cache, tmp_path_factory):
    """A sweep of two cells in a folder with every character that Hydra's grammar refuses."""
    folder = tmp_path_factory.mktemp("out") / "a=b, c[1] 'x' (한글)"
    with pytest.MonkeyPatch.context() as patch:
        words = ["-m", "aug=on,off", "data=folder", f"data.root={drawn}", "trainer.max_epochs=2", "optim.lr=0.003"]
        patch.setattr("sys.argv", ["train", *words, *SMALL, f"hydra.sweep.dir={folder}", f"cache_dir={cache}"])
        main()
    return folder


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(sweep):
    return sweep / "cnn_aug-on_seed-0"


def test_run_folder_holds_what_design_names(folder):
    assert {p.name for p in folder.iterdir() if not p.name.startswith("events.out.")} == {
        *("config.yaml", "metrics.json", "predictions.csv", "split.csv", "rejected.csv", "status.json"),
        *("checkpoints", "train.log", "hparams.yaml"),
    }
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["choices"] == {"model": "cnn", "aug": "on", "seed": 0}
    assert config["trainer"]["max_epochs"] == 2 and config["aug"]["flip"] == 0.5
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() == {"classes", "n_test", "note", "test", "val", "train", "versions"}
    assert metrics["classes"] == ["NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS"]
    assert metrics["train"].keys() == {"epochs", "images_per_s", "seconds", "seconds_in", "device", "precision"}
    spent = metrics["train"]["seconds_in"]
    assert spent.keys() == {"training", "validation", "test"} and all(s > 0 for s in spent.values())
    assert sum(spent.values()) < metrics["train"]["seconds"]
    assert metrics["train"]["epochs"] == 2 and metrics["train"]["images_per_s"] > 0
    assert metrics["versions"]["torch"] == torch.__version__


def test_metrics_follow_from_the_predictions(folder):
    rows = read(folder / "predictions.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    classes, test = metrics["classes"], metrics["test"]
    true, said = [r["label"] for r in rows], [r["prediction"] for r in rows]
    assert metrics["n_test"] == len(rows)
    assert test["accuracy"] == pytest.approx(sk.accuracy_score(true, said), abs=1e-6)
    assert test["f1_macro"] == pytest.approx(sk.f1_score(true, said, average="macro"), abs=1e-6)
    assert test["confusion_matrix"] == sk.confusion_matrix(true, said, labels=classes).tolist()
    probabilities = np.array([[float(r[f"prob_{c}"]) for c in classes] for r in rows])
    assert np.abs(probabilities.sum(1) - 1).max() < 1e-6
    assert [classes[i] for i in probabilities.argmax(1)] == said
    tested = {r["file"]: r["label"] for r in read(folder / "split.csv") if r["split"] == "test"}
    assert {r["file"]: r["label"] for r in rows} == tested


def test_no_patient_stands_on_two_sides(folder):
    sides = {}
    for row in read(folder / "split.csv"):
        sides.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(s) == 1 for p, s in sides.items() if p)


def test_best_checkpoint_has_the_highest_validation_macro_f1(folder):
    events = EventAccumulator(str(folder)).Reload()
    f1 = [e.value for e in events.Scalars("val/f1_macro")]
    steps = [e.step for e in events.Scalars("val/f1_macro")]
    assert len(f1) == 2
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] - 1 == steps[int(np.argmax(f1))]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val"]["f1_macro"] == pytest.approx(max(f1), abs=1e-6)


def test_last_checkpoint_is_the_last_epoch_and_all_that_training_could_go_on_from(run, drawn, cache, tmp_path):
    """Also where that epoch is not the best: with a rate of nearly 0 the first epoch is, and stays it."""
    words = ("data=folder", f"data.root={drawn}", "trainer.max_epochs=3", "optim.lr=1e-12", *SMALL)
    assert run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")[0] == 0
    best, last = (
        torch.load(tmp_path / "r" / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    assert (best["epoch"], last["epoch"]) == (0, 2)
    assert "optimizer_states" not in best and last["optimizer_states"]


def test_dashboard(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    scalars = {f"{s}/{k}" for s in ("train", "val") for k in ("loss", "accuracy", "f1_macro")}
    assert scalars | {"val/auroc_macro", "val/precision_macro", "val/recall_macro", "val_f1/NORMAL"} <= set(
        tags["scalars"]
    )
    assert any(tag.startswith("lr-") for tag in tags["scalars"])
    pictures = {"data/class_counts", "data/augmentation"}
    pictures |= {
        f"{s}/{p}" for s in ("val", "test") for p in ("confusion_matrix", "precision_recall", "worst_mistakes")
    }
    assert pictures == set(tags["images"])
    assert "_hparams_/session_start_info" in events.summary_metadata
    finals = events.Scalars("test/f1_macro")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [e.value for e in finals] == pytest.approx([metrics["test"]["f1_macro"]]), "logged once, with the final"


def test_leaderboard_and_grid(sweep):
    rows = read(sweep / "leaderboard.csv")
    assert [(r["model"], r["aug"], r["seed"], r["status"]) for r in rows] == [
        ("cnn", a, "0", "done") for a in ("on", "off")
    ]
    for row in rows:
        metrics = json.loads((sweep / row["run"] / "metrics.json").read_text())
        assert float(row["f1_macro"]) == metrics["test"]["f1_macro"]
    assert "| macro F1 | aug=on | aug=off |" in (sweep / "leaderboard.md").read_text()


def test_same_seed_same_predictions_and_other_seed_others(run, drawn, cache, tmp_path, sweep):
    words = (
        "data=folder",
        f"data.root={drawn}",
        "trainer.max_epochs=2",
        "optim.lr=0.003",
        *SMALL,
        f"cache_dir={cache}",
    )
    for seed in (0, 1):
        assert run(main, *words, f"seed={seed}", f"hydra.run.dir={tmp_path}/{seed}")[0] == 0
    first = (sweep / "cnn_aug-on_seed-0" / "predictions.csv").read_text()
    assert (tmp_path / "0" / "predictions.csv").read_text() == first
    assert (tmp_path / "1" / "predictions.csv").read_text() != first
    assert (tmp_path / "1" / "split.csv").read_text() == (sweep / "cnn_aug-on_seed-0" / "split.csv").read_text()


def test_a_failed_cell_is_a_row_and_the_others_run_on(run, drawn, cache, tmp_path, monkeypatch):
    def break_one(config, choices, folder, shared_console, train=cell_module.train_cell):
        if choices["aug"] == "on":
            raise ZeroDivisionError("a bug of ours")
        train(config, choices, folder, shared_console)

    monkeypatch.setattr(cell_module, "train_cell", break_one)
    words = ("-m", "aug=on,off", "data=folder", f"data.root={drawn}", "trainer.max_epochs=1", *SMALL)
    code, out, err = run(main, *words, f"cache_dir={cache}", f"hydra.sweep.dir={tmp_path}/s")
    assert code == 1
    rows = read(tmp_path / "s" / "leaderboard.csv")
    assert [(r["status"], r["error"]) for r in rows] == [("failed", "ZeroDivisionError: a bug of ours"), ("done", "")]
    log = (tmp_path / "s" / rows[0]["run"] / "train.log").read_text()
    assert "Traceback" in log and "break_one" in log
    assert "1 of 2 runs did not finish" in out and "train.log" in err


def test_a_users_mistake_in_a_run_is_one_line(run, cache, tmp_path, film):
    for i in range(3):
        film(tmp_path / "films" / "NORMAL" / f"{i}.png", seed=i)
    for i in range(40):
        film(tmp_path / "films" / "TB" / f"{i}.png", seed=i + 9)
    (tmp_path / "films" / "NORMAL" / "2.png").write_text("broken")
    words = ("data=folder", f"data.root={tmp_path}/films", f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r", *SMALL)
    code, _, err = run(main, *words)
    assert code == 1
    assert [line for line in err.splitlines() if line.startswith("cxr: ")] == err.splitlines()
    assert "class NORMAL has 2 films" in err
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "failed"


def test_capstone_has_no_validation_and_takes_the_last_epoch(run, drawn, cache, tmp_path):
    words = ("experiment=capstone2022", "data=folder", f"data.root={drawn}", "trainer.max_epochs=2", *SMALL)
    code, out, _ = run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")
    assert code == 0 and "last epoch" in out
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["val"] is None
    assert {r["split"] for r in read(tmp_path / "r" / "split.csv")} == {"train", "test"}
    assert [p.name for p in (tmp_path / "r" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_resnet18_trains_by_our_recipe(run, drawn, cache, tmp_path):
    words = ("experiment=tuned", "data=folder", f"data.root={drawn}", "trainer.max_epochs=1", "data.image_size=32")
    assert run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")[0] == 0
    model = load_classifier(tmp_path / "r" / "checkpoints" / "best.ckpt")
    assert type(model.net).__name__ == "ResNet" and model.hparams.optim["schedule"] == "onecycle"


def test_a_missing_device_is_the_users_to_fix(run, cache, drawn, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    words = (
        "trainer=gpu",
        "data=folder",
        f"data.root={drawn}",
        *SMALL,
        f"cache_dir={cache}",
        f"hydra.run.dir={tmp_path}/r",
    )
    code, _, err = run(main, *words)
    assert code == 1 and err.startswith("cxr: ") and err.count("\n") == 1 and "gpu" in err.lower()


def test_drawn_films_say_so_everywhere(run, cache, tmp_path):
    words = ("-m", "seed=0", "data.films=120", "trainer.max_epochs=1", *SMALL, f"cache_dir={cache}")
    code, out, _ = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    says = "says nothing about patients"
    assert code == 0 and out.count(says) == 2
    assert says in (tmp_path / "s" / "leaderboard.md").read_text()
    assert says in (tmp_path / "s" / "leaderboard.csv").read_text()
    folder = tmp_path / "s" / "cnn_aug-on_seed-0"
    assert says in (folder / "metrics.json").read_text()
    assert says in load_classifier(folder / "checkpoints" / "best.ckpt").note


def test_training_figures_are_those_of_all_films_of_the_epoch(run, drawn, cache, tmp_path, monkeypatch):
    """Computed once, from what the steps left; the last batch is smaller, and every film counts the same."""
    seen = []

    def remember(self, batch, batch_idx, step=Classifier.training_step):
        logits = self(batch.films).detach()
        seen.append((torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none"), batch.labels))
        seen[-1] = (*seen[-1], logits.argmax(1))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", remember)
    words = ("data=folder", f"data.root={drawn}", "trainer.max_epochs=1", *SMALL)
    assert run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")[0] == 0
    losses, labels, said = (torch.cat(column).numpy() for column in zip(*seen, strict=True))
    assert len(seen) > 1 and len(seen[-1][1]) < 32
    events = EventAccumulator(str(tmp_path / "r")).Reload()
    logged = {key: events.Scalars(f"train/{key}")[-1].value for key in ("loss", "accuracy", "f1_macro")}
    assert logged["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert logged["accuracy"] == pytest.approx(sk.accuracy_score(labels, said), abs=1e-6)
    assert logged["f1_macro"] == pytest.approx(sk.f1_score(labels, said, average="macro"), abs=1e-6)


def test_an_epoch_cut_short_still_has_its_figures(run, drawn, cache, tmp_path):
    words = ("data=folder", f"data.root={drawn}", "+trainer.max_steps=2", "experiment=capstone2022", *SMALL)
    assert run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")[0] == 0
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["train"]["epochs"] == 1 and metrics["train"]["images_per_s"] > 0
    assert EventAccumulator(str(tmp_path / "r")).Reload().Scalars("train/loss")


def test_cells_side_by_side_are_those_of_one_after_the_other(sweep, drawn, cache, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra `parallel` is not installed")
    words = ["-m", "launcher=parallel", "n=2", "aug=on,off", "data=folder", f"data.root={drawn}", "optim.lr=0.003"]
    words += ["trainer.max_epochs=2", *SMALL, f"hydra.sweep.dir={tmp_path}/s", f"cache_dir={cache}"]
    done = subprocess.run([sys.executable, "-m", "cxr.train", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for aug in ("on", "off"):
        assert f"cnn_aug-{aug}_seed-0: epoch 2/2" in done.stdout
        status = json.loads((tmp_path / "s" / f"cnn_aug-{aug}_seed-0" / "status.json").read_text())
        assert status["status"] == "done"
    both = [read(folder / "leaderboard.csv") for folder in (sweep, tmp_path / "s")]
    for ours, theirs in zip(*(sorted(rows, key=lambda r: r["run"]) for rows in both), strict=True):
        assert ours["run"] == theirs["run"] and theirs["status"] == "done"
        # Fewer threads a cell add up in another order.
        assert float(theirs["f1_macro"]) == pytest.approx(float(ours["f1_macro"]), abs=0.05)


@pytest.fixture
def films(drawn, tmp_path):
    """A folder of two films and three files that are none, with names that shells and grammars dislike."""
    folder = tmp_path / "새 폴더, [1]=a"
    (folder / "deep").mkdir(parents=True)
    originals = sorted((drawn / "test" / "NORMAL").iterdir())[:2]
    for path, name in zip(originals, ("COVID19(277).jpg", 'deep/a\'b "c".png'), strict=True):
        (folder / name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    return folder


def test_predict_a_folder(run, sweep, films, tmp_path):
    out = tmp_path / "preds=1, 한글.csv"
    ckpt = sweep / "cnn_aug-on_seed-0" / "checkpoints" / "best.ckpt"
    code, _, err = run(predict.main, f"ckpt={ckpt}", f"source={films}", f"out={out}")
    assert code == 1 and "2 films predicted, 2 files could not be read" in err
    rows = {r["file"].removeprefix(f"{films}/"): r for r in read(out)}
    assert rows.keys() == {"COVID19(277).jpg", 'deep/a\'b "c".png', "broken.jpg", "notes.txt"}
    assert rows["broken.jpg"]["error"] == "not a JPEG or PNG image" and rows["broken.jpg"]["prediction"] == ""
    good = rows["COVID19(277).jpg"]
    assert good["error"] == "" and good["prediction"] in ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS")
    assert sum(float(v) for k, v in good.items() if k.startswith("prob_")) == pytest.approx(1, abs=1e-6)
    again = run(predict.main, f"ckpt={ckpt}", f"source={films}", f"out={out}")
    assert again[0] == 2 and "does not exist yet" in again[2], "an earlier result is not overwritten"


def test_predict_says_what_the_test_said(run, sweep, folder, drawn):
    row = read(folder / "predictions.csv")[0]
    ckpt = folder / "checkpoints" / "best.ckpt"
    code, out, _ = run(predict.main, f"ckpt={ckpt}", f"source={drawn / row['file']}", "trainer.accelerator=cpu")
    assert code == 0
    got = next(csv.DictReader(out.splitlines()))
    for key in row:
        if key.startswith("prob_"):
            assert float(got[key]) == pytest.approx(float(row[key]), abs=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ckpt={ckpt}"], "source is missing"),
        (["ckpt=/no.ckpt", "source=."], "ckpt=/no.ckpt: must be a checkpoint"),
        (["ckpt={ckpt}", "source=/no"], "source=/no: must be a film or a folder"),
        (["ckpt={ckpt}", "source={ckpt}", "batch=3"], "did you mean data.batch_size?"),
        (["ckpt={folder}/metrics.json", "source={ckpt}"], "not a checkpoint that cxr wrote"),
        (["ckpt={ckpt}", "source={ckpt}", "trainer.accelerator=mps"], "there is none here"),
    ],
)
def test_predict_wrong_options(run, folder, words, says):
    if "mps" in says and torch.backends.mps.is_available():
        pytest.skip("there is such a device here")
    ckpt = folder / "checkpoints" / "best.ckpt"
    code, out, err = run(predict.main, *(w.format(ckpt=ckpt, folder=folder) for w in words))
    assert code == 2 and out == "" and err.startswith("cxr: ") and err.count("\n") == 1 and says in err


def test_checkpoints_are_plain_data(folder):
    for path in (folder / "checkpoints").iterdir():
        assert isinstance(Classifier.load_from_checkpoint(path, weights_only=True), Classifier)
    logging.getLogger().handlers.clear()  # Hydra's, which write to this test's folder


def test_an_interrupted_sweep_says_what_is_done(run, drawn, cache, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise SystemExit(1)  # what Lightning makes of a Ctrl-C during training

    monkeypatch.setattr(cell_module, "train_cell", stop)
    words = ("-m", "aug=on,off", "data=folder", f"data.root={drawn}", f"cache_dir={cache}", *SMALL)
    code, _, err = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    assert code == 130 and err.splitlines()[-1].startswith("cxr: interrupted")
    assert [(r["status"], r["error"]) for r in read(tmp_path / "s" / "leaderboard.csv")] == [("failed", "interrupted")]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("+model.depth=3", "unexpected keyword argument 'depth'"),
        ("optim._target_=no.such.Optimizer", "no.such.Optimizer"),
        ("+trainer.limit_val_batches=0", "no epoch was validated"),
        ("data.image_size=16 model.widths=[4,4,4,4,4]", "too small for 5 poolings"),
    ],
)
def test_options_that_only_the_cell_can_judge_are_one_line(run, drawn, cache, tmp_path, word, says):
    words = ("data=folder", f"data.root={drawn}", "trainer.max_epochs=1", *SMALL, *word.split())
    code, _, err = run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")
    assert code == 1 and err.splitlines()[-1].startswith("cxr: ") and says in err.splitlines()[-1]
