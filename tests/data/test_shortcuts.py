"""Rules that do not look at lungs find shortcuts where there are some, and nothing else."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from cxr.data.masking import hide
from cxr.data.shortcuts import file_facts, shortcut_predictions
from cxr.data.sources import read_folder
from cxr.data.store import open_store


@pytest.fixture
def score_rules(image, tmp_path):
    """Accuracies of the rules on 60 of 200 images of noise, of which one class is made as `options` score_rules."""

    def score(**options):
        for i in range(200):
            image(tmp_path / "in" / "AB"[i % 2] / f"{i}.png", seed=i, **(options if i % 2 else {}))
        images = read_folder(tmp_path / "in")
        store, images = open_store(images, 48, tmp_path / "cache")
        order = np.random.default_rng(0).permutation(200)
        predictions = shortcut_predictions(store, images.label, order[60:], order[:60])
        return {name: accuracy_score(images.label[order[:60]], values) for name, values in predictions.items()}

    return score


def test_the_size_of_an_image_is_a_shortcut(score_rules):
    assert score_rules(size=(80, 60))["file_facts"] == 1


def test_noise_has_no_shortcut(score_rules):
    assert all(value < 0.7 for value in score_rules().values())


def test_the_nearest_neighbour_recognises_an_image(image, tmp_path):
    for i in range(40):
        image(tmp_path / "in" / "AB"[i % 2] / f"{i:02}-a.png", seed=i)
        image(
            tmp_path / "in" / "AB"[i % 2] / f"{i:02}-b.jpg", seed=i, size=(41, 31) if i == 0 else (40, 30), quality=90
        )
    images = read_folder(tmp_path / "in")
    store, images = open_store(images, 48, tmp_path / "cache")
    second = np.char.find(images.file, "-b") >= 0
    train, test = np.flatnonzero(~second), np.flatnonzero(second)
    predictions = shortcut_predictions(store, images.label, train, test)
    assert accuracy_score(images.label[test], predictions["nearest_neighbour"]) > 0.95
    assert (predictions["majority_class"] == predictions["majority_class"][0]).all()


def test_facts_know_nothing_of_the_middle(image, tmp_path):
    """But for mean and spread of the whole, which the middle has a part in."""
    image(tmp_path / "in" / "A" / "a.png", size=(48, 48))
    image(tmp_path / "in" / "B" / "b.png", size=(48, 48))
    store, _ = open_store(read_folder(tmp_path / "in"), 48, tmp_path / "cache")
    first = file_facts(store)
    store.shards[0][:, 10:38, 10:38] = 0
    changed = file_facts(store) != first
    assert changed[:, 4:6].all() and not changed[:, 6:].any() and not changed[:, :4].any()


def test_what_is_hidden():
    images = torch.rand(2, 1, 20, 20) + 0.1
    lungs, rest = hide(images, "lungs"), hide(images, "rest")
    assert torch.equal(lungs + rest, images)
    assert (lungs[:, :, 2:16, 2:18] == 0).all() and (rest[:, :, 2:16, 2:18] > 0).all()
    assert (lungs[:, :, :2] > 0).all() and (rest == 0).sum() == (2 * (400 - 14 * 16))
