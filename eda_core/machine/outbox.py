"""What was accepted for publishing and is not safe yet.

A publish is in one place at a time: held by the delivery whose handler made it, in the backlog, unconfirmed on the
link, or waiting to be sent again after the broker refused it. It leaves when it is confirmed, or when its delivery is
to be redelivered and will make it again (docs/architecture.rst, "Lost connections").
"""

from __future__ import annotations

from collections import deque

from eda_core.errors import BufferFull
from eda_core.machine.confirms import Ledger
from eda_core.machine.effects import Publish


class Outbox(Ledger):
    """The publishes of one service: those on the link, and the others.

    Attributes:
        kept: how many publishes are accepted and not safe, those held by deliveries included.
        starved: a caller was refused for lack of room since the last :meth:`made_room`.
    """

    __slots__ = ("_limit", "_refused", "kept", "starved")

    def __init__(self, window: int, limit: int) -> None:
        super().__init__(window)
        self._limit = limit
        self._refused: deque[tuple[float, Publish]] = deque()
        self.kept: int = 0
        self.starved: bool = False

    def reserve(self, held: bool) -> None:
        """Take a place for one more publish.

        Args:
            held: by a delivery; its handler cannot wait for room that its own messages take.

        Raises:
            BufferFull: there is none.
        """
        if self.kept >= self._limit:
            self.starved = self.starved or not held
            raise BufferFull(
                f"{self.kept} publishes are waiting for the broker",
                hint="publish less in one handler" if held else "publish more slowly, or wait for the confirms",
                temporary=not held,
            )
        self.kept += 1

    def made_room(self) -> bool:
        """Whether a refused caller may try again; true once."""
        if self.starved and self.kept < self._limit:
            self.starved = False
            return True
        return False

    def confirmed(self, tag: int, multiple: bool) -> list[Publish]:
        """The publishes that are safe now."""
        safe = self.settle(tag, multiple)
        self.kept -= len(safe)
        return safe

    def refused(self, tag: int, multiple: bool, due: float) -> int:
        """Keep the refused publishes, to be sent again at ``due``; returns how many they are."""
        refused = self.settle(tag, multiple)
        self._refused.extend((due, publish.again()) for publish in refused)
        return len(refused)

    def retry(self, now: float) -> bool:
        """Put the refused publishes whose time has come back in line; whether there were any."""
        found = False
        while self._refused and self._refused[0][0] <= now:
            self.backlog.append(self._refused.popleft()[1])
            found = True
        return found

    def next_retry(self) -> float | None:
        """When the next refused publish is due, monotonic seconds."""
        return self._refused[0][0] if self._refused else None

    def waiting_since(self) -> float | None:
        """When the oldest unconfirmed publish was sent, monotonic seconds."""
        oldest = self.oldest()
        return None if oldest is None else oldest.sent_at

    def lose_link(self) -> None:
        """Nothing is known of what was unconfirmed.

        What is kept is sent again, in the order of acceptance; the rest is forgotten, its redeliveries make it again.
        """
        unsafe = [publish.again() for publish in self.drain()]
        unsafe.extend(publish for _, publish in self._refused)
        unsafe.extend(self.backlog)
        self._refused.clear()
        kept = sorted((publish for publish in unsafe if publish.kept), key=lambda publish: publish.pid)
        for publish in kept:
            publish.delivery = None
        self.backlog.clear()
        self.backlog.extend(kept)
        self.kept -= len(unsafe) - len(kept)

    def abandon(self) -> list[Publish]:
        """Remove and return everything that is not safe: the service is over."""
        unsafe = [*self.drain(), *(publish for _, publish in self._refused), *self.backlog]
        self._refused.clear()
        self.backlog.clear()
        self.kept = 0
        return unsafe
