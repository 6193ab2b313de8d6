"""Errors that the user can fix, and how file names are printed."""


class UserError(Exception):
    """A mistake that the user can fix. The message is one line: what is wrong, where, and what to do."""


class Diverged(UserError):
    """The loss or a gradient became NaN or infinite; the run has no score."""


def printable(text: str) -> str:
    """Escape control characters and bytes that are not UTF-8, so that a file name cannot forge a line of output."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
