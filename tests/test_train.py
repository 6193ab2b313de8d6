"""The grid end to end, on drawn images: what the run folders and TensorBoard hold."""

import json
import logging
import os

import numpy as np
import pytest
import torch
import yaml
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxr.files.writing import read_table
from cxr.models.classifier import Classifier, load_classifier
from cxr.train import main


def test_run_folder_holds_what_design_names(folder):
    assert {p.name for p in folder.iterdir() if not p.name.startswith("events.out.")} == {
        *("config.yaml", "metrics.json", "predictions.csv", "split.csv", "rejected.csv", "status.json"),
        *("checkpoints", "train.log", "hparams.yaml", "audit.json", "MODEL_CARD.md", "val_predictions.csv"),
    }
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "images.npz",
        "best.familiar.npz",
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["choices"] == {"model": "cnn", "aug": "on", "seed": 0}
    assert config["trainer"]["max_epochs"] == 2 and config["aug"]["flip"] == 0.5
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() == {
        *("classes", "n_test", "note", "test", "val", "calibration", "screening", "slices", "leaks", "shortcuts"),
        *("hospitals", "transfer", "heatmaps", "unfamiliar", "chosen_by", "network", "train", "versions"),
    }
    assert metrics["classes"] == ["NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS"]
    assert metrics["train"].keys() == {
        *("epochs", "images_per_s", "seconds", "seconds_in", "history", "device", "precision"),
    }
    assert metrics["test"]["ci95"].keys() == metrics["test"].keys() - {"ci95", "confusion_matrix"}
    spent = metrics["train"]["seconds_in"]
    assert spent.keys() == {"training", "validation", "test"} and all(s > 0 for s in spent.values())
    assert sum(spent.values()) < metrics["train"]["seconds"]
    assert metrics["train"]["epochs"] == 2 and metrics["train"]["images_per_s"] > 0
    assert metrics["versions"]["torch"] == torch.__version__


def test_the_cache_holds_only_what_clean_cache_removes(folder, cache):
    made = {path.name.partition("-")[0] for path in cache.iterdir()}
    assert made <= {"store", "phantom", "copies", "shortcuts", "audit", "known", ".building", ".lock"}
    store = next(cache.glob("store-128px-*/*/"))
    assert store.stat().st_mode & 0o055 == 0o055 & ~_umask(), "others on this machine may read it"


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_metrics_follow_from_the_predictions(folder):
    rows = read_table(folder / "predictions.csv")
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
    tested = {r["file"]: r["label"] for r in read_table(folder / "split.csv") if r["split"] == "test"}
    assert {r["file"]: r["label"] for r in rows} == tested


def test_no_patient_stands_on_two_sides(folder):
    sides = {}
    for row in read_table(folder / "split.csv"):
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
    assert metrics["train"]["history"]["val_f1_macro"] == pytest.approx(f1, abs=1e-6)


def test_last_checkpoint_is_the_last_epoch_and_all_that_training_could_go_on_from(run, tmp_path, small):
    """Also where that epoch is not the best: with a rate of nearly 0 the first epoch is, and stays it."""
    words = ("trainer.max_epochs=3", "optim.lr=1e-12", *small)
    assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 0
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
    pictures = {"data/class_counts", "data/augmentation", "test/reliability"}
    pictures |= {
        f"{s}/{p}" for s in ("val", "test") for p in ("confusion_matrix", "precision_recall", "worst_mistakes")
    }
    panels = {tag for tag in tags["images"] if tag.startswith("heatmaps/")}  # none without captum
    assert pictures == set(tags["images"]) - panels
    assert "_hparams_/session_start_info" in events.summary_metadata
    finals = events.Scalars("test/f1_macro")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [e.value for e in finals] == pytest.approx([metrics["test"]["f1_macro"]]), "logged once, with the final"


