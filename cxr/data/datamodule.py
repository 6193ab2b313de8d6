"""From the options `data.*` and `aug.*` to batches: the only thing of this folder that training sees."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cxr.data.augment import Augment
from cxr.data.sources import Films, read_films
from cxr.data.split import split_films
from cxr.data.store import open_store
from cxr.results.run_folder import write_table

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What a step gets: films (B, 1, S, S), bytes until the device and float from 0 to 1 there; labels (B,) and rows of
    the table of films (B,), both int64."""

    films: Tensor
    labels: Tensor
    index: Tensor


class StoredFilms(Dataset):
    """Rows of the store. A whole batch is one index into the array: no Python per film."""

    def __init__(self, store: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
        self.store, self.labels, self.rows = store, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        rows = self.rows[np.asarray(positions)]
        films = torch.from_numpy(self.store[rows])[:, None]
        return Batch(films, torch.from_numpy(self.labels[rows]), torch.from_numpy(rows))


class SeededOrder(Sampler[int]):
    """A shuffle that is a function of (seed, epoch) alone; Lightning calls set_epoch before each epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng((self.seed, self.epoch)).permutation(self.length).tolist())


class CXRDataModule(pl.LightningDataModule):
    """Films from their source to the device: reading, splitting, batching, augmentation.

    Args:
        data: the options `data.*`.
        aug: the options `aug.*`, arguments of Augment.
        seed: of the order of films and of their augmentation; the split has `data.split_seed`.
        cache: folder for decoded films and drawings.

    After setup():
        films: the table of the films that can be used. split: string array beside it. note: see Films.
    """

    def __init__(self, data: Mapping[str, Any], aug: Mapping[str, float], seed: int, cache: Path) -> None:
        super().__init__()
        self.data, self.seed, self.cache = data, seed, cache
        self.augment = Augment(**aug)
        self.films: Films | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.films is not None:  # Lightning asks again before the test
            return
        films = read_films(self.data, self.cache)
        self.store, films = open_store(films, self.data["image_size"], self.cache)
        d = self.data
        self.split = split_films(films, d["split"], d["split_seed"], d["test_fraction"], d["val_fraction"])
        self.films, self.note = films, films.note
        self.report()

    def report(self) -> None:
        """Say what was found, rejected and dealt out."""
        films = self.films
        log.info("%d films in %s: %s", len(films), films.root, ", ".join(f"{c} {n}" for c, n in films.counts().items()))
        for file, why in films.rejected[:10]:
            log.warning("not used: %s (%s)", file, why)
        if len(films.rejected) > 10:
            log.warning("not used: %d more files, all in rejected.csv", len(films.rejected) - 10)
        if unused := int((self.split == "unused").sum()):
            log.info("unused: %d training films of patients who also stand in the test folder", unused)
        log.info("split %s: %s", self.data["split"], ", ".join(f"{s} {n}" for s, n in self.split_sizes().items()))

    def split_sizes(self) -> dict[str, int]:
        """Films per split, in the order of use."""
        return {s: int((self.split == s).sum()) for s in ("train", "val", "test", "unused") if (self.split == s).any()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Films per split and class."""
        of = self.films.label
        return {
            s: {c: int(((self.split == s) & (of == i)).sum()) for i, c in enumerate(self.films.classes)}
            for s in self.split_sizes()
        }

    def rows(self, split: str) -> np.ndarray:
        """The rows of the table that stand in a split."""
        return np.flatnonzero(self.split == split)

    def loader(self, split: str) -> DataLoader:
        rows, batch_size, workers = self.rows(split), self.data["batch_size"], self.data["num_workers"]
        training = split == "train"
        return DataLoader(
            StoredFilms(self.store, self.films.label, rows),
            batch_size=batch_size,
            sampler=SeededOrder(len(rows), self.seed) if training else None,
            # Batch normalisation cannot train on a batch of one film.
            drop_last=training and len(rows) % batch_size == 1 and len(rows) > 1,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=as_it_is,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        films = to_unit(batch.films)
        if self.trainer.training:
            films = self.augment(films, batch.index, self.seed, self.trainer.current_epoch)
        return batch._replace(films=films)

    def examples(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training films before and after augmentation, as the first epoch sees them, the classes taking turns.

        Returns:
            float32 (n, S, S) from 0 to 1, the same after augmentation, and the rows of the table (n,); n ≤ number.
        """
        train = self.rows("train")
        turns = [train[self.films.label[train] == i] for i in range(len(self.films.classes))]
        rows = np.array([t[k] for k in range(number) for t in turns if k < len(t)][:number])
        before = to_unit(torch.from_numpy(self.store[rows])[:, None])
        after = self.augment(before, torch.from_numpy(rows), self.seed, 0)
        return before[:, 0].numpy(), after[:, 0].numpy(), rows

    def write_tables(self, folder: Path) -> None:
        """Write split.csv, every film of the set in the table's order, and rejected.csv."""
        films = self.films
        labels = [films.classes[i] for i in films.label]
        write_table(
            folder / "split.csv",
            ("file", "label", "patient", "split"),
            zip(films.file, labels, films.patient, self.split, strict=False),
        )
        write_table(folder / "rejected.csv", ("file", "reason"), films.rejected)


def as_it_is(batch: Batch) -> Batch:
    """Instead of a collate function: __getitems__ returns whole batches. (A lambda could not travel to workers.)"""
    return batch


def to_unit(films: Tensor) -> Tensor:
    """Bytes to float32 from 0 to 1."""
    return films.float() / 255
