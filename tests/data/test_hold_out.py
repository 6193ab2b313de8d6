"""One hospital is held out: what tests outside and inside, and what must not be trained on."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.data.groups import group_images
from cxr.data.image_table import ImageTable
from cxr.data.split import split_images
from cxr.errors import UserError

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")


@pytest.fixture
def images():
    """600 images of three hospitals and of patients with one to five images; only C has tuberculosis."""
    rng = np.random.default_rng(0)
    hospital = np.array(["A", "B", "C"])[rng.integers(0, 3, 600)]
    label = np.where((hospital == "C") & (rng.random(600) < 0.4), 2, rng.integers(0, 2, 600))
    patient = np.array([f"{h}{rng.integers(60)}" for h in hospital])
    names = np.array([f"{n}.png" for n in range(600)])
    empty = np.full(600, "")
    return ImageTable(None, names, label, patient, empty, CLASSES, {"hospital": hospital})


def deal(images, held_out, copies=(), val=0.1, seed=0):
    group = group_images(images.patient, copies)
    return split_images(images, group, "hospital", seed, test_fraction=0.2, val_fraction=val, held_out=held_out)


def test_the_hospital_tests_outside_and_patients_of_the_others_inside(images):
    split, hospital = deal(images, "A"), images.slices["hospital"]
    assert (split == "test").tolist() == (hospital == "A").tolist()
    for name in ("B", "C"):
        shares = {part: (split[hospital == name] == part).mean() for part in ("train", "val", "inside")}
        assert shares["inside"] == pytest.approx(0.2, abs=0.05) and shares["val"] == pytest.approx(0.08, abs=0.05)
    for patient in set(images.patient.tolist()):
        assert len(set(split[images.patient == patient])) == 1, "no patient is on two sides"
    assert set(deal(images, "A", val=0)) == {"train", "inside", "test"}


def test_inside_images_are_the_same_whichever_hospital_is_held_out(images):
    hospital = images.slices["hospital"]
    inside = {name: deal(images, name) == "inside" for name in ("A", "B", "C")}
    of_c = hospital == "C"
    assert (inside["A"] & of_c).tolist() == (inside["B"] & of_c).tolist()
    assert (deal(images, "A", seed=1) == "inside").tolist() != inside["A"].tolist()


def test_what_touches_the_hospital_is_not_trained_on(images):
    hospital = images.slices["hospital"]
    a, b = np.flatnonzero(hospital == "A")[0], np.flatnonzero(hospital == "B")[:2]
    images.patient[b[0]] = images.patient[a]  # a patient who was in both
    images.slices["hospital"][b[1]] = ""
    copy = np.flatnonzero(hospital == "C")[0]
    split = deal(images, "A", copies=[(a, copy)])
    assert split[a] == "test" and {split[b[0]], split[b[1]], split[copy]} == {"unused"}
    assert (split[images.patient == images.patient[copy]] == "unused").all(), (
        "nor the other images of the copy's patient"
    )


def test_a_class_that_only_this_hospital_has_is_unused(images):
    split = deal(images, "C")
    assert set(split[images.label == 2]) == {"unused"}
    assert set(split[(images.slices["hospital"] == "C") & (images.label < 2)]) == {"test"}


def test_what_cannot_be_held_out_gets_one_line(images):
    with pytest.raises(UserError, match=r"data.hold_out=D: no such hospital; there are [ABC] \(\d+ images\), "):
        deal(images, "D")
    only = replace(images, slices={"hospital": np.full(600, "A")})
    with pytest.raises(UserError, match="data.hold_out=A: it has NORMAL.*all other hospitals have nothing"):
        deal(only, "A")
    images.slices["hospital"][images.label < 2] = "A"
    with pytest.raises(UserError, match="data.hold_out=C: it has TUBERCULOSIS, all other hospitals have NORMAL, PNEU"):
        deal(images, "C")
    with pytest.raises(UserError, match="no hospital is known; name the column"):
        split_images(ImageTable(None, *[images.file] * 4, CLASSES), np.arange(600), "hospital", 0, held_out="A")
