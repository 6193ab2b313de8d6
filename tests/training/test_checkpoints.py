"""What a run resumes from, and what it refuses: damaged checkpoints, other images, no room."""

import errno
import shutil
import signal
import sys

import pytest
import torch
from damaged import DAMAGE, flip, truncate
from same import assert_same_run

from cxr.errors import UserError
from cxr.files.status import write_status
from cxr.files.writing import read_json, read_table
from cxr.models.classifier import Classifier
from cxr.train import main
from cxr.training import signals
from cxr.training.checkpoints import BEFORE, BEST, LAST, DurableCheckpointIO, LastCheckpoint, check_room, damage

EPOCHS = ("trainer.max_epochs=3", "optim.lr=0.003")


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run of three epochs that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train", *EPOCHS, *small, f"hydra.run.dir={folder}"])
        main()
    return folder


def stop_in(monkeypatch, epoch, batch):
    """Ask the process to stop in a batch of an epoch, as SIGTERM would."""

    def step(self, images, batch_idx, step=Classifier.training_step):
        if (self.current_epoch, batch_idx) == (epoch, batch):
            signals._hear(signal.SIGTERM, None)
        return step(self, images, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)


@pytest.fixture
def halted(run, tmp_path, monkeypatch, small):
    """A run that was stopped in its third epoch, with the state of two generations, and the words that began it."""
    words = (*EPOCHS, *small, f"hydra.run.dir={tmp_path}/r")
    with monkeypatch.context() as patch:
        stop_in(patch, 2, 1)
        patch.setattr(LastCheckpoint, "EPOCH_SECONDS", 0)
        assert run(main, *words)[0] == 143
    folder = tmp_path / "r" / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {BEST, LAST, BEFORE, "images.npz"}
    return tmp_path / "r", words


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        "optim.schedule=onecycle data.num_workers=2",
        "+trainer.accumulate_grad_batches=2 data.val_fraction=0",
        "+trainer.val_check_interval=2 +trainer.max_steps=8",
    ],
)
def test_a_run_that_was_stopped_within_an_epoch_ends_with_the_same_bits(run, tmp_path, monkeypatch, small, words):
    """Also what torch draws itself, as for dropout."""

    def forward(self, images, forward=Classifier.forward):
        return forward(self, torch.nn.functional.dropout(images, 0.2, self.training))

    monkeypatch.setattr(Classifier, "forward", forward)
    words = ("trainer.max_epochs=2", "data.batch_size=24", *words.split(), *small)
    assert run(main, *words, f"hydra.run.dir={tmp_path}/whole")[0] == 0
    with monkeypatch.context() as patch:
        stop_in(patch, 1, 0)
        assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 143
    state = torch.load(tmp_path / "r" / "checkpoints" / LAST, weights_only=True)
    assert state["epoch"] == 1 and len(state["trained"]) > 0, "in the middle of an epoch"
    assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 0
    assert_same_run(tmp_path / "r", tmp_path / "whole")


def test_a_moved_run_keeps_its_best_score_and_no_path_of_a_checkpoint_is_trusted(run, halted, whole, tmp_path, small):
    folder, _ = halted
    moved, letter = tmp_path / "elsewhere", tmp_path / "letter"
    letter.write_text("dear")
    folder.rename(moved)
    last = moved / "checkpoints" / LAST
    state = torch.load(last, weights_only=True)
    (best,) = (value for key, value in state["callbacks"].items() if key.startswith("BestCheckpoint"))
    best |= {"kth_best_model_path": str(letter), "best_model_path": str(letter), "dirpath": str(tmp_path)}
    best["best_k_models"] = {str(letter): torch.tensor(-1.0)}  # worse than any epoch: it would be deleted
    torch.save(state, last)
    assert run(main, *EPOCHS, *small, f"hydra.run.dir={moved}")[0] == 0
    assert letter.read_text() == "dear"
    assert_same_run(moved, whole)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bad_last_checkpoint_is_left_out_for_the_one_before(run, halted, whole, name):
    folder, words = halted
    DAMAGE[name](folder / "checkpoints" / LAST)
    assert run(main, *words)[0] == 0
    said = (folder / "train.log").read_text()
    assert f"{LAST} cannot be used" in said and f"resuming from {folder}/checkpoints/{BEFORE}" in said
    assert not (folder / "checkpoints" / "canary").exists()
    assert_same_run(folder, whole)


def test_without_a_good_checkpoint_a_run_begins_anew(run, halted, whole):
    folder, words = halted
    for name in (LAST, BEFORE):
        truncate(folder / "checkpoints" / name)
    assert run(main, *words)[0] == 0
    assert "resuming" not in (folder / "train.log").read_text()
    assert_same_run(folder, whole)


