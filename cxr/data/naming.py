"""How a set of images names its classes, patients and columns, and what is made of these names."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from cxr.data.class_names import class_name
from cxr.errors import UserError, counted, printable

# Patients in the file names of known sets: an example, and the pattern whose first group is the patient. Each is
# searched in the path below data.root, with forward slashes.
PATIENT_FORMS = {
    "person1004_virus_1686 (Kermany)": r"(?:^|/)(person\d+)_[^/]*$",
    "IM-0115-0001 (Kermany)": r"(?:^|/)((?:NORMAL2-)?IM-\d+)-[^/]*$",
    "BACTERIA-1008087-0001 (Kermany)": r"(?:^|/)((?:BACTERIA|VIRUS|NORMAL)-\d+)-\d+\.[^/]*$",
    "00001280_004 (NIH)": r"(?:^|/)(\d{8})_\d{3}\.[^/]*$",
    "patient00001/study1 (CheXpert)": r"(?:^|/)(patient\d{5})/study\d+/",
    "p10000032/s50414267 (MIMIC)": r"(?:^|/)(p\d{8})/s\d{8}[/.]",
    "sub-S03047_ses-… (BIMCV)": r"(?:^|/)(sub-S\d+)[_/]",
    "COVID-19-AR-16406488 (TCIA)": r"(?:^|/)(COVID-19-AR-\d+)[/_.-]",
}
COMPILED = {form: re.compile(pattern) for form, pattern in PATIENT_FORMS.items()}
SHOWN = 6  # parts of a list in a remark
FEW = 5  # images, below which it is asked whether a folder is a class
SEVERAL = "|"  # between the labels of an image that has several
DICOM, IGNORE = "dicom", "ignore"  # in data.hospital: the header of a DICOM file, and no hospital at all
OTHERS = "*"  # in data.classes: every other name
STEM = re.compile(r"[-_ .(]*\d+\)?$")  # a number at the end of a name: what is left may name a patient


@dataclass(frozen=True)
class Naming:
    """How names are read.

    Attributes:
        classes: the option `data.classes`: what to call a class of the set instead; None leaves it out.
            "*" stands for every other class.
        patient_pattern: the option `data.patient_pattern`: a regular expression, searched in a file's path below the
            root, whose first group is the patient; None: the forms of known sets.
        columns: the option `data.columns`: a table's columns for file, label, patient and split; None for no column.
        several_labels: the option `data.several_labels`: what becomes of rows that name several, see one_label().
        uncertain: the option `data.uncertain`: drop, absent or present.
        disagreement: the option `data.disagreement`: fail, drop or majority, see one_row_each().
        rows: the option `data.rows`: the values, of some columns, of the rows that count.
        label_pattern: the option `data.label_pattern`: a regular expression, searched like `patient_pattern`, whose
            first group is the class; None: the name of the class folder.
        hospital: the option `data.hospital`: the column that names the hospital; None: columns of HOSPITAL;
            IGNORE: none.
    """

    classes: Mapping[str, str | None] = field(default_factory=dict)
    patient_pattern: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    several_labels: str = "fail"
    uncertain: str = "drop"
    disagreement: str = "fail"
    rows: Mapping[str, Any] = field(default_factory=dict)
    label_pattern: str | None = None
    hospital: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Naming":
        """What the options `data.*` say; options that are missing say nothing."""
        return cls(
            {str(name): value for name, value in (data.get("classes") or {}).items()},
            data.get("patient_pattern"),
            dict(data.get("columns") or {}),
            data.get("several_labels", "fail"),
            data.get("uncertain", "drop"),
            data.get("disagreement", "fail"),
            dict(data.get("rows") or {}),
            data.get("label_pattern"),
            None if data.get("hospital") == DICOM else data.get("hospital"),
        )

    def class_of(self, name: str) -> str | None:
        """The class of a name in the set, or of several (A|B); None where the option leaves it, or all of them, out."""
        if name not in self.classes_of:
            self.classes_of[name] = self.rename(name)
        return self.classes_of[name]

    def rename(self, name: str) -> str | None:
        """The class of class_of(), looked up anew."""
        renamed, key = self.renamed, plain(name)
        if key not in renamed:  # data.classes may also call it as cxr does: TUBERCULOSIS for TB
            key = plain(class_name(name))
        if key not in renamed and SEVERAL in name and not any(map(self.class_of, name.split(SEVERAL))):
            return None
        if key not in renamed and OTHERS not in renamed:
            return class_name(name)
        value = renamed.get(key, renamed.get(OTHERS))
        return None if value is None else class_name(str(value))

    @cached_property
    def classes_of(self) -> dict[str, str | None]:
        """What class_of() has answered: a large table repeats few names."""
        return {}

    @cached_property
    def renamed(self) -> dict[str, str | None]:
        """The option `data.classes`, by names as they are compared."""
        return {plain(key): value for key, value in self.classes.items()}

    def label_of(self, file: str, folder: str) -> str | None:
        """The class of a file in a class folder, as the set names it; None if the pattern does not fit its path."""
        if self.label_pattern is None:
            return folder
        match = re.search(self.label_pattern, file)
        return match[1] if match and match[1] else None

    def patient_of(self, file: str) -> str:
        """The patient in a file's path, or ""."""
        if self.patient_pattern is not None:
            match = re.search(self.patient_pattern, file)
            return (match[1] or "") if match else ""
        return patient_and_form(file)[0]

    def check_used(self, names: Iterable[str]) -> None:
        """Raise UserError if `data.classes` renames classes that are not among the set's `names`."""
        names = sorted(set(map(as_nfc, names)))
        there_are = {*map(plain, names), *(plain(class_name(name)) for name in names), OTHERS}
        if wrong := [printable(key) for key in self.classes if plain(key) not in there_are]:
            there = ", ".join(printable(name) for name in names if SEVERAL not in name)
            raise UserError(f"data.classes: no class {' or '.join(wrong)} in this set, which has {there}")


