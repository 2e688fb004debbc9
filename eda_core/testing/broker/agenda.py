"""When to look at what, however much there is to look at: the time of the next look costs nothing with their number.

It does not know what is looked at, and why.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Agenda(Generic[K]):
    """The next time for each key. It can become earlier; if it should be later, the look comes too early."""

    __slots__ = ("_heap", "_number", "_times")

    def __init__(self) -> None:
        # Times with their keys. One counts if it is that of ``_times``; others are from before. The number keeps keys
        # from being compared.
        self._heap: list[tuple[float, int, K]] = []
        self._times: dict[K, float] = {}
        self._number = 0

    def clone(self) -> Agenda[K]:
        """An independent copy."""
        copy: Agenda[K] = Agenda()
        copy._heap, copy._times, copy._number = self._heap.copy(), self._times.copy(), self._number
        return copy

    def note(self, key: K, time: float) -> None:
        """Look at ``key`` at this time, unless it is looked at earlier anyway; infinite for never."""
        if time < self._times.get(key, math.inf):
            self._times[key] = time
            self._number += 1
            heapq.heappush(self._heap, (time, self._number, key))

    def forget(self, key: K) -> None:
        """Do not look at ``key`` any more."""
        self._times.pop(key, None)

    def earliest(self) -> float | None:
        """A time before which there is nothing to look at; ``None`` if there never is."""
        return self._heap[0][0] if self._heap else None

    def first(self) -> tuple[float, K] | None:
        """The next time, and the key; ``None`` if there is nothing to look at."""
        while self._heap:
            time, _, key = self._heap[0]
            if self._times.get(key) == time:
                return time, key
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float) -> list[K]:
        """Take out the keys to look at by ``now``, the earliest first."""
        due = []
        while (first := self.first()) is not None and first[0] <= now:
            heapq.heappop(self._heap)
            del self._times[first[1]]
            due.append(first[1])
        return due