def test_a_damaged_best_checkpoint_is_trained_anew(run, halted, whole):
    folder, words = halted
    flip(folder / "checkpoints" / BEST)
    assert run(main, *words)[0] == 0
    assert "training restarts from the beginning" in (folder / "train.log").read_text()
    assert_same_run(folder, whole)


def test_a_damaged_side_file_is_made_anew(run, halted, whole):
    folder, words = halted
    side_file = folder / "checkpoints" / "images.npz"
    good = side_file.read_bytes()
    side_file.unlink()  # it is one file with those of the other tests' runs of these images
    side_file.write_bytes(good)
    truncate(side_file)
    assert run(main, *words)[0] == 0
    assert "images.npz: damaged" in (folder / "train.log").read_text()
    assert side_file.read_bytes() == good
    assert_same_run(folder, whole)


@pytest.mark.parametrize("content", ['{"status": "run', "[]"])
def test_a_damaged_status_is_one_line_before_anything_starts(run, halted, content):
    folder, words = halted
    (folder / "status.json").write_text(content)
    code, out, err = run(main, *words)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"{folder}/status.json: damaged (not JSON)" in err


def test_a_network_that_says_nothing_finite_has_diverged(run, tmp_path, monkeypatch, small):
    """Of validation images; and without any, of test images."""

    def forward(self, images, forward=Classifier.forward):
        return forward(self, images) * (1 if self.training else float("inf"))

    monkeypatch.setattr(Classifier, "forward", forward)
    words = ("-m", "data.val_fraction=0.1,0", "trainer.max_epochs=1", *small, f"hydra.sweep.dir={tmp_path}/s")
    assert run(main, *words)[0] == 1
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [row["f1_macro"] for row in rows] == ["0.0", "0.0"]
    assert "validation images is not finite" in rows[0]["error"] and "output is not finite" in rows[1]["error"]
    assert not list((tmp_path / "s" / rows[0]["run"] / "checkpoints").glob("*.ckpt"))


def test_other_images_or_another_split_are_refused(run, halted, drawn, tmp_path):
    folder, words = halted
    images = tmp_path / "images"
    shutil.copytree(drawn, images)
    words = [f"data.root={images}" if word.startswith("data.root=") else word for word in words]
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(drawn), str(images)))
    first, *others = read_table(folder / "split.csv")
    used = next(row["file"] for row in others if row["split"] == "train" and row["label"] == first["label"])
    shutil.copyfile(images / first["file"], images / used)
    before = (folder / "checkpoints" / LAST).read_bytes()
    code, _, err = run(main, *words)
    assert (
        code == 1 and "began with other images or another split: " in err and err.splitlines()[-1].startswith("cxr: ")
    )
    assert (folder / "checkpoints" / LAST).read_bytes() == before
    write_status(folder, "done")
    code, _, err = run(main, *words)
    assert code == 1 and "began with other images" in err
    assert read_json(folder / "status.json")["status"] == "done", "what is done stays done"


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / LAST
    DurableCheckpointIO().save_checkpoint({"a": torch.ones(9)}, path)
    assert not damage(path) and not (tmp_path / BEFORE).exists()
    DurableCheckpointIO().save_checkpoint({"a": torch.zeros(9)}, path)
    assert torch.load(tmp_path / BEFORE)["a"].sum() == 9, "two generations"

    def full(content, file):
        file.write(b"half")
        raise RuntimeError("file write failed") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="last.ckpt: cannot be written .No space left on device.; earlier checkpo"):
        DurableCheckpointIO().save_checkpoint({}, path)
    monkeypatch.setattr(torch, "save", lambda content, file: file.write(b"PK, and then something else"))
    with pytest.raises(UserError, match="reads back differently"):
        DurableCheckpointIO().save_checkpoint({}, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [LAST, BEFORE]
    assert torch.load(path)["a"].sum() == 0


def test_room_for_the_checkpoints_is_looked_for_first(tmp_path, monkeypatch):
    model = torch.nn.Linear(1000, 1000)
    check_room(tmp_path, model)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 50_000_000))
    with pytest.raises(UserError, match="50 MB free, but the checkpoints of this network and the other .*about 60"):
        check_room(tmp_path, model)


