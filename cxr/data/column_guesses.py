"""Which columns of a table may be what cxr looks for, by their names and by what is in them: proposals for messages."""

import json
import re
from collections.abc import Collection, Mapping, Sequence

from cxr.data.class_names import CLASSES, class_name
from cxr.data.image_table import split_name
from cxr.data.places import ENDINGS
from cxr.errors import printable

LOOKED_AT = 1000  # rows
# Words in names of columns, in English, German and Korean.
WORDS = {
    "file": r"file|path(?!o)|image|img|dicom|datei|bild|파일|영상|이미지|필름",
    "label": r"label|class|diagnos|finding|disease|target|befund|진단|소견|판독|질환",
    "patient": r"patient|subject|person|\bmrn\b|\bpid\b|case|fall|환자|등록번호",
    "split": r"split|subset|partition|구분|용도",
}
OF_A_PATIENT = r"age|sex|gender|birth|position|orientation|weight|height|나이|성별|생년"  # what is no name of one
FEW = 30  # classes


def likely_columns(
    parts: Collection[str], names: Sequence[str], rows: Sequence[Mapping[str, str]], taken: Collection[str]
) -> dict[str, str]:
    """The column that is most likely one of some parts of a table, by part, where one is likely.

    Args:
        parts: some of file, label, patient and split.
        names: of the table's columns, lower case.
        taken: those that have another meaning already.
    """
    guesses: dict[str, str] = {}
    for part in ("file", "split", "label", "patient"):  # the surest first
        if part not in parts:
            continue
        left = [name for name in names if name and name not in taken and name not in guesses.values()]
        values = {name: {row.get(name, "") for row in rows[:LOOKED_AT]} - {""} for name in left}
        points = {name: holds(part, values[name]) + 2 * is_called(part, name) for name in left}
        best = max(left, key=lambda name: points[name], default="")
        if best and points[best] > 0:
            guesses[part] = best
    return {part: guesses[part] for part in WORDS if part in guesses}


def is_called(part: str, name: str) -> bool:
    """Whether a column has a name of this part's."""
    return bool(re.search(WORDS[part], name)) and not (part == "patient" and re.search(OF_A_PATIENT, name))


def holds(part: str, values: Collection[str]) -> int:
    """How much the values of a column look like this part's: from 3, surely, to −3, surely not."""
    if len(values) < 2:
        return -1
    if part == "file":
        return 3 if sum(value.lower().endswith(ENDINGS) for value in values) > len(values) / 2 else 0
    if part == "split":
        return 3 if all(map(split_name, values)) else -3 * (len(values) > FEW)
    if part == "label":
        return 3 if any(class_name(value) in CLASSES for value in values) else -3 * (len(values) > FEW)
    return 0


def as_option(columns: Mapping[str, str]) -> str:
    """The option that names these columns, by part."""
    named = ", ".join(f"{part}: {json.dumps(printable(name), ensure_ascii=False)}" for part, name in columns.items())
    return f"data.columns='{{{named}}}'"
