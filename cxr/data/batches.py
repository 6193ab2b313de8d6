"""Batches, each read from an array in one indexing operation, in an order that a seed determines."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cxr.data.store import Store


class Batch(NamedTuple):
    """Images (B, 1, S, S), bytes until the device and float from 0 to 1 there; labels (B,) and rows of the table of
    images (B,), both int64; `total`: number of images of this batch on all devices together."""

    images: Tensor
    labels: Tensor
    index: Tensor
    total: int


class Drawn(NamedTuple):
    """One process's part of a batch: positions (B,) in a set of images; `total`: number of images of all parts."""

    positions: np.ndarray
    total: int


class StoredImages(Dataset):
    """Rows of the table of images. A whole batch is one indexing operation: no Python per image.

    Args:
        images: the store, or a copy of all its images on a device: uint8 (N, 1, S, S).
        labels: int64 (N,), where the images are.
        rows: int64 (n,), the rows that this set consists of.
    """

    def __init__(self, images: Store | Tensor, labels: Tensor, rows: np.ndarray) -> None:
        self.images, self.labels, self.rows = images, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, drawn: Drawn) -> Batch:
        positions, total = drawn
        rows = self.rows[positions]
        # Not blocking: else the host would wait for the device to finish all earlier steps.
        index = torch.from_numpy(rows).to(self.labels.device, non_blocking=True)
        images = torch.from_numpy(self.images[rows])[:, None] if isinstance(self.images, Store) else self.images[index]
        return Batch(images, self.labels[index], index, total)


class SeededOrder(Sampler[int]):
    """A shuffle that is a function of (seed, epoch) alone; Lightning calls set_epoch before each epoch.

    Args:
        length: number of images.
        seed: of the shuffle.
        epoch: the first one.
        levels: int64 (length, K), for a balanced order, see balanced(); None: every image once.
    """

    def __init__(self, length: int, seed: int, epoch: int = 0, levels: np.ndarray | None = None) -> None:
        self.length, self.seed, self.epoch, self.levels = length, seed, epoch, levels

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        return iter((rng.permutation(self.length) if self.levels is None else balanced(self.levels, rng)).tolist())


def balanced(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An epoch in which all values of the first column of `levels` (N, K), such as classes, are equally frequent, and
    within each all values of the next column, such as hospitals: int64 (N,), positions in `levels`.

    A value with more images than its share gets a new choice in each epoch; one with fewer repeats images, each only
    after all others.
    """
    return rng.permutation(draw_alike(np.arange(len(levels)), levels, len(levels), rng))


def draw_alike(positions: np.ndarray, levels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `number` of some positions, alike by value of the first of `levels` and, within it, of the others."""
    if not levels.shape[1]:
        return np.concatenate([rng.permutation(positions) for _ in range(max(1, -(-number // len(positions))))])[
            :number
        ]
    values, of_position = np.unique(levels[positions, 0], return_inverse=True)
    shares = np.full(len(values), number // len(values))
    shares[rng.permutation(len(values))[: number % len(values)]] += 1
    return np.concatenate([
        draw_alike(positions[of_position == value], levels[:, 1:], share, rng) for value, share in enumerate(shares)
    ])  # fmt: skip


class Batches(Sampler[Drawn]):
    """Cuts an order of images into batches, and each batch into as many parts as there are ranks.

    The batch size counts all ranks together: an epoch has the same steps, on the same images, for any number of ranks.

    Args:
        order: positions in a set of images. Lightning sets the epoch of the attribute named `sampler`.
        size: images per batch.
        training: batch normalisation cannot train on one image. A batch that would leave a rank fewer than two shares
            images with the batch before it; with one rank, a last batch of one image is dropped.
        rank, ranks: number of this process, and number of processes.
        position: where a stopped run continues: an epoch, and batches of it that are done already.
    """

    def __init__(
        self,
        order: Sampler[int] | range,
        size: int,
        training: bool,
        rank: int = 0,
        ranks: int = 1,
        position: tuple[int, int] = (0, 0),
    ) -> None:
        self.sampler, self.rank, self.ranks = order, rank, ranks
        self.position = position
        self.ends = batch_ends(len(order), size, ranks if training else 0)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Drawn]:
        order = np.fromiter(self.sampler, dtype=np.int64, count=len(self.sampler))
        epoch, done = self.position
        first = done if getattr(self.sampler, "epoch", None) == epoch else 0
        for start, end in zip([0, *self.ends][first:], self.ends[first:], strict=False):
            part = order[start:end][self.rank :: self.ranks]
            if len(part):  # a last batch may have fewer images than there are ranks, and then no rank waits for another
                yield Drawn(part, end - start)


def batch_ends(images: int, size: int, training_ranks: int) -> list[int]:
    """Where the batches of an epoch end, see Batches; training_ranks is 0 outside of training."""
    ends = [*range(size, images, size), images]
    if not training_ranks or len(ends) == 1:
        return ends if images else []
    before, left = ([0, *ends][-3], images - ends[-2])
    if training_ranks == 1:
        return ends[:-1] if left == 1 and size > 1 else ends
    if left == 1:  # which one rank would leave out, with the same number of steps
        return [*ends[:-2], images]
    return [*ends[:-2], (before + images) // 2, images] if left < 2 * training_ranks else ends


def as_it_is(batch: Batch) -> Batch:
    """Instead of a collate function: __getitems__ returns whole batches. (A lambda could not travel to workers.)"""
    return batch


def copy_images(store: Store, device: torch.device) -> Tensor:
    """All images of the table on a device: uint8 (N, 1, S, S)."""
    images = torch.empty((len(store), 1, store.size, store.size), dtype=torch.uint8, device=device)
    for part in torch.arange(len(store)).split(1024):  # the host never holds a second copy of the whole
        images[part[0] : part[-1] + 1, 0] = torch.from_numpy(store[part.numpy()]).to(device)
    return images


def to_unit(images: Tensor) -> Tensor:
    """Bytes to float32 from 0 to 1."""
    return images.float() / 255
