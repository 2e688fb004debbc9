"""The messages that the broker of a simulation has taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.errors import EdaError
from eda_core.messages.codec import DEFAULT_LIMITS
from eda_core.messages.envelope import open_envelope
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result

_KINDS: Final[dict[type[Message], str]] = {
    Event: "event",
    Command: "command",
    Result: "result",
    Configuration: "configuration",
    LogRecord: "log",
}


@dataclass(slots=True, eq=False)
class Sent:
    """A message that the broker has taken.

    Attributes:
        time: when, seconds from the start.
        sender: the worker that has published it; "test" for the test itself.
        exchange, name, properties, body: the message; ``name`` is its routing key.
        returned: whether it came back, because no queue is bound for it.
        copy: whether it is a duplicate that a fault has made.
    """

    time: float
    sender: str
    exchange: str
    name: str
    properties: Basic.Properties
    body: bytes
    returned: bool = False
    copy: bool = False
    _message: AnyMessage | None = None

    @property
    def message(self) -> AnyMessage | None:
        """The message, read; ``None`` if it cannot be read."""
        if self._message is None:
            try:
                self._message = open_envelope(self.exchange, self.name, self.properties, self.body, DEFAULT_LIMITS)
            except EdaError:
                return None
        return self._message

    @property
    def kind(self) -> str:
        """event, command, result, configuration or log; "" if it cannot be read."""
        message = self.message
        return "" if message is None else _KINDS[type(message)]

    @property
    def payload(self) -> Any:
        """The payload; ``None`` if it cannot be read."""
        message = self.message
        return None if message is None else message.payload

    @property
    def id(self) -> str:
        """The message id; "" if it has none."""
        return self.properties.message_id or ""
