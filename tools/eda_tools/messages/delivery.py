"""A message as it came from the broker, and its parts by the names that all tools use. It does not show them.

:func:`fields` is the one place that says what the parts of a message are called.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.messages.codec import DEFAULT_LIMITS, DecodeError, decode
from eda_core.messages.envelope import InvalidEnvelope, open_envelope
from eda_core.messages.routing import EXCHANGES
from eda_core.messages.values import AnyMessage, Command, Result, kind_of
from eda_core.testing.deaths import published
from eda_core.testing.recordings import PROPERTIES as PROPERTIES

#: How many characters of a conversation id lines show. Those of a UUID are enough to tell it from others.
BEGINNING: Final = 8

#: The first words of paths in ``--where``.
FIELDS: Final = (
    "kind",
    "name",
    "conversation_id",
    "correlation_id",
    "reply_to",
    "status",
    "payload",
    "error",
    "exchange",
    "routing_key",
    "redelivered",
    "received",
    "size",
    "properties",
    "headers",
)


def now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(slots=True)
class Delivery:
    """A message from a queue, exactly as the broker delivered it.

    Attributes:
        exchange: the exchange to which it was published last, or the dead-letter exchange.
        received: when it arrived, in UTC.
    """

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes
    redelivered: bool = False
    received: datetime.datetime = field(default_factory=now)

    @property
    def headers(self) -> dict[str, Any]:
        """The headers; empty if there are none."""
        headers = self.properties.headers
        return headers if isinstance(headers, dict) else {}

    def origin(self) -> tuple[str, str]:
        """Exchange and routing key of its first publish, before it died, as far as its headers tell."""
        if self.exchange in EXCHANGES:
            return self.exchange, self.routing_key
        return published(self.headers, self.routing_key) or (self.exchange, self.routing_key)

    def opened(self) -> AnyMessage | InvalidEnvelope:
        """The message, or why it is invalid."""
        exchange, key = self.origin()
        try:
            return open_envelope(exchange, key, self.properties, self.body, DEFAULT_LIMITS)
        except InvalidEnvelope as invalid:
            return invalid


def fields(delivery: Delivery) -> dict[str, Any]:
    """The parts of a message by the names in :data:`FIELDS`, as Python values. Parts that it does not have are missing.

    ``name``, ``exchange`` and ``routing_key`` of a dead letter are those of its first publish. ``error`` says why a
    message is invalid; it has a ``payload`` if the body alone can be read.
    """
    message = delivery.opened()
    exchange, key = delivery.origin()
    found: dict[str, Any] = {"kind": "invalid", "name": key}
    if isinstance(message, InvalidEnvelope):
        found["conversation_id"] = message.conversation_id
        found["error"] = str(message)
        found.update(_payload(delivery))
    else:
        found["kind"] = kind_of(message)
        found["conversation_id"] = message.conversation_id
        if isinstance(message, (Command, Result)):
            found["correlation_id"] = message.correlation_id
        if isinstance(message, Command):
            found["reply_to"] = message.reply_to
        if isinstance(message, Result):
            found["status"] = message.status
        found["payload"] = message.payload
    found["exchange"], found["routing_key"] = exchange, key
    found["redelivered"], found["received"], found["size"] = delivery.redelivered, delivery.received, len(delivery.body)
    found["properties"] = properties_of(delivery.properties)
    found["headers"] = delivery.headers
    return found


def is_of(found: Mapping[str, Any], conversation: str) -> bool:
    """Whether a message, by its :func:`fields`, is of the conversation with this id, or whose id begins so.

    Only :data:`BEGINNING` characters or more are taken for the beginning of an id: lines show so many.
    """
    identifier = found["conversation_id"]
    return bool(
        identifier == conversation or (len(conversation) >= BEGINNING and str(identifier).startswith(conversation))
    )


def _payload(delivery: Delivery) -> dict[str, Any]:
    try:
        return {"payload": decode(delivery.body, delivery.properties.content_type, DEFAULT_LIMITS)}
    except DecodeError:
        return {}


def properties_of(properties: Basic.Properties) -> dict[str, Any]:
    """The properties that are set, by AMQP's names, without the headers."""
    values = ((name, getattr(properties, attribute)) for name, attribute in PROPERTIES.items())
    return {name: value for name, value in values if value is not None}
