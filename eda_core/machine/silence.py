"""How long the broker has been silent on a channel of the open link, and when to ask it whether it still works.

The kernel of the broker's host keeps a connection alive while the broker itself stands still, and a network that drops
everything closes no connection. Heartbeats notice both only after two heartbeats. This module decides when to ask and
when to give up. It does not know how the broker is asked.
"""

from __future__ import annotations

from typing import Final

#: The broker is asked so often before the link is given up: at first, and again after equal parts of the time.
_PARTS: Final = 4
#: The longest time for an answer, seconds. See :meth:`Silence.tick`.
_LONGEST: Final = 60.0

# What there is to do
NOTHING: Final = "nothing"
ASK: Final = "ask"  # the broker has to be asked
GIVE_UP: Final = "give up"  # the broker does not answer


class Silence:
    """The silence of the broker on one channel.

    Args:
        channel: ``CONSUMING`` or ``PUBLISHING``, or ``CHECKING`` for a whole node.
        interval: seconds of silence until the broker is asked; 0 if it is never asked.
        timeout: seconds for the answer.

    Attributes:
        heard: when the broker last sent something by itself, monotonic seconds. Each input from the broker sets it.
        answered: when it last gave a sign of life because it was asked.
        asked: when the broker was last asked after it had answered, monotonic seconds.
        due: when to call :meth:`tick` next, monotonic seconds; ``None`` if the channel is not watched.
    """

    __slots__ = ("_interval", "_left", "_patience", "_timeout", "answered", "asked", "channel", "due", "heard")

    def __init__(self, channel: str, interval: float, timeout: float) -> None:
        self.channel: str = channel
        self.heard: float = 0.0
        self.answered: float = 0.0
        self.due: float | None = None
        self._interval, self._timeout = interval, timeout
        #: Seconds for the next answer.
        self._patience = timeout
        self.asked: float = 0.0
        #: How many parts of the time for the answer are left; 0 if the broker was not asked.
        self._left = 0

    def watch(self, now: float, can_answer: bool) -> None:
        """Watch the channel from now on if the broker can answer on it, and do not watch it if not."""
        if not can_answer:
            self.due = None
        elif self.due is None and self._interval:
            self.heard, self.answered, self._left = now, now, 0
            self.due = now + self._interval

    def waited(self, now: float) -> float:
        """Return for how many seconds the broker has been silent."""
        return now - max(self.heard, self.answered)

    def tick(self, now: float) -> str:
        """Return what there is to do at ``now``. To give up comes after all parts of the time for the answer.

        A part counts only if this is called in time at its end. If it is called late, the event loop was blocked, and
        the answer may have come already: the driver has to read it first.

        The time for the answer doubles each time it was too short, up to 60 s, until the broker answers again. So
        a broker that is slow under load, or a large message on a slow network, does not cost one link after the other.
        """
        due = self.due
        if due is None or now < due:
            return NOTHING
        heard = max(self.heard, self.answered)
        if self._left and heard < self.asked:
            part = self._patience / _PARTS
            if now < due + part / 2:
                self._left -= 1
            if not self._left:
                self._patience = min(2 * self._patience, _LONGEST)
                self.due = None
                return GIVE_UP
            self.due = now + part
            return ASK
        if self._left:
            self._left, self._patience = 0, self._timeout
        if now < heard + self._interval:
            self.due = heard + self._interval
            return NOTHING
        self.asked, self._left = now, _PARTS
        self.due = now + self._patience / _PARTS
        return ASK
