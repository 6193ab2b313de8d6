"""Where images come from: a folder, a table, Kaggle or our own drawings, all as one table of images."""

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr.data.cache import built, fingerprint
from cxr.data.class_names import CLASSES, class_name
from cxr.data.files import gaps, is_mask, list_files, loose_images, mode_of, not_an_image, subfolders, why_not_listed
from cxr.data.image_table import ImageTable, name_images, split_name
from cxr.data.listed import read_listed
from cxr.data.manifest import MANIFEST, Manifest, merge_manifest, read_manifest
from cxr.data.naming import AS_USUAL, IGNORE, Naming, as_nfc
from cxr.data.several_rows import Row
from cxr.data.split_lists import SplitLists
from cxr.data.table_files import find_lists, find_tables
from cxr.errors import UserError, counted, printable, such_as

KAGGLE_SET = "jtiptj/chest-xray-pneumoniacovid19tuberculosis"
KAGGLE_PAGE = f"https://www.kaggle.com/datasets/{KAGGLE_SET}"


def read_folder(root: Path, naming: Naming = AS_USUAL, lists: SplitLists | None = None) -> ImageTable:
    """Read class folders, directly in `root` or below its train, val and test folders; or, with
    `naming.label_pattern`, all images below `root` whose paths it fits.

    If all that `root` holds is one folder with further folders, that one is read instead. Folders of masks are left
    out. A `manifest.csv` beside the class folders (file,patient[,label,split]) gives patients, and may override the
    split or class that follows from a file's folder; its further columns become slices.

    Args:
        lists: say the split instead.

    Raises:
        UserError: the folder is missing, closed or holds no images in class folders, or the manifest or
            `naming.classes` cannot be used.
    """
    root = Path(root).expanduser()
    if not stat.S_ISDIR(mode_of(root)):
        raise UserError(f"data.root={root}: no such folder")
    if reason := why_not_listed(root):
        raise UserError(f"data.root={root}: {reason}")
    root, remarks = find_level(root)
    manifest = read_manifest(root, naming)
    if naming.hospital not in (None, IGNORE) and not manifest.rows:
        raise UserError(f"data.hospital={naming.hospital}: a column of {MANIFEST}, but {root} has none")
    rows, rejected, left_out = read_files(root, naming, manifest)
    if not rows:
        such_as = f"; {printable(rejected[0][0])}: {rejected[0][1]}" if rejected else ""
        where = "class folders (NORMAL, PNEUMONIA, …), directly there or below train, val and test"
        if naming.label_pattern is not None:
            where = f"paths that data.label_pattern={naming.label_pattern} fits"
        raise UserError(f"data.root={root}: no images found; expected JPEG, PNG or DICOM files in {where}{such_as}")
    rejected += [(file, f"in {MANIFEST}, but not in a class folder") for file in sorted(manifest.rows)]
    naming.check_used(row["label"] for row in rows)
    if lists:
        rows = [row | {"split": lists.split_of(row["file"])} for row in rows]
    images = name_images(root.resolve(), rows, rejected, [*remarks, *manifest.remarks, *left_out], naming)
    of_lists = lists.remarks(images.split.tolist()) if lists else []
    return replace(images, remarks=(*images.remarks, *of_lists))


def read_files(root: Path, naming: Naming, manifest: Manifest) -> tuple[list[Row], list[tuple[str, str]], list[str]]:
    """A row for each image below `root`, (file, reason) of what cannot be used, and remarks on what is left out.

    Args:
        manifest: rows of files that are there are taken out.
    """
    folders, problems = ([(root, "")], []) if naming.label_pattern is not None else find_class_folders(root)
    rejected = [(path.relative_to(root).as_posix(), reason) for path, reason in problems]
    rows: list[Row] = []
    masks, unlabelled = 0, []
    for folder, split in folders:
        for path in list_files(folder):
            file = path.relative_to(root).as_posix()
            label = naming.label_of(file, folder.name)
            if is_mask(file):
                masks += 1
            elif label is None:
                unlabelled.append(file)
            elif reason := not_an_image(path):
                rejected.append((file, reason))
            elif as_nfc(file) in manifest.unused:
                rejected.append((file, manifest.unused[as_nfc(file)]))
            else:
                rows.append(merge_manifest(file, label, split, manifest.rows.pop(as_nfc(file), {}), naming))
    remarks = [f"left out: {counted(masks, 'file')} in folders of masks"] if masks else []
    if unlabelled:
        files, example = counted(len(unlabelled), "file"), such_as(len(unlabelled), printable(unlabelled[0]))
        remarks.append(f"left out by data.label_pattern: {files} whose path it does not fit ({example})")
    return rows, rejected, remarks


