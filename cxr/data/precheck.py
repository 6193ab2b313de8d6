"""Whether images can be used as options require, before any run starts."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxr.data.class_names import check_screened
from cxr.data.opening import open_images
from cxr.data.sources import read_local
from cxr.data.split import OPTIONS, group_images, split_images

LOCAL = ("folder", "table")  # sources that can be read at once
OF_SOURCE = (
    "source",
    "split",
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


# Further options of open_images().
OF_FILES = ("image_size", "images", "seed", "negatives", "dicom_patient", "copies", "on_bad")


def check_images(runs: Iterable[Mapping[str, Any]]) -> None:
    """Raise UserError where images cannot be read, split and screened as the options of some runs require, or where
    `data.on_bad` refuses them. (Only the latter decodes images. Other runs find copies among them when they begin.)"""
    runs = list(runs)
    local = [run for run in runs if run["data"]["source"] in LOCAL and "split" in run["data"]]
    for of_source in alike(local, OF_SOURCE):
        images = read_local(of_source[0]["data"])
        group = group_images(images.patient)
        for split in {tuple(run["data"][key] for key in OPTIONS) for run in of_source}:
            split_images(images, group, *split)
        for run in of_source:
            check_screened(run["screen"]["class"], images.classes)
    check_files(runs)


def check_files(runs: Iterable[Mapping[str, Any]]) -> None:
    """Decode the images of runs with `data.on_bad=fail` or `strict`, which these runs then find in the cache. Raises
    UserError for images that such a run refuses."""
    strict = [run for run in runs if run["data"]["on_bad"] != "skip"]
    if strict:
        logging.basicConfig(level=logging.INFO, format="%(message)s")  # until Hydra takes over: decoding takes a while
    for run, *_ in alike(strict, (*OF_SOURCE, *OF_FILES)):
        open_images(run["data"], (run["data"]["image_size"],), Path(run["cache_dir"]).expanduser())


def alike(runs: Iterable[Mapping[str, Any]], options: Iterable[str]) -> list[list[Mapping[str, Any]]]:
    """The runs in groups, within which these options of `data` are the same."""
    options = list(options)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        key = json.dumps([run["data"].get(option) for option in options], sort_keys=True)
        groups.setdefault(key, []).append(run)
    return list(groups.values())
