"""Counts messages by kind and key, with bytes and rates, for ``monitor --stats``. It does not know what they hold."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rich.table import Table

from eda_tools.cli.output import safe

#: Seconds over which a rate is averaged.
WINDOW: Final = 10.0


@dataclass(slots=True)
class _Row:
    kind: str
    name: str
    count: int = 0
    bytes: int = 0
    #: Pairs of a second and the number of messages in it.
    latest: deque[list[int]] = field(default_factory=deque)


class Statistics:
    """Counts messages by kind and key.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._rows: dict[tuple[str, str], _Row] = {}

    def add(self, fields: dict[str, Any]) -> None:
        """Count a message."""
        key = fields["kind"], fields["name"]
        row = self._rows.setdefault(key, _Row(*key))
        row.count += 1
        row.bytes += fields["size"]
        second = int(self._clock())
        if not row.latest or row.latest[-1][0] != second:
            row.latest.append([second, 0])
        row.latest[-1][1] += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per kind and key, the most frequent first: ``kind``, ``name``, ``count``, ``bytes``, ``rate``.

        The rate is per second, over the last 10 s.
        """
        now = self._clock()
        lasted = max(min(WINDOW, now - self._begun), 1.0)
        for row in sorted(self._rows.values(), key=lambda row: (-row.count, row.kind, row.name)):
            while row.latest and row.latest[0][0] < now - WINDOW:
                row.latest.popleft()
            rate = sum(count for _, count in list(row.latest)) / lasted
            yield {"kind": row.kind, "name": row.name, "count": row.count, "bytes": row.bytes, "rate": round(rate, 1)}

    def table(self) -> Table:
        """The rows as a table for people."""
        table = Table("kind")
        table.add_column("key", overflow="fold")  # if it was cut off, two keys could look the same
        for name in ("messages", "bytes", "per second"):
            table.add_column(name, justify="right")
        for row in self.rows():
            counts = f"{row['count']:,}", f"{row['bytes']:,}", f"{row['rate']:,.1f}"
            table.add_row(row["kind"], safe(row["name"]), *counts)
        return table