@pytest.mark.long
def test_same_seed_same_predictions_and_other_seed_others(run, tmp_path, sweep, small):
    words = ("trainer.max_epochs=2", "optim.lr=0.003", *small)
    for seed in (0, 1):
        assert run(main, *words, f"seed={seed}", f"hydra.run.dir={tmp_path}/{seed}")[0] == 0
    first = (sweep / "cnn_aug-on_seed-0" / "predictions.csv").read_text()
    assert (tmp_path / "0" / "predictions.csv").read_text() == first
    assert (tmp_path / "1" / "predictions.csv").read_text() != first
    assert (tmp_path / "1" / "split.csv").read_text() == (sweep / "cnn_aug-on_seed-0" / "split.csv").read_text()


def test_a_users_mistake_in_a_run_is_one_line(run, tmp_path, image, tiny):
    for i in range(3):
        image(tmp_path / "images" / "NORMAL" / f"{i}.png", seed=i)
    for i in range(40):
        image(tmp_path / "images" / "TB" / f"{i}.png", seed=i + 9)
    (tmp_path / "images" / "NORMAL" / "2.png").write_text("broken")
    words = ("data=folder", f"data.root={tmp_path}/images", f"hydra.run.dir={tmp_path}/r", *tiny)
    code, _, err = run(main, *words)
    assert code == 1
    assert [line for line in err.splitlines() if line.startswith("cxr: ")] == err.splitlines()
    assert "class NORMAL has 2 images" in err
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "failed"


def test_capstone_has_no_validation_and_takes_the_last_epoch(run, tmp_path, small):
    words = ("experiment=capstone2022", "trainer.max_epochs=2", *small)
    code, out, _ = run(main, *words, f"hydra.run.dir={tmp_path}/r")
    assert code == 0 and "last epoch" in out
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["val"] is None
    assert {r["split"] for r in read_table(tmp_path / "r" / "split.csv")} == {"train", "test"}
    assert sorted(p.name for p in (tmp_path / "r" / "checkpoints").iterdir()) == ["images.npz", "last.ckpt"]


def test_resnet18_trains_by_our_recipe(run, drawn, cache, tmp_path):
    words = ("model=resnet18", "data=folder", f"data.root={drawn}", "trainer.max_epochs=1", "data.image_size=32")
    assert run(main, *words, f"cache_dir={cache}", f"hydra.run.dir={tmp_path}/r")[0] == 0
    model = load_classifier(tmp_path / "r" / "checkpoints" / "best.ckpt")
    assert type(model.net).__name__ == "ResNet" and model.hparams.optim["schedule"] == "onecycle"


def test_a_missing_device_is_the_users_to_fix(run, tmp_path, small):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    words = ("trainer=gpu", *small, f"hydra.run.dir={tmp_path}/r")
    code, _, err = run(main, *words)
    assert code == 1 and err.startswith("cxr: ") and err.count("\n") == 1 and "gpu" in err.lower()


def test_drawn_images_say_so_everywhere(run, tmp_path, tiny):
    words = ("-m", "seed=0", "data.images=120", "trainer.max_epochs=1", *tiny)
    code, out, _ = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    says = "say nothing about patients"
    assert code == 0 and out.count(says) == 2
    assert says in (tmp_path / "s" / "leaderboard.md").read_text()
    assert says in (tmp_path / "s" / "leaderboard.csv").read_text()
    folder = tmp_path / "s" / "cnn_aug-on_seed-0"
    assert says in (folder / "metrics.json").read_text()
    assert says in load_classifier(folder / "checkpoints" / "best.ckpt").note


