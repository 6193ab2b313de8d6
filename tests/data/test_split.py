import numpy as np
import pytest

from cxr.data.groups import group_images
from cxr.data.image_table import ImageTable
from cxr.data.sources import read_folder
from cxr.data.split import split_images
from cxr.errors import UserError


def table(label, patient, split=None):
    n = len(label)
    names = np.array([f"{i}.jpg" for i in range(n)])
    classes = tuple("ABCD"[: max(label) + 1])
    split = np.array(split if split is not None else [""] * n)
    return ImageTable(None, names, np.array(label), np.array(patient), split, classes, np.full(len(label), ""))


def deal(images, *how, copies=(), **options):
    return split_images(images, group_images(images.patient, copies), *how, **options)


@pytest.fixture
def many():
    """400 images of two classes, 3 to 1; patients with one to eight images, some unknown."""
    rng = np.random.default_rng(0)
    label = (np.arange(400) % 4 == 0).astype(int)
    patient = np.array([f"{c}{rng.integers(60)}" if rng.random() < 0.8 else "" for c in label])
    return table(label, patient)


def sides_of(images, split):
    return {p: set(split[images.patient == p]) for p in set(images.patient.tolist()) - {""}}


def test_pooled_is_eight_to_two_stratified_and_by_patient(many):
    split = deal(many, "pooled", seed=0)
    for label in (0, 1):
        members = many.label == label
        assert abs((split[members] == "test").sum() - 0.2 * members.sum()) <= 1
        assert abs((split[members] == "val").sum() - 0.1 * 0.8 * members.sum()) <= 1
    assert all(len(sides) == 1 for sides in sides_of(many, split).values())
    assert set(split) == {"train", "val", "test"}


@pytest.mark.parametrize("folds", [2, 5])
def test_each_image_tests_in_one_fold_with_its_patient_and_its_copies(many, folds):
    copies = [(0, 399), (1, 7)]
    splits = [deal(many, "folds", seed=3, copies=copies, folds=folds, fold=fold) for fold in range(folds)]
    tested = np.stack([split == "test" for split in splits])
    assert (tested.sum(0) == 1).all()
    for split in splits:
        assert all(len(sides) == 1 for sides in sides_of(many, split).values())
        assert split[0] == split[399] and split[1] == split[7]
        assert set(split) == {"train", "val", "test"}
    for label in (0, 1):
        sizes = (tested & (many.label == label)).sum(1)
        assert sizes.max() - sizes.min() <= 3, "stratified: no fold differs by more than a small group"


def test_more_folds_than_patients_of_a_class_are_refused():
    images = table([0] * 20 + [1] * 3, [""] * 23)
    with pytest.raises(UserError, match="class B has 3 images of 3 patients, but none left for test"):
        deal(images, "folds", seed=0, folds=5, fold=4)


def test_split_depends_on_its_seed_alone(many):
    first = deal(many, "pooled", seed=0)
    np.random.seed(5)
    assert np.array_equal(first, deal(many, "pooled", seed=0))
    assert not np.array_equal(first, deal(many, "pooled", seed=1))


def test_given_keeps_the_test_folder_and_drops_its_patients_from_training(many):
    given = np.array(["test"] * 60 + ["val"] * 10 + ["train"] * 330)
    images = ImageTable(None, many.file, many.label, many.patient, given, many.classes, many.slices)
    split = deal(images, "given", seed=0)
    assert np.array_equal(split == "test", given == "test")
    shared = np.isin(images.patient, images.patient[:60]) & (images.patient != "") & (given != "test")
    assert shared.any() and np.array_equal(split == "unused", shared)
    assert all(len(sides - {"unused"}) == 1 for sides in sides_of(images, split).values())
    assert 0 < (split == "val").sum() <= 0.11 * np.isin(split, ["train", "val"]).sum() + 1


def test_no_validation(many):
    assert set(deal(many, "pooled", seed=0, val_fraction=0)) == {"train", "test"}


def test_reference_set_given(cxr4):
    images = read_folder(cxr4)
    split = deal(images, "given", seed=0)
    assert (split == "unused").sum() == 475
    assert (split == "test").sum() == 740
    assert all(len(sides - {"unused"}) == 1 for sides in sides_of(images, split).values())
    assert not set(split[images.split == "val"]) <= {"val"}, "validation is not the 38-image folder"


def test_one_patient_with_most_images_of_a_class():
    images = table([0] * 40 + [1] * 33, [""] * 40 + ["big"] * 31 + ["b", "c"])
    split = deal(images, "pooled", seed=0)
    assert all(len(sides) == 1 for sides in sides_of(images, split).values())
    assert all(((images.label == 1) & (split == side)).any() for side in ("train", "val", "test"))


def test_class_too_small_is_named_with_its_count():
    with pytest.raises(UserError, match="class B has 5 images of 1 patient, but none left for"):
        deal(table([0] * 40 + [1] * 5, [""] * 40 + ["one"] * 5), "pooled", seed=0)


def test_given_without_a_test_folder():
    with pytest.raises(UserError, match="no test folder"):
        deal(table([0] * 10 + [1] * 10, [""] * 20), "given", seed=0)


def test_copies_stay_together_with_their_patients(many):
    alone = deal(many, "pooled", seed=0)
    first, second = np.flatnonzero(alone == "test")[0], np.flatnonzero(alone == "train")[0]
    group = group_images(many.patient, [(first, second)])
    assert group[first] == group[second]
    for row in (first, second):  # and with the other images of both patients
        if many.patient[row]:
            assert (group[many.patient == many.patient[row]] == group[row]).all()
    split = deal(many, "pooled", seed=0, copies=[(first, second)])
    assert len(set(split[group == group[first]])) == 1


@pytest.mark.parametrize(("on_leak", "side"), [("drop", "unused"), ("keep", "train")])
def test_what_becomes_of_a_leak(on_leak, side):
    images = table([0, 1] * 20, [""] * 40, ["test"] * 10 + ["train"] * 30)
    split = deal(images, "given", seed=0, val_fraction=0, copies=[(3, 20)], on_leak=on_leak)
    assert split[20] == side and split[3] == "test" and (split[10:] == "train").sum() >= 29


def test_a_leak_can_end_it():
    images = table([0, 1] * 20, [""] * 40, ["test"] * 10 + ["train"] * 30)
    with pytest.raises(
        UserError, match="1 training image of patients of the test folder, or copies of its images .20.jpg."
    ):
        deal(images, "given", seed=0, copies=[(3, 20)], on_leak="fail")
    assert set(deal(images, "given", seed=0, on_leak="fail")) == {"train", "val", "test"}
