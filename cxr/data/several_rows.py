"""Several rows of one file, such as one for each box or each reader, become one row."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice

from cxr.data.naming import Naming
from cxr.errors import counted, printable, raise_all, such_as

Row = dict[str, str]
PARTS = ("file", "label", "patient", "split")  # every further column is for slices
NOT_SETTLED = {
    "drop": "its rows name different labels (data.disagreement=drop)",
    "majority": "its rows name different labels, none of them more than half (data.disagreement=majority)",
}


def one_row_each(
    table: str, rows: Sequence[Row], naming: Naming, reasons: Sequence[str] = ()
) -> tuple[list[Row], list[tuple[str, str]], list[str]]:
    """The rows of a table, one for each file: the first of those with the label that counts. A further column that
    differs between the rows of a file, such as the reader's name, says nothing about the image and is emptied.

    Args:
        table: its name, for messages.
        naming: its `disagreement` says what becomes of files whose rows differ in the class: "fail", "drop", or
            "majority", which takes what more than half of the rows say and drops the others. Each row has a vote, also
            one without a label to train with, or with a label that `naming.classes` leaves out.
        reasons: why each row has no label to train with, or ""; empty: all have one.

    Returns:
        The rows, (file, reason) of what cannot be used, and remarks for people.

    Raises:
        UserError: two rows of a file differ in patient or split; or in the class, with "fail".
    """
    reasons = reasons or [""] * len(rows)
    votes = [reason or naming.class_of(row.get("label", "")) for row, reason in zip(rows, reasons, strict=True)]
    by_file: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_file[row["file"]].append(number)
    check_agreement(table, rows, votes, by_file, naming)
    chosen: list[Row] = []
    rejected: list[tuple[str, str]] = []
    disputed = settled = 0
    for file, numbers in by_file.items():
        first: int | None = numbers[0]
        if len({votes[number] for number in numbers}) > 1:
            disputed += 1
            first = majority(votes, numbers) if naming.disagreement == "majority" else None
            settled += first is not None and reasons[first] == "" and votes[first] is not None
        if reason := NOT_SETTLED[naming.disagreement] if first is None else reasons[first]:
            rejected.append((file, reason))
        else:
            chosen.append(merge([rows[number] for number in numbers], rows[first]))
    twice = len(rows) - len(by_file)
    remarks = [f"rows of {table} that name a file again: {twice:,}; each file counts once"] * (twice > 0)
    of_two = [file for file, numbers in by_file.items() if len(hospitals_in(rows, numbers)) > 1]
    if of_two:
        files = f"{counted(len(of_two), 'file')} ({such_as(len(of_two), printable(of_two[0]))})"
        remarks.append(f"rows of {table} that give a file to two hospitals: {files}; its hospital is not known then")
    labels = f"{settled:,} with a class by majority, {disputed - settled:,} without"
    of_files = f"rows with different labels: {disputed:,} of {len(by_file):,} files; {labels}"
    return chosen, rejected, remarks + [f"{of_files} (data.disagreement={naming.disagreement})"] * (disputed > 0)


def check_agreement(
    table: str,
    rows: Sequence[Row],
    votes: Sequence[str | None],
    by_file: Mapping[str, Sequence[int]],
    naming: Naming,
) -> None:
    """Raise UserError for files whose rows differ in patient or split; or in their votes, if that is to fail. There is
    a line for each of these."""
    differing: dict[str, dict[str, tuple[Row, Row]]] = {"label": {}, "patient": {}, "split": {}}
    for file, numbers in by_file.items():
        first = rows[numbers[0]]
        for number in numbers[1:]:
            row = rows[number]
            if naming.disagreement == "fail" and votes[number] != votes[numbers[0]]:
                differing["label"].setdefault(file, (first, row))
            for part in ("patient", "split"):
                if first.get(part) and row.get(part) and first[part] != row[part]:
                    differing[part].setdefault(file, (first, row))
    mistakes = []
    for part, files in differing.items():
        for file, two in islice(files.items(), 1):
            values = " and ".join(printable(row.get(part, "")) or "unknown" for row in two)
            advice = ", or set data.disagreement=drop or majority" if part == "label" else ""
            mistakes.append(
                f"{table}: says two things of {counted(len(files), 'file')} "
                f"({such_as(len(files), printable(file))}: {part} {values}); keep one row of each{advice}"
            )
    raise_all(mistakes)


def hospitals_in(rows: Sequence[Row], numbers: Sequence[int]) -> set[str]:
    """The hospitals that some rows name."""
    return {rows[number].get("hospital", "") for number in numbers} - {""}


def majority(votes: Sequence[str | None], numbers: Sequence[int]) -> int | None:
    """The first row with the vote that more than half of the rows `numbers` have, or None."""
    vote, most = Counter(votes[number] for number in numbers).most_common(1)[0]
    return next(number for number in numbers if votes[number] == vote) if 2 * most > len(numbers) else None


def merge(rows: Sequence[Row], chosen: Row) -> Row:
    """The chosen row of a file, with what only others of its rows say of its patient, split and hospital, and without
    the further columns in which its rows differ."""
    if len(rows) == 1:
        return chosen
    merged = {
        name: value if name in PARTS or all(row.get(name, "") == value for row in rows) else ""
        for name, value in chosen.items()
    }
    for part in PARTS[2:]:
        if part in merged:
            merged[part] = next((row[part] for row in rows if row.get(part)), "")
    if len(hospitals := hospitals_in(rows, range(len(rows)))) == 1:
        merged["hospital"] = hospitals.pop()
    return merged
