"""Images from elsewhere: which of them a trained network has seen already, and which it can be scored on."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.data.audit import is_near, say_exact
from cxr.data.cache import built, fingerprint
from cxr.data.copies import find_common, shrink
from cxr.data.datamodule import CXRDataModule
from cxr.data.sources import ImageTable
from cxr.data.store import Store
from cxr.errors import UserError, printable
from cxr.files.run_folder import CHECKPOINTS, SIDE_FILE, SPLIT, SPLIT_COLUMNS
from cxr.files.writing import read_table

log = logging.getLogger(__name__)

# Pixels of the images in it. Of 400 altered copies, 398 are found again among the 7,103 images of the reference set, and
# nothing else that shows another image; at 48 pixels 13 are, at 128 all.
SIDE = 64


def small_images(store: Store) -> Store:
    """Images of a store at the size at which they are kept beside a checkpoint."""
    images = np.empty((len(store), SIDE, SIDE), dtype=np.uint8)
    start = 0
    for part in store.parts():
        images[start : start + len(part)] = shrink(torch.from_numpy(part), SIDE).round().byte().numpy()
        start += len(part)
    return Store([images], np.arange(len(images)))


def remember_images(data: CXRDataModule, folder: Path) -> None:
    """Write beside the checkpoints what tells the images of a run again: name, patient, split, SHA-256 of the file, and
    the image itself, small. The cells of a sweep share one file, where the file system can."""
    rows = np.flatnonzero(data.split != "unused")
    told = {"files": data.images.file[rows], "patients": data.images.patient[rows], "splits": data.split[rows]}
    told["sha256"] = data.compared.facts["sha256"][rows]

    def write(folder: Path) -> None:
        known = replace(data.compared, place=data.compared.place[rows])
        np.savez(folder / SIDE_FILE, **told, images=small_images(known).shards[0])

    key = fingerprint(SIDE, *(column.tolist() for column in told.values()))
    with built(data.cache / f"known-{key}", write, has_side_file) as made:
        kept = made / SIDE_FILE
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{SIDE_FILE}.{os.getpid()}"
    try:
        os.link(kept, part)
    except OSError:  # another file system, or one without links
        shutil.copyfile(kept, part)
    part.replace(folder / SIDE_FILE)
    part.unlink(missing_ok=True)  # where both are links to one file, a system leaves both


def has_side_file(folder: Path) -> bool:
    """Whether a folder has a whole one: the runs that share it may have damaged it."""
    try:
        return bool(read_side_file(folder / SIDE_FILE))
    except UserError:
        return False


def check_unchanged(data: CXRDataModule, run: Path) -> None:
    """Raise UserError where a run that goes on in its folder had other images or another split before."""
    rows = [tuple(row[key] for key in SPLIT_COLUMNS) for row in read_table(run / SPLIT)]
    changed = {row[0] for row in {*rows} ^ {*data.dealt()}}
    try:
        kept = read_side_file(run / CHECKPOINTS / SIDE_FILE)
        before = dict(zip(kept["files"].tolist(), kept["sha256"].tolist(), strict=True))
        used = np.flatnonzero(data.split != "unused")
        now = zip(data.images.file[used].tolist(), data.compared.facts["sha256"][used].tolist(), strict=True)
        changed |= {file for file, sha256 in now if before.get(file) != sha256}
    except UserError as error:  # it is written anew
        log.warning("%s", error)
    if changed:
        raise UserError(
            f"{run}: began with other images or another split: {len(changed)} images differ, {min(changed)!r} among "
            "them; give this run the images as they were, or train anew with another name=NAME"
        )


def read_side_file(path: Path, *more: str) -> dict[str, np.ndarray]:
    """Of what remember_images() wrote: files, patients, splits, sha256 and `more`; raises UserError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:  # a pickle is a program
            known = {key: kept[key] for key in ("files", "patients", "splits", "sha256", *more)}
        n = len(known["files"])
        if any(column.shape != (n,) or column.dtype.kind != "U" for key, column in known.items() if key != "images"):
            raise ValueError("columns")
        if "images" in known and (known["images"].shape, known["images"].dtype) != ((n, SIDE, SIDE), np.uint8):
            raise ValueError("images")
        return known
    except Exception as error:  # a damaged or hostile file can make NumPy raise anything
        raise UserError(f"{path}: damaged, or not what cxr wrote beside a checkpoint") from error


