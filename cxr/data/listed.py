"""Read the images that tables list, wherever their files are."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from cxr.data.image_table import ImageTable, name_images, split_name, split_remarks, unknown_splits
from cxr.data.naming import AS_USUAL, SEVERAL, Naming
from cxr.data.one_label import check_several, one_label
from cxr.data.places import Places
from cxr.data.several_rows import Row, one_row_each
from cxr.data.split_lists import SplitLists
from cxr.data.tables import Table, read_table
from cxr.errors import UserError, collecting, counted, printable, raise_all


@dataclass
class Listed:
    """What tables list.

    Attributes:
        rows: of images, with their place below the root; several of an image that several rows name.
        reasons: why each of them has no label to train with, or "".
        missing: (file as listed, reason) of what is no image there, by its place.
        remarks: what was understood, in clauses for people.
        mistakes: why the tables cannot be used, in lines for people.
    """

    rows: list[Row] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def read_listed(
    tables: Mapping[str, Path], root: Path | None, naming: Naming = AS_USUAL, lists: SplitLists | None = None
) -> ImageTable:
    """Read the images of tables: columns file and label, if known patient and split; further columns are for slices.

    Args:
        tables: CSV or parquet files, by the split of their images; "": the column split says it.
        root: the folder that `file` is relative to, and below which it lies; None: that of the first table.
        lists: say the split instead.

    Raises:
        UserError: a table cannot be used, with all that is known to be wrong; or none of its images can.
    """
    first = next(iter(tables.values()))
    root = (root.expanduser() if root else first.parent).resolve()
    places = Places(root, [path.parent for path in tables.values()])
    listed = list_rows(tables, places, naming)
    name = " and ".join(path.name for path in tables.values())
    rows, unused, more = [], [], []
    with collecting(listed.mistakes):
        rows, unused, more = one_row_each(name, listed.rows, naming, listed.reasons)
    raise_all(listed.mistakes)
    rejected = [*listed.missing.values(), *unused]
    if not rows:
        such_as = f"; {printable(rejected[0][0])}: {rejected[0][1]}" if rejected else ""
        raise UserError(
            f"{first}: no usable images: 0 of its {len(rejected):,} files are below {root} (data.root=DIR){such_as}"
        )
    splits = unknown_splits(Counter(row["split"] for row in rows))
    rows = [fill_parts(row, naming, lists) for row in rows]
    images = name_images(root, rows, rejected, [*listed.remarks, *more, *places.remarks()], naming)
    of_splits = lists.remarks(images.split.tolist()) if lists else split_remarks(splits, "count as without one")
    return replace(
        images,
        table=first.resolve(),
        unknown_splits={} if lists else splits,
        remarks=(*images.remarks, *of_splits),
    )


def list_rows(tables: Mapping[str, Path], places: Places, naming: Naming) -> Listed:
    """Read tables and find their images, as in read_listed(); what is wrong joins `mistakes`."""
    listed = Listed()
    names: list[frozenset[str]] = []
    for split, path in tables.items():
        with collecting(listed.mistakes):
            table = read_table(path, ("file", "label"), naming)
            labels, more = reduce_labels(table, naming)
            names.append(table.labels)
            listed.remarks += [*table.remarks, *more]
            for row, (label, no_label) in zip(table.rows, labels, strict=True):
                file, no_file = places.find(row["file"])
                if no_file:
                    listed.missing.setdefault(file, (row["file"], no_label or no_file))
                else:
                    listed.rows.append(row | {"file": file, "label": label, "split": split or row.get("split", "")})
                    listed.reasons.append(no_label)
            check_several(path, [label for label, _ in labels], [row["file"] for row in table.rows], naming)
    if len(names) == len(tables):  # one that cannot be read may have the other classes
        with collecting(listed.mistakes):
            naming.check_used(frozenset().union(*names))
    return listed


def reduce_labels(table: Table, naming: Naming) -> tuple[list[tuple[str, str]], list[str]]:
    """The label of each row of a table and why it has none, or "", see one_label(); and a remark on rows that have
    further labels."""
    reduce = cache(lambda text: one_label(text, naming, bool(table.classes)))
    labels = [reduce(row["label"]) for row in table.rows]
    if naming.several_labels != "one":
        return labels, []
    is_used = cache(lambda label: label != "" and naming.class_of(label) is not None)
    further = sum(
        SEVERAL in row["label"] and is_used(label) for row, (label, _) in zip(table.rows, labels, strict=True)
    )
    text = f"findings beside a class that do not count: in {counted(further, 'row')} of {table.path.name}"
    return labels, [f"{text} (data.several_labels=one)"] if further else []


def fill_parts(row: Row, naming: Naming, lists: SplitLists | None) -> Row:
    """A row with its patient, by the pattern if there is one, and with its split in one spelling."""
    by_table = "patient" in row and naming.patient_pattern is None
    patient = row["patient"] if by_table else naming.patient_of(row["file"])
    split = lists.split_of(row["file"]) if lists else split_name(row["split"])
    return row | {"patient": patient, "split": split}
