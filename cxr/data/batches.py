"""Batches as one index into an array, in an order that a seed gives."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cxr.data.store import Store


class Batch(NamedTuple):
    """What a step gets: films (B, 1, S, S), bytes until the device and float from 0 to 1 there; labels (B,) and rows of
    the table of films (B,), both int64."""

    films: Tensor
    labels: Tensor
    index: Tensor


class StoredFilms(Dataset):
    """Rows of the table of films. A whole batch is one index into an array: no Python per film.

    Args:
        films: the store, or a copy of all its films on a device: uint8 (N, 1, S, S).
        labels: int64 (N,), where the films are.
        rows: int64 (n,), the rows that this set consists of.
    """

    def __init__(self, films: Store | Tensor, labels: Tensor, rows: np.ndarray) -> None:
        self.films, self.labels, self.rows = films, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        rows = self.rows[np.asarray(positions)]
        # Not blocking: else the host would wait for the device to finish all earlier steps.
        index = torch.from_numpy(rows).to(self.labels.device, non_blocking=True)
        films = torch.from_numpy(self.films[rows])[:, None] if isinstance(self.films, Store) else self.films[index]
        return Batch(films, self.labels[index], index)


class SeededOrder(Sampler[int]):
    """A shuffle that is a function of (seed, epoch) alone; Lightning calls set_epoch before each epoch.

    Args:
        length: how many films there are.
        seed: of the shuffle.
        epoch, done: where a run goes on that was stopped: the epoch, and films of it that it has had.
    """

    def __init__(self, length: int, seed: int, epoch: int = 0, done: int = 0) -> None:
        self.length, self.seed, self.epoch, self.done = length, seed, epoch, {epoch: done}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter(order[self.done.get(self.epoch, 0) :].tolist())


def as_it_is(batch: Batch) -> Batch:
    """Instead of a collate function: __getitems__ returns whole batches. (A lambda could not travel to workers.)"""
    return batch


def copy_films(store: Store, device: torch.device) -> Tensor:
    """All films of the table on a device: uint8 (N, 1, S, S)."""
    films = torch.empty((len(store), 1, store.size, store.size), dtype=torch.uint8, device=device)
    for part in torch.arange(len(store)).split(1024):  # the host never holds a second copy of the whole
        films[part[0] : part[-1] + 1, 0] = torch.from_numpy(store[part.numpy()]).to(device)
    return films


def to_unit(films: Tensor) -> Tensor:
    """Bytes to float32 from 0 to 1."""
    return films.float() / 255
