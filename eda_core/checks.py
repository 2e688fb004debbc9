"""Checks of the values that users pass. This module does not know what a value is for."""

from __future__ import annotations

from eda_core.errors import LocalError


def is_number(value: object) -> bool:
    """Return whether ``value`` is an ``int`` or a ``float``. ``True`` and ``False`` are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_seconds(what: str, value: object) -> None:
    """Check that ``value`` is a length of time in seconds.

    Raises:
        LocalError: it is not a number, not more than 0, or infinite. The text calls it ``what``.
    """
    if not is_number(value) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise LocalError(f"{what} is {value!r}", hint="give seconds, more than 0")
