"""Where images come from: a folder, Kaggle or our own drawings, all as one table of images."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.files import gaps, list_files, loose_images, not_an_image, subfolders, why_not_listed
from cxr.data.tables import PARTS, Row, read_rows
from cxr.errors import UserError, printable

SPLITS = ("train", "val", "test")

# The one order of the known classes, and the spellings met in the wild (compared as upper-case letters and digits).
CLASSES = ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS")
ALIASES = {
    "COVID": "COVID19",
    "COVID2019": "COVID19",
    "TB": "TUBERCULOSIS",
    "TURBERCULOSIS": "TUBERCULOSIS",
}
SPLIT_ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}

# File names of Kermany's children: person1004_virus_1686, IM-0115-0001, NORMAL2-IM-1427-0001.
PATIENT_PATTERNS = (re.compile(r"(person\d+)_"), re.compile(r"((?:NORMAL2-)?IM-\d+)-"))

KAGGLE_SET = "jtiptj/chest-xray-pneumoniacovid19tuberculosis"
KAGGLE_PAGE = f"https://www.kaggle.com/datasets/{KAGGLE_SET}"


@dataclass(frozen=True)
class ImageTable:
    """The table of images, one row an image.

    Attributes:
        root: the folder that `file` is relative to.
        file, patient, split: string arrays of length N; an unknown patient or split is "".
            `file` has forward slashes; `split` is the one the set came with: train, val, test or "".
        label: int64 array of length N, indices into `classes`.
        classes: class names, the known four in their fixed order, then others by name.
        table: the table that lists them, None of a folder: two tables may name images of one folder.
        rejected: (file, reason) of everything that lies in the set and cannot be used.
        slices: what else a table or a manifest says of images, by column: string arrays of length N, "" for unknown.
        note: what every table and picture made from these images has to say, or "".
    """

    root: Path
    file: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    rejected: tuple[tuple[str, str], ...] = field(default=())
    table: Path | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.file)

    def without(self, rejected: Mapping[int, str]) -> "ImageTable":
        """The table without the rows that `rejected` names (row → reason); they join `rejected`."""
        keep = np.array([row not in rejected for row in range(len(self))], dtype=bool)
        return replace(
            self,
            file=self.file[keep],
            label=self.label[keep],
            patient=self.patient[keep],
            split=self.split[keep],
            slices={name: values[keep] for name, values in self.slices.items()},
            rejected=self.rejected + tuple((str(self.file[row]), why) for row, why in rejected.items()),
        )

    def counts(self) -> dict[str, int]:
        """Images per class."""
        return {name: int((self.label == i).sum()) for i, name in enumerate(self.classes)}


def class_name(name: str) -> str:
    """The standard name of a class as somebody spelt it; names we do not know are upper-cased, and on one line."""
    key = re.sub(r"[^A-Z0-9]", "", name.upper())
    key = ALIASES.get(key, key)
    return key if key in CLASSES else printable(name.strip().upper())


def check_screened(name: str, classes: Sequence[str]) -> None:
    """Raise UserError for a class to screen for that neither these images nor the reference set have. (A set without
    tuberculosis is screened for nothing.)"""
    if class_name(name) not in (*classes, *CLASSES):
        raise UserError(f"screen.class={name}: no class of these images; they have {', '.join(classes)}")


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names, the known four first and in their fixed order."""
    found = set(names)
    return tuple(c for c in CLASSES if c in found) + tuple(sorted(found - set(CLASSES)))


def patient_of(file: str) -> str:
    """The patient that an image's name gives away, or "" where the name is of no known form."""
    name = Path(file).name
    return next((m[1] for p in PATIENT_PATTERNS if (m := p.match(name))), "")


def read_folder(root: Path) -> ImageTable:
    """Read class folders that lie directly in `root` or below its train, val and test folders.

    A `manifest.csv` in the root (file,patient[,label,split]) gives patients, and may move an image to another split or
    class than its folder's; its further columns are for slices.

    Raises:
        UserError: the folder is missing, closed or holds no images in class folders, or the manifest cannot be used.
    """
    root = Path(root).expanduser()
    if not os.path.isdir(root):  # which, unlike Path's, does not fail below a closed folder
        raise UserError(f"data.root={root}: no such folder")
    if why := why_not_listed(root):
        raise UserError(f"data.root={root}: {why}")
    parts = [(p, split_name(p.name)) for p in subfolders(root)]
    if any(split for _, split in parts):
        folders = [(c, split) for p, split in parts if split for c in subfolders(p)]
        beside = [f for p, split in parts for f in (loose_images(p) if split else list_files(p))]
        unseen = [gap for p, split in parts if split for gap in gaps(p)]
    else:
        folders, beside, unseen = [(p, "") for p, _ in parts], [], []

    listed = root / "manifest.csv"
    manifest = {row["file"]: row for row in read_rows(listed, ("file", "patient"))} if os.path.isfile(listed) else {}
    rows: list[Row] = []
    beside += loose_images(root)
    said = [*gaps(root), *unseen, *((path, "not in a class folder") for path in beside)]
    rejected = [(path.relative_to(root).as_posix(), why) for path, why in said]
    for folder, split in folders:
        for path in list_files(folder):
            file = path.relative_to(root).as_posix()
            if why := not_an_image(path):
                rejected.append((file, why))
                continue
            told = manifest.get(file, {})
            known = {
                "file": file,
                "label": class_name(told.get("label") or folder.name),
                "patient": told["patient"] if "patient" in told else patient_of(file),
                "split": split_name(told.get("split") or "") or split,
            }
            rows.append(told | known)
    if not rows:
        such_as = f"; {printable(rejected[0][0])}: {rejected[0][1]}" if rejected else ""
        raise UserError(
            f"data.root={root}: no images found; expected jpg, jpeg or png files in class folders "
            f"(NORMAL, PNEUMONIA, …), directly there or below train, val and test{such_as}"
        )
    if missing := sorted(set(manifest) - {row["file"] for row in rows}):
        rejected += [(file, "in manifest.csv, but not in a class folder") for file in missing]
    return images_of(root.resolve(), rows, rejected)


