"""Text of unknown length and content, made fit for one line of a log or a ``repr``."""

from __future__ import annotations

from typing import Final


def shortened(text: str, width: int = 80) -> str:
    """The first line of ``text``, of at most ``width`` characters, for a ``repr``."""
    line = text.partition("\n")[0]
    return line if len(line) <= width and line == text else f"{line[: width - 1]}…"


#: Characters of a reason. An error may quote a whole payload; the traceback has it.
_LONGEST_REASON: Final = 1_000


def one_line(text: str) -> str:
    """The first line; in it nothing that would break a log's lines."""
    first = text[: _LONGEST_REASON + 1].splitlines()[0] if text else ""
    if len(first) > _LONGEST_REASON:
        first = f"{first[:_LONGEST_REASON]}…"
    return "".join(character if character.isprintable() else " " for character in first)
