"""The timers of a service. This module decides which are due at a given time. It reads no clock, and does not know what
the functions of the timers do.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

#: How many entries of cancelled timers may be in the heap before it is rebuilt.
_LITTER = 64


class Timers:
    """Functions that are to be called once, each at its time."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._functions: dict[int, Callable[[], Any]] = {}
        self._due: list[tuple[float, int]] = []  # a heap; a number without a function is cancelled

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, due: float, function: Callable[[], Any]) -> int:
        """Add a timer that calls ``function`` at ``due``, in monotonic seconds. Returns its number, which is unique."""
        number = next(self._numbers)
        self._functions[number] = function
        if len(self._due) > 2 * len(self._functions) + _LITTER:
            self._due = [entry for entry in self._due if entry[1] in self._functions]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (due, number))
        return number

    def cancel(self, number: int) -> None:
        """Remove a timer, if it still exists."""
        self._functions.pop(number, None)

    def deadline(self) -> float | None:
        """Return when the next timer is due, in monotonic seconds; ``None`` if there is none.

        It may be a cancelled timer. Then nothing is due at that time.
        """
        return self._due[0][0] if self._due else None

    def due(self, now: float) -> list[int]:
        """Return the numbers of the timers that are due at ``now``, in order. Each is returned once."""
        numbers: list[int] = []
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            if number in self._functions:
                numbers.append(number)
        return numbers

    def run(self, number: int) -> Any:
        """Call the function of a timer that was due, unless it was cancelled in the meantime."""
        function = self._functions.pop(number, None)
        return None if function is None else function()

    def clear(self) -> None:
        """Remove all timers."""
        self._functions.clear()
        self._due.clear()


def not_set() -> None:
    """Cancel a timer that is not set."""
