"""Images from elsewhere: recognise those that a trained network has seen, and score it on the others."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.audit import compares_pairs, warn_exact_only
from cxr.data.copies import find_common
from cxr.data.datamodule import CXRDataModule
from cxr.data.fingerprints import read_fingerprints, small_images
from cxr.data.image_table import ImageTable
from cxr.data.store import Store
from cxr.errors import UserError, printable

log = logging.getLogger(__name__)


def match_run(images: ImageTable, compared: Store, fingerprints: Path, copies: str) -> dict[str, dict[int, str]]:
    """Find the images that a run has used.

    Args:
        compared: the pixels of the images, audit.SIZE wide.
        fingerprints: the run's file, see write_fingerprints().
        copies: the option `data.copies`.

    Returns:
        Rows of the table, each with the run's name of a matching image: "trained", copies of images that it trained or
        validated on; "tested", copies of its test images; "patients", other images of patients that it trained on.

    Raises:
        UserError: the file cannot be read.
    """
    run = read_fingerprints(fingerprints, "images")
    matches: dict[str, dict[int, str]] = {"trained": {}, "tested": {}, "patients": {}}
    for row, other in match_images(compared, run, copies):
        kind = "tested" if run["splits"][other] == "test" else "trained"
        matches[kind].setdefault(row, str(run["files"][other]))
    for row in matches["trained"]:
        matches["tested"].pop(row, None)
    trained = run["splits"] != "test"
    by_patient = dict(zip(run["patients"][trained].tolist(), run["files"][trained].tolist(), strict=True))
    for row, patient in enumerate(images.patient.tolist()):
        if patient and patient in by_patient and row not in matches["trained"]:
            matches["patients"][row] = by_patient[patient]
    return matches


def match_images(compared: Store, run: Mapping[str, np.ndarray], copies: str) -> list[tuple[int, int]]:
    """Pairs of a row of the table and a row of a run's fingerprints that show the same image."""
    rows_of: dict[str, list[int]] = {}
    for other, sha256 in enumerate(run["sha256"].tolist()):
        rows_of.setdefault(sha256, []).append(other)
    pairs = [(row, other) for row, h in enumerate(compared.facts["sha256"].tolist()) for other in rows_of.get(h, ())]
    theirs = Store([run["images"]], np.arange(len(run["images"])))
    if not compares_pairs(copies, len(compared) * len(theirs)):
        warn_exact_only(copies, len(compared), len(theirs))
        return pairs
    return pairs + [(row, other) for row, other, _ in find_common(small_images(compared), theirs)]


class ExternalImages(CXRDataModule):
    """Images from elsewhere, all of them for test, except those that the network was trained on.

    Args:
        data: the options `data.*`, with the network's image_size.
        classes: the network's. The table lists them first, in their order, then classes that the network lacks.
        fingerprints: the run's file, see write_fingerprints().
        cache: folder for decoded images.

    After setup(), beside what CXRDataModule has:
        matches: the result of match_run(), or None if the file does not exist.
    """

    def __init__(self, data: Mapping[str, Any], classes: tuple[str, ...], fingerprints: Path, cache: Path) -> None:
        super().__init__(data, {"flip": 0, "degrees": 0, "crop": 0}, 0, cache)
        self.classes, self.fingerprints = classes, fingerprints
        self.matches: dict[str, dict[int, str]] | None = None

    def assign_split(self) -> np.ndarray:
        """Test for all images; "unused" for those that the network was trained on if `data.on_leak` is drop.

        Raises:
            UserError: the network has no class of these images, or was trained on all of them, or on some and
                `data.on_leak` is fail.
        """
        images = self.images
        names = self.classes + tuple(name for name in images.classes if name not in self.classes)
        label = np.array([names.index(name) for name in images.classes])[images.label]
        self.images = replace(images, classes=names, label=label)
        if not (label < len(self.classes)).any():
            raise UserError(
                f"{images.root}: none of the images has a class that this network knows ({', '.join(self.classes)}); "
                f"they are {', '.join(images.classes)}"
            )
        trained = self.find_trained()
        split = np.full(len(images), "test", dtype="<U6")
        if self.data["on_leak"] == "drop":
            split[list(trained)] = "unused"
        if not ((split == "test") & (label < len(self.classes))).any():
            raise UserError(f"{images.root}: the network was trained on all of these images")
        return split

    def find_trained(self) -> dict[int, str]:
        """Set `matches`; return the rows that the network was trained on. Raises UserError as assign_split() does."""
        images, on_leak = self.images, self.data["on_leak"]
        if self.fingerprints.exists():
            self.matches = match_run(images, self.compared, self.fingerprints, self.data["copies"])
        elif on_leak == "fail":
            raise UserError(f"data.on_leak=fail: {self.fingerprints}, which lists the training images, does not exist")
        trained = self.matches["trained"] if self.matches else {}
        if trained and on_leak == "fail":
            row, file = next(iter(trained.items()))
            raise UserError(
                f"data.on_leak=fail: {len(trained)} images are copies of images that the network was trained on, "
                f"{printable(images.file[row])} ({printable(file)}) among them; use drop or keep"
            )
        return trained

    def log_split(self) -> None:
        log.info("images to score: %d", (self.split == "test").sum())

    def left_out(self) -> list[tuple[str, str]]:
        """(file, reason) of everything in the set that is not scored."""
        files, names, matches = self.images.file.tolist(), self.images.classes, self.matches or {"trained": {}}
        reasons = list(self.images.rejected)
        for row in self.rows("unused").tolist():
            reasons.append((files[row], f"a copy of the training image {matches['trained'][row]}"))
        for row in np.flatnonzero((self.images.label >= len(self.classes)) & (self.split == "test")).tolist():
            reasons.append((files[row], f"class {names[self.images.label[row]]}, which the network does not know"))
        return reasons
