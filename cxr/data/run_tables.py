"""What a run folder holds of its images: audit.json, split.csv and rejected.csv."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.audit import VERSION, audit
from cxr.data.cache import built, fingerprint
from cxr.data.datamodule import CXRDataModule
from cxr.files.run_folder import AUDIT, SPLIT, SPLIT_COLUMNS
from cxr.files.writing import as_text, read_json, write_json, write_table


def write_tables(data: CXRDataModule, folder: Path) -> None:
    """Write the three files to a run folder."""
    write_json(folder / AUDIT, load_audit(data))
    write_table(folder / SPLIT, SPLIT_COLUMNS, split_rows(data))
    write_table(folder / "rejected.csv", ("file", "reason"), data.images.rejected)


def load_audit(data: CXRDataModule) -> dict[str, Any]:
    """The findings of audit() on these images; made once for each state of them."""
    images, copies = data.readable, data.data["copies"]
    inputs = [copies, images.root, images.rejected, images.remarks, images.note, images.classes, data.copies]
    columns = (
        images.label,
        images.file,
        images.patient,
        images.split,
        images.slices.get("hospital", np.array([])),
        data.group,
        data.compared.facts["sha256"],
    )
    inputs += [column.tolist() for column in columns]

    def build(folder: Path) -> None:
        write_json(folder / AUDIT, audit(images, data.compared, data.copies, copies))

    with built(data.cache / f"audit-{fingerprint(VERSION, *inputs)}", build) as folder:
        return read_json(folder / AUDIT)


def split_rows(data: CXRDataModule) -> Iterator[tuple[str, ...]]:
    """The rows of split.csv, in the table's order, as they read back from it."""
    images = data.images
    labels = [images.classes[i] for i in images.label]
    columns = images.file, labels, images.patient, data.split, data.group
    return (tuple(as_text(value) for value in row) for row in zip(*columns, strict=True))
