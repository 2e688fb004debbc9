"""One connection between a worker and the broker: what is sent arrives later, in order, or is lost.

This module decides when something arrives. It does not know what it means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic

from eda_core.testing.broker import ConnectionId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.simulation.schedule import Schedule
from eda_core.testing.simulation.sent import Sent

#: Seconds that something is on its way, and until the broker confirms a publish.
LATENCY: Final = 0.001


class Lane:
    """One direction of a connection.

    Args:
        deliver: takes what has arrived.
        delay: returns for how long what comes first is held up, seconds; 0 usually.
    """

    __slots__ = ("_clear_from", "_delay", "_deliver", "_held", "_items", "_last", "_schedule")

    def __init__(self, schedule: Schedule, deliver: Callable[[Any], None], delay: Callable[[Any], float]) -> None:
        self._schedule, self._deliver, self._delay = schedule, deliver, delay
        self._items: deque[Any] = deque()
        self._held = self._last = 0.0
        self._clear_from = 0

    def put(self, item: Any) -> None:
        """Put something on its way, behind what is on its way already."""
        self._items.append(item)
        self._last = max(self._last, self._schedule.now + LATENCY)
        self._schedule.at(self._last, partial(self._arrive, self._clear_from))

    def _arrive(self, number: int) -> None:
        if number != self._clear_from or not self._items:
            return
        if self._schedule.now >= self._held:
            seconds = self._delay(self._items[0])
            if number != self._clear_from:  # the connection was cut by that
                return
            if not seconds:
                self._deliver(self._items.popleft())
                return
            self._held = self._schedule.now + seconds
        self._schedule.at(self._held, partial(self._arrive, number))

    def clear(self) -> None:
        """Lose what is on its way."""
        self._clear_from += 1
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


@dataclass(slots=True, eq=False)
class ToBroker:
    """A method on its way to the broker; without one it is the end of the connection."""

    channel: int = 0
    method: base.Frame | None = None
    properties: Basic.Properties | None = None
    body: bytes = b""


@dataclass(slots=True, eq=False)
class Wire:
    """A connection of a worker.

    Attributes:
        owner: the name of the worker.
        heard: takes what the broker sends.
        lost: is called with the reason when the worker's side notices that the connection is gone, and with the
            arguments of :meth:`~eda_core.testing.simulation.bus.Bus.cut`.
        id: the broker's number of it; ``None`` if the broker does not know it (any more).
        confirms: the number of the channel with confirms; 0 for none.
        consumers: the queue of each consumer, by its tag.
        deliveries: the message id and the queue of each delivery that the broker has not settled, by its tag.
        published: what was published on the channel with confirms and is not confirmed, by tag.
        count: how many publishes there were on that channel since it was opened.
        asked: the highest tag of those for whose confirm the time has been set.
        up, down: the directions, to the broker and from it.
    """

    owner: str
    heard: Callable[[Outgoing], None]
    lost: Callable[..., None]
    id: ConnectionId | None = None
    confirms: int = 0
    consumers: dict[str, str] = field(default_factory=dict)
    deliveries: dict[int, tuple[str, str]] = field(default_factory=dict)
    published: dict[int, Sent] = field(default_factory=dict)
    count: int = 0
    asked: int = 0
    up: Lane = field(init=False)
    down: Lane = field(init=False)
