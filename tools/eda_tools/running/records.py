"""What a worker tells its supervisor: log records, and what becomes of the service. They are lines on standard error.

A line that begins with the control character "record separator" (as in RFC 7464) is such a record, in JSON. All other
lines are what the program writes.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

#: Begins a record.
MARK: Final = "\x1e"

#: The kinds of records: a log record; the service was made; it cannot be loaded or made.
LOG: Final = "log"
MADE: Final = "made"
FAULT: Final = "fault"


def write(kind: str, fields: dict[str, Any]) -> None:
    """Write a record to standard error, in one piece unless it is very long."""
    line = f"{MARK}{json.dumps([kind, fields], default=str)}\n".encode(errors="replace")
    while line:
        line = line[os.write(2, line) :]


def read(line: str) -> tuple[str, dict[str, Any]] | None:
    """Return the kind and the fields of the record in a line; ``None`` if the line is none."""
    if not line.startswith(MARK):
        return None
    try:
        kind, fields = json.loads(line[1:])
    except ValueError:
        return None
    return (kind, fields) if kind in (LOG, MADE, FAULT) and isinstance(fields, dict) else None


class Lines:
    """Splits what comes out of a pipe into lines.

    Args:
        longest: how many bytes a line may have. A longer one becomes several.
    """

    def __init__(self, longest: int = 1 << 24) -> None:
        self._longest = longest
        self._rest = b""

    def add(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        *complete, rest = (self._rest + data).split(b"\n")
        while len(rest) > self._longest:
            complete.append(rest[: self._longest])
            rest = rest[self._longest :]
        self._rest = rest
        return [_text(line) for line in complete]

    def end(self) -> list[str]:
        """Return the last line, if it has no line end."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
