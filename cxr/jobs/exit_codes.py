"""How a command ends: a line for each mistake that the user can fix, and the exit codes of the README."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from cxr.errors import UserError, lines_of, printable
from cxr.files.status import NO_ROOM
from cxr.training import signals


def fail(error: UserError, code: int = 2) -> NoReturn:
    """Print the error, a line for each mistake, and end the process; 2 is the exit code of wrong options."""
    for line in lines_of(error):
        print(f"cxr: {printable(line)}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def answering() -> Iterator[None]:
    """The work of a command other than training: a UserError ends it with a line for each mistake and code 2, or 1 if
    the disk is full; a stop signal with 128 + its number."""
    with signals.listening():
        try:
            yield
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # Lightning turns the second into the third
            if signals.asked():
                print(f"cxr: stopped by {signals.asked_by()}", file=sys.stderr)
                raise SystemExit(signals.exit_code()) from None
            if isinstance(error, UserError):
                full = isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM
                fail(error, 1 if full else 2)
            raise
