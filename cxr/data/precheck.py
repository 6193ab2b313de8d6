"""Whether images can be read, split and screened as options require, before anything is decoded."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cxr.data.class_names import check_screened
from cxr.data.groups import group_images
from cxr.data.sources import read_local
from cxr.data.split import OPTIONS, split_images
from cxr.errors import UserError

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


def list_hospitals(data: Mapping[str, Any]) -> list[str]:
    """The hospitals that the table or manifest of the images names, that with most images first; `data` as the options
    `data.*`. Raises UserError where there are none."""
    images = read_local(data) if data["source"] in LOCAL and data["hospital"] != "dicom" else None
    hospital = images.slices.get("hospital", np.array([""])) if images else np.array([""])
    names = [name for name, _ in Counter(hospital[hospital != ""].tolist()).most_common()]
    if not names:
        raise UserError(
            "data.hold_out=all: no table or manifest names the hospitals; give its column with data.hospital=COLUMN, "
            "or the names: data.hold_out=NAME,NAME"
        )
    return names


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
        # Hospitals in DICOM headers are not known yet.
        ready = [run for run in of_source if run["data"]["split"] != "hospital" or run["data"]["hospital"] != "dicom"]
        for split in {tuple(run["data"][key] for key in OPTIONS) for run in ready}:
            split_images(images, group, *split)
        for run in of_source:
            check_screened(run["screen"]["class"], images.classes)
