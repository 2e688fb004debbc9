"""The timers that a service sets for itself: which are due, and when the next one is. Who asks brings the time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

#: So many entries of cancelled timers may lie about before they are swept out.
_LITTER = 64


class Timers:
    """Functions to call, each once, at a time."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._functions: dict[int, Callable[[], Any]] = {}
        self._due: list[tuple[float, int]] = []  # a heap; those whose number has no function any more are cancelled

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, due: float, function: Callable[[], Any]) -> int:
        """Call ``function`` at ``due``, monotonic seconds. Returns its number, never used again."""
        number = next(self._numbers)
        self._functions[number] = function
        if len(self._due) > 2 * len(self._functions) + _LITTER:
            self._due = [entry for entry in self._due if entry[1] in self._functions]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (due, number))
        return number

    def cancel(self, number: int) -> None:
        """Do not call it, or not any more."""
        self._functions.pop(number, None)

    def deadline(self) -> float | None:
        """When the next one is due, monotonic seconds. May be that of a cancelled one: then nothing is due."""
        return self._due[0][0] if self._due else None

    def due(self, now: float) -> list[int]:
        """The numbers of those that are due, in order; each is told once."""
        numbers: list[int] = []
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            if number in self._functions:
                numbers.append(number)
        return numbers

    def run(self, number: int) -> Any:
        """Call the function of one that was due, unless it has been cancelled while it waited for its turn."""
        function = self._functions.pop(number, None)
        return None if function is None else function()

    def clear(self) -> None:
        """Cancel all."""
        self._functions.clear()
        self._due.clear()
