"""Whether images can be read, split and screened as options require, before anything is decoded."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from cxr.data.class_names import check_screened
from cxr.data.sources import read_local
from cxr.data.split import OPTIONS, group_images, split_images

LOCAL = ("folder", "table")  # sources that can be read at once
OF_SOURCE = (
    "source",
    "root",
    "table",
    "classes",
    "patient_pattern",
    "columns",
    "several_labels",
    "uncertain",
    "disagreement",
    "rows",
    "split_lists",
    "label_pattern",
    "hospital",
)  # options of read_local()


def check_images(runs: Iterable[Mapping[str, Any]]) -> None:
    """Raise UserError where images cannot be used as the options of some runs require. (Copies among the images are
    found later, when they are decoded.)"""
    runs = [run for run in runs if run["data"]["source"] in LOCAL and "split" in run["data"]]
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        key = json.dumps([run["data"].get(option) for option in OF_SOURCE], sort_keys=True)
        by_source.setdefault(key, []).append(run)
    for of_source in by_source.values():
        images = read_local(of_source[0]["data"])
        group = group_images(images.patient)
        for split in {tuple(run["data"][key] for key in OPTIONS) for run in of_source}:
            split_images(images, group, *split)
        for run in of_source:
            check_screened(run["screen"]["class"], images.classes)