def split_name(name: str) -> str:
    """train, val or test as somebody spelt it, or "" for anything else."""
    name = SPLIT_ALIASES.get(name.lower(), name.lower())
    return name if name in SPLITS else ""


def images_of(root: Path, rows: Sequence[Row], rejected: Sequence[tuple[str, str]]) -> ImageTable:
    """The table of images of rows with the columns file, label, patient, split, and others, which are for slices."""
    more = list(dict.fromkeys(name for row in rows for name in row if name not in PARTS))
    file, label, patient, split = (np.array([row[name] for row in rows], dtype=np.str_) for name in PARTS)
    classes = order_classes(label.tolist())
    index = np.array([classes.index(name) for name in label.tolist()], dtype=np.int64)
    slices = {printable(name): np.array([printable(row.get(name, "")) for row in rows], np.str_) for name in more}
    return ImageTable(root, file, index, patient, split, classes, slices, tuple(rejected))


def read_local(data: Mapping[str, Any]) -> ImageTable:
    """The images of a folder, or those that a table lists, by the options `data.*`. Raises UserError as they do."""
    root = data["root"] and Path(data["root"])
    if data["source"] == "table":
        from cxr.data.listed import read_listed

        return read_listed(Path(data["table"]), root)
    if not root:
        raise UserError("data.root=null: must be a folder of images")
    return read_folder(root)


def read_kaggle() -> ImageTable:
    """Download the reference set with kagglehub (or find it in kagglehub's cache) and read it as a folder."""
    by_hand = f"download {KAGGLE_PAGE} by hand, unpack it and pass data=folder data.root=DIR"
    try:
        import kagglehub
    except ImportError as error:
        raise UserError(f"data=kaggle needs kagglehub: pip install kagglehub, or {by_hand}") from error
    try:
        root = Path(kagglehub.dataset_download(KAGGLE_SET))
    except Exception as error:  # of requests, zipfile, tarfile and kagglehub, which have no common ancestor
        raise UserError(f"data=kaggle: the download failed ({type(error).__name__}); {by_hand}") from error
    check_links(root)
    return read_folder(dataset_root(root))


def check_links(folder: Path) -> None:
    """Raise UserError for a link in a downloaded set that leads out of it.

    Unpacking itself writes nothing outside: Python's zipfile drops .. and leading slashes and makes no links, and
    kagglehub unpacks tar files, since 1.0.2, with tarfile's filter "data". Nothing here can look at an archive before
    kagglehub unpacks it: that it is no bomb is for Kaggle to see to, which packs it from a data set that we name.
    """
    inside = folder.resolve()
    for where, folders, files in os.walk(folder):
        for path in (Path(where, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UserError(f"data=kaggle: {path} is a link that leads out of the data set; remove {folder}")


def dataset_root(folder: Path) -> Path:
    """The folder that holds train/, which an archive may have wrapped in folders of its own."""
    return next((p.parent for p in sorted(folder.rglob("train")) if p.is_dir()), folder)


def read_phantom(images: int, seed: int, cache: Path) -> ImageTable:
    """Draw `images` phantom images into the cache (once for each number and seed) and read them as a folder."""
    import cxr.data.phantom as drawing
    from cxr.data.cache import built, fingerprint
    from cxr.data.phantom import draw_phantom

    # The drawing code is part of the key: images drawn by an older version must not pass for this one's.
    key = fingerprint(images, seed, Path(drawing.__file__).read_bytes())
    with built(cache / f"phantom-{images}-{seed}-{key}", lambda folder: draw_phantom(folder, images, seed)) as root:
        return replace(read_folder(root), note="drawn images (phantom): says nothing about patients")


def read_images(data: Mapping[str, Any], cache: Path) -> ImageTable:
    """The table of images that the options `data.*` ask for.

    Raises:
        UserError: the source is unknown or cannot be read.
    """
    match data["source"]:
        case "folder" | "table":
            return read_local(data)
        case "kaggle":
            return read_kaggle()
        case "phantom":
            return read_phantom(data["images"], data["seed"], cache)
        case other:
            raise UserError(f"data.source={other}: unknown; choose folder, table, kaggle or phantom")
