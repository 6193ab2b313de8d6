"""Films from elsewhere: which of them a trained network has seen already, and which it can be scored on."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.data.cache import built, fingerprint
from cxr.data.copies import find_common, shrink
from cxr.data.datamodule import CXRDataModule
from cxr.data.sources import Films
from cxr.data.store import Store
from cxr.errors import UserError

log = logging.getLogger(__name__)

SIDE_FILE = "films.npz"  # lies beside a checkpoint
# Pixels of the films in it. Of 400 altered copies, 398 are found again among the 7,103 films of the reference set, and
# nothing else that shows another film; at 48 pixels 13 are, at 128 all.
SIDE = 64
SEEN = {"copies": "copies of training films", "patients": "other films of patients with a training patient's name"}


def small_films(store: Store) -> Store:
    """Films of a store at the size at which they are kept beside a checkpoint."""
    parts = [shrink(torch.from_numpy(films), SIDE).round().byte() for films in store.parts()]
    images = torch.cat(parts).numpy()
    return Store(images, np.arange(len(images)))


def remember_films(data: CXRDataModule, folder: Path) -> None:
    """Write beside the checkpoints what tells the films that a network was trained or validated on: name, patient,
    SHA-256 of the file, and the film itself, small. The cells of a sweep share one file, where the file system can."""
    rows = np.flatnonzero(np.isin(data.split, ("train", "val")))
    told = {"files": data.films.file[rows], "patients": data.films.patient[rows]}
    told["sha256"] = data.compared.facts["sha256"][rows]

    def write(folder: Path) -> None:
        known = replace(data.compared, slot=data.compared.slot[rows])
        np.savez(folder / SIDE_FILE, **told, images=small_films(known).images)

    key = fingerprint(SIDE, *(column.tolist() for column in told.values()))
    with built(data.cache / f"trained-{key}", write) as made:
        kept = made / SIDE_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.link(kept, folder / SIDE_FILE)
    except OSError:  # another file system, or one without links
        shutil.copyfile(kept, folder / SIDE_FILE)


def find_seen(films: Films, compared: Store, side_file: Path) -> dict[str, dict[int, str]]:
    """Rows of films that a network was trained or validated on, each with the name of the film it has seen: "copies" of
    its films, and films of its "patients" (of the same name).

    Args:
        films: the table.
        compared: the pixels of its films, as known_copies() has them.
        side_file: what remember_films() wrote.

    Raises:
        UserError: the side file cannot be read.
    """
    try:
        with np.load(side_file) as kept:
            known = {key: kept[key] for key in ("files", "patients", "sha256", "images")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{side_file}: damaged, or not what cxr wrote beside a checkpoint") from error
    by_hash = dict(zip(known["sha256"].tolist(), known["files"].tolist(), strict=True))
    by_patient = dict(zip(known["patients"].tolist(), known["files"].tolist(), strict=True))
    copies = {row: by_hash[h] for row, h in enumerate(compared.facts["sha256"].tolist()) if h in by_hash}
    theirs = Store(known["images"], np.arange(len(known["images"])))
    for row, other, _ in find_common(small_films(compared), theirs):
        copies.setdefault(row, str(known["files"][other]))
    patients = {row: by_patient[p] for row, p in enumerate(films.patient.tolist()) if p and p in by_patient}
    return {"copies": copies, "patients": {row: file for row, file in patients.items() if row not in copies}}


class ExternalFilms(CXRDataModule):
    """Films from elsewhere, all of them for test, but for those that the network has seen.

    Args:
        data: the options `data.*`, with the network's image_size.
        classes: the network's. The table has them first, in their order, then those that it does not know.
        side_file: what remember_films() wrote.
        cache: folder for decoded films.

    After setup(), beside what CXRDataModule has:
        seen: what find_seen() found, or None where there is no side file.
    """

    def __init__(self, data: Mapping[str, Any], classes: tuple[str, ...], side_file: Path, cache: Path) -> None:
        super().__init__(data, {"flip": 0, "degrees": 0, "crop": 0}, 0, cache)
        self.classes, self.side_file = classes, side_file
        self.seen: dict[str, dict[int, str]] | None = None

    def deal(self) -> np.ndarray:
        """All films test, but for those that the network has seen: "unused" where `data.on_leak` is drop.

        Raises:
            UserError: no film is of a class that the network knows, or it has seen some and `data.on_leak` is fail.
        """
        films = self.films
        names = self.classes + tuple(name for name in films.classes if name not in self.classes)
        label = np.array([names.index(name) for name in films.classes])[films.label]
        self.films = replace(films, classes=names, label=label)
        if not (label < len(self.classes)).any():
            raise UserError(
                f"{films.root}: no film is of a class that this network knows ({', '.join(self.classes)}); "
                f"they are {', '.join(films.classes)}"
            )
        split, on_leak = np.full(len(films), "test", dtype="<U6"), self.data["on_leak"]
        if self.side_file.exists():
            self.seen = find_seen(films, self.compared, self.side_file)
        elif on_leak == "fail":
            raise UserError(f"data.on_leak=fail: {self.side_file}, which tells the films of training, is not there")
        seen = {row: file for found in (self.seen or {}).values() for row, file in found.items()}
        if seen and on_leak == "fail":
            row, file = next(iter(seen.items()))
            raise UserError(
                f"data.on_leak=fail: {len(seen)} films are copies of films that the network was trained on, or of "
                f"their patients, {films.file[row]} ({file}) among them; use drop or keep"
            )
        if on_leak == "drop":
            split[list(seen)] = "unused"
        if not ((split == "test") & (label < len(self.classes))).any():
            raise UserError(f"{films.root}: the network was trained on all of these films, or on their patients")
        return split

    def report_split(self) -> None:
        """Say which films the network has seen."""
        if self.seen is None:
            log.warning(
                "%s is not there: which of these films the network was trained on cannot be told", self.side_file
            )
            return
        found = ", ".join(f"{len(self.seen[kind])} {what}" for kind, what in SEEN.items())
        kept = "scored all the same" if self.data["on_leak"] == "keep" else "left out"
        log.info("seen by the network: %s; %s", found, kept)

    def left_out(self) -> list[tuple[str, str]]:
        """(file, reason) of everything in the set that is not scored."""
        files, rows = self.films.file.tolist(), set(self.rows("unused").tolist())
        why = {"copies": "a copy of the training film", "patients": "its patient has the training film"}
        reasons = {
            row: f"{why[kind]} {file}" for kind, found in (self.seen or {}).items() for row, file in found.items()
        }
        out = [*self.films.rejected, *((files[row], reasons[row]) for row in sorted(rows))]
        unknown = np.flatnonzero((self.films.label >= len(self.classes)) & (self.split == "test"))
        return out + [
            (files[row], f"class {self.films.classes[self.films.label[row]]}, which the network does not know")
            for row in unknown.tolist()
        ]
