"""Checks of the values that users pass."""

from __future__ import annotations

from eda_core.errors import LocalError


def is_number(value: object) -> bool:
    """Whether ``value`` is a whole number or a float, which ``True`` is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_seconds(what: str, value: object) -> None:
    """See that ``value`` is a length of time.

    Raises:
        LocalError: it is no number, not more than 0, or endless.
    """
    if not is_number(value) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise LocalError(f"{what} is {value!r}", hint="give seconds, more than 0")