def test_training_figures_are_those_of_all_images_of_the_epoch(run, tmp_path, monkeypatch, small):
    """Computed once, from what the steps left; the last batch is smaller, and every image counts the same."""
    seen = []

    def remember(self, batch, batch_idx, step=Classifier.training_step):
        logits = self(batch.images).detach()
        seen.append((torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none"), batch.labels))
        seen[-1] = (*seen[-1], logits.argmax(1))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", remember)
    words = ("trainer.max_epochs=1", *small)
    assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 0
    losses, labels, said = (torch.cat(column).numpy() for column in zip(*seen, strict=True))
    assert len(seen) > 1 and len(seen[-1][1]) < 32
    events = EventAccumulator(str(tmp_path / "r")).Reload()
    logged = {key: events.Scalars(f"train/{key}")[-1].value for key in ("loss", "accuracy", "f1_macro")}
    assert logged["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert logged["accuracy"] == pytest.approx(sk.accuracy_score(labels, said), abs=1e-6)
    assert logged["f1_macro"] == pytest.approx(sk.f1_score(labels, said, average="macro"), abs=1e-6)


def test_an_epoch_cut_short_still_has_its_figures(run, tmp_path, small):
    words = ("+trainer.max_steps=2", "experiment=capstone2022", *small)
    assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 0
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["train"]["epochs"] == 1 and metrics["train"]["images_per_s"] > 0
    assert EventAccumulator(str(tmp_path / "r")).Reload().Scalars("train/loss")


def test_checkpoints_are_plain_data(folder):
    for path in (folder / "checkpoints").glob("*.ckpt"):
        assert isinstance(Classifier.load_from_checkpoint(path, weights_only=True), Classifier)
    logging.getLogger().handlers.clear()  # Hydra's, which write to this test's folder


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("+model.depth=3", "unexpected keyword argument 'depth'"),
        ("optim._target_=torch.optim.NoSuch", "optim._target_=torch.optim.NoSuch: cannot be imported"),
        ("+trainer.limit_val_batches=0", "no validation ran"),
        ("optim.lr=1e30", "is not finite: training diverged; try a smaller optim.lr"),
        ("data.image_size=16 model.widths=[4,4,4,4,4]", "too small for 5 poolings"),
    ],
)
def test_options_that_only_the_run_can_judge_are_one_line(run, tmp_path, word, says, small):
    words = ("trainer.max_epochs=1", *small, *word.split())
    code, _, err = run(main, *words, f"hydra.run.dir={tmp_path}/r")
    assert code == 1 and err.splitlines()[-1].startswith("cxr: ") and says in err.splitlines()[-1]


@pytest.mark.long
def test_compile_without_a_compiler_is_one_line(run, tmp_path, monkeypatch, small):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/no/compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    words = ("trainer=cpu", "trainer.max_epochs=1", "compile=true", *small)
    code, _, err = run(main, *words, f"hydra.run.dir={tmp_path}/r")
    assert code == 1 and err.splitlines()[-1].startswith("cxr: compile=true: torch cannot compile here: ")


def test_batch_normalisation_of_one_pixel_of_one_image_is_one_line(run, cache, tmp_path):
    images = ("data.images=100", "data.image_size=32", f"cache_dir={cache}", "trainer.precision=32-true")
    code, _, err = run(main, "model=resnet18", "data.batch_size=1", *images, f"hydra.run.dir={tmp_path}/r")
    assert code == 1 and err.count("\n") == 1 and "data.batch_size=1: batch normalisation needs two images" in err


def test_the_dashboard_opens_on_macro_f1_and_shows_images_once_a_sweep(run, tmp_path, small):
    words = ("-m", "seed=0,1", "aug=on,off", "projector=true", "trainer.max_epochs=1", *small)
    code, out, err = run(main, *words, f"hydra.sweep.dir={tmp_path}/s")
    assert code == 0 and "events.out" not in out + err, "the report reads TensorBoard's files in silence"
    counts, shown = 0, {}
    for folder in sorted((tmp_path / "s").glob("cnn_*")):
        tags = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload().Tags()
        assert min(tags["scalars"]).startswith("Macro F1/"), "capitals sort first"
        counts += "data/class_counts" in tags["images"]
        shown[folder.name] = "data/augmentation" in tags["images"]
        assert (folder / "projector_config.pbtxt").exists() and next(folder.glob("*/test/metadata.tsv")).read_text()
    assert counts == 1 and [name for name, first in shown.items() if first] == [
        "cnn_aug-off_seed-0",
        "cnn_aug-on_seed-0",
    ]