def find_level(root: Path) -> tuple[Path, list[str]]:
    """The folder to read: `root`, or the only folder in it that holds further folders and is no known class, as an
    archive has it that wraps its content; and a remark if it is not `root`."""
    level = root
    while True:
        below = subfolders(level)
        if len(below) != 1 or loose_images(level) or not subfolders(below[0]) or loose_images(below[0]):
            break
        if split_name(below[0].name) or class_name(below[0].name) in CLASSES:
            break
        level = below[0]
    return level, [] if level == root else [f"read: {printable(str(level))}, all that {printable(str(root))} holds"]


def find_class_folders(root: Path) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """The class folders of a data set, each with its split or ""; and (path, reason) of what cannot be used beside
    them."""
    parts = [(folder, split_name(folder.name)) for folder in subfolders(root)]
    if not any(split for _, split in parts):
        return parts, [*gaps(root), *((path, "not in a class folder") for path in loose_images(root))]
    folders = [(below, split) for folder, split in parts if split for below in subfolders(folder)]
    loose = [path for folder, split in parts for path in (loose_images(folder) if split else list_files(folder))]
    unseen = [gap for folder, split in parts if split for gap in gaps(folder)]
    loose += loose_images(root)
    return folders, [*gaps(root), *unseen, *((path, "not in a class folder") for path in loose)]


def read_local(data: Mapping[str, Any]) -> ImageTable:
    """Read the folder or the table that the options `data.*` name; UserError as in read_folder() and read_listed()."""
    root, naming = data["root"] and Path(data["root"]), Naming.of(data)
    if data["source"] == "table":
        tables = find_tables(data)
        lists, remarks = find_lists(data)
        images = read_listed(tables, root, naming, lists)
    else:
        if not root:
            raise UserError("data.root=null: must be a folder of images")
        lists, remarks = find_lists(data)
        images = read_folder(root, naming, lists)
    return replace(images, remarks=(*images.remarks, *remarks))


def read_kaggle(naming: Naming = AS_USUAL) -> ImageTable:
    """Download the reference set with kagglehub (or find it in kagglehub's cache) and read it as a folder."""
    by_hand = f"download {KAGGLE_PAGE} by hand, unpack it and pass data=folder data.root=DIR"
    try:
        import kagglehub
    except ImportError as error:
        raise UserError(f"data=kaggle needs kagglehub: pip install kagglehub, or {by_hand}") from error
    try:
        root = Path(kagglehub.dataset_download(KAGGLE_SET))
    except Exception as error:  # of requests, zipfile, tarfile and kagglehub, which have no common ancestor
        raise UserError(f"data=kaggle: the download failed ({type(error).__name__}); {by_hand}") from error
    check_links(root)
    return read_folder(dataset_root(root), naming)


def check_links(folder: Path) -> None:
    """Raise UserError for a link in a downloaded set that leads out of it.

    Unpacking writes nothing outside: Python's zipfile drops .. and leading slashes and makes no links, and kagglehub
    unpacks tar files, since 1.0.2, with tarfile's filter "data". cxr cannot check an archive before kagglehub unpacks
    it; Kaggle packs it from a data set that cxr names.
    """
    inside = folder.resolve()
    for where, folders, files in os.walk(folder):
        for path in (Path(where, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UserError(f"data=kaggle: {path} is a link that leads out of the data set; remove {folder}")


def dataset_root(folder: Path) -> Path:
    """The folder that holds train/, which an archive may have wrapped in further folders."""
    return next((p.parent for p in sorted(folder.rglob("train")) if p.is_dir()), folder)


def read_phantom(images: int, seed: int, cache: Path) -> ImageTable:
    """Draw phantom images into the cache, once for each number and seed, and read them as a folder."""
    from cxr.data import phantom, phantom_chest

    # The drawing code is part of the key: images drawn by an older version must not pass for this one's.
    key = fingerprint(images, seed, *(Path(module.__file__).read_bytes() for module in (phantom, phantom_chest)))
    with built(
        cache / f"phantom-{images}-{seed}-{key}", lambda folder: phantom.draw_phantom(folder, images, seed)
    ) as root:
        return replace(read_folder(root), note="drawn images (phantom): say nothing about patients")


def read_images(data: Mapping[str, Any], cache: Path) -> ImageTable:
    """The table of images that the options `data.*` ask for.

    Raises:
        UserError: the source is unknown or cannot be read.
    """
    match data["source"]:
        case "folder" | "table":
            return read_local(data)
        case "kaggle":
            return read_kaggle(Naming.of(data))
        case "phantom":
            return read_phantom(data["images"], data["seed"], cache)
        case other:
            raise UserError(f"data.source={other}: unknown; choose folder, table, kaggle or phantom")
