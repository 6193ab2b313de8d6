"""The cache: folders that are made once and used by every run, built whole or not at all, by one process at a time."""

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from cxr.errors import UserError
from cxr.files.writing import sync_folder

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open
    fcntl = None

log = logging.getLogger(__name__)

BUILDING = ".building-"  # what the name of a folder begins with until it is whole


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that stand for `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def built(
    target: Path, build: Callable[[Path], None], intact: Callable[[Path], bool] = Path.exists, keep: str = ""
) -> Iterator[Path]:
    """Give `target`, a folder in the cache. Unless it exists and is `intact`, `build` fills it, whole or not at all.

    Its parent folder stays locked meanwhile: a second process waits, then finds what the first one built.

    Args:
        build: is called with the folder to fill.
        keep: a pattern of files that a later build can use. Folders that have some, of a build that was killed or
            failed or a target that is damaged, stay beside the new one, see is_unfinished(), for the caller to remove.

    Raises:
        UserError: the cache cannot be written.
    """
    try:
        with locked(target.parent):
            if not intact(target):
                remove_unfinished(target, keep)
                work = unfinished_folder(target.parent)
                # Unlike mkdtemp's folders, others may read it as far as our umask lets them.
                work.mkdir()
                try:
                    build(work)
                    os.rename(work, target)
                    sync_folder(target.parent)
                finally:
                    if not (keep and any(work.glob(keep))):
                        shutil.rmtree(work, ignore_errors=True)
            yield target
    except OSError as error:
        raise UserError(
            f"cache_dir: {error.filename or target.parent}: {error.strerror or error}; choose another cache_dir=DIR"
        ) from error


def remove_unfinished(target: Path, keep: str) -> None:
    """Remove what killed builds left, and a damaged target, unless a later build can use some of it. Only the process
    that holds the lock builds, so no other one is at work there."""
    if target.exists():
        os.rename(target, unfinished_folder(target.parent))
    for folder in target.parent.glob(f"{BUILDING}*"):
        if not (keep and any(folder.glob(keep))):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder of the cache, unless a process uses a file in it, see use(): then it stays, for a later call."""
    if not any(is_used(path) for path in folder.rglob("*") if path.is_file()):
        shutil.rmtree(folder, ignore_errors=True)


def use(file: BinaryIO) -> None:
    """Keep the folder of a file from being removed, by a process of any machine, for as long as the file is open or
    mapped. (A network drive tells its server of this lock, unless it was mounted with nolock.)

    Raises:
        BlockingIOError: it is being removed.
    """
    if not fcntl:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks, of which we can only read
        pass


def is_used(path: Path) -> bool:
    """Whether a process uses a file, see use(), or it cannot be known."""
    try:
        with path.open("r+b") as file:  # a network drive wants it open for writing
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def unfinished_folder(parent: Path) -> Path:
    """A new name for a folder that is not whole."""
    return parent / f"{BUILDING}{uuid.uuid4().hex}"


def is_unfinished(folder: Path) -> bool:
    """Whether a folder of the cache was left by a build that was killed or failed, or was damaged."""
    return folder.name.startswith(BUILDING)


def locked(folder: Path) -> AbstractContextManager:
    """Lock `folder` against other processes that would change it. A process that cannot write there only reads, and
    needs no lock."""
    if folder.is_dir() and not os.access(folder, os.W_OK):
        return contextlib.nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that works in %s", folder)
        return lock.acquire()
