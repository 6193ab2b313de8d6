"""The table of images: one row an image, with standard names of classes and splits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cxr.data.tables import PARTS, Row
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


@dataclass(frozen=True)
class ImageTable:
    """The table of images, one row an image.

    Attributes:
        root: the folder that `file` is relative to.
        file, patient, split: string arrays of length N; an unknown patient or split is "".
            `file` has forward slashes; `split` is the one the set came with: train, val, test or "".
        label: int64 array of length N, indices into `classes`.
        classes: class names, the known four in their fixed order, then others by name.
        table: the table that lists the images, or None: two tables may list images of one folder.
        rejected: (file, reason) of everything in the set that cannot be used.
        slices: further columns of a table or manifest: string arrays of length N, "" for unknown.
        note: a remark that every table and picture made from these images must carry, or "".
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
    """The standard name of a class in any spelling; other names in upper case, on one line."""
    key = re.sub(r"[^A-Z0-9]", "", name.upper())
    key = ALIASES.get(key, key)
    return key if key in CLASSES else printable(name.strip().upper())


def check_screened(name: str, classes: Sequence[str]) -> None:
    """Raise UserError if neither these images nor the reference set have the class `name` to screen for; "all" is every
    class."""
    if name != "all" and class_name(name) not in (*classes, *CLASSES):
        raise UserError(f"screen.class={name}: not a class of these images, which are {', '.join(classes)}, nor all")


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names, the known four first and in their fixed order."""
    distinct = set(names)
    return tuple(c for c in CLASSES if c in distinct) + tuple(sorted(distinct - set(CLASSES)))


def patient_of(file: str) -> str:
    """The patient in a file name of Kermany's form, or ""."""
    name = Path(file).name
    return next((m[1] for p in PATIENT_PATTERNS if (m := p.match(name))), "")


def split_name(name: str) -> str:
    """train, val or test in any spelling, or "" for anything else."""
    name = SPLIT_ALIASES.get(name.lower(), name.lower())
    return name if name in SPLITS else ""


def images_of(root: Path, rows: Sequence[Row], rejected: Sequence[tuple[str, str]]) -> ImageTable:
    """The table of rows with the columns file, label, patient and split; further columns become slices."""
    more = list(dict.fromkeys(name for row in rows for name in row if name not in PARTS))
    file, label, patient, split = (np.array([row[name] for row in rows], dtype=np.str_) for name in PARTS)
    classes = order_classes(label.tolist())
    index = np.array([classes.index(name) for name in label.tolist()], dtype=np.int64)
    slices = {printable(name): np.array([printable(row.get(name, "")) for row in rows], np.str_) for name in more}
    return ImageTable(root, file, index, patient, split, classes, slices, tuple(rejected))
