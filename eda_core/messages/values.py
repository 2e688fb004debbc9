"""The messages of the architecture, as values: events, commands, results, configurations and log records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from eda_core.text import shortened

#: eventail's names for the types of payloads and of headers.
JSON_MODEL: TypeAlias = dict[str, Any]
HEADER: TypeAlias = dict[str, Any]

SUCCESS: Final = "success"
ERROR: Final = "error"


@dataclass(slots=True, repr=False)
class Message:
    """What all kinds of messages have.

    Attributes:
        name: the routing key (an event's name, ``service.Command``, a result's ``reply_to``, ``service.LEVEL``).
        payload: any value of the JSON data model, and with CBOR also dates, decimals, bytes …
        conversation_id: the one value that all messages of a conversation carry; "" where there is none.
        meta: on receiving, every header and property without a place of its own, and ``timestamp``, ``expiration``,
            ``user_id``, ``app_id`` and ``delivery_tag`` always. On publishing, headers to add (those four are set as
            properties).
    """

    name: str
    payload: Any
    conversation_id: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shortened(self.name, 60)} {shortened(self.conversation_id, 40) or '-'}>"


@dataclass(slots=True, repr=False)
class Event(Message):
    """A fact, in the past tense, for whoever subscribes."""

    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, repr=False)
class Command(Message):
    """A request to one service.

    Attributes:
        reply_to: the routing key of its result, not empty.
        correlation_id: pairs the result with this command; "" where the sender gave none.
    """

    reply_to: str
    correlation_id: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, repr=False)
class Result(Message):
    """The answer to a command.

    Attributes:
        status: ``"success"`` or ``"error"``.
        correlation_id: that of the command.
    """

    status: str
    correlation_id: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, repr=False)
class Configuration(Message):
    """An event that configures every worker that subscribes; neither balanced nor stored."""

    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, repr=False)
class LogRecord(Message):
    """A GELF record off the ``logs`` exchange; only tools receive them."""

    meta: dict[str, Any] = field(default_factory=dict)


AnyMessage = Event | Command | Result | Configuration | LogRecord
