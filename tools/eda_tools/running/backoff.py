"""How long to wait until a worker that has died is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """The delays of one worker. Each is twice the one before, until a worker has run well for a while.

    Args:
        first: the first delay, seconds.
        longest: the longest delay, seconds.
        well_after: how long a worker has to run, seconds, so that the next delay is the first one again.
    """

    first: float = 1.0
    longest: float = 60.0
    well_after: float = 60.0
    _deaths: int = 0

    def died(self, ran: float) -> float:
        """Return the delay after a death of a worker that ran for so many seconds."""
        if ran >= self.well_after:
            self._deaths = 0
        self._deaths += 1
        return min(self.longest, self.first * 2.0 ** min(self._deaths - 1, 64))
