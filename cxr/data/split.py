"""Which image trains, validates and tests. A patient never stands on two sides, nor does a copy of an image."""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.data.sources import ImageTable
from cxr.errors import UserError, printable


def split_images(
    images: ImageTable,
    group: np.ndarray,
    protocol: str,
    seed: int,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    on_leak: str = "drop",
) -> np.ndarray:
    """Deal the images out to train, val, test and unused.

    Args:
        images: the table.
        group: int array of length N, equal for images that must not be separated: what group_images() returns.
        protocol: "pooled" (all images are pooled, then dealt out, stratified by class) or "given" (the set's own test
            folder; of the other images, those that belong with one of its images are leaks: see on_leak).
        seed: of the draw.
        test_fraction: share of all images that tests; pooled only.
        val_fraction: share of the remaining images that validates; 0 for none.
        on_leak: given only: "drop" (leaks are unused), "keep" (they train all the same) or "fail".

    Returns:
        string array of length N.

    Raises:
        UserError: there is one class only, a class cannot stand on every side, no test folder is given, or there are
            leaks and on_leak is "fail".
    """
    if len(images.classes) < 2:
        raise UserError(f"{images.root}: images of one class only ({images.classes[0]}); a classifier needs two")
    rng = np.random.default_rng(seed)
    split = np.full(len(images), "train", dtype="<U6")
    if protocol == "given":
        test = images.split == "test"
        if not test.any():
            raise UserError("data.split=given: this set has no test folder; use data.split=pooled")
        leaks = np.isin(group, group[test]) & ~test
        if leaks.any() and on_leak == "fail":
            raise UserError(
                f"data.on_leak=fail: {leaks.sum()} training images, {printable(images.file[leaks][0])} among them, are "
                "of patients of the test folder or copies of its images (python -m cxr.audit lists them); use drop or "
                "keep"
            )
        if on_leak != "keep":
            split[leaks] = "unused"
        split[test] = "test"
    else:
        left = 2 if val_fraction else 1
        split[draw(images, group, split == "train", test_fraction, left, rng)] = "test"
    if val_fraction:
        split[draw(images, group, split == "train", val_fraction, 1, rng)] = "val"
    check_sides(images, split, group, ("train", "val", "test") if val_fraction else ("train", "test"))
    return split


def group_images(patient: np.ndarray, copies: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """A number for each image, equal for those that must not be separated: the images of one patient, and copies.

    Args:
        patient: string array of length N; an image of an unknown patient, "", stands alone.
        copies: pairs of rows that show the same image; a copy brings its patient's other images along.
    """
    names, own = np.unique(patient, return_inverse=True)
    alone = patient == ""
    own[alone] = len(names) + np.arange(alone.sum())
    links = own[np.array(list(copies), dtype=np.int64).reshape(-1, 2)]
    size = own.max(initial=0) + 1
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1][own]


def draw(
    images: ImageTable, group: np.ndarray, pool: np.ndarray, fraction: float, leave: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole patients from `pool` until each class has given `fraction` of its images there.

    Patients come in random order, each counts for the class of most of its images, and one that would overshoot its
    class's number is passed over: so the numbers are met to the image wherever patients with one image are left.
    `leave` patients of each class stay in the pool, one for each side that is still to be served.

    Returns:
        bool array of length N.
    """
    chosen = np.zeros(len(images), dtype=bool)
    rows_of = rows_by_group(group, pool)
    label_of = {g: int(np.bincount(images.label[rows]).argmax()) for g, rows in rows_of.items()}
    order = rng.permutation(list(rows_of)).tolist()
    for label in range(len(images.classes)):
        own = [g for g in order if label_of[g] == label]
        wanted = max(1, round(fraction * int((pool & (images.label == label)).sum())))
        drawn: list[int] = []
        for g in own:
            if len(own) - len(drawn) > leave and len(rows_of[g]) <= wanted:
                drawn.append(g)
                wanted -= len(rows_of[g])
        if not drawn and len(own) > leave:  # every patient has more images than wanted: the smallest one goes
            drawn = [min(own, key=lambda g: len(rows_of[g]))]
        for g in drawn:
            chosen[rows_of[g]] = True
    return chosen


def rows_by_group(group: np.ndarray, pool: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each group that has rows in `pool`."""
    rows = np.flatnonzero(pool)
    rows = rows[np.argsort(group[rows], kind="stable")]
    numbers, starts = np.unique(group[rows], return_index=True)
    return dict(zip(numbers.tolist(), np.split(rows, starts[1:]), strict=True))


def check_sides(images: ImageTable, split: np.ndarray, group: np.ndarray, sides: tuple[str, ...]) -> None:
    """Raise UserError for the first class that is missing on a side."""
    for label, name in enumerate(images.classes):
        own = images.label == label
        if lacking := [side for side in sides if not (own & (split == side)).any()]:
            raise UserError(
                f"class {name} has {own.sum()} images of {len(np.unique(group[own]))} patients, but none left for "
                f"{', '.join(lacking)}: each class must stand in {', '.join(sides)}; add images or leave the class out"
            )
