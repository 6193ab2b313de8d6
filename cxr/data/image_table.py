"""The table of images: one row per image, with standard names of classes and splits."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from cxr.data.class_names import order_classes
from cxr.data.naming import Naming, class_remarks, known_for, patient_remarks
from cxr.data.several_rows import PARTS, Row
from cxr.errors import UserError, counted, printable, such_as

SPLITS = ("train", "val", "test")

REASONS = 5  # for not using an image that one line names
NUMBER = re.compile(r"\d[\d,]*")
SPLIT_ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class ImageTable:
    """The table of images, one row per image.

    Attributes:
        root: the folder that `file` is relative to.
        file, patient, split: string arrays of length N; an unknown patient or split is "".
            `file` has forward slashes; `split` is the one the set came with: train, val, test or "".
        label: int64 array of length N, indices into `classes`.
        classes: class names, the known four in their fixed order, then others by name.
        table: the table that lists the images, or None: two tables may list images of one folder.
        rejected: (file, reason) of everything in the set that cannot be used.
        slices: further columns of a table or manifest: string arrays of length N, "" for unknown.
        unknown_splits: values of the table's split that are not train, val or test, and how many images have each.
        remarks: what was understood of the set, in clauses for people.
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
    unknown_splits: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
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

    def with_headers(self, headers: Mapping[str, np.ndarray]) -> "ImageTable":
        """The table with what DICOM headers say, where it does not say it already.

        Args:
            headers: the string arrays (N,) patient, view, sex, age and hospital; see cxr.data.dicom_header.Header.
        """
        unknown = (self.patient == "") & (headers["patient"] != "")
        slices = {name: headers[name] for name in ("view", "sex", "age", "hospital") if (headers[name] != "").any()}
        patients = len(set(headers["patient"][unknown].tolist()))
        patient, remarks = np.where(unknown, headers["patient"], self.patient), list(self.remarks)
        if patients:
            remarks.append(f"patients from DICOM headers: {patients:,}, in {counted(unknown.sum(), 'image')}")
        if hospitals := set(headers["hospital"].tolist()) - {""}:
            images = counted((headers["hospital"] != "").sum(), "image")
            remarks.append(f"hospitals from DICOM headers: {len(hospitals):,}, in {images}")
        return replace(self, patient=patient, slices=slices | dict(self.slices), remarks=tuple(remarks))

    def understood(self) -> list[str]:
        """What was understood of the set, in clauses for people: its remarks, and how many patients are known."""
        return [*self.remarks, *known_for(self.patient.tolist())]

    def not_used(self) -> list[str]:
        """What is not used, by reason, in one line: the most frequent reasons, each with an example; none if all is.
        Reasons that differ in numbers only count as one."""
        kinds: dict[str, list[tuple[str, str]]] = {}
        for file, reason in self.rejected:
            kinds.setdefault(NUMBER.sub("…", reason), []).append((file, reason))
        frequent = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        parts = [in_words(kind, members) for kind, members in frequent[:REASONS]]
        if rare := frequent[REASONS:]:
            files = counted(sum(len(members) for _, members in rare), "file")
            parts.append(f"{files}: {counted(len(rare), 'more reason')}")
        return [f"not used: {counted(len(self.rejected), 'file')} ({'; '.join(parts)})"] if self.rejected else []

    def counts(self) -> dict[str, int]:
        """Images per class."""
        return {name: int((self.label == i).sum()) for i, name in enumerate(self.classes)}


def in_words(kind: str, members: Sequence[tuple[str, str]]) -> str:
    """How many files are not used for a reason, and one of them. `kind` is the reason without its numbers; `members`
    are the files and their reasons."""
    reason = kind if len({reason for _, reason in members}) > 1 else members[0][1]
    return f"{counted(len(members), 'file')}: {reason} ({such_as(len(members), printable(members[0][0]))})"


def split_name(name: str) -> str:
    """train, val or test in any spelling, or "" for anything else."""
    name = SPLIT_ALIASES.get(name.lower(), name.lower())
    return name if name in SPLITS else ""


def unknown_splits(images: Mapping[str, int]) -> dict[str, int]:
    """Of a table's values of split, with how many images have each, those that are not train, val or test."""
    return {value: number for value, number in images.items() if value and not split_name(value)}


def split_remarks(splits: Mapping[str, int], so: str) -> list[str]:
    """A remark on the values of unknown_splits(), if there are any; `so` says what becomes of their images."""
    values = ", ".join(f"{printable(value)} ({counted(number, 'image')})" for value, number in splits.items())
    text = f"split has values that are not train, val or test: {values}; these images {so}"
    return [text] if splits else []


def name_images(
    root: Path,
    rows: Sequence[Row],
    rejected: Sequence[tuple[str, str]],
    remarks: Sequence[str],
    naming: Naming,
) -> ImageTable:
    """The table of rows with the columns file, label (as the set has it), patient and split; further columns become
    slices.

    Raises:
        UserError: `naming.classes` leaves no class.
    """
    spelt = Counter(row["label"] for row in rows)
    called = {name: naming.class_of(name) for name in spelt}
    remarks = [*remarks, *class_remarks(spelt, naming)]
    rows = [row | {"label": called[row["label"]]} for row in rows if called[row["label"]] is not None]
    if not rows:
        raise UserError(f"data.classes leaves out every class of {root}: {', '.join(map(printable, sorted(spelt)))}")
    more = list(dict.fromkeys(name for row in rows for name in row if name not in PARTS))
    file, label, patient, split = (np.array([row[name] for row in rows], dtype=np.str_) for name in PARTS)
    classes = order_classes(label.tolist())
    index = np.array([classes.index(name) for name in label.tolist()], dtype=np.int64)
    shown = cache(printable)
    slices = {printable(name): np.array([shown(row.get(name, "")) for row in rows], np.str_) for name in more}
    remarks += patient_remarks(file.tolist(), patient.tolist(), naming)
    return ImageTable(root, file, index, patient, split, classes, slices, tuple(rejected), remarks=tuple(remarks))
