"""Errors that the user can fix, and how file names are printed."""


class UserError(Exception):
    """A mistake that the user can fix. The message is one line: what is wrong, where, and what to do."""


class Diverged(UserError):
    """The loss or a gradient became NaN or infinite; the run has no score."""


def one_line(value: object, longest: int | None = None) -> str:
    """The text of a value, such as another library's error, without line breaks, cut to `longest` characters."""
    return " ".join(str(value).split())[:longest]


def with_type(error: BaseException, longest: int = 200) -> str:
    """The type and the text of another library's error, in one line."""
    return f"{type(error).__name__}: {one_line(error, longest)}"


def printable(text: str) -> str:
    """Escape control characters and bytes that are not UTF-8, so that a file name cannot forge a line of output."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
