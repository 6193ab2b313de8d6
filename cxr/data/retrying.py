"""Read from a disk or a network share that may fail for a moment."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cxr.errors import UserError, printable

# The path is to blame: it is missing, closed to us, or no file.
CLOSED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM)
WAITS = (0.2, 1, 3)  # seconds before each further try

Result = TypeVar("Result")


class ReadFailed(UserError):
    """The system could not read a file or folder, for which its content is not to blame; the cause is an OSError."""


def is_closed(error: BaseException) -> bool:
    """Whether an error says that a path is missing, closed to us, or no file."""
    return isinstance(error, OSError) and error.errno in CLOSED


def patiently(path: Path, read: Callable[[], Result]) -> Result:
    """The result of `read`, which reads `path`. If the system fails (EIO, ESTALE, ETIMEDOUT, ENOMEM …), it is called
    again, at most len(WAITS) times.

    Raises:
        ReadFailed: the system failed each time.
        OSError: the path is to blame, see CLOSED, or the content: Pillow's errors have no number, and EINVAL comes from
            damaged files that make it seek before their start.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except OSError as error:
            if error.errno in (None, errno.EINVAL, *CLOSED):
                raise
            if wait is None:
                where = error.filename if isinstance(error.filename, str) else str(path)
                raise ReadFailed(
                    f"{printable(where)}: {error.strerror.lower()} (tried {len(WAITS) + 1} times); check the disk "
                    "or the network share and start again, or take this path away"
                ) from error
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")
