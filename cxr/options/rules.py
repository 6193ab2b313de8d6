"""The values that every option may have: one table. No torch here."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr.errors import UserError
from cxr.options.checkpoint_paths import holds_network, paths_in
from cxr.options.values import (
    BOOLEAN,
    FOLDER,
    NEW_FILE,
    TEXT,
    Rule,
    is_mapping,
    is_pattern,
    is_printable,
    is_table,
    is_value,
    is_whole,
    not_there,
    number,
    one_of,
    whole,
)

PARTS = {"file", "label", "patient", "split"}  # of a table
SPLITS = {"train", "val", "test"}
FOLDER_NAME = r"[^/\\\0-\x1f]*[^/\\\0-\x1f.][^/\\\0-\x1f]*"  # no slash, no line break, and more than dots
PRECISIONS = ("auto", "32-true", 32, "16-mixed", "bf16-mixed")  # images become fp32 on the device

# Options that are missing here, such as those of a user's own YAML, are checked by the code that reads them.
RULES = {
    "name": Rule("the name of a folder, without slashes", lambda v: bool(re.fullmatch(FOLDER_NAME, str(v)))),
    "seed": Rule("a whole number from 0 to 4294967295", lambda v: is_whole(v, 0) and v < 2**32),
    "cache_dir": TEXT,
    "compile": BOOLEAN,
    "projector": BOOLEAN,
    "cuda_graphs": Rule("auto, true or false", lambda v: v == "auto" or isinstance(v, bool)),
    "isolate": BOOLEAN,
    "resume": one_of("auto", "never"),
    "n": whole(1),
    "n_trials": whole(1),
    "storage": Rule("null or the address of a database", lambda v: v is None or "://" in str(v)),
    "study": Rule("null or the name of a search", lambda v: v is None or (isinstance(v, str) and v != "")),
    "sampler": one_of("tpe", "random"),
    "pruner": one_of("none", "median", "hyperband"),
    # It stands in a batch script, as the name does.
    "slurm.partition": Rule("null or the name of a partition", lambda v: v is None or is_printable(v)),
    "slurm.time": whole(1),
    "slurm.requeues": whole(0),
    "slurm.warning": whole(1),
    "slurm.memory": whole(1),
    "slurm.cpus": whole(1),
    "slurm.gpus": Rule("null or a whole number from 1", lambda v: v is None or is_whole(v, 1)),
    "data.source": one_of("phantom", "folder", "table", "kaggle"),
    "data.root": Rule("a folder of images", lambda v: v is None or (isinstance(v, str) and v != "")),
    "data.table": Rule(
        "the path of a CSV or parquet file, a pattern that one fits, or {train: FILE, test: FILE}",
        lambda v: is_table(v) or (bool(v) and is_mapping(v, SPLITS.__contains__, is_table)),
    ),
    "data.sampler": one_of("uniform", "balanced"),
    "data.balance": Rule("[label] or [label,hospital]", lambda v: v in (["label"], ["label", "hospital"])),
    "select": one_of("f1_macro", "worst_hospital"),
    "loss.weights": one_of("none", "balanced"),
    "data.image_size": whole(16),
    "data.split": one_of("pooled", "given", "folds", "hospital"),
    "data.hold_out": Rule("null or the name of a hospital", lambda v: v is None or is_value(v)),
    "data.folds": whole(2),
    "data.fold": whole(0),
    "data.split_seed": whole(0),
    "data.test_fraction": number("between 0 and 1", lambda v: 0 < v < 1),
    "data.val_fraction": number("from 0 to less than 1", lambda v: 0 <= v < 1),
    "data.on_leak": one_of("drop", "keep", "fail"),
    "data.copies": one_of("auto", "near", "exact"),
    "data.classes": Rule(
        "null or names of classes, such as {healthy: NORMAL, old: null}; * is every other name",
        lambda v: is_mapping(v, is_printable, lambda name: name is None or is_value(name)),
    ),
    "data.columns": Rule(
        "null or the table's columns for file, label, patient and split, such as {file: Image Index}",
        lambda v: is_mapping(v, PARTS.__contains__, lambda column: column is None or is_printable(column)),
    ),
    "data.rows": Rule(
        "null or values that columns of the table must have, such as {View Position: PA} or {View Position: [PA, AP]}",
        lambda v: is_mapping(
            v, is_printable, lambda of: is_value(of) or (isinstance(of, list) and bool(of) and all(map(is_value, of)))
        ),
    ),
    "data.several_labels": one_of("fail", "drop", "keep", "one"),
    "data.uncertain": one_of("drop", "absent", "present"),
    "data.disagreement": one_of("fail", "drop", "majority"),
    "data.split_lists": Rule(
        "null or text files with a name a line, such as {train: train.txt, test: test.txt}",
        lambda v: is_mapping(v, SPLITS.__contains__, is_printable),
    ),
    "data.hospital": Rule("null, dicom, ignore or a column of the table", lambda v: v is None or is_printable(v)),
    "data.label_pattern": Rule("null or a regular expression with one group or more", is_pattern),
    "data.patient_pattern": Rule("null or a regular expression with one group or more", is_pattern),
    "data.on_bad": one_of("skip", "fail", "strict"),
    "data.negatives": one_of("keep", "invert", "reject"),
    "data.dicom_patient": one_of("hash", "keep", "ignore"),
    "data.dicom_unknown_parts": one_of("reject", "keep"),
    "data.batch_size": whole(1),
    "data.num_workers": Rule("auto or a whole number from 0", lambda v: v == "auto" or is_whole(v, 0)),
    "data.resident": Rule("auto, true or false", lambda v: v == "auto" or isinstance(v, bool)),
    "data.images": whole(100),
    "data.seed": whole(0),
    "model.widths": Rule(
        "a list of whole numbers from 1", lambda v: isinstance(v, list) and bool(v) and all(is_whole(w, 1) for w in v)
    ),
    "model.hidden": whole(1),
    "model.mean": number("from 0 to 1", lambda v: 0 <= v <= 1),
    "model.std": number("above 0", lambda v: v > 0),
    "model.name": Rule("a network of timm, such as convnext_tiny", lambda v: isinstance(v, str) and v != ""),
    "model.weights": Rule(
        "null, imagenet or the path of a file of weights",
        lambda v: v in (None, "imagenet") or (isinstance(v, str) and Path(v).expanduser().is_file()),
    ),
    "aug.flip": number("from 0 to 1", lambda v: 0 <= v <= 1),
    "aug.degrees": number("from 0 to 180", lambda v: 0 <= v <= 180),
    "aug.crop": number("from 0 to 1", lambda v: 0 <= v <= 1),
    "optim.lr": number("above 0", lambda v: v > 0),
    "optim.momentum": number("from 0 to less than 1", lambda v: 0 <= v < 1),
    "optim.weight_decay": number("from 0", lambda v: v >= 0),
    "optim.fused": BOOLEAN,
    "optim.schedule": one_of("constant", "onecycle"),
    "report.lang": one_of("en", "ko"),
    "screen.class": Rule("the name of a class, or all", lambda v: isinstance(v, str) and v != ""),
    "screen.sensitivity": number("between 0 and 1", lambda v: 0 < v < 1),
    "screen.confidence": number("between 0 and 1", lambda v: 0 < v < 1),
    "trainer.max_epochs": whole(1),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": Rule(
        "a whole number from 1, or a list of numbers of GPUs",
        lambda v: (
            is_whole(v, 1) or (isinstance(v, list) and 0 < len(v) == len({*v}) and all(is_whole(n, 0) for n in v))
        ),
    ),
    "trainer.num_nodes": whole(1),
    "trainer.strategy": one_of("auto", "ddp"),
    "trainer.precision": one_of(*PRECISIONS),
    "ckpt": Rule(
        "a checkpoint, such as RUN/checkpoints/best.ckpt, or the folder of a run or of a sweep; several: A,B,C",
        lambda path: path is None or holds_network(path),  # None: of cxr.demo
        lambda ckpt: [None] if ckpt is None else paths_in(ckpt),
        not_there,
    ),
    "host": TEXT,
    "port": Rule("a whole number from 0 to 65535", lambda v: is_whole(v, 0) and v < 2**16),
    "source": Rule(
        "an image or a folder of images", lambda v: v != "" and os.path.exists(os.path.expanduser(v)), why=not_there
    ),
    "int8": BOOLEAN,
    "calibrate_on": Rule("null or a whole number from 1", lambda v: v is None or is_whole(v, 1)),
    "heatmaps": FOLDER,
    "out": NEW_FILE,
}


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(optim.lr, 0.001), … for every option."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def mappings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(data.classes, {…}), … for every option that is a mapping, as one value."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield f"{prefix}{key}", value
            yield from mappings(value, f"{prefix}{key}.")


def check_missing(config: Mapping[str, Any]) -> None:
    """Raise UserError for the first option that is required and has no value."""
    for key, value in flatten(config):
        if value == "???":
            raise UserError(f"{key} is missing: give {key}={RULES[key].allowed if key in RULES else 'VALUE'}")


def check_values(config: Mapping[str, Any]) -> None:
    """Raise UserError for the first option that is missing or not allowed."""
    check_missing(config)
    for key, value in (*flatten(config), *mappings(config)):
        rule = RULES.get(key)
        for part in rule.parts(value) if rule else ():
            if not rule.holds(part):
                why = rule.why(part)
                raise UserError(
                    f"{key}={'null' if part is None else part}: {f'{why}; ' if why else ''}must be {rule.allowed}"
                )
