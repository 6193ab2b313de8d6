"""From the options `data.*` and `aug.*` to batches: what training uses of this room."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cxr.data.audit import log_findings
from cxr.data.augment import Augment, warp
from cxr.data.batches import Batch, Batches, SeededOrder, StoredImages, as_it_is, copy_images, to_unit
from cxr.data.groups import group_images
from cxr.data.hospitals import balance_levels, class_of_hospital, hospitals_of, load_confounding
from cxr.data.image_table import ImageTable
from cxr.data.masking import hide
from cxr.data.opening import open_images
from cxr.data.shortcuts import load_shortcuts
from cxr.data.split import USES, find_leaks, split_by_options, unused_reasons
from cxr.data.store import Store
from cxr.errors import UserError, counted

log = logging.getLogger(__name__)

# Images may take this share of a GPU's free memory; the rest is for the network, and for the runs beside this one.
RESIDENT_SHARE = 0.25


class CXRDataModule(pl.LightningDataModule):
    """Images from their source to the device: reading, splitting, batching, augmentation.

    Args:
        data: the options `data.*`.
        aug: the options `aug.*`, arguments of Augment.
        seed: of the order of images and of their augmentation; the split has `data.split_seed`.
        cache: folder for decoded images and drawings.

    After setup():
        images: the table of the N usable images. readable: the same as it was read, whatever a subclass makes of it.
        split: string array of length N: one of USES for each image.
        group: int array of length N, equal for images of one patient and for copies.
        store: their pixels. compared: the same at the size at which copies are found.
        note: see ImageTable.
    """

    def __init__(self, data: Mapping[str, Any], aug: Mapping[str, float], seed: int, cache: Path) -> None:
        super().__init__()
        self.data, self.seed, self.cache = data, seed, cache
        self.sizes: Sequence[int] = (data["image_size"],)  # of the stores, the first of which is `store`
        self.augment = Augment(**aug)
        self.images: ImageTable | None = None
        self.resident: Tensor | None = None  # all images on a GPU, if they fit
        self.tested = "test"  # or "inside": the split that Lightning's test loop gets
        self.hidden = ""  # what to black out: "lungs", "rest" or nothing; see cxr.data.masking
        self.drawn: tuple[int, torch.device, Tensor] | None = None  # epoch, device and result of draws()
        self.position = 0, 0  # where training begins: an epoch, and batches of it that are done already

    def setup(self, stage: str | None = None) -> None:
        """Read, decode and split the images.

        Raises:
            UserError: they cannot be used, see open_images(), or not be split.
        """
        if self.images is not None:  # Lightning asks again before the test
            return
        images, self.stores, self.compared, self.copies = open_images(self.data, self.sizes, self.cache)
        self.store = self.stores[self.sizes[0]]
        self.group = group_images(images.patient, [(first, second) for first, second, _ in self.copies])
        self.images, self.readable, self.note = images, images, images.note
        self.split = self.assign_split()
        log_findings(images, self.copies)
        self.log_split()

    def assign_split(self) -> np.ndarray:
        """The split of each image: string array of length N, see split_images()."""
        return split_by_options(self.images, self.group, self.data)

    def log_split(self) -> None:
        d, sizes = self.data, ", ".join(f"{s} {n}" for s, n in self.split_sizes().items())
        if d["split"] == "hospital":
            for reason, number in unused_reasons(self.images, self.split, str(d["hold_out"])).items():
                if number:
                    log.info("unused: %s %s", counted(number, "image"), reason)
        elif (leaks := self.leak_counts()) and leaks["images"]:
            done = "kept in training" if leaks["on_leak"] == "keep" else "unused"
            images = counted(leaks["images"], "image")
            log.info("%s: %s of patients of the test folder, or copies of its images", done, images)
        which = {"folds": f", fold {d['fold']}", "hospital": f", {d['hold_out']} held out"}.get(d["split"], "")
        log.info("split %s%s: %s", d["split"], which, sizes)

    def leak_counts(self) -> dict[str, Any] | None:
        """For metrics.json: with the set's own test folder or a held-out hospital, the number of leaks ("images"), see
        find_leaks(), and what became of them ("on_leak": drop or keep)."""
        if self.data["split"] not in ("given", "hospital"):
            return None
        on_leak = self.data["on_leak"] if self.data["split"] == "given" else "drop"
        return {"on_leak": on_leak, "images": int(find_leaks(self.split, self.group).sum())}

    def split_sizes(self) -> dict[str, int]:
        """Images per split, in the order of use."""
        return {s: int((self.split == s).sum()) for s in USES if (self.split == s).any()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and class."""
        label = self.images.label
        return {
            s: {c: int(((self.split == s) & (label == i)).sum()) for i, c in enumerate(self.images.classes)}
            for s in self.split_sizes()
        }

    def class_weights(self) -> list[float]:
        """Weights n / (C n_c) that give all classes equal weight in the loss, and training images 1 on average
        (scikit-learn's "balanced"; King & Zeng 2001). A class that only a held-out hospital has weighs nothing."""
        images = np.bincount(self.images.label[self.rows("train")], minlength=len(self.images.classes))
        return [float(images.sum() / ((images > 0).sum() * n)) if n else 0.0 for n in images]

    def rows(self, split: str) -> np.ndarray:
        """The rows of the table that belong to a split."""
        return np.flatnonzero(self.split == split)

    def loader(self, split: str) -> DataLoader:
        rows = self.rows(split)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images = self.place_images(device)
        labels = torch.from_numpy(self.images.label)
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        # A mapped store is faster than any worker, unless its images go to a GPU: then workers fetch them ahead.
        travel = isinstance(images, Store) and device.type != "cpu"
        workers = self.data["num_workers"]
        if workers == "auto":
            workers = min(4, os.cpu_count() or 1) if travel else 0
        training = split == "train"
        levels = None
        if training and self.data["sampler"] == "balanced":
            levels = balance_levels(self.data["balance"], self.images)[rows]
        order = SeededOrder(len(rows), self.seed, self.position[0], levels) if training else range(len(rows))
        return DataLoader(
            StoredImages(images, labels if isinstance(images, Store) else labels.to(images.device), rows),
            batch_sampler=Batches(order, self.data["batch_size"], training, rank, ranks, self.position),
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=as_it_is,
            pin_memory=travel and device.type == "cuda",
        )

    def place_images(self, device: torch.device) -> Store | Tensor:
        """All images on the GPU, uint8 (N, 1, S, S), if `data.resident` is true, or auto and they fit; else the store.

        Raises:
            UserError: `data.resident` is true without a GPU, or with workers, which cannot read its memory.
        """
        resident, workers = self.data["resident"], self.data["num_workers"]
        if resident == "auto":
            resident = (
                device.type == "cuda"
                and workers in ("auto", 0)
                and self.store.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
            )
        elif resident and device.type == "cpu":
            raise UserError("data.resident=true: no GPU was found to keep the images on; use auto")
        elif resident and workers not in ("auto", 0):
            raise UserError(
                f"data.resident=true: workers cannot read from a GPU; use data.num_workers=0, not {workers}"
            )
        if not resident:
            return self.store
        if self.resident is None or self.resident.device != device:
            self.resident = copy_images(self.store, device)
        return self.resident

    def state_dict(self) -> dict[str, Any]:
        """Where a checkpoint resumes: "position", an epoch and the number of its batches that are done."""
        epoch, progress = self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress
        return {"position": (epoch + 1, 0) if progress.is_last_batch else (epoch, progress.current.processed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = tuple(state_dict["position"])

    def train_dataloader(self) -> DataLoader:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.tested)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images = to_unit(batch.images)
        if self.trainer.training and self.augment:
            images = warp(images, self.draws(self.trainer.current_epoch, images.device)[batch.index])
        if self.hidden:
            images = hide(images, self.hidden)
        return batch._replace(images=images)

    def draws(self, epoch: int, device: torch.device) -> Tensor:
        """The augmentation of every image of the table in an epoch, float32 (N, 2, 3); see Augment.draw_maps().

        Drawn once an epoch: its many small steps take as long for a batch as for all images. On the CPU: a GPU's sine
        and cosine differ in the last bit."""
        if self.drawn is None or self.drawn[:2] != (epoch, device):
            drawn = self.augment.draw_maps(torch.arange(len(self.images)), self.store.size, self.seed, epoch)
            self.drawn = epoch, device, drawn.to(device)
        return self.drawn[2]

    def examples(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training images before and after augmentation, as the first epoch sees them, the classes taking turns.

        Returns:
            float32 (n, S, S) from 0 to 1, the same after augmentation, and the rows of the table (n,); n ≤ number.
        """
        train = self.rows("train")
        turns = [train[self.images.label[train] == i] for i in range(len(self.images.classes))]
        rows = np.array([t[k] for k in range(number) for t in turns if k < len(t)][:number])
        before = to_unit(torch.from_numpy(self.store[rows])[:, None])
        after = warp(before, self.draws(0, before.device)[rows])
        return before[:, 0].numpy(), after[:, 0].numpy(), rows

    def confounding(self) -> dict[str, Any]:
        """How hospitals and classes go together in the images that the run uses; see cxr.data.hospitals."""
        return load_confounding(self.images, self.compared, self.group, self.split != "unused", self.cache)

    def shortcut_predictions(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Predictions for test images (rows of the table) by rules that do not look at lungs; see cxr.data.shortcuts
        and, where hospitals are known, class_of_hospital()."""
        train, labels = self.rows("train"), self.images.label
        predictions = load_shortcuts(self.compared, labels, train, rows, self.cache)
        if (hospital := hospitals_of(self.images)) is not None:
            predictions["hospital_alone"] = class_of_hospital(hospital, labels, train, rows)
        return predictions