AS_USUAL = Naming()


def as_nfc(name: str) -> str:
    """A name in Unicode's form NFC: macOS writes letters and their accents apart (NFD), others together."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """A name of a class as it is compared with others."""
    return as_nfc(name).strip().casefold()


def as_key(name: str) -> str:
    """A name of a class as it stands in data.classes='{NAME: null}'."""
    return name if re.fullmatch(r"[\w .()/+-]+", name) else '"' + name.replace('"', '\\"') + '"'


def patient_and_form(file: str) -> tuple[str, str]:
    """The patient in a path of one of PATIENT_FORMS, and that form; or two empty texts."""
    for form, pattern in COMPILED.items():
        if match := pattern.search(file):
            return match[1], form
    return "", ""


def class_remarks(images: Mapping[str, int], naming: Naming) -> list[str]:
    """Remarks on the classes of a set, whose names have so many `images`: what they are called now, and which have so
    few images that they may be none."""
    kinds: dict[str, list[str]] = defaultdict(list)  # a class's names in the set
    dropped: dict[str, int] = {}
    for name in sorted(images):
        if (new := naming.class_of(name)) is None:
            dropped[name] = images[name]
        else:
            kinds[new].append(name)
    renamed = [
        f"{printable(name)} is {new}" for new, names in kinds.items() for name in names if plain(name) != plain(new)
    ]
    merged = [
        f"{' and '.join(map(printable, names))} are one class, {new}"
        for new, names in kinds.items()
        if len({re.sub(r"[\W_\d]", "", plain(name)) for name in names}) > 1 and not naming.classes
    ]
    few = [name for names in kinds.values() for name in names if sum(images[n] for n in names) < FEW]
    numbers = [f"{printable(name)} ({counted(images[name], 'image')})" for name in few]
    remarks = [f"names of classes: {in_brief(renamed)}; data.classes changes this"] if renamed else []
    if dropped:
        frequent = sorted(dropped, key=lambda name: -dropped[name])
        shown = in_brief([f"{printable(name)} ({dropped[name]:,})" for name in frequent])
        total = f"; {sum(dropped.values()):,} in all" if len(dropped) > 1 else ""
        remarks.append(f"left out by data.classes, with their images: {shown}{total}")
    remarks += [f"{remark}; data.classes keeps them apart" for remark in merged]
    if few:
        remarks.append(f"hardly classes: {in_brief(numbers)}; data.classes='{{{as_key(few[0])}: null}}' leaves one out")
    return remarks


def in_brief(parts: Sequence[str]) -> str:
    """The first parts of a list, and how many more there are."""
    more = [f"{len(parts) - SHOWN} more"] if len(parts) > SHOWN else []
    return ", ".join([*parts[:SHOWN], *more])


def patient_remarks(files: Sequence[str], patients: Sequence[str], naming: Naming) -> list[str]:
    """Remarks on where patients ("" where unknown) are known from; none if none is known. Raises UserError for a
    pattern that fits no file."""
    number = sum(patient != "" for patient in patients)
    if not number and naming.patient_pattern is not None:
        fits = f"fits the path of none of the {len(files):,} images, such as {printable(files[0])}"
        raise UserError(f"data.patient_pattern={naming.patient_pattern}: {fits}")
    if not number:
        return []
    if naming.patient_pattern is not None:
        remarks = [f"patients by data.patient_pattern: {len(set(patients) - {''}):,}, in {counted(number, 'image')}"]
    else:
        read = [patient_and_form(file) for file in files]
        forms = Counter(form for (name, form), patient in zip(read, patients, strict=True) if name == patient != "")
        remarks = [f"patients from file names like {form}: {counted(n, 'image')}" for form, n in forms.most_common()]
    return remarks


def known_for(patients: Sequence[str]) -> list[str]:
    """A remark on how many patients are known, if some are and not all."""
    number = sum(patient != "" for patient in patients)
    return [f"patients are known for {number:,} of {len(patients):,} images"] * (0 < number < len(patients))


def no_patients(files: Sequence[str]) -> str:
    """The warning for a set that tells no patient."""
    return (
        f"no patient is known: each of the {len(files):,} images counts as a patient of its own, so training and test "
        "may share patients and the score may be too high; name patients in manifest.csv or the table, or by "
        f"data.patient_pattern{hint(files)}"
    )


def hint(files: Sequence[str]) -> str:
    """Names that share all but a number at the end, where these are many and each stem has few: perhaps patients."""
    stems: dict[str, list[str]] = defaultdict(list)
    for file in files:
        stems[STEM.sub("", PurePosixPath(file).stem)].append(file)
    shared = [of_stem for stem, of_stem in stems.items() if stem and 1 < len(of_stem) <= 20]
    if sum(map(len, shared)) < 0.2 * len(files):
        return ""
    first, second = (printable(PurePosixPath(file).name) for file in shared[0][:2])
    return f" (are {first} and {second} of one patient?)"
