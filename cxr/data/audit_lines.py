"""The audit in lines: what it found, how often, and one example of each; and as an error, where no doubt is wanted."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cxr.data.audit import TINY
from cxr.data.image_table import ImageTable
from cxr.data.naming import FEW
from cxr.errors import UserError, counted, printable, such_as
from cxr.files.run_folder import AUDIT

FILES = ("rejected", "wrong_type", "tiny", "odd_shape", "blank", "coloured", "outliers", "negative")


class AuditLine(NamedTuple):
    """A finding: its key in the words of reports (audit_<key>), how many there are, and a file as an example; instead
    of one, the images outside test, or that such copies were not searched for."""

    key: str
    number: int
    file: str = ""
    beside_test: int = 0
    searched: bool = True

    def title(self, w: Mapping[str, str]) -> str:
        return w[f"audit_{self.key}"].format(tiny=TINY)

    def example(self, w: Mapping[str, str]) -> str:
        if not self.searched:
            return w["audit_not_searched"]
        return w["audit_beside_test"].format(n=self.beside_test) if self.beside_test else printable(self.file)


def summarise_audit(findings: Mapping[str, Any]) -> list[AuditLine]:
    """The findings of audit() in lines."""
    copies, patients = findings["copies"], findings["leaks"]["patients"]

    def files(key: str) -> AuditLine:
        files = findings.get(key, [])  # an audit of an earlier version looked for less
        first = files[0] if files else ""
        return AuditLine(key, len(files), first["file"] if isinstance(first, Mapping) else first)

    def pairs(key: str, members: Sequence[Mapping[str, Any]], searched: bool = True) -> AuditLine:
        return AuditLine(key, len(members), " = ".join(members[0]["files"]) if members else "", searched=searched)

    def people(key: str, kind: str) -> AuditLine:
        return AuditLine(key, len(patients[kind]), beside_test=sum(p["elsewhere"] for p in patients[kind].values()))

    near = findings["copies_looked_for"] == "near"
    lines = [files(key) for key in FILES]
    for kind in ("same bytes", "same pixels", "near"):
        members = [copy for copy in copies if copy["kind"] == kind]
        lines.append(pairs(kind.replace(" ", "_"), members, near or kind == "same bytes"))
    lines.append(pairs("two_labels", [copy for copy in copies if copy["two_labels"]]))
    if findings["splits"].get("test"):
        lines.append(pairs("across", [copy for copy in copies if copy["across"]]))
        lines += [people("patients", "sure"), people("possible_patients", "possible")]
    return lines


def check_rejected(images: ImageTable) -> None:
    """Raise UserError if some files cannot be used (`data.on_bad=fail`)."""
    if images.rejected:
        number, (file, reason) = len(images.rejected), images.rejected[0]
        raise UserError(
            f"data.on_bad=fail: {counted(number, 'file')} in {images.root} cannot be used "
            f"({such_as(number, printable(file))}: {reason}); python -m cxr.audit lists all in {AUDIT}; repair or "
            "remove them, or use skip"
        )


def check_doubts(findings: Mapping[str, Any], images: ImageTable) -> None:
    """Raise UserError if an audit found anything that a person should look at (`data.on_bad=strict`). Copies with one
    label are no doubt, as no split separates them; nor are leaks, which `data.on_leak` deals with."""
    lines = [line for line in summarise_audit(findings) if line.number and line.key in (*FILES, "two_labels")]
    doubts = [
        f"{line.key.replace('_', ' ')}: {line.number:,} ({such_as(line.number, printable(line.file))})"
        for line in lines
    ]
    if unknown := findings["images_of_unknown_patients"]:
        some = f"the patient is not known for {counted(unknown, 'image')}"
        whose = some if findings["patients"] else "no patient is known"
        doubts.append(f"{whose} (if each image is of another one: 'data.patient_pattern=(.+)')")
    if images.unknown_splits:
        doubts.append(f"values of split that are unknown: {', '.join(map(printable, images.unknown_splits))}")
    doubts += [f"hardly a class: {name} ({number})" for name, number in findings["classes"].items() if number < FEW]
    if doubts:
        raise UserError(
            f"data.on_bad=strict: {images.root} is doubtful: {'; '.join(doubts)}; python -m cxr.audit says more; "
            "repair the set, or use skip"
        )
