"""The one exception that is the user's to fix."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do."""
