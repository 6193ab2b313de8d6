"""Images from elsewhere: recognise those that a trained network has seen, and score it on the others."""

import logging
from collections.abc import Mapping, Sequence
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


Matches = dict[str, dict[int, str]]  # by kind, rows of a table, each with a run's name of the matching image
KINDS = ("trained", "tested", "patients")
TESTED = ("test", "inside")  # splits of a run that no network was trained or chosen on


def match_runs(
    images: ImageTable, compared: Store, fingerprints: Mapping[str, Path], copies: str
) -> dict[str, Matches]:
    """Find the images that several runs have used.

    Args:
        compared: the pixels of the images, audit.SIZE wide.
        fingerprints: each run's file, see write_fingerprints().
        copies: the option `data.copies`.

    Returns:
        What match_run() finds of each run.

    Raises:
        UserError: a file cannot be read.
    """
    pairs: dict[bytes, list[tuple[int, int]]] = {}
    matches = {}
    for name, path in fingerprints.items():
        run = read_fingerprints(path, "images")
        key = run["sha256"].tobytes()  # the runs of a sweep have the same images: they are compared once
        if key not in pairs:
            pairs[key] = match_images(compared, run, copies)
        matches[name] = match_run(images, run, pairs[key])
    return matches


def match_run(images: ImageTable, run: Mapping[str, np.ndarray], pairs: Sequence[tuple[int, int]]) -> Matches:
    """The images that a run has used, of `pairs` from match_images().

    Returns:
        "trained", copies of images that it trained or validated on; "tested", copies of its test images; "patients",
        other images of patients that it trained on.
    """
    matches: Matches = {kind: {} for kind in KINDS}
    for row, other in pairs:
        kind = "tested" if run["splits"][other] in TESTED else "trained"
        matches[kind].setdefault(row, str(run["files"][other]))
    for row in matches["trained"]:
        matches["tested"].pop(row, None)
    trained = ~np.isin(run["splits"], TESTED)
    by_patient = dict(zip(run["patients"][trained].tolist(), run["files"][trained].tolist(), strict=True))
    for row, patient in enumerate(images.patient.tolist()):
        if patient and patient in by_patient and row not in matches["trained"]:
            matches["patients"][row] = by_patient[patient]
    return matches


def merge(by_run: Mapping[str, Matches], name_runs: bool) -> Matches:
    """What any of several runs has used; the first run's name of an image and, with `name_runs`, all runs that have
    it. What one has trained on counts as trained, whatever the others did with it."""
    merged: Matches = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for row in sorted({row for matches in by_run.values() for row in matches[kind]} - {*merged["trained"]}):
            runs = [name for name, matches in by_run.items() if row in matches[kind]]
            merged[kind][row] = by_run[runs[0]][kind][row] + (f" of {', '.join(runs)}" if name_runs else "")
    return merged


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
    """Images from elsewhere, all of them for test, except those that the network (or one of several) was trained on.

    Args:
        data: the options `data.*`; their image_size is not used.
        sizes: the image sizes of the networks.
        classes: the networks'. The table lists them first, in their order, then classes that the networks lack.
        fingerprints: by network, its run's file, see write_fingerprints().
        cache: folder for decoded images.

    After setup(), beside what CXRDataModule has:
        by_network: what match_runs() finds of the networks whose file exists.
        matches: of all of these together, see merge(); None if no file exists.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        sizes: Sequence[int],
        classes: tuple[str, ...],
        fingerprints: Mapping[str, Path],
        cache: Path,
    ) -> None:
        super().__init__({**data, "image_size": sizes[0]}, {"flip": 0, "degrees": 0, "crop": 0}, 0, cache)
        self.sizes, self.classes, self.fingerprints = sizes, classes, fingerprints
        self.by_network: dict[str, Matches] = {}
        self.matches: Matches | None = None

    def use_size(self, size: int) -> None:
        """From now on, give the images in one of `sizes`."""
        if self.store.size != size:
            self.store, self.resident = self.stores[size], None

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
        there = {name: path for name, path in self.fingerprints.items() if path.exists()}
        if on_leak == "fail" and len(there) < len(self.fingerprints):
            missing = next(path for name, path in self.fingerprints.items() if name not in there)
            raise UserError(f"data.on_leak=fail: {missing}, which lists the training images, does not exist")
        if there:
            self.by_network = match_runs(images, self.compared, there, self.data["copies"])
            self.matches = merge(self.by_network, name_runs=len(self.fingerprints) > 1)
        trained = self.matches["trained"] if self.matches else {}
        if trained and on_leak == "fail":
            row, file = next(iter(trained.items()))
            raise UserError(
                f"data.on_leak=fail: copies of images that the network was trained on: {len(trained):,}, such as "
                f"{printable(images.file[row])} (of {printable(file)}); use drop or keep"
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
