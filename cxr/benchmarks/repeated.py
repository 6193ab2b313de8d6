"""A larger set than there is: the images of a store, again and again."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from cxr.data.datamodule import CXRDataModule
from cxr.data.store import Store
from cxr.errors import UserError


def repeat_images(data: CXRDataModule, number: int, folder: Path) -> None:
    """Give a data module `number` images, its images again and again, in a store of that size in `folder`.

    Raises:
        UserError: the disk has too little room.
    """
    needed, free = number * data.store.size**2, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: {number} images need {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free")
    rows = np.arange(number) % len(data.images)
    with (folder / "images.u8").open("wb") as file:
        for part in np.array_split(rows, number // 50 + 1):  # few at a time: this process's memory is measured
            data.store[part].tofile(file)
    images = np.memmap(folder / "images.u8", dtype=np.uint8, mode="c", shape=(number, data.store.size, data.store.size))
    data.store = Store([images], np.arange(number))
    table = data.images
    data.images = replace(
        table, file=table.file[rows], label=table.label[rows], patient=table.patient[rows], split=table.split[rows]
    )
    data.split = np.full(number, "train")
