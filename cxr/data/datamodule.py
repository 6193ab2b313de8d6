"""From the options `data.*` and `aug.*` to batches: the only thing of this folder that training sees."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cxr.data.audit import VERSION as AUDIT_VERSION
from cxr.data.audit import audit, known_copies
from cxr.data.augment import Augment, warp
from cxr.data.batches import Batch, Batches, SeededOrder, StoredFilms, as_it_is, copy_films, to_unit
from cxr.data.cache import built, fingerprint
from cxr.data.hiding import hide
from cxr.data.sources import Films, read_films
from cxr.data.split import group_films, split_films
from cxr.data.store import Store, open_store
from cxr.distributed import rank, ranks
from cxr.errors import UserError, printable
from cxr.results.run_folder import AUDIT, SPLIT, SPLIT_COLUMNS, as_text, read_json, write_json, write_table

log = logging.getLogger(__name__)

# Films may take this share of a GPU's free memory; the rest is for the network, and for the cells beside this one.
RESIDENT_SHARE = 0.25


class CXRDataModule(pl.LightningDataModule):
    """Films from their source to the device: reading, splitting, batching, augmentation.

    Args:
        data: the options `data.*`.
        aug: the options `aug.*`, arguments of Augment.
        seed: of the order of films and of their augmentation; the split has `data.split_seed`.
        cache: folder for decoded films and drawings.

    After setup():
        films: the table of the films that can be used; beside it `split`, a string array, and `group`, an int array,
        equal for films of one patient and copies. note: see Films.
    """

    def __init__(self, data: Mapping[str, Any], aug: Mapping[str, float], seed: int, cache: Path) -> None:
        super().__init__()
        self.data, self.seed, self.cache = data, seed, cache
        self.augment = Augment(**aug)
        self.films: Films | None = None
        self.resident: Tensor | None = None  # all films on a GPU, where they fit
        self.hidden = ""  # what is blacked out: "lungs", "rest" or nothing, see cxr.data.hiding
        self.drawn: tuple[int, torch.device, Tensor] | None = None  # what augmentation does in an epoch
        self.position = 0, 0  # where training begins: an epoch, and batches of it that were done before

    def setup(self, stage: str | None = None) -> None:
        """Read, decode and split the films.

        Raises:
            UserError: they cannot be used or split, or some cannot be used and `data.on_bad` is fail.
        """
        if self.films is not None:  # Lightning asks again before the test
            return
        found = read_films(self.data, self.cache)
        self.store, films = open_store(found, self.data["image_size"], self.cache)
        if films.rejected and self.data["on_bad"] == "fail":
            file, why = films.rejected[0]
            raise UserError(
                f"data.on_bad=fail: {len(films.rejected)} files in {films.root} cannot be used, the first one is "
                f"{printable(file)} ({why}); python -m cxr.audit lists them; mend them, take them away, or use skip"
            )
        self.compared, self.readable, self.copies = known_copies(found, self.cache, self.data["copies"])
        self.group = group_films(films.patient, [(first, second) for first, second, _ in self.copies])
        self.films, self.note = films, films.note
        self.split = self.deal()
        self.report()
        self.report_split()

    def deal(self) -> np.ndarray:
        """Which film stands where: string array of length N, see split_films()."""
        d = self.data
        fractions = d["test_fraction"], d["val_fraction"]
        return split_films(self.films, self.group, d["split"], d["split_seed"], *fractions, d["on_leak"])

    def report(self) -> None:
        """Say what was found and rejected."""
        films = self.films
        counts = ", ".join(f"{name} {number}" for name, number in films.counts().items())
        log.info("%d films in %s: %s", len(films), printable(str(films.root)), counts)
        for file, why in films.rejected[:10]:
            log.warning("not used: %s (%s)", printable(file), why)
        if len(films.rejected) > 10:
            log.warning("not used: %d more files, all in rejected.csv", len(films.rejected) - 10)
        if self.copies:
            first, second, _ = self.copies[0]
            log.info(
                "%d pairs of films show the same film, %s and %s among them (python -m cxr.audit lists them); they "
                "are kept together",
                len(self.copies),
                printable(films.file[first]),
                printable(films.file[second]),
            )

    def report_split(self) -> None:
        """Say what was dealt out."""
        if (leaks := self.leaks()) and leaks["films"]:
            done = "kept in training" if leaks["on_leak"] == "keep" else "unused"
            log.info("%s: %d films of patients of the test folder, or copies of its films", done, leaks["films"])
        log.info("split %s: %s", self.data["split"], ", ".join(f"{s} {n}" for s, n in self.split_sizes().items()))

    def leaks(self) -> dict[str, Any] | None:
        """Of metrics.json: with the set's own test folder, how many "films" beside it are of its patients or copies of
        its films, and what became of them ("on_leak": drop or keep)."""
        if self.data["split"] != "given":
            return None
        test = self.split == "test"
        leaks = np.isin(self.group, self.group[test]) & ~test
        return {"on_leak": self.data["on_leak"], "films": int(leaks.sum())}

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

    def class_weights(self) -> list[float]:
        """How much a film of each class counts so that all classes count the same, and a training film 1 on average:
        n / (C n_c), as scikit-learn's "balanced" (King & Zeng 2001)."""
        films = np.bincount(self.films.label[self.rows("train")], minlength=len(self.films.classes))
        return (films.sum() / (len(films) * films)).tolist()

    def rows(self, split: str) -> np.ndarray:
        """The rows of the table that stand in a split."""
        return np.flatnonzero(self.split == split)

    def loader(self, split: str) -> DataLoader:
        rows = self.rows(split)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        films = self.place_films(device)
        labels = torch.from_numpy(self.films.label)
        # A mapped store is faster than any worker, unless its films have to travel: then workers fetch them ahead.
        travel = isinstance(films, Store) and device.type != "cpu"
        workers = self.data["num_workers"]
        if workers == "auto":
            workers = min(4, os.cpu_count() or 1) if travel else 0
        training = split == "train"
        of_classes = self.films.label[rows] if self.data.get("sampler") == "balanced" else None
        order = SeededOrder(len(rows), self.seed, self.position[0], of_classes) if training else range(len(rows))
        return DataLoader(
            StoredFilms(films, labels if isinstance(films, Store) else labels.to(films.device), rows),
            batch_sampler=Batches(order, self.data["batch_size"], training, rank(), ranks(), self.position),
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=as_it_is,
            pin_memory=travel and device.type == "cuda",
        )

    def place_films(self, device: torch.device) -> Store | Tensor:
        """Where batches are cut from: all films on the GPU where they fit, or as `data.resident` says; else the store.

        Raises:
            UserError: `data.resident` is true without a GPU, or with workers, which cannot reach into its memory.
        """
        wanted, workers = self.data["resident"], self.data["num_workers"]
        if wanted == "auto":
            wanted = (
                device.type == "cuda"
                and workers in ("auto", 0)
                and self.store.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
            )
        elif wanted and device.type == "cpu":
            raise UserError("data.resident=true: there is no GPU here to keep the films on; use auto")
        elif wanted and workers not in ("auto", 0):
            raise UserError(
                f"data.resident=true: workers cannot read from a GPU; use data.num_workers=0, not {workers}"
            )
        if not wanted:
            return self.store
        if self.resident is None or self.resident.device != device:
            self.resident = copy_films(self.store, device)
        return self.resident

    def train_dataloader(self) -> DataLoader:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        films = to_unit(batch.films)
        if self.trainer.training and self.augment:
            films = warp(films, self.draws(self.trainer.current_epoch, films.device)[batch.index])
        if self.hidden:
            films = hide(films, self.hidden)
        return batch._replace(films=films)

    def draws(self, epoch: int, device: torch.device) -> Tensor:
        """What augmentation does to every film of the table in an epoch, float32 (N, 2, 3).

        Drawn once an epoch, since the many small steps of drawing take as long for a batch as for all films; and on the
        CPU, since a GPU's sine and cosine differ in the last bit."""
        if self.drawn is None or self.drawn[:2] != (epoch, device):
            drawn = self.augment.draw(torch.arange(len(self.films)), self.store.size, self.seed, epoch)
            self.drawn = epoch, device, drawn.to(device)
        return self.drawn[2]

    def examples(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training films before and after augmentation, as the first epoch sees them, the classes taking turns.

        Returns:
            float32 (n, S, S) from 0 to 1, the same after augmentation, and the rows of the table (n,); n ≤ number.
        """
        train = self.rows("train")
        turns = [train[self.films.label[train] == i] for i in range(len(self.films.classes))]
        rows = np.array([t[k] for k in range(number) for t in turns if k < len(t)][:number])
        before = to_unit(torch.from_numpy(self.store[rows])[:, None])
        after = warp(before, self.draws(0, before.device)[rows])
        return before[:, 0].numpy(), after[:, 0].numpy(), rows

    def say_without_lungs(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """What rules that do not look at lungs say of test films, rows of the table; see cxr.data.giveaways. Worked out
        once for each split."""
        from cxr.data.giveaways import VERSION, say_without_lungs  # scikit-learn takes a second

        train, labels = self.rows("train"), self.films.label
        known = self.compared.facts["sha256"].tolist(), labels.tolist(), train.tolist(), rows.tolist()

        def work_out(folder: Path) -> None:
            np.savez(folder / "said.npz", **say_without_lungs(self.compared, labels, train, rows))

        with built(self.cache / f"giveaways-{fingerprint(VERSION, *known)}", work_out) as folder:
            return dict(np.load(folder / "said.npz"))

    def audited(self) -> dict[str, Any]:
        """What audit() finds in the films; looked for once for each state of them."""
        films, how = self.readable, self.data["copies"]
        known = [how, films.root, films.rejected, films.note, films.classes, self.copies, films.label.tolist()]
        known += [array.tolist() for array in (films.file, films.patient, films.split, self.compared.facts["sha256"])]

        def look(folder: Path) -> None:
            write_json(folder / AUDIT, audit(films, self.compared, self.copies, how))

        with built(self.cache / f"audit-{fingerprint(AUDIT_VERSION, *known)}", look) as folder:
            return read_json(folder / AUDIT)

    def write_tables(self, folder: Path) -> None:
        """Write audit.json, split.csv, every film of the set in the table's order, and rejected.csv."""
        write_json(folder / AUDIT, self.audited())
        write_table(folder / SPLIT, SPLIT_COLUMNS, self.dealt())
        write_table(folder / "rejected.csv", ("file", "reason"), self.films.rejected)

    def dealt(self) -> Iterator[tuple[str, ...]]:
        """The rows of split.csv, as they read back from it."""
        films = self.films
        labels = [films.classes[i] for i in films.label]
        columns = films.file, labels, films.patient, self.split, self.group
        return (tuple(as_text(value) for value in row) for row in zip(*columns, strict=True))
