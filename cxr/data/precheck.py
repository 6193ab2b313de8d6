"""Whether images can be used as options require, before any run starts."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxr.data.class_names import check_screened
from cxr.data.groups import group_images
from cxr.data.hospitals import hospitals_of, named_hospitals
from cxr.data.image_table import ImageTable
from cxr.data.opening import open_images
from cxr.data.sources import read_local
from cxr.data.split import OPTIONS, split_by_options, split_images
from cxr.errors import UserError

log = logging.getLogger(__name__)

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
OF_FILES = ("image_size", "images", "seed", "negatives", "dicom_patient", "dicom_unknown_parts", "copies", "on_bad")


def list_hospitals(data: Mapping[str, Any]) -> list[str]:
    """The hospitals that the table or manifest of the images names and that can be held out, that with most images
    first; `data` as the options `data.*`. A warning says which cannot. Raises UserError where there are none."""
    local = data["source"] in LOCAL and data["hospital"] != "dicom"
    images = read_local(data) if local else None
    hospital = hospitals_of(images) if images else None
    if hospital is None:
        raise UserError(
            "data.hold_out=all: no table or manifest names the hospitals; give its column with data.hospital=COLUMN, "
            "or the names: data.hold_out=NAME,NAME"
        )
    group, names, refused = group_images(images.patient), [], []
    for name, _ in Counter(hospital[hospital != ""].tolist()).most_common():
        try:
            split_by_options(images, group, {**data, "split": "hospital", "hold_out": name})
            names.append(name)
        except UserError as why:
            refused.append(str(why))
    if not names:
        raise UserError(f"data.hold_out=all: none of the hospitals can be held out; such as {refused[0]}")
    for why in refused:
        log.warning("cxr: data.hold_out=all leaves one out: %s", why)
    return names


def check_hospitals(run: Mapping[str, Any], images: ImageTable) -> None:
    """Raise UserError if options of a run need hospitals, or their validation images, and there are none. (Hospitals
    in DICOM headers are not known yet.)"""
    if run["select"] == "worst_hospital" and not run["data"]["val_fraction"]:
        raise UserError("select=worst_hospital: chooses by validation images; data.val_fraction=0 leaves none")
    options = {"select=worst_hospital": run["select"] == "worst_hospital"}
    options["data.balance=[label,hospital]"] = (
        run["data"]["sampler"] == "balanced" and "hospital" in run["data"]["balance"]
    )
    for option in (option for option, used in options.items() if used and run["data"]["hospital"] != "dicom"):
        named_hospitals(images, option)


def check_images(runs: Iterable[Mapping[str, Any]]) -> None:
    """Raise UserError where images cannot be read, split and screened as the options of some runs require, or where
    `data.on_bad` refuses them. (Only the latter decodes images. Other runs find copies among them when they begin.)"""
    runs = list(runs)
    local = [run for run in runs if run["data"]["source"] in LOCAL and "split" in run["data"]]
    for of_source in alike(local, OF_SOURCE):
        images = read_local(of_source[0]["data"])
        group = group_images(images.patient)
        # Hospitals in DICOM headers are not known yet.
        ready = [run for run in of_source if run["data"]["split"] != "hospital" or run["data"]["hospital"] != "dicom"]
        for split in {tuple(run["data"][key] for key in OPTIONS) for run in ready}:
            split_images(images, group, *split)
        for run in of_source:
            check_screened(run["screen"]["class"], images.classes)
            check_hospitals(run, images)
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
