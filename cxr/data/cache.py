"""The folder of what was made once and is used by every run: built whole or not at all, by one process at a time."""

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cxr.errors import UserError

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
    target: Path, build: Callable[[Path], None], intact: Callable[[Path], bool] = Path.exists, journal: str = ""
) -> Iterator[Path]:
    """Give `target`, a folder in the cache; where it does not exist or is not `intact`, `build` fills it, whole or not
    at all.

    Its parent folder stays locked meanwhile: a second process waits, then finds what the first one built. Where `build`
    keeps a `journal`, a file of this name in the folder that it fills, the next build gets the folder that one left
    which was killed or failed, whatever the target; there is one at most. Without, each build begins with an empty one.
    """
    try:
        with locked(target.parent):
            if not intact(target):
                # Whoever holds the lock is the only one who builds: what others left here, they were killed at.
                work = target.parent / f"{BUILDING}{uuid.uuid4().hex}"
                if journal and (noted := next(target.parent.glob(f"{BUILDING}*/{journal}"), None)):
                    os.rename(noted.parent, work)  # a killed build's workers, which end a moment later, do not follow
                for left in {target, *target.parent.glob(f"{BUILDING}*")} - {work}:
                    shutil.rmtree(left, ignore_errors=True)
                # Unlike mkdtemp's folders, others may read it as far as our umask lets them.
                work.mkdir(exist_ok=True)
                try:
                    build(work)
                    os.rename(work, target)
                finally:
                    if not (journal and (work / journal).exists()):
                        shutil.rmtree(work, ignore_errors=True)
            yield target
    except OSError as error:
        raise UserError(
            f"cache_dir: {error.filename or target.parent}: {error.strerror or error}; choose another cache_dir=DIR"
        ) from error


def locked(folder: Path) -> AbstractContextManager:
    """The one process that may change what lies in `folder`; whoever cannot write there needs no lock to read."""
    if folder.is_dir() and not os.access(folder, os.W_OK):
        return contextlib.nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that works in %s", folder)
        return lock.acquire()
