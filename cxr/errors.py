"""Errors that the user can fix, and how file names and counts are printed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SHOWN = 10  # lines of SeveralErrors


class UserError(Exception):
    """A mistake that the user can fix. The message is one line: what is wrong, where, and what to do."""


class SeveralErrors(UserError):
    """Mistakes that are known at once, with a line for each as its arguments. As a text, they are one line."""

    def __str__(self) -> str:
        return "; ".join(self.args)


@contextmanager
def collecting(mistakes: list[str]) -> Iterator[None]:
    """A block whose UserError joins `mistakes`; what follows the block still runs. See raise_all()."""
    try:
        yield
    except UserError as error:
        mistakes += lines_of(error)


def raise_all(mistakes: Sequence[str]) -> None:
    """Raise UserError if there are mistakes. Of more than SHOWN, it counts those that it leaves out."""
    if len(mistakes) > SHOWN:
        mistakes = [*mistakes[: SHOWN - 1], f"{len(mistakes) - SHOWN + 1} more mistakes"]
    if mistakes:
        raise SeveralErrors(*mistakes) if len(mistakes) > 1 else UserError(mistakes[0])


def lines_of(error: UserError) -> Sequence[str]:
    """The lines of an error's message: one for each mistake."""
    return error.args if isinstance(error, SeveralErrors) else [str(error)]


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


def counted(number: int, thing: str) -> str:
    """How many of a thing there are: 1 file, 1,234 files."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def such_as(number: int, example: str) -> str:
    """An example of a number of things, or the only one."""
    return f"such as {example}" if number > 1 else example
