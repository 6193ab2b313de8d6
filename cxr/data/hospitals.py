"""Which hospital each image is from, and whether classes and hospitals are the same thing: a network may then know
hospitals instead of diseases (Zech et al. 2018; DeGrave, Janizek & Lee 2021)."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.cache import built, fingerprint
from cxr.data.image_table import ImageTable
from cxr.data.store import Store
from cxr.errors import UserError, counted, printable
from cxr.files.writing import read_json, write_json

OVERLAP = 0.05  # of two classes' shares of hospitals, up to which no hospital counts as one of both: strays
COMMON = 0.02  # share of all images that must have a format and size, so that these count as a kind
# Balanced accuracy of told_apart() from which two classes count as from different hospitals. On images whose hospitals
# are known, it is 0.96 and more between hospitals, 0.79 and less between the classes of one.
APART = 0.9
VERSION = 1  # raise when confounding() says something else


def hospitals_of(images: ImageTable) -> np.ndarray | None:
    """The hospital of each of N images, strings (N,), "" for unknown; None where no table, manifest or header says
    any."""
    hospital = images.slices.get("hospital")
    return hospital if hospital is not None and (hospital != "").any() else None


def named_hospitals(images: ImageTable, option: str) -> np.ndarray:
    """The hospital of each of N images, strings (N,), for an option that needs it. Raises UserError where no table,
    manifest or header says any."""
    hospital = hospitals_of(images)
    if hospital is None:
        raise UserError(f"{option}: no hospital is known; name the column that holds it with data.hospital=COLUMN")
    return hospital


def hospital_remarks(images: ImageTable) -> list[str]:
    """What people should look at in the names of hospitals: images without one, and names that differ in spelling
    alone."""
    hospital = hospitals_of(images)
    if hospital is None:
        return []
    names = Counter(hospital.tolist())
    unknown = names.pop("", 0)
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault("".join(filter(str.isalnum, name.casefold())), []).append(name)
    lines = [f"the hospital is not known for {counted(unknown, 'image')}"] * (unknown > 0)
    for alike in (of for of in spellings.values() if len(of) > 1):
        each = ", ".join(f"{printable(name)} ({names[name]:,})" for name in sorted(alike))
        lines.append(f"hospitals whose names differ in spelling alone count as different: {each}; correct the table")
    return lines


def balance_levels(balance: Sequence[str], images: ImageTable) -> np.ndarray:
    """What `data.sampler=balanced` balances: int64 (N, K), the class of each image and, if `data.balance` asks for it,
    its hospital. Images of unknown hospitals are spread evenly over those of their class: together, they are not
    another hospital. Raises UserError where no hospital is known."""
    columns = [images.label]
    if "hospital" in balance:
        number = np.unique(named_hospitals(images, "data.balance=[label,hospital]"), return_inverse=True)[1]
        unknown = images.slices["hospital"] == ""
        for label in np.unique(images.label[unknown]):
            rows = np.flatnonzero(unknown & (images.label == label))
            others = np.unique(number[~unknown & (images.label == label)])
            if len(others):
                number[rows] = others[np.arange(len(rows)) % len(others)]
        columns.append(number)
    return np.stack(columns, axis=1)


def file_kinds(store: Store) -> np.ndarray:
    """Format and size of the file of each image, "PNG 512x512"; "JPEG, other sizes" for sizes that few images have."""
    facts = store.facts
    columns = (facts[name].tolist() for name in ("format", "width", "height"))
    kinds = [(kind, f"{kind} {width}x{height}") for kind, width, height in zip(*columns, strict=True)]
    number = Counter(kinds)
    return np.array([
        exact if number[kind, exact] >= COMMON * len(kinds) else f"{kind}, other sizes" for kind, exact in kinds
    ])  # fmt: skip


def class_of_hospital(hospital: np.ndarray, labels: np.ndarray, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The most frequent class, among the images `train`, of the hospital of each of the images `rows` (m,), or of all
    hospitals where these have none of it: int64 (m,)."""
    everywhere = np.bincount(labels[train]).argmax()
    classes = {
        name: np.bincount(labels[train][hospital[train] == name]).argmax() for name in set(hospital[train].tolist())
    }
    return np.array([classes.get(name, everywhere) for name in hospital[rows].tolist()], dtype=np.int64)


