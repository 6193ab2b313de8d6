"""Assign images to train, val and test. A patient's images, and copies of an image, are never separated."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.data.image_table import ImageTable
from cxr.data.naming import as_key
from cxr.errors import UserError, counted, printable, such_as

OPTIONS = (
    "split",
    "split_seed",
    "test_fraction",
    "val_fraction",
    "on_leak",
    "folds",
    "fold",
)  # as split_images() wants


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
) -> np.ndarray:
    """Assign each image to train, val, test or unused.

    Args:
        group: int array of length N, equal for images that must not be separated; see group_images().
        protocol: "pooled" (all images, stratified by class), "given" (the set's own test folder; see on_leak) or
            "folds" (cross-validation: each image tests in one of `folds` runs).
        seed: of the draw.
        test_fraction: share of all images that tests; pooled only.
        val_fraction: share of the remaining images that validates; 0 for none.
        on_leak: given only: what becomes of leaks, see find_leaks(): "drop" (unused), "keep" (training) or "fail".
        folds, fold: folds only: into how many parts the images are dealt, and the number of the one that tests, from 0.

    Returns:
        string array of length N.

    Raises:
        UserError: there is only one class, a class is missing from a split, no test folder is given, or there are leaks
            and on_leak is "fail".
    """
    if len(images.classes) < 2:
        raise UserError(f"{images.root}: images of one class only ({images.classes[0]}); a classifier needs two")
    rng = np.random.default_rng(seed)
    if protocol == "given":
        split = use_given_test(images, group, on_leak)
    elif protocol == "folds":
        split = np.where(deal_folds(images, group, folds, rng) == fold, "test", "train").astype("<U6")
    else:
        split = np.full(len(images), "train", dtype="<U6")
        split[draw_groups(images, group, split == "train", test_fraction, 2 if val_fraction else 1, rng)] = "test"
    if val_fraction:
        split[draw_groups(images, group, split == "train", val_fraction, 1, rng)] = "val"
    check_classes(images, split, group, ("train", "val", "test") if val_fraction else ("train", "test"))
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


def deal_folds(images: ImageTable, group: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Deal whole groups to folds, so that each fold has about the same number of images of each class: int array of
    length N. Groups come in random order, large ones first, to the fold that lacks images of their class most."""
    dealt = np.zeros(len(images), dtype=np.int64)
    rows_of = rows_by_group(group, np.ones(len(images), dtype=bool))
    order = sorted(rng.permutation(list(rows_of)).tolist(), key=lambda g: -len(rows_of[g]))
    counts = np.zeros((folds, len(images.classes)), dtype=np.int64)
    for g in order:
        rows = rows_of[g]
        label = np.bincount(images.label[rows]).argmax()
        fold = np.lexsort((counts.sum(1), counts[:, label]))[0]
        dealt[rows] = fold
        counts[fold] += np.bincount(images.label[rows], minlength=len(images.classes))
    return dealt


def find_leaks(split: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Images outside of test that belong to a group with a test image: bool array of length N."""
    test = split == "test"
    return np.isin(group, group[test]) & ~test


def group_images(patient: np.ndarray, copies: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Number the images: equal numbers for images that must not be separated, those of one patient and copies.

    Args:
        patient: string array of length N; each image of an unknown patient, "", is a group.
        copies: pairs of rows that show the same image; a copy brings its patient's other images along.
    """
    names, node = np.unique(patient, return_inverse=True)
    alone = patient == ""
    node[alone] = len(names) + np.arange(alone.sum())
    links = node[np.array(list(copies), dtype=np.int64).reshape(-1, 2)]
    size = node.max(initial=0) + 1
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1][node]


def draw_groups(
    images: ImageTable, group: np.ndarray, pool: np.ndarray, fraction: float, leave: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole groups from `pool` (bool, N) until each class has given `fraction` of its images there.

    Groups come in random order and count for the class of most of their images. One that would exceed its class's
    number is passed over, so the numbers are met exactly as long as groups of one image are left. `leave` groups of
    each class stay in the pool, one for each split that is still to be drawn.

    Returns:
        bool array of length N.
    """
    chosen = np.zeros(len(images), dtype=bool)
    rows_of = rows_by_group(group, pool)
    label_of = {g: int(np.bincount(images.label[rows]).argmax()) for g, rows in rows_of.items()}
    order = rng.permutation(list(rows_of)).tolist()
    for label in range(len(images.classes)):
        candidates = [g for g in order if label_of[g] == label]
        missing = max(1, round(fraction * int((pool & (images.label == label)).sum())))
        drawn: list[int] = []
        for g in candidates:
            if len(candidates) - len(drawn) > leave and len(rows_of[g]) <= missing:
                drawn.append(g)
                missing -= len(rows_of[g])
        if not drawn and len(candidates) > leave:  # every group has more images than are missing: take the smallest
            drawn = [min(candidates, key=lambda g: len(rows_of[g]))]
        for g in drawn:
            chosen[rows_of[g]] = True
    return chosen


def rows_by_group(group: np.ndarray, pool: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each group that has rows in `pool`."""
    rows = np.flatnonzero(pool)
    rows = rows[np.argsort(group[rows], kind="stable")]
    numbers, starts = np.unique(group[rows], return_index=True)
    return dict(zip(numbers.tolist(), np.split(rows, starts[1:]), strict=True))


def check_classes(images: ImageTable, split: np.ndarray, group: np.ndarray, splits: tuple[str, ...]) -> None:
    """Raise UserError if a class has no image in one of `splits`."""
    lacking = {}
    for label, name in enumerate(images.classes):
        members = images.label == label
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