@pytest.mark.long
def test_a_run_that_ends_by_steps_does_not_go_on_from_the_end_of_an_epoch(run, tmp_path, monkeypatch, small):
    words = ("trainer.max_epochs=3", "+trainer.max_steps=10", *small)
    assert run(main, *words, f"hydra.run.dir={tmp_path}/whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "EPOCH_SECONDS", 0)
        patch.setattr(Classifier, "on_train_start", lambda self: None)

        def stop(self, *_):
            if self.current_epoch == 1:
                raise KeyboardInterrupt  # as hard as a kill: nothing is written any more

        patch.setattr(Classifier, "on_train_epoch_start", stop)
        with pytest.raises(SystemExit):
            run(main, *words, f"hydra.run.dir={tmp_path}/r") and sys.exit(1)
    assert torch.load(tmp_path / "r" / "checkpoints" / LAST, weights_only=True)["epoch"] == 0
    assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 0
    assert_same_run(tmp_path / "r", tmp_path / "whole")


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True])
def test_the_precision_that_was_measured_stays_that_of_the_run(run, tmp_path, monkeypatch, small, killed):
    """To the last bit, also where the run was killed before it had a checkpoint."""
    words = ["trainer=cpu", *EPOCHS, *(word for word in small if not word.startswith("trainer.precision="))]
    with monkeypatch.context() as patch:
        patch.setattr("cxr.models.precision.bf16_gain", lambda: 2.0)
        assert run(main, *words, f"hydra.run.dir={tmp_path}/whole")[0] == 0
        stop_in(patch, 1, 1)
        assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 143
    if killed:
        for path in (tmp_path / "r" / "checkpoints").glob("*.ckpt"):
            path.unlink()
    monkeypatch.setattr("cxr.models.precision.bf16_gain", lambda: 0.5)
    assert run(main, *words, f"hydra.run.dir={tmp_path}/r")[0] == 0
    assert read_json(tmp_path / "r" / "metrics.json")["train"]["precision"] == "bf16-mixed"
    assert_same_run(tmp_path / "r", tmp_path / "whole")


def test_a_stop_within_the_test_images_leaves_no_figures(run, tmp_path, monkeypatch, small, whole):
    def stop(self, batch, batch_idx, step=Classifier.test_step):
        signals._hear(signal.SIGTERM, None)
        return step(self, batch, batch_idx)

    words = (*EPOCHS, *small, f"hydra.run.dir={tmp_path}/r")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", stop)
        code, out, err = run(main, *words)
    assert code == 143 and "Error executing" not in err
    assert not (tmp_path / "r" / "predictions.csv").exists() and "accuracy" not in out
    assert run(main, *words)[0] == 0
    assert_same_run(tmp_path / "r", whole)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_folder_that_goes_away_is_one_line(run, tmp_path, monkeypatch, small, replaced):
    def remove(self, step=Classifier.on_validation_epoch_start):
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        if replaced:
            (tmp_path / "r").write_text("somebody's")
        step(self)

    monkeypatch.setattr(Classifier, "on_validation_epoch_start", remove)
    code, _, err = run(main, "trainer.max_epochs=1", *small, f"hydra.run.dir={tmp_path}/r")
    assert code == 1 and err.count("\n") == 1
    assert err.startswith(f"cxr: {tmp_path}/r/") and "free space or repair the folder" in err


def test_divergence_ends_the_run_in_its_step_and_names_the_images(run, tmp_path, monkeypatch, small):
    """Gradients that are NaN, of a finite loss; the sweep continues, the run has the worst score."""
    steps = []

    def spoil(self, batch, batch_idx, step=Classifier.training_step):
        loss = step(self, batch, batch_idx)
        if self.hparams.optim["lr"] == 0.02 and self.global_step >= 3:
            steps.append(batch.index.tolist())
            self.net.head[-1].bias.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(Classifier, "training_step", spoil)
    words = ("-m", "optim.lr=0.02,0.003", "trainer.max_epochs=2", *small, f"hydra.sweep.dir={tmp_path}/s")
    code, out, _ = run(main, *words)
    assert code == 1 and len(steps) == 1
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [(row["status"], row["f1_macro"] == "0.0") for row in rows] == [("failed", True), ("done", False)]
    assert "epoch 1, batch 4: the loss or its gradient is not finite: training diverged" in rows[0]["error"]
    folder = tmp_path / "s" / rows[0]["run"]
    files = [row["file"] for row in read_table(folder / "split.csv")]
    assert all(repr(files[i]) in rows[0]["error"] for i in steps[0][:3])
    assert all(repr(files[i]) in (folder / "train.log").read_text() for i in steps[0])
    assert not list((folder / "checkpoints").glob("*.ckpt"))
    assert "1 of 2 diverged (scored as 0). Comparisons leave diverged runs out." in out
