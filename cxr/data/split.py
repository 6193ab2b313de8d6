"""Assign images to train, val and test. A patient's images, and copies of an image, are never separated."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cxr.data.groups import deal_folds, draw_groups
from cxr.data.image_table import ImageTable
from cxr.data.naming import as_key
from cxr.errors import UserError, counted, printable, such_as

# What an image of a run is used for, in the order of use. "inside" is of hospitals that the run trains on, and tests
# beside the held-out hospital of "test".
USES = ("train", "val", "inside", "test", "unused")
OPTIONS = (
    "split",
    "split_seed",
    "test_fraction",
    "val_fraction",
    "on_leak",
    "folds",
    "fold",
    "hold_out",
)  # as split_images() wants
NAMED = 10  # hospitals that an error lists


def split_images(
    images: ImageTable,
    group: np.ndarray,
    protocol: str,
    seed: int,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    on_leak: str = "drop",
    folds: int = 5,
    fold: int = 0,
    held_out: str | None = None,
) -> np.ndarray:
    """Assign each image to one of USES.

    Args:
        group: int array of length N, equal for images that must not be separated; see group_images().
        protocol: "pooled" (all images, stratified by class), "given" (the set's own test folder; see on_leak), "folds"
            (cross-validation: each image tests in one of `folds` runs) or "hospital" (see cxr.data.hold_out).
        seed: of the draw.
        test_fraction: share of all images that tests, pooled; or that tests inside, with "hospital".
        val_fraction: share of the remaining images that validates; 0 for none.
        on_leak: given only: what becomes of leaks, see find_leaks(): "drop" (unused), "keep" (training) or "fail".
        folds, fold: folds only: into how many parts the images are dealt, and the number of the one that tests, from 0.
        held_out: hospital only: the name of the one that tests.

    Returns:
        string array of length N.

    Raises:
        UserError: there is only one class, a class is missing from a split, no test folder is given, there are leaks
            and on_leak is "fail", or no hospital is called `held_out`.
    """
    if len(images.classes) < 2:
        raise UserError(f"{images.root}: images of one class only ({images.classes[0]}); a classifier needs two")
    rng = np.random.default_rng(seed)
    if protocol == "hospital":
        return hold_out(images, group, held_out, test_fraction, val_fraction, rng)
    if protocol == "given":
        split = use_given_test(images, group, on_leak)
    elif protocol == "folds":
        split = np.where(deal_folds(images.label, group, folds, rng) == fold, "test", "train").astype("<U6")
    else:
        split = np.full(len(images), "train", dtype="<U6")
        split[draw_groups(images.label, group, split == "train", test_fraction, 2 if val_fraction else 1, rng)] = "test"
    if val_fraction:
        split[draw_groups(images.label, group, split == "train", val_fraction, 1, rng)] = "val"
    splits = ("train", "val", "test") if val_fraction else ("train", "test")
    check_classes(images, split, group, splits, range(len(images.classes)))
    return split


def split_by_options(images: ImageTable, group: np.ndarray, data: Mapping[str, Any]) -> np.ndarray:
    """split_images() as the options `data.*` ask for it."""
    return split_images(images, group, *(data[option] for option in OPTIONS))


def use_given_test(images: ImageTable, group: np.ndarray, on_leak: str) -> np.ndarray:
    """Test: the set's own test folder; train: all other images, except for leaks. UserError as in split_images()."""
    test = images.split == "test"
    if images.unknown_splits:
        values = ", ".join(f"{printable(value)} ({number:,})" for value, number in images.unknown_splits.items())
        raise UserError(
            f"data.split=given: the table's split has values that are not train, val or test: {values}; rename them, "
            "or use data.split=pooled"
        )
    if not test.any():
        raise UserError("data.split=given: this set has no test folder; use data.split=pooled")
    leaks = find_leaks(images.split, group)
    if leaks.any() and on_leak == "fail":
        raise UserError(
            f"data.on_leak=fail: {counted(leaks.sum(), 'training image')} of patients of the test folder, or copies of "
            f"its images ({such_as(leaks.sum(), printable(images.file[leaks][0]))}); python -m cxr.audit lists all; "
            "use drop or keep"
        )
    split = np.full(len(images), "train", dtype="<U6")
    if on_leak != "keep":
        split[leaks] = "unused"
    split[test] = "test"
    return split


def hold_out(
    images: ImageTable, group: np.ndarray, name: str, inside: float, val: float, rng: np.random.Generator
) -> np.ndarray:
    """Test: the hospital called `name`. The fraction `inside` of every other hospital's images tests inside, and `val`
    of the rest validates; both are drawn by hospital and class, and by patient.

    Images elsewhere of the hospital's patients, copies of its images and images of unknown hospitals are unused; so
    are the hospital's classes that no other one has: no network can learn them. "inside" is drawn first, from all
    hospitals, so that it is the same whichever is held out.
    """
    name, hospital = str(name), images.slices.get("hospital", np.full(len(images), ""))
    outside = hospital == name
    if not outside.any():
        raise no_hospital(name, hospital)
    stratum = np.unique(hospital, return_inverse=True)[1] * len(images.classes) + images.label
    split = np.full(len(images), "train", dtype="<U6")
    split[draw_groups(stratum, group, split == "train", inside, 2 if val else 1, rng)] = "inside"
    split[(hospital == "") | np.isin(group, group[outside])] = "unused"
    if val:
        split[draw_groups(stratum, group, split == "train", val, 1, rng)] = "val"
    classes = np.unique(images.label[split != "unused"])
    split[outside & np.isin(images.label, classes)] = "test"
    if len(classes) < 2 or not (split == "test").any():
        held_out, others = (
            ", ".join(images.classes[i] for i in np.unique(images.label[rows])) or "nothing"
            for rows in (outside, np.isin(split, ("train", "val", "inside")))
        )
        raise UserError(
            f"data.hold_out={name}: it has {held_out}, all other hospitals have {others}; they need two classes or "
            "more to train on, and one of them in the hospital held out; add images, or hold out another hospital"
        )
    check_classes(images, split, group, ("train", "val", "inside") if val else ("train", "inside"), classes)
    return split


def no_hospital(name: str, hospital: np.ndarray) -> UserError:
    """The error for a hospital that the set, whose hospitals are strings (N,), does not have."""
    images = Counter(hospital[hospital != ""].tolist())
    if not images:
        return UserError(
            "data.split=hospital: no hospital is known; name the column of the table or manifest that holds it with "
            "data.hospital=COLUMN"
        )
    if whole := next((other for other in images if other.startswith(f"{name},")), ""):
        return UserError(
            f"data.hold_out={name}: no such hospital, but there is {printable(whole)}; a name with a comma needs both "
            f"kinds of quotes: \"data.hold_out='{printable(whole)}'\""
        )
    names = ", ".join(f"{printable(other)} ({counted(number, 'image')})" for other, number in images.most_common(NAMED))
    more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
    return UserError(f"data.hold_out={name}: no such hospital; there are {names}{more}")


def unused_reasons(images: ImageTable, split: np.ndarray, held_out: str) -> dict[str, int]:
    """Why a split by hospital leaves images out, and how many each: of unknown hospitals, of classes that no network
    can learn, and patients or copies of the held-out hospital."""
    unused, hospital = split == "unused", images.slices["hospital"]
    unknown, outside = hospital == "", hospital == held_out
    return {
        "of unknown hospitals": int((unused & unknown).sum()),
        f"of classes that only {held_out} has": int((unused & outside).sum()),
        f"of patients of {held_out}, or copies of its images": int((unused & ~unknown & ~outside).sum()),
    }


def find_leaks(split: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Images outside of test that belong to a group with a test image: bool array of length N."""
    test = split == "test"
    return np.isin(group, group[test]) & ~test


def check_classes(
    images: ImageTable, split: np.ndarray, group: np.ndarray, splits: tuple[str, ...], classes: Iterable[int]
) -> None:
    """Raise UserError if one of `classes` has no image in one of `splits`."""
    lacking = {}
    for label in classes:
        name, members = images.classes[label], images.label == label
        if parts := [part for part in splits if not (members & (split == part)).any()]:
            n, patients = int(members.sum()), len(np.unique(group[members]))
            size = f"{counted(n, 'image')} of {counted(patients, 'patient')}"
            lacking[name] = f"class {name} has {size}, but none left for {', '.join(parts)}"
    if lacking:
        out = ", ".join(f"{as_key(name)}: null" for name in lacking)
        raise UserError(
            f"{'; '.join(lacking.values())}: each class needs images in {', '.join(splits)}; add images, or leave the "
            f"class out: data.classes='{{{out}}}'"
        )
