"""Tells those who wait for it that a service is ready, or why it will not be, and others that it has ended.

It decides who is told what. It does not know how somebody waits, and in which thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

#: Is called with ``None`` when the service is ready, or with the reason why it has ended before.
Tell = Callable[[Exception | None], object]


class Readiness:
    """The readiness of one service. The driver says when it is reached, and how it has ended."""

    __slots__ = ("_end", "_waiting", "_watching")

    def __init__(self) -> None:
        self._waiting: deque[Tell] = deque()
        self._watching: deque[Callable[[], bool]] = deque()
        self._end: Exception | None = None

    def wait(self, tell: Tell) -> None:
        """Call ``tell`` once: when the service is ready, or has ended. It may have ended already. For any thread."""
        self._waiting.append(tell)
        if self._end is not None:  # perhaps before it could see this one
            self._tell(self._end)

    def forget(self, tell: Tell) -> None:
        """Do not call ``tell`` any more. For any thread."""
        with suppress(ValueError):
            self._waiting.remove(tell)

    def watch(self, ended: Callable[[], bool]) -> None:
        """Call ``ended`` when the service has ended, or is refused to run, until it returns true. For any thread."""
        self._watching.append(ended)
        if self._end is not None:
            self._tell_watching()

    def raise_end(self) -> None:
        """Raise the reason why the service has ended, if it has."""
        if self._end is not None:
            raise self._end

    def reach(self) -> None:
        """Tell that the service is ready."""
        self._tell(None)

    def end(self, reason: Exception) -> None:
        """Tell that the service has ended, unless this was told already."""
        self._end = self._end or reason
        self._tell(self._end)
        self._tell_watching()

    def begin(self) -> None:
        """Note that the service runs, perhaps after it was refused to run."""
        self._end = None

    def _tell_watching(self) -> None:
        for _ in range(len(self._watching)):
            with suppress(IndexError):  # another thread took it
                ended = self._watching.popleft()
                if not ended():
                    self._watching.append(ended)

    def _tell(self, reason: Exception | None) -> None:
        while self._waiting:
            with suppress(IndexError):  # another thread took it
                self._waiting.popleft()(reason)
