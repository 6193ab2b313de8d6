"""python -m cxr.audit: find problems in a set of images before you train on it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cxr.data.audit import SIZE, Copies, audit, load_copies
from cxr.data.audit_lines import check_doubts, check_rejected, summarise_audit
from cxr.data.decode import UNREADABLE, Reading, decode, why_unreadable
from cxr.data.groups import group_images
from cxr.data.hospitals import hospital_remarks, hospitals_of
from cxr.data.image_table import ImageTable
from cxr.data.naming import no_patients
from cxr.data.sources import read_images
from cxr.data.split import split_by_options
from cxr.data.store import Store, open_store
from cxr.errors import UserError, printable
from cxr.files.run_folder import AUDIT
from cxr.files.writing import write_json
from cxr.jobs.single_command import run_single
from cxr.reporting.hospitals_in_words import class_table, hospital_lines
from cxr.reporting.markdown import markdown_table
from cxr.reporting.words import words

USAGE = """python -m cxr.audit data=folder data.root=DIR [option=value …]
Looks for bad files, copies, contradictions and leaks; options are those of cxr.train. Writes audit.json and
pictures of copies to runs/NAME."""
log = logging.getLogger(__name__)

PROBED = 5000  # images whose hospital is predicted
PICTURES, MANY = 200, 20  # pairs that are pictured at most (audit.json names all), and those that show their progress


def main() -> None:
    """Exit codes: 0 audited, with or without findings; 2 wrong options or no images."""
    run_single(audit_images, USAGE)


def audit_images(options: dict[str, Any], folder: Path) -> None:
    """Audit the images that the options name; write and print the findings."""
    cache = Path(options["cache_dir"]).expanduser()
    store, images = open_store(read_images(options["data"], cache), SIZE, cache, Reading.of(options["data"]))
    copies = load_copies(store, cache, options["data"]["copies"])
    findings, w = audit(images, store, copies, options["data"]["copies"]), words("en")
    hospital = hospitals_of(images)
    if hospital is not None:
        findings["hospitals"]["predicted_by"] = predict_hospitals(images, store, copies, hospital)
    write_json(folder / AUDIT, findings)
    picture_pairs(images.root, findings["copies"], folder / "copies")
    rows = [
        [line.title(w), f"{line.number:,}" if line.number else w["none"], line.example(w)]
        for line in summarise_audit(findings)
    ]
    counts = ", ".join(f"{name} {number:,}" for name, number in findings["classes"].items())
    print(f"\n1. {findings['images']:,} images in {printable(findings['root'])}: {counts}")
    remarks = [*images.understood(), *hospital_remarks(images)]
    remarks += hospital_lines({**findings["hospitals"], "within": None}, w, "any_score")
    remarks += [no_patients(images.file.tolist())] * (not findings["patients"])
    remarks += [f"{line}; {AUDIT} lists all" for line in images.not_used()]
    for number, remark in enumerate([*remarks, *cannot_be_split(images, options["data"])], start=2):
        print(f"{number}. {printable(remark)}")
    print()
    print(markdown_table(["", w["found"], w["example"]], rows))
    if hospital is not None:
        print("\n" + markdown_table(*class_table(findings["hospitals"]["table"])))
    print(f"\nall in {folder / AUDIT}")
    if options["data"]["on_bad"] == "strict":
        check_doubts(findings, images)
    if options["data"]["on_bad"] == "fail":
        check_rejected(images)


def predict_hospitals(images: ImageTable, store: Store, copies: Copies, hospital: np.ndarray) -> dict[str, Any]:
    """How well the hospitals, strings (N,), can be predicted from the images; see cxr.jobs.hospital_figures."""
    from cxr.jobs.hospital_figures import predicted_by  # Lightning takes seconds: not for --help

    rows = np.sort(np.random.default_rng(0).permutation(len(images))[:PROBED])
    group = group_images(images.patient, [(first, second) for first, second, _ in copies])
    return predicted_by(store.select(rows), images.label[rows], hospital[rows], group[rows], images.classes)


def cannot_be_split(images: ImageTable, data: dict[str, Any]) -> list[str]:
    """Why training would refuse these images with the options `data.*`, in one line; none if it would not."""
    try:
        split_by_options(images, group_images(images.patient), data)
        return []
    except UserError as error:
        return [f"training would refuse these images: {error}"]


def picture_pairs(root: Path, copies: list[dict[str, Any]], folder: Path) -> None:
    """Picture the pairs of copies in which an image appears for the first time, under their numbers in audit.json: of
    60 images that are all alike, at most 59 pairs and not 1,770. Pairs with different labels come first."""
    seen: set[str] = set()
    chosen = []
    for number, copy in sorted(enumerate(copies, start=1), key=lambda pair: not pair[1]["two_labels"]):
        if not seen.issuperset(copy["files"]):
            chosen.append((folder / f"{number:03}.png", copy))
        seen.update(copy["files"])
    if len(chosen) > MANY:
        log.info("drawing %d pairs of copies", len(chosen[:PICTURES]))
    for path, copy in tqdm(chosen[:PICTURES], unit=" pictures", disable=None if len(chosen) > MANY else True):
        picture_pair(root, copy, path)


def picture_pair(root: Path, copy: dict[str, Any], path: Path) -> None:
    """Both images of a pair side by side, with their labels, patients and splits."""
    from cxr.reporting.figures import captioned_images

    try:
        images = np.stack([decode(root / file, 384).pixels for file in copy["files"]])
    except UNREADABLE as error:  # it was readable when the store was built
        files = " or ".join(map(printable, copy["files"]))
        raise UserError(f"{files} cannot be read for a picture: {why_unreadable(error)}; start again") from error
    facts = zip(copy["files"], copy["labels"], copy["patients"], copy["splits"], strict=True)
    captions = [
        f"{printable(file)}\n{label}, patient {patient or 'unknown'}, {split or 'no split'}"
        for file, label, patient, split in facts
    ]
    path.parent.mkdir(exist_ok=True)
    captioned_images(images, captions, f"{copy['kind']}, likeness {copy['likeness']:.3f}", columns=2).savefig(
        path, dpi=100, pil_kwargs={"compress_level": 1}
    )


if __name__ == "__main__":
    main()
