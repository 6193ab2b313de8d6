"""The exceptions that are the user's to fix, and how names of the user's files stand in what we say."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do."""


class Diverged(UserError):
    """Training left the finite numbers; the run has no score."""


def printable(text: str) -> str:
    """A text on one line that any console takes: control characters, such as a newline in a file's name, and bytes that
    are no UTF-8 are escaped. What a file is called must not look like a line of ours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
