"""Whether images can be read, split and screened as options require, before anything is decoded."""

from collections.abc import Iterable, Mapping
from typing import Any

from cxr.data.class_names import check_screened
from cxr.data.sources import read_local
from cxr.data.split import group_images, split_images

LOCAL = ("folder", "table")  # sources that can be read at once


def check_images(runs: Iterable[Mapping[str, Any]]) -> None:
    """Raise UserError where images cannot be used as the options of some runs require. (Copies among the images are
    found later, when they are decoded.)"""
    sources = ("source", "root", "table")
    splits = ("split", "split_seed", "test_fraction", "val_fraction", "on_leak", "folds", "fold")  # of split_images()
    runs = [run for run in runs if run["data"]["source"] in LOCAL and "split" in run["data"]]
    pairs = {(tuple(run["data"].get(k) for k in sources), tuple(run["data"][k] for k in splits)) for run in runs}
    tables = {source: read_local(dict(zip(sources, source, strict=True))) for source, _ in pairs}
    groups = {source: group_images(images.patient) for source, images in tables.items()}
    for source, split in pairs:
        split_images(tables[source], groups[source], *split)
    for run in runs:
        check_screened(run["screen"]["class"], tables[tuple(run["data"].get(k) for k in sources)].classes)
