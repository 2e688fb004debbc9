"""Shortens text of any length and content to one line, for a log or a ``repr``.

This module does not know what the text says.
"""

from __future__ import annotations

from typing import Final


def as_text(value: str | bytes | None) -> str:
    """Return a value that may be bytes as text: U+FFFD for what is not UTF-8, and "" for ``None``."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def shortened(text: str, width: int = 80) -> str:
    """Return the first line of ``text``, cut to ``width`` characters, for a ``repr``."""
    line = text.partition("\n")[0]
    return line if len(line) <= width and line == text else f"{line[: width - 1]}…"


#: Characters of a reason. An error may quote a whole payload; the traceback has all of it.
_LONGEST_REASON: Final = 1_000


def one_line(text: str) -> str:
    """Return the first line of ``text``, cut to 1,000 characters, with a space for each unprintable character."""
    first = text[: _LONGEST_REASON + 1].splitlines()[0] if text else ""
    if len(first) > _LONGEST_REASON:
        first = f"{first[:_LONGEST_REASON]}…"
    return "".join(character if character.isprintable() else " " for character in first)
