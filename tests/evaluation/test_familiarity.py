"""Which images a network should not judge."""

import numpy as np
import pytest

from cxr.evaluation.familiarity import REFUSED, learn_familiar


def images(n, seed, centre=0.0):
    """Features of two clusters, and thumbnails that all have one pattern."""
    rng = np.random.default_rng(seed)
    features = np.repeat(np.eye(8)[:2], n // 2, axis=0) + centre + 0.1 * rng.normal(size=(n, 8))
    return features, np.sin(np.arange(64) / 5) * 50 + 128 + 5 * rng.normal(size=(n, 64))


def test_other_patients_of_the_hospital_are_familiar_but_for_the_share_that_is_asked():
    familiar = learn_familiar(images(600, 0), images(2000, 1))
    assert (familiar.unfamiliar(*images(2000, 1)) > 1).mean() == pytest.approx(REFUSED, abs=0.001)
    assert (familiar.unfamiliar(*images(2000, 2)) > 1).mean() < 3 * REFUSED, "others, too"


def test_with_few_validation_images_few_others_are_refused():
    """Of 12, none may be the hundredth: the limit lies beyond all of them."""
    refused = []
    for seed in range(20):
        familiar = learn_familiar(images(300, 0), images(12, 10 + seed))
        refused.append((familiar.unfamiliar(*images(500, 100 + seed)) > 1).mean())
    assert np.mean(refused) < 3 * REFUSED


def test_either_the_features_or_the_thumbnail_can_be_unfamiliar():
    familiar = learn_familiar(images(600, 0), images(600, 1))
    features, small = images(100, 3)
    assert (familiar.unfamiliar(-features, small) > 1).all(), "no cluster of the training images"
    assert (familiar.unfamiliar(features, 255 - small) > 1).all(), "a negative whose features pass"
    brighter = familiar.unfamiliar(features, 20 + 0.5 * small)
    assert (brighter > 1).mean() < 0.1, "brightness and contrast alone make nothing unfamiliar"


def test_a_network_without_features_has_its_thumbnails():
    training, validation = images(100, 0)[1], images(100, 1)[1]
    nothing = np.zeros((100, 0))
    familiar = learn_familiar((nothing, training), (nothing, validation))
    assert (familiar.unfamiliar(nothing, validation) > 1).sum() <= 2
    assert (familiar.unfamiliar(nothing[:3], np.random.default_rng(0).normal(size=(3, 64))) > 1).all()
