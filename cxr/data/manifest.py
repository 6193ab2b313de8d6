"""manifest.csv beside class folders: what it says of their images, such as patients, goes before folders and names."""

import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxr.data.columns import MANIFEST
from cxr.data.files import mode_of
from cxr.data.image_table import split_name, split_remarks, unknown_splits
from cxr.data.naming import Naming, as_nfc
from cxr.data.one_label import one_label
from cxr.data.places import Places
from cxr.data.several_rows import Row, one_row_each
from cxr.data.tables import read_table


@dataclass
class Manifest:
    """What a manifest says; all is empty if there is none.

    Attributes:
        rows: by file, in NFC.
        unused: why a file of theirs is not to be used (an uncertain label), by file.
        remarks: what was understood, in clauses for people.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_manifest(root: Path, naming: Naming) -> Manifest:
    """Read the manifest of a folder: columns file and patient, perhaps label and split; further ones become slices.

    Raises:
        UserError: it cannot be read, or two of its rows contradict each other.
    """
    path = root / MANIFEST
    if not stat.S_ISREG(mode_of(path)):
        return Manifest()
    naming, places = replace(naming, several_labels="drop", columns={}, rows={}), Places(root)
    table = read_table(path, ("file", "patient"), naming)
    rows, reasons = [], []
    for row in table.rows:
        label, reason = one_label(row["label"], naming, False) if row.get("label") else ("", "")
        rows.append(row | {"file": places.find(row["file"])[0]} | ({"label": label} if "label" in row else {}))
        reasons.append(reason)
    rows, rejected, twice = one_row_each(MANIFEST, rows, naming, reasons)
    splits = unknown_splits(Counter(row.get("split", "") for row in rows))
    return Manifest(
        {as_nfc(row["file"]): row for row in rows},
        {as_nfc(file): reason for file, reason in rejected},
        [*table.remarks, *twice, *places.remarks(), *split_remarks(splits, "go by their folders")],
    )


def merge_manifest(file: str, label: str, split: str, listed: Row, naming: Naming) -> Row:
    """The row of an image; what the manifest has `listed` for it overrides the rest."""
    by_manifest = "patient" in listed and naming.patient_pattern is None
    return listed | {
        "file": file,
        "label": listed.get("label") or label,
        "patient": listed["patient"] if by_manifest else naming.patient_of(file),
        "split": split_name(listed.get("split") or "") or split,
    }
