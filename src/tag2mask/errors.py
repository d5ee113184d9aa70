"""What a user can get wrong, told in one sentence: what was given, what was expected, what to do."""

from __future__ import annotations


class InputError(ValueError):
    """A mistake in the user's data, settings or files.

    The command line prints the message as one line and exits with code 2; it never shows a traceback for it.
    """


def require(condition: bool, field_name: str, value: object, expected: str) -> None:
    """Raise an ``InputError`` that names the setting when ``condition`` is false."""
    if not condition:
        raise InputError(f"{field_name} is {value!r}; expected {expected}.")
