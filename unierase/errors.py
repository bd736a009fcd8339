"""The one exception type that stands for a mistake the user can mend."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """Bad input, a missing resource or an impossible request.

    Shown as one line, without a stack trace, and the program exits with code 2.
    The message names the option, the value and what would be valid.
    """


def invalid_choice(option: str, value: object, choices: Iterable[object]) -> UserError:
    """A :class:`UserError` saying that ``option=value`` is not one of ``choices``."""
    listed = ", ".join(str(choice) for choice in choices)
    return UserError(f"{option}={value}: not available; choose one of: {listed}")
