"""Audit a set of images before training: bad files, copies, contradictions, leaks."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.cache import built, fingerprint
from cxr.data.groups import group_images
from cxr.data.hospitals import confounding, hospital_remarks
from cxr.data.image_table import ImageTable
from cxr.data.naming import no_patients, patient_and_form
from cxr.data.split import find_leaks
from cxr.data.store import Store
from cxr.errors import counted, printable, such_as
from cxr.files.writing import read_table, write_table

log = logging.getLogger(__name__)

SIZE = 128  # pixels at which images are compared: always the same, so that no split depends on data.image_size
VERSION = 4  # of find_copies() and audit(): raise it when their results change
# data.copies=auto compares all pairs of at most so many images. Seconds for an image and for a pair on two idle cores
# (one core makes an image's eleven thumbnails).
NEAR, IMAGE_SECONDS, PAIR_SECONDS = 50_000, 2.7e-3, 1e-7
TINY = 100  # pixels of the shorter side: ribs are hardly seen
BLANK = 5  # standard deviation in grey levels of 255
SHAPES = 0.6, 1.7  # width by height of chest images; others may be two side by side, or strips
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG"}
FORMATS |= {".dcm": "DICOM", ".dicom": "DICOM"}

Copies = Sequence[tuple[int, int, float]]  # rows of the table, and how alike they are


def compares_pairs(copies: str, pairs: int) -> bool:
    """Whether the option `data.copies` compares all pairs of images, and not only the bytes of their files."""
    return copies == "near" or (copies == "auto" and pairs <= NEAR**2)


def warn_exact_only(copies: str, images: int, others: int) -> None:
    """Warn that near copies are not searched for, because the images, and others to compare them with, are too many."""
    if copies == "auto":
        log.warning(
            "near copies are not searched for in a set of %d images: only files with the same bytes count as copies; "
            "data.copies=near also finds re-encoded, resized or cropped ones (about %.0f min on two cores, once)",
            images,
            (images * IMAGE_SECONDS + images * others * PAIR_SECONDS) / 60,
        )


def load_copies(store: Store, cache: Path, copies: str) -> Copies:
    """Find the images of a store of SIZE pixels that are copies of each other, or load what an earlier run found. The
    pairs depend on the files alone and on whether negatives are inverted, not on names or labels."""
    sha256 = store.facts["sha256"].tolist()
    if not compares_pairs(copies, len(store) ** 2):
        warn_exact_only(copies, len(store), len(store))
        return same_bytes(sha256)

    def compare(folder: Path) -> None:
        from cxr.data.copies import find_copies  # which imports torch

        log.info("searching %d images for copies, once", len(store))
        write_table(folder / "copies.csv", ("first", "second", "likeness"), find_copies(store))

    with built(cache / f"copies-{fingerprint(VERSION, SIZE, sha256, store.reading.negatives)}", compare) as folder:
        rows = read_table(folder / "copies.csv")
    return [(int(row["first"]), int(row["second"]), float(row["likeness"])) for row in rows]


def same_bytes(sha256: Sequence[str]) -> Copies:
    """Pair each image with the first row whose file has the same bytes."""
    first: dict[str, int] = {}
    return [(first[digest], row, 1.0) for row, digest in enumerate(sha256) if first.setdefault(digest, row) != row]


def audit(images: ImageTable, store: Store, copies: Copies, how: str) -> dict[str, Any]:
    """All findings, in the form of audit.json.

    Args:
        images: the table of readable images, with those that were rejected.
        store: their pixels and facts, SIZE pixels wide.
        copies: the pairs of load_copies().
        how: the option `data.copies`.
    """
    facts, file = store.facts, images.file
    group = group_images(images.patient, [(first, second) for first, second, _ in copies])
    small = np.minimum(facts["width"], facts["height"]) < TINY
    spread = np.concatenate([images.std((1, 2)) for _, images in store.parts()])
    odd = np.abs(facts["width"] / facts["height"] - np.mean(SHAPES)) > np.ptp(SHAPES) / 2
    named = [FORMATS.get(Path(name).suffix.lower(), "") for name in file.tolist()]
    return {
        "root": str(images.root),
        "note": images.note,
        "remarks": images.understood(),
        "sha256": hashlib.sha256("".join(sorted(facts["sha256"].tolist())).encode()).hexdigest(),
        "images": len(images),
        "classes": images.counts(),
        "splits": {
            name: int((images.split == name).sum()) for name in ("train", "val", "test") if (images.split == name).any()
        },
        "patients": len(set(images.patient.tolist()) - {""}),
        "images_of_unknown_patients": int((images.patient == "").sum()),
        "hospitals": confounding(images, store, group, np.ones(len(images), dtype=bool)),
        "rejected": [{"file": name, "reason": why} for name, why in images.rejected],
        "wrong_type": [
            {"file": str(file[row]), "is": str(facts["format"][row])}
            for row, name in enumerate(named)
            if name and name != facts["format"][row]
        ],
        "tiny": with_size(images, store, small),
        "odd_shape": with_size(images, store, odd),
        "blank": file[spread < BLANK].tolist(),
        "coloured": file[facts["coloured"] > 0].tolist(),
        "outliers": file[facts["outliers"] > 0].tolist(),
        "negative": file[facts["negative"] > 0].tolist(),
        "copies_looked_for": "near" if compares_pairs(how, len(store) ** 2) else "exact",
        "copies": [describe_pair(images, store, *pair) for pair in copies],
        "leaks": describe_leaks(images, copies),
    }


def with_size(images: ImageTable, store: Store, these: np.ndarray) -> list[dict[str, Any]]:
    """The files of `these` images (bool, N) and their sizes."""
    columns = images.file[these], store.facts["width"][these], store.facts["height"][these]
    return [{"file": f, "width": w, "height": h} for f, w, h in zip(*(c.tolist() for c in columns), strict=True)]


def log_findings(images: ImageTable, copies: Copies) -> None:
    """Log the number of images, what cannot be used, and copies."""
    counts = ", ".join(f"{name} {number}" for name, number in images.counts().items())
    log.info("%d images in %s: %s", len(images), printable(str(images.root)), counts)
    for remark in images.understood():
        log.info(remark)
    if not (images.patient != "").any():
        log.warning(no_patients(images.file.tolist()))
    for line in hospital_remarks(images):
        log.warning(line)
    for line in images.not_used():
        log.warning("%s; rejected.csv lists all", line)
    if copies:
        first, second = (printable(images.file[row]) for row in copies[0][:2])
        log.info(
            "%s of copies (%s); python -m cxr.audit lists all; copies are kept together",
            counted(len(copies), "pair"),
            such_as(len(copies), f"{first} and {second}"),
        )
    if contrary := [pair[:2] for pair in copies if images.label[pair[0]] != images.label[pair[1]]]:
        first, second = (f"{printable(images.file[row])} ({images.classes[images.label[row]]})" for row in contrary[0])
        log.warning(
            "copies with different labels: %s (%s); one label of each pair is wrong: audit.json of the run lists them "
            "as two_labels; correct them, or leave one image of each pair out",
            counted(len(contrary), "pair"),
            such_as(len(contrary), f"{first} and {second}"),
        )


def describe_pair(images: ImageTable, store: Store, first: int, second: int, likeness: float) -> dict[str, Any]:
    """A pair of copies for audit.json: what they share, and what contradicts."""
    sha256 = store.facts["sha256"]
    if sha256[first] == sha256[second]:
        kind = "same bytes"
    elif np.array_equal(store[first], store[second]):
        kind = "same pixels"
    else:
        kind = "near"
    pair = np.array([first, second])
    return {
        "files": images.file[pair].tolist(),
        "labels": [images.classes[i] for i in images.label[pair]],
        "patients": images.patient[pair].tolist(),
        "splits": images.split[pair].tolist(),
        "kind": kind,
        "likeness": round(likeness, 3),
        "two_labels": bool(images.label[first] != images.label[second]),
        "across": is_across(images.split[pair].tolist()),
    }


def is_across(splits: Sequence[str]) -> bool:
    """Whether these splits of the set are test and another one."""
    return "test" in splits and set(splits) != {"test"}


def describe_leaks(images: ImageTable, copies: Copies) -> dict[str, Any]:
    """Patients and copies that the given split separates from each other.

    A patient known only by a number in file names (person1004_virus_1686) is a possible leak: a source may have used a
    number twice. A patient that a manifest names is a sure one.

    Returns:
        "patients": {"sure": …, "possible": …}, each {patient: {"test": images, "elsewhere": images}}; "copies": files
        outside of test that are copies of a test image; "images": number of leaks, see find_leaks().
    """
    test = images.split == "test"
    patients: dict[str, dict[str, Any]] = {"sure": {}, "possible": {}}
    shared = (set(images.patient[test].tolist()) & set(images.patient[~test].tolist())) - {""}
    rows_of: dict[str, list[int]] = {patient: [] for patient in sorted(shared)}
    for row, patient in enumerate(images.patient.tolist()):
        if patient in rows_of:
            rows_of[patient].append(row)
    for patient, rows in rows_of.items():
        numbered = all(patient_and_form(file)[0] for file in images.file[rows].tolist())
        counts = {"test": int(test[rows].sum()), "elsewhere": int((~test[rows]).sum())}
        patients["possible" if numbered else "sure"][patient] = counts
    crossing = {
        row for first, second, _ in copies for row in (first, second) if test[first] != test[second] and not test[row]
    }
    group = group_images(images.patient, [(first, second) for first, second, _ in copies])
    leaks = int(find_leaks(images.split, group).sum())
    return {"patients": patients, "copies": images.file[sorted(crossing)].tolist(), "images": leaks}
