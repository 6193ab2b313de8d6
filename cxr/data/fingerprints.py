"""Fingerprints of a run's images, kept beside its checkpoints: with other images, resuming is refused.

An evaluation also recognises by them the images that the run has used."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cxr.data.cache import built, fingerprint
from cxr.data.copies import shrink
from cxr.data.datamodule import CXRDataModule
from cxr.data.run_tables import split_rows
from cxr.data.store import Store
from cxr.errors import UserError, counted, such_as
from cxr.files.run_folder import CHECKPOINTS, SIDE_FILE, SPLIT, SPLIT_COLUMNS
from cxr.files.writing import read_table, replacing, sync_folder

log = logging.getLogger(__name__)

# Pixels of the images kept. At this size, 398 of 400 altered copies are recognised among the 7,103 images of the
# reference set, without a false match; at 48 pixels 13 are, at 128 all.
SIDE = 64


def small_images(store: Store) -> Store:
    """Images of a store at the size at which they are kept beside a checkpoint."""
    images = np.empty((len(store), SIDE, SIDE), dtype=np.uint8)
    for rows, part in store.parts():
        images[rows] = shrink(torch.from_numpy(part), SIDE).round().byte().numpy()
    return Store([images], np.arange(len(images)))


def write_fingerprints(data: CXRDataModule, checkpoints: Path) -> None:
    """Write name, patient, split, SHA-256 of the file and a small copy of each image of a run. The runs of a sweep
    share one file if the file system can link it."""
    rows = np.flatnonzero(data.split != "unused")
    columns = {"files": data.images.file[rows], "patients": data.images.patient[rows], "splits": data.split[rows]}
    columns["sha256"] = data.compared.facts["sha256"][rows]

    def build(folder: Path) -> None:
        used = replace(data.compared, place=data.compared.place[rows])
        with replacing(folder / SIDE_FILE, "wb") as file:
            np.savez(file, **columns, images=small_images(used).shards[0])

    key = fingerprint(SIDE, *(column.tolist() for column in columns.values()))
    with built(data.cache / f"known-{key}", build, has_fingerprints) as made:
        kept = made / SIDE_FILE
    checkpoints.mkdir(parents=True, exist_ok=True)
    part = checkpoints / f".{SIDE_FILE}.{os.getpid()}"
    try:
        os.link(kept, part)
    except OSError:  # another file system, or one without links
        shutil.copyfile(kept, part)
    part.replace(checkpoints / SIDE_FILE)
    sync_folder(checkpoints)
    part.unlink(missing_ok=True)  # if both are links to one file, a system leaves both


def has_fingerprints(folder: Path) -> bool:
    """Whether a folder of the cache has an intact file: a run that shares it may have damaged it."""
    try:
        return bool(read_fingerprints(folder / SIDE_FILE))
    except UserError:
        return False


def check_unchanged(data: CXRDataModule, run: Path) -> None:
    """Raise UserError if a run that continues in its folder began with other images or another split."""
    rows = [tuple(row[key] for key in SPLIT_COLUMNS) for row in read_table(run / SPLIT)]
    changed = {row[0] for row in {*rows} ^ {*split_rows(data)}}
    try:
        kept = read_fingerprints(run / CHECKPOINTS / SIDE_FILE)
        before = dict(zip(kept["files"].tolist(), kept["sha256"].tolist(), strict=True))
        used = np.flatnonzero(data.split != "unused")
        now = zip(data.images.file[used].tolist(), data.compared.facts["sha256"][used].tolist(), strict=True)
        changed |= {file for file, sha256 in now if before.get(file) != sha256}
    except UserError as error:  # write_fingerprints() replaces the damaged file
        log.warning("%s", error)
    if changed:
        raise UserError(
            f"{run}: began with other images or another split: {counted(len(changed), 'difference')} "
            f"({such_as(len(changed), repr(min(changed)))}); restore the original images, or train again with another "
            "name=NAME"
        )


def read_fingerprints(path: Path, *more: str) -> dict[str, np.ndarray]:
    """The columns files, patients, splits, sha256 (strings, N) and `more` of write_fingerprints(); `images` are uint8
    (N, SIDE, SIDE). Raises UserError if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle is a program
            columns = {key: file[key] for key in ("files", "patients", "splits", "sha256", *more)}
        n = len(columns["files"])
        if any(column.shape != (n,) or column.dtype.kind != "U" for key, column in columns.items() if key != "images"):
            raise ValueError("columns")
        if "images" in columns and (columns["images"].shape, columns["images"].dtype) != ((n, SIDE, SIDE), np.uint8):
            raise ValueError("images")
        return columns
    except Exception as error:  # a damaged or hostile file can make NumPy raise anything
        raise UserError(f"{path}: damaged, or not what cxr wrote beside a checkpoint") from error
