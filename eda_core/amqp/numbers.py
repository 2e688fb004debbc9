"""The numbers of channels: which one is the lowest that is free.

It does not know what a channel is. A connection may have thousands, and open and close them all the time, so that it
must not look at all of them each time.
"""

from __future__ import annotations

from collections.abc import Container
from heapq import heappop, heappush


class Numbers:
    """Whole numbers from 1.

    Args:
        used: those that are in use. Whoever changes it calls :meth:`give_back` for each that is left out.
    """

    __slots__ = ("_given_back", "_next", "_used")

    def __init__(self, used: Container[int]) -> None:
        self._used = used
        #: All numbers from here on were free whenever they were asked for.
        self._next = 1
        self._given_back: list[int] = []  # a heap of lower ones; some may be in use again

    def lowest(self) -> int:
        """Return the lowest number that is free."""
        given_back = self._given_back
        while given_back and given_back[0] in self._used:
            heappop(given_back)
        if given_back:
            return given_back[0]
        while self._next in self._used:
            self._next += 1
        return self._next

    def give_back(self, number: int) -> None:
        """A number is not in use any more."""
        if number < self._next:
            heappush(self._given_back, number)
