"""The messages that the broker of a simulation has taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pamqp.commands import Basic

from eda_core.testing.arrivals import Arrival, arrival


@dataclass(slots=True, eq=False)
class Sent:
    """A message that the broker has taken.

    Attributes:
        time: when, seconds from the start.
        sender: the worker that has published it; "test" for the test itself.
        exchange, key, properties, body: the message as it was published, or, if ``dead``, as it was dead-lettered.
        returned: whether it came back, because no queue is bound for it.
        copy: whether it is a duplicate that a fault has made.
        dead: whether it is a dead letter.
    """

    time: float
    sender: str
    exchange: str
    key: str
    properties: Basic.Properties
    body: bytes
    returned: bool = False
    copy: bool = False
    dead: bool = False
    _arrival: Arrival | None = None

    @property
    def arrival(self) -> Arrival:
        """The message, read."""
        if self._arrival is None:
            by_test = self.sender == TEST
            self._arrival = arrival(
                self.exchange, self.key, self.properties, self.body, dead=self.dead, sent=by_test or self.copy
            )
        return self._arrival

    @property
    def kind(self) -> str:
        """event, command, result, configuration, log, dead letter or invalid."""
        return self.arrival.kind

    @property
    def name(self) -> str:
        """The name of the message, which is the routing key of its first publish."""
        return self.arrival.message.name if self.dead else self.key

    @property
    def payload(self) -> Any:
        """The payload; ``None`` if it cannot be read."""
        return self.arrival.message.payload

    @property
    def id(self) -> str:
        """The message id; "" if it has none."""
        return self.properties.message_id or ""


#: Who the test is in a story, and the queue of the results that come to it.
TEST = "test"
