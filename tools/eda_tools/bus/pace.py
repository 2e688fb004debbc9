"""Limits how often something is done (``--rate``). It reads no clock and does not wait."""

from __future__ import annotations


class Pace:
    """Says when the next action is due.

    Args:
        rate: at most so many actions per second; ``None`` for no limit. After a pause, such as an alarm of the broker,
            no more are done per second than before: what was missed is not made up for.
    """

    def __init__(self, rate: float | None) -> None:
        self._interval = 0.0 if rate is None else 1 / rate
        self._due = 0.0

    def wait(self, now: float) -> float:
        """Return how many seconds to wait until the next action, which is done then."""
        self._due = max(self._due, now)
        left = self._due - now
        self._due += self._interval
        return left
