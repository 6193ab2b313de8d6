"""Names of classes: one spelling and one order for those that are known (TB is TUBERCULOSIS)."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from cxr.errors import UserError, printable

# The one order of the known classes, and the spellings met in the wild (compared as upper-case letters and digits,
# without a number in front: 0_normal).
NORMAL = "NORMAL"
CLASSES = (NORMAL, "PNEUMONIA", "COVID19", "TUBERCULOSIS")
ALIASES = {
    "HEALTHY": "NORMAL",
    "NOFINDING": "NORMAL",
    "NOFINDINGS": "NORMAL",
    "정상": "NORMAL",
    "폐렴": "PNEUMONIA",
    "VIRALPNEUMONIA": "PNEUMONIA",
    "BACTERIALPNEUMONIA": "PNEUMONIA",
    "COVID": "COVID19",
    "COVID2019": "COVID19",
    "코로나": "COVID19",
    "코로나19": "COVID19",
    "TB": "TUBERCULOSIS",
    "TURBERCULOSIS": "TUBERCULOSIS",
    "결핵": "TUBERCULOSIS",
}


def class_name(name: str) -> str:
    """The standard name of a class in any spelling; other names in upper case, in Unicode's form NFC, on one line."""
    name = unicodedata.normalize("NFC", name).strip().upper()
    letters = re.sub(r"[\W_]", "", name)
    for key in (letters, letters.lstrip("0123456789")):
        if (key := ALIASES.get(key, key)) in CLASSES:
            return key
    return printable(name)


def check_screened(name: str, classes: Sequence[str]) -> None:
    """Raise UserError if neither these images nor the reference set have the class `name` to screen for; "all" is every
    class."""
    if name != "all" and class_name(name) not in (*classes, *CLASSES):
        names = ", ".join(classes)
        raise UserError(f"screen.class={name}: not a class of these images; choose all, or one of {names}")


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names, the known four first and in their fixed order."""
    distinct = set(names)
    return tuple(c for c in CLASSES if c in distinct) + tuple(sorted(distinct - set(CLASSES)))
