"""What becomes of the labels of a row: one class, or the reason why the row has none."""

from collections.abc import Sequence
from pathlib import Path

from cxr.data.columns import UNCERTAIN
from cxr.data.naming import SEVERAL, Naming
from cxr.errors import UserError, printable

UNCERTAIN_LABEL = f"an uncertain label ({UNCERTAIN})"
SEVERAL_CLASSES = "labels of several classes (data.several_labels=one)"


def one_label(text: str, naming: Naming, by_column: bool) -> tuple[str, str]:
    """Reduce the labels of a row to one.

    Args:
        text: a label, several (A|B), or "". An uncertain one is "-1" or, in a table with one column a class, "-1 A".
        naming: how, by its `classes`, `several_labels` and `uncertain`. Irvin et al. 2019 (CheXpert) call the choices
            for uncertain labels U-Ignore (drop), U-Zeros (absent) and U-Ones (present).
        by_column: the table has one column a class. Classes that `naming.classes` leaves out do not count there, nor
            anywhere with several_labels=one.

    Returns:
        The label, as the set names it, which `naming.class_of` may still leave out; and why there is none, or "".
    """
    if text == UNCERTAIN and naming.uncertain != "drop":
        text = "1" if naming.uncertain == "present" else "0"
    marked = [(name.removeprefix(f"{UNCERTAIN} "), name.startswith(UNCERTAIN)) for name in text.split(SEVERAL) if name]
    counting = marked
    if by_column or naming.several_labels == "one":
        counting = [mark for mark in marked if naming.class_of(mark[0]) is not None]
    if naming.uncertain == "drop" and any(uncertain for _, uncertain in counting):
        return "", UNCERTAIN_LABEL
    names = [name for name, uncertain in counting if naming.uncertain == "present" or not uncertain]
    if not names:  # what is left out is named all the same: remarks count it
        names = [name for name, uncertain in marked if not uncertain and naming.class_of(name) is None]
        return SEVERAL.join(names), "" if names else "no label in the table"
    names = list({naming.class_of(name) or name: name for name in names}.values())  # TB|Tuberculosis is one label
    label = SEVERAL.join(names)
    if len(names) > 1 and naming.several_labels == "one":
        classes = {naming.class_of(name) for name in names}
        return (names[0], "") if len(classes) == 1 else ("", SEVERAL_CLASSES)
    if naming.several_labels == "drop" and is_several(label, naming):
        return "", "several labels"
    return label, ""


def is_several(label: str, naming: Naming) -> bool:
    """Whether a label joins several, unless all of them are left out."""
    return SEVERAL in label and any(naming.class_of(name) is not None for name in label.split(SEVERAL))


def check_several(table: Path, labels: Sequence[str], files: Sequence[str], naming: Naming) -> None:
    """Raise UserError if rows have several labels after one_label(), and the options do not say what becomes of them.

    Args:
        labels: of each row of `table`, and `files` likewise.
    """
    if naming.several_labels != "fail":
        return
    rows = [row for row, label in enumerate(labels) if is_several(label, naming)]
    if rows:
        first = f"{printable(files[rows[0]])} ({printable(labels[rows[0]])})"
        raise UserError(
            f"{table}: {len(rows):,} of {len(labels):,} rows name several labels, such as {first}, and cxr trains one "
            "label an image: data.several_labels=drop leaves these rows out, keep makes a class of each combination, "
            "one counts only labels that data.classes does not leave out, such as a column that is no class"
        )
