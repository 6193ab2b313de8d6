"""List the content of a folder of images, as far as permissions allow.

All functions raise ReadFailed where a disk or network share fails, see cxr.data.retrying."""

import errno
import os
import re
import stat
from functools import partial
from pathlib import Path

from cxr.data.formats import HEAD, no_image
from cxr.data.retrying import is_closed, patiently

MASKS = {"mask", "masks", "lungmask", "lungmasks", "segmentation", "segmentations"}  # words in names of folders
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".dcm", ".dicom")


def mode_of(path: Path) -> int:
    """The mode of a file or folder, which has its type; 0 if it is missing or closed to us."""
    try:
        return patiently(path, path.stat).st_mode
    except OSError:
        return 0


def list_files(folder: Path) -> list[Path]:
    """Every file below `folder`, in name order. Hidden files and folders (.DS_Store, ._image.jpg, .ipynb_checkpoints)
    and __MACOSX are the system's, not images. Links to folders are not followed but listed, like folders that cannot be
    read: not_an_image() gives the reason."""
    return patiently(folder, partial(walk, folder))


def walk(folder: Path) -> list[Path]:
    """The files of list_files(). Raises OSError where the system fails."""
    files_and_links: list[Path] = []
    closed: list[Path] = []

    def note(error: OSError) -> None:
        if not is_closed(error):
            raise error
        closed.append(Path(error.filename))

    # Unlike rglob, os.walk asks the file system once a folder; it would pass over those that are closed.
    for where, folders, files in os.walk(folder, onerror=note):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        files_and_links += [Path(where, name) for name in (*files, *links) if not is_hidden(name)]
        folders[:] = [name for name in folders if not is_hidden(name)]
    return sorted(files_and_links + closed)


def not_an_image(path: Path) -> str:
    """Why a path cannot be an image, or "". Files with the ending of an image are not opened: decoding them tells more.
    Of the others, the first bytes decide."""
    try:
        mode = patiently(path, path.stat).st_mode
    except OSError as error:
        return why_closed(error, path.is_symlink())
    if stat.S_ISDIR(mode):
        return "a link to a folder, which is not followed" if path.is_symlink() else why_not_listed(path)
    if not stat.S_ISREG(mode):
        return "a pipe, socket or device, not a file"
    if path.suffix.lower() in SUFFIXES:
        return ""
    try:
        return no_image(patiently(path, partial(first_bytes, path)))
    except OSError as error:
        return why_closed(error)


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def why_closed(error: OSError, link: bool = False) -> str:
    """The reason for an error of the system, in words."""
    if isinstance(error, FileNotFoundError):
        return "a broken link" if link else "not there any more"
    return "a link that leads to itself" if error.errno == errno.ELOOP else (error.strerror or str(error)).lower()


def why_not_listed(folder: Path) -> str:
    """Why what lies in a folder cannot be listed, or ""."""
    try:
        patiently(folder, lambda: os.scandir(folder).close())
        return ""
    except OSError as error:
        return f"a folder that cannot be read: {why_closed(error)}"


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, without hidden ones; none if it cannot be read."""
    return [Path(entry) for entry in entries(folder) if is_folder(entry)]


def loose_images(folder: Path) -> list[Path]:
    """The images directly in a folder, by their endings or first bytes; none if it cannot be read."""
    paths = [Path(entry) for entry in entries(folder) if not is_folder(entry)]
    return [path for path in paths if path.suffix.lower() in SUFFIXES or not not_an_image(path)]


def gaps(folder: Path) -> list[tuple[Path, str]]:
    """Paths that may hide images, with the reason: the folder itself, or links in it to nothing, such as a disk that is
    not mounted."""
    if why := why_not_listed(folder):
        return [(folder, why)]
    links = [Path(entry) for entry in entries(folder) if entry.is_symlink() and not os.path.exists(entry)]
    return [(path, not_an_image(path)) for path in links if path.suffix.lower() not in SUFFIXES]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder in name order, without hidden ones; none if it cannot be read."""
    try:
        return patiently(folder, partial(scan, folder))
    except OSError:
        return []


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of entries(). Raises OSError where the system fails."""
    with os.scandir(folder) as content:
        return sorted((entry for entry in content if not is_hidden(entry.name)), key=lambda entry: entry.name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's: hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_mask(file: str) -> bool:
    """Whether a path, with slashes, leads through a folder of masks: Lung masks, infection_mask, Segmentations …"""
    folders = file.lower().split("/")[:-1]
    return any(not MASKS.isdisjoint(re.split(r"[\W_\d]+", folder)) for folder in folders)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; False if permissions forbid to know."""
    try:
        return patiently(Path(entry), entry.is_dir)
    except OSError:
        return False
