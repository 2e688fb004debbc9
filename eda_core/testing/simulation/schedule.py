"""Virtual time: what happens next, and when. Nothing waits: time jumps to the next event.

Events at the same time happen in the order in which they were added. This module does not know what the events are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Event:
    """Something that will happen.

    Attributes:
        live: whether it has neither happened nor been cancelled.
    """

    __slots__ = ("_call", "live", "time")

    def __init__(self, time: float, call: Callable[[], Any]) -> None:
        self.time: float = time
        self._call = call
        self.live: bool = True

    def cancel(self) -> None:
        """Let it not happen."""
        self.live = False

    def happen(self) -> None:
        """Do it."""
        self.live = False
        self._call()


class Schedule:
    """The events that are to come.

    Attributes:
        now: the time, seconds from the start of the run.
        steps: how many events have happened.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        self.steps: int = 0
        self._number = 0
        self._events: list[tuple[float, int, Event]] = []

    def at(self, time: float, call: Callable[[], Any]) -> Event:
        """Let something happen at a time, or now if that has passed."""
        event = Event(max(time, self.now), call)
        self._number += 1
        heapq.heappush(self._events, (event.time, self._number, event))
        return event

    def after(self, seconds: float, call: Callable[[], Any]) -> Event:
        """Let something happen after so many seconds."""
        return self.at(self.now + seconds, call)

    def next_time(self) -> float | None:
        """When the next event happens; ``None`` if there is none."""
        events = self._events
        while events and not events[0][2].live:
            heapq.heappop(events)
        return events[0][0] if events else None

    def jump(self, time: float) -> None:
        """Let time pass until then; nothing is to happen before."""
        self.now = max(self.now, time)

    def step(self) -> bool:
        """Let the next event happen. Returns false if there is none."""
        if self.next_time() is None:
            return False
        time, _, event = heapq.heappop(self._events)
        self.now = time
        self.steps += 1
        event.happen()
        return True