def find_known(images: ImageTable, compared: Store, side_file: Path, how: str) -> dict[str, dict[int, str]]:
    """Rows of images that a run knows, each with the name that the run has for it: copies of images that it "trained" or
    validated on, copies of its "tested" images, and other images whose "patients" have the name of a trained one.

    Args:
        images: the table.
        compared: the pixels of its images, as known_copies() has them.
        side_file: what remember_images() wrote.
        how: `data.copies`.

    Raises:
        UserError: the side file cannot be read.
    """
    known = read_side_file(side_file, "images")
    rows_of: dict[str, list[int]] = {}
    for other, sha256 in enumerate(known["sha256"].tolist()):
        rows_of.setdefault(sha256, []).append(other)
    alike = [(row, other) for row, h in enumerate(compared.facts["sha256"].tolist()) for other in rows_of.get(h, ())]
    theirs = Store([known["images"]], np.arange(len(known["images"])))
    if is_near(how, len(compared) * len(theirs)):
        alike += [(row, other) for row, other, _ in find_common(small_images(compared), theirs)]
    else:
        say_exact(how, len(compared), len(theirs))
    found: dict[str, dict[int, str]] = {"trained": {}, "tested": {}, "patients": {}}
    for row, other in alike:
        kind = "tested" if known["splits"][other] == "test" else "trained"
        found[kind].setdefault(row, str(known["files"][other]))
    for row in found["trained"]:
        found["tested"].pop(row, None)
    trained = known["splits"] != "test"
    by_patient = dict(zip(known["patients"][trained].tolist(), known["files"][trained].tolist(), strict=True))
    for row, patient in enumerate(images.patient.tolist()):
        if patient and patient in by_patient and row not in found["trained"]:
            found["patients"][row] = by_patient[patient]
    return found


class ExternalImages(CXRDataModule):
    """Images from elsewhere, all of them for test, but for those that the network was trained on.

    Args:
        data: the options `data.*`, with the network's image_size.
        classes: the network's. The table has them first, in their order, then those that it does not know.
        side_file: what remember_images() wrote.
        cache: folder for decoded images.

    After setup(), beside what CXRDataModule has:
        known: what find_known() found, or None where there is no side file.
    """

    def __init__(self, data: Mapping[str, Any], classes: tuple[str, ...], side_file: Path, cache: Path) -> None:
        super().__init__(data, {"flip": 0, "degrees": 0, "crop": 0}, 0, cache)
        self.classes, self.side_file = classes, side_file
        self.known: dict[str, dict[int, str]] | None = None

    def deal(self) -> np.ndarray:
        """All images test, but for those that the network was trained on: "unused" where `data.on_leak` is drop.

        Raises:
            UserError: no image is of a class that the network knows, or it was trained on all, or on some and
                `data.on_leak` is fail.
        """
        images = self.images
        names = self.classes + tuple(name for name in images.classes if name not in self.classes)
        label = np.array([names.index(name) for name in images.classes])[images.label]
        self.images = replace(images, classes=names, label=label)
        if not (label < len(self.classes)).any():
            raise UserError(
                f"{images.root}: no image is of a class that this network knows ({', '.join(self.classes)}); "
                f"they are {', '.join(images.classes)}"
            )
        split, on_leak = np.full(len(images), "test", dtype="<U6"), self.data["on_leak"]
        if self.side_file.exists():
            self.known = find_known(images, self.compared, self.side_file, self.data["copies"])
        elif on_leak == "fail":
            raise UserError(f"data.on_leak=fail: {self.side_file}, which tells the images of training, is not there")
        trained = self.known["trained"] if self.known else {}
        if trained and on_leak == "fail":
            row, file = next(iter(trained.items()))
            raise UserError(
                f"data.on_leak=fail: {len(trained)} images are copies of images that the network was trained on, "
                f"{printable(images.file[row])} ({printable(file)}) among them; use drop or keep"
            )
        if on_leak == "drop":
            split[list(trained)] = "unused"
        if not ((split == "test") & (label < len(self.classes))).any():
            raise UserError(f"{images.root}: the network was trained on all of these images")
        return split

    def report_split(self) -> None:
        """Say what is scored."""
        log.info("to be scored: %d images", (self.split == "test").sum())

    def left_out(self) -> list[tuple[str, str]]:
        """(file, reason) of everything in the set that is not scored."""
        files, names, known = self.images.file.tolist(), self.images.classes, self.known or {"trained": {}}
        out = list(self.images.rejected)
        for row in self.rows("unused").tolist():
            out.append((files[row], f"a copy of the training image {known['trained'][row]}"))
        for row in np.flatnonzero((self.images.label >= len(self.classes)) & (self.split == "test")).tolist():
            out.append((files[row], f"class {names[self.images.label[row]]}, which the network does not know"))
        return out
