"""The messages of a queue that no consumer has, in the order of delivery: by priority, then by age.

What each method costs does not grow with the number of messages, except where it has to go through them.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from eda_core.testing.broker.message import AmqpMessage


class Entry(NamedTuple):
    """A message in a queue.

    Attributes:
        position: its place; the messages of a queue are numbered as they come.
        expires_at: when it expires, in seconds; ``None`` if it does not.
        redelivered: it was delivered before.
        returns: how often it came back, if the queue is a quorum queue.
        failures: how many of these were failures (see ``Version.counts_each_return``), with those in earlier queues.
    """

    position: int
    message: AmqpMessage
    expires_at: float | None = None
    redelivered: bool = False
    returns: int = 0
    failures: int = 0


class Priorities(NamedTuple):
    """How a queue orders its messages.

    Attributes:
        default: the priority of a message without one.
        highest: what is above counts as this.
    """

    default: int
    highest: int

    def of(self, entry: Entry) -> int:
        """The priority of a message in the queue."""
        given = entry.message.properties.priority
        return self.default if given is None else min(given, self.highest)


#: Of a queue that does not order its messages by priority.
ALIKE: Final = Priorities(0, 0)


class Ready:
    """The messages, with those of each priority in a line of their own.

    Args:
        priorities: how the queue orders them.
    """

    __slots__ = ("_count", "_lines", "_present", "priorities")

    def __init__(self, priorities: Priorities = ALIKE) -> None:
        self.priorities: Final = priorities
        self._lines: dict[int, deque[Entry]] = {}
        self._present: list[int] = []  # the priorities of which there are messages, the lowest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        """The messages, the one that is delivered next first."""
        for priority in reversed(self._present):
            yield from self._lines[priority]

    def _line(self, priority: int) -> deque[Entry]:
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = deque()
        if not line:
            bisect.insort(self._present, priority)
        return line

    def append(self, entry: Entry) -> None:
        """Put a message behind those of the same or a higher priority."""
        self._line(self.priorities.of(entry)).append(entry)
        self._count += 1

    def extend(self, entries: Iterable[Entry]) -> None:
        """Append messages, one by one."""
        for entry in entries:
            self.append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put messages in the places that they had among those of the same priority."""
        lines: dict[int, list[Entry]] = {}
        for entry in sorted(entries, key=lambda entry: entry.position):
            lines.setdefault(self.priorities.of(entry), []).append(entry)
        for priority, back in lines.items():
            line = self._line(priority)
            passed: list[Entry] = []
            for entry in back:
                while line and line[0].position < entry.position:
                    passed.append(line.popleft())
                passed.append(entry)
            line.extendleft(reversed(passed))
            self._count += len(back)

    def head(self) -> Entry | None:
        """The message that is delivered next, if there is one."""
        return self._lines[self._present[-1]][0] if self._present else None

    def heads(self) -> Iterator[Entry]:
        """The first message of each priority, the highest first."""
        for priority in reversed(self._present):
            yield self._lines[priority][0]

    def pop(self, first: Entry | None = None) -> Entry:
        """Take out the message that is delivered next, or ``first``, which is one of the heads. There must be one."""
        priority = self._present[-1] if first is None else self.priorities.of(first)
        line = self._lines[priority]
        entry = line.popleft()
        if not line:
            self._present.remove(priority)
        self._count -= 1
        return entry

    def replace_last(self, entry: Entry, other: Entry) -> None:
        """Put ``other``, of the same priority, in the place of ``entry`` if that is the last one of its priority."""
        line = self._lines.get(self.priorities.of(entry))
        if line and line[-1] is entry:
            line[-1] = other

    def clear(self) -> None:
        """Drop all messages."""
        self._lines.clear()
        self._present.clear()
        self._count = 0

    def copy(self) -> Ready:
        """An independent copy, which shares the messages."""
        copy = Ready(self.priorities)
        copy._lines = {priority: line.copy() for priority, line in self._lines.items() if line}
        copy._present = self._present.copy()
        copy._count = self._count
        return copy
