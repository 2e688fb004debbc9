"""What has happened to the messages of one service so far, as numbers.

The parts of the machine count here what they do. Nothing is decided by these numbers, and no replay of a journal needs
them. :mod:`eda_core.machine.metrics` makes of them what is shown.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result

#: The upper bounds of the buckets for the times of handlers, seconds. One more bucket is for longer times. Most are
#: those that the semantic conventions of OpenTelemetry advise for the processing of a message.
HANDLER_BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: How many names of messages of each kind have times of their own. The others have those of the name ``OTHER``: a
#: service may receive any number of names, and each would take memory here and wherever metrics are kept.
MOST_NAMES: Final = 100
OTHER: Final = "other"

#: The kinds of messages that handlers get, and the words for them.
KINDS: Final[dict[type[Message], str]] = {
    Event: "event",
    Command: "command",
    Result: "result",
    Configuration: "configuration",
    LogRecord: "log",
}


class HandlerTimes:
    """The times of the handlers for one name.

    Attributes:
        buckets: how many took up to each of ``HANDLER_BOUNDS``, and more than the one before it; at last, how many took
            longer. Each end of a handler counts once, whatever its outcome.
        seconds: what they took together.
        failed: how many of them have failed.
        lost: how many of them ended when their delivery was lost with its link, and so had no effect.
    """

    __slots__ = ("buckets", "failed", "lost", "seconds")

    def __init__(self) -> None:
        self.buckets: list[int] = [0] * (len(HANDLER_BOUNDS) + 1)
        self.seconds: float = 0.0
        self.failed: int = 0
        self.lost: int = 0

    def add(self, seconds: float) -> None:
        """Count the end of a handler that took so long."""
        self.seconds += seconds
        self.buckets[bisect_left(HANDLER_BOUNDS, seconds)] += 1


class Counts:
    """The numbers of one service since it was made. All only grow. :class:`eda_core.Metrics` says what each means."""

    __slots__ = (
        *"acknowledged confirmed connecting dead_lettered dropped failed given_back handlers".split(),
        *"links_closed links_lost links_opened lost received refused retried returned unsendable".split(),
    )

    def __init__(self) -> None:
        self.received: int = 0
        self.acknowledged: int = 0
        self.retried: int = 0
        self.dead_lettered: int = 0
        self.given_back: int = 0
        self.lost: int = 0
        self.failed: int = 0
        self.confirmed: int = 0
        self.refused: int = 0
        self.returned: int = 0
        self.unsendable: int = 0
        self.dropped: int = 0
        self.connecting: int = 0
        self.links_opened: int = 0
        self.links_lost: int = 0
        self.links_closed: int = 0
        #: The times of handlers by the type and the name of the message.
        self.handlers: dict[type[Message], dict[str, HandlerTimes]] = {kind: {} for kind in KINDS}

    def times_of(self, message: AnyMessage) -> HandlerTimes:
        """Return the times of the handlers for this kind and name of message."""
        kind = next(each for each in KINDS if isinstance(message, each))
        by_name = self.handlers[kind]
        name = message.name if message.name in by_name or len(by_name) < MOST_NAMES else OTHER
        times = by_name.get(name)
        if times is None:
            times = by_name[name] = HandlerTimes()
        return times

    def succeeded(self) -> int:
        """Return how many handlers have ended without a failure while their delivery was in flight."""
        return sum(
            sum(times.buckets) - times.failed - times.lost
            for by_name in self.handlers.values()
            for times in by_name.values()
        )
