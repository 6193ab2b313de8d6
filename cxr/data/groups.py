"""Groups of images that must not be separated: those of a patient, and copies; and whole groups drawn from a set."""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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
    label: np.ndarray, group: np.ndarray, pool: np.ndarray, fraction: float, leave: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole groups from `pool` (bool, N) until each class has given `fraction` of its images there.

    Groups come in random order and count for the class of most of their images. One that would exceed its class's
    number is passed over, so the numbers are met exactly as long as groups of one image are left. `leave` groups of
    each class stay in the pool, one for each split that is still to be drawn.

    Args:
        label: int (N,), classes; or other numbers, of whatever is to give the same fraction.

    Returns:
        bool array of length N.
    """
    chosen = np.zeros(len(label), dtype=bool)
    rows_of = rows_by_group(group, pool)
    candidates_of: dict[int, list[int]] = {}
    for g in rng.permutation(list(rows_of)).tolist():
        candidates_of.setdefault(int(np.bincount(label[rows_of[g]]).argmax()), []).append(g)
    images = np.bincount(label[pool], minlength=label.max(initial=0) + 1)
    for value, candidates in candidates_of.items():
        missing = max(1, round(fraction * int(images[value])))
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


def deal_folds(labels: np.ndarray, group: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Deal whole groups to folds, so that each fold has about the same number of images of each class: int array of
    length N; `labels` (N,) are the classes. Groups come in random order, large ones first, to the fold that lacks
    images of their class most."""
    dealt = np.zeros(len(labels), dtype=np.int64)
    rows_of = rows_by_group(group, np.ones(len(labels), dtype=bool))
    order = sorted(rng.permutation(list(rows_of)).tolist(), key=lambda g: -len(rows_of[g]))
    counts = np.zeros((folds, labels.max() + 1), dtype=np.int64)
    for g in order:
        rows = rows_of[g]
        label = np.bincount(labels[rows]).argmax()
        fold = np.lexsort((counts.sum(1), counts[:, label]))[0]
        dealt[rows] = fold
        counts[fold] += np.bincount(labels[rows], minlength=counts.shape[1])
    return dealt


def rows_by_group(group: np.ndarray, pool: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each group that has rows in `pool`."""
    rows = np.flatnonzero(pool)
    if not len(rows):
        return {}
    rows = rows[np.argsort(group[rows], kind="stable")]
    numbers, starts = np.unique(group[rows], return_index=True)
    return dict(zip(numbers.tolist(), np.split(rows, starts[1:]), strict=True))