def load_confounding(
    images: ImageTable, store: Store, group: np.ndarray, used: np.ndarray, cache: Path
) -> dict[str, Any]:
    """confounding(), computed once for each set of images and split."""
    hospital = images.slices.get("hospital", np.array([]))
    columns = images.label, hospital, group, used, store.facts["sha256"]
    inputs = images.classes, store.reading.negatives, *(column.tolist() for column in columns)

    def build(folder: Path) -> None:
        write_json(folder / "hospitals.json", confounding(images, store, group, used))

    with built(cache / f"shortcuts-{fingerprint(VERSION, *inputs)}", build) as folder:
        return read_json(folder / "hospitals.json")


def confounding(images: ImageTable, store: Store, group: np.ndarray, used: np.ndarray) -> dict[str, Any]:
    """How classes and hospitals go together, among the images `used` (bool, N).

    Args:
        store: the pixels and facts of the N images.
        group: (N,), equal for images of one patient and for copies.

    Returns:
        "known", whether a table, manifest or header says the hospitals; see by_hospital() and by_files().
    """
    hospital, labels = hospitals_of(images), images.label[used]
    if hospital is not None:
        return {"known": True, **by_hospital(labels, hospital[used], images.classes)}
    return {"known": False, **by_files(labels, store, group, np.flatnonzero(used), images.classes)}


def by_hospital(labels: np.ndarray, hospital: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """How classes and known hospitals go together.

    Args:
        labels: int64 (N,).
        hospital: strings (N,), "" for unknown.
        classes: the C names.

    Returns:
        "unknown": the number of images without a hospital; "table": images by hospital and class; "apart": the pairs of
        classes that share no hospital (the smaller of their shares of each hospital, summed, are OVERLAP or less), and
        "pairs", how many pairs there are. Classes without images of known hospitals are left out.
    """
    table, counts = count(labels, hospital, classes)
    pairs = list(combinations(np.flatnonzero(counts.sum(0)).tolist(), 2))
    shares = counts / np.maximum(counts.sum(0), 1)  # of the hospitals, within each class
    apart = [(a, b) for a, b in pairs if np.minimum(shares[:, a], shares[:, b]).sum() <= OVERLAP]
    return {
        "unknown": int((hospital == "").sum()),
        "table": table,
        "apart": [[classes[a], classes[b]] for a, b in apart],
        "pairs": len(pairs),
    }


def by_files(
    labels: np.ndarray, store: Store, group: np.ndarray, rows: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """How classes go together with probable hospitals, where these are not known: images that were collected in several
    places are seldom alike. Arguments as for told_apart().

    Returns:
        "table": images by file_kinds() and class; "apart": the pairs of classes that told_apart() tells apart with an
        accuracy of APART or more; "accuracy": the lowest of these; "pairs": how many pairs there are.
    """
    from cxr.data.shortcuts import told_apart  # torch and scikit-learn take seconds

    accuracies = told_apart(labels, store, group, rows)
    apart = {pair: accuracy for pair, accuracy in accuracies.items() if accuracy >= APART}
    return {
        "table": count(labels, file_kinds(store)[rows], classes)[0],
        "apart": [[classes[a], classes[b]] for a, b in apart],
        "accuracy": min(apart.values(), default=None),
        "pairs": len(accuracies),
    }


def count(
    labels: np.ndarray, hospital: np.ndarray, classes: Sequence[str]
) -> tuple[dict[str, dict[str, int]], np.ndarray]:
    """Images by hospital and class, as a table and as int (H, C)."""
    names = sorted(set(hospital.tolist()) - {""})
    counts = np.array([np.bincount(labels[hospital == name], minlength=len(classes)) for name in names], dtype=np.int64)
    counts = counts.reshape(len(names), len(classes))
    table = {name: dict(zip(classes, row, strict=True)) for name, row in zip(names, counts.tolist(), strict=True)}
    return table, counts
