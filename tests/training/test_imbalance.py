"""Classes with many images and with few: weights in the loss, and a sampler."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from cxr.data.batches import Batch, Batches, SeededOrder
from cxr.files.writing import read_json
from cxr.models.classifier import load_classifier
from cxr.options.command_line import read_runs
from cxr.train import main
from cxr.training.build import build_data, build_model

LABELS = np.repeat([0, 1, 2], [70, 25, 5])


def epoch(number, seed=0, labels=LABELS):
    order = SeededOrder(len(labels), seed, levels=labels[:, None])
    order.set_epoch(number)
    return np.array(list(order))


def test_balanced_order():
    order = epoch(1)
    counts = np.bincount(LABELS[order])
    assert sorted(counts.tolist()) == [33, 33, 34] and len(order) == 100
    own = np.bincount(order, minlength=100)
    assert set(own[:70].tolist()) == {0, 1}  # a class with many images: some of them, once
    assert own[70:95].min() >= 1 and own[70:95].max() == 2  # one with fewer than its share: all, some twice
    assert own[95:].min() >= 6 and own[95:].max() - own[95:].min() <= 1
    assert epoch(1).tolist() == order.tolist() != epoch(2).tolist()
    assert epoch(1, seed=1).tolist() != order.tolist()
    assert set(epoch(2)[LABELS[epoch(2)] == 0]) != set(order[LABELS[order] == 0])


def test_balanced_order_goes_on_within_an_epoch():
    def batches(position, first):
        found = Batches(SeededOrder(100, 0, first, LABELS[:, None]), 16, True, position=position)
        return [drawn.positions.tolist() for drawn in found]

    assert batches((3, 2), 3) == batches((3, 0), 3)[2:]


def test_weights_are_those_of_scikit_learn_and_are_in_the_loss(small):
    ((_, config),) = read_runs([*small, "loss.weights=balanced"])
    data = build_data(config)
    labels = data.images.label[data.rows("train")]
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(data.class_weights(), expected)
    assert np.array(data.class_weights())[labels].mean() == pytest.approx(1)

    model = build_model(config, data)
    model._trainer = SimpleNamespace(is_last_batch=False, world_size=1)
    rows = data.rows("train")[:20]
    images = torch.from_numpy(data.store[rows])[:, None].float() / 255
    truth = torch.from_numpy(data.images.label[rows])
    loss = model.training_step(Batch(images, truth, torch.from_numpy(rows), 20), 0)
    each = F.cross_entropy(model(images), truth, reduction="none") * torch.tensor(expected)[truth]
    assert loss.item() == pytest.approx(each.mean().item(), rel=1e-5)


@pytest.fixture(scope="module")
def share_of(small, tmp_path_factory):
    """Train with some options, and return the share of test images that are predicted to be PNEUMONIA, the most
    frequent class; and the run folder."""

    def train(*words):
        folder = tmp_path_factory.mktemp("imbalance") / "r"
        with pytest.MonkeyPatch.context() as patch:
            epochs = ("trainer.max_epochs=6", "optim.lr=0.001")
            patch.setattr("sys.argv", ["train", *small, *words, *epochs, f"hydra.run.dir={folder}"])
            main()
        matrix = np.array(read_json(folder / "metrics.json")["test"]["confusion_matrix"])
        return matrix.sum(0)[1] / matrix.sum(), folder

    return train


@pytest.fixture(scope="module")
def plain_share(share_of):
    return share_of()[0]


@pytest.mark.parametrize("option", ["loss.weights=balanced", "data.sampler=balanced"])
def test_rare_classes_are_predicted_more_often(share_of, plain_share, option):
    """In a training that is too short to tell classes apart, their weights alone decide the predictions."""
    share, folder = share_of(option)
    assert plain_share > share
    weights = load_classifier(folder / "checkpoints" / "best.ckpt").hparams["class_weights"]
    assert (weights is None) == (option != "loss.weights=balanced")


def test_both_at_once_are_refused(run):
    code, _, said = run(main, "loss.weights=balanced", "data.sampler=balanced")
    assert code == 2 and "choose one" in said and len(said.splitlines()) == 1
