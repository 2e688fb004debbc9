"""The messages of the architecture as values: events, commands, results, configurations and log records.

Each kind is a class (docs/architecture.rst, "Kinds of messages"). They know nothing of how they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from eda_core.text import shortened

#: The type of payloads, under eventail's name.
JSON_MODEL: TypeAlias = dict[str, Any]
#: The type of ``meta``, under eventail's name.
HEADER: TypeAlias = dict[str, Any]

#: The status of a result of a command that succeeded.
SUCCESS: Final = "success"
#: The status of a result of a command that failed.
ERROR: Final = "error"


@dataclass(slots=True, repr=False)
class Message:
    """The attributes that all kinds of messages have.

    Attributes:
        name: the routing key: the name of an event or a configuration, ``service.Command``, the ``reply_to`` of the
            command that a result answers, or ``service.LEVEL``.
        payload: a value of the JSON data model; with CBOR also dates, decimals, bytes and others.
        conversation_id: the same for all messages of one conversation; "" if there is none.
        meta: a dict. In a received message: all headers and properties that are no other attribute, and always
            ``timestamp``, ``expiration``, ``user_id``, ``app_id`` and ``delivery_tag``. In a message to publish:
            headers to add, and the properties ``timestamp``, ``expiration``, ``app_id``, ``priority``, ``message_type``
            and ``content_encoding``.
    """

    name: str
    payload: Any
    conversation_id: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shortened(self.name, 60)} {shortened(self.conversation_id, 40) or '-'}>"


@dataclass(slots=True, repr=False)
class Event(Message):
    """A fact, named in the past tense, for all services that subscribe to it."""

    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, repr=False)
class Command(Message):
    """A request to one service.

    Attributes:
        reply_to: the routing key for the result, not empty.
        correlation_id: tells the sender which command a result belongs to; "" if the sender gave none.
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
    """A configuration of services. Each worker that subscribes to it gets a copy; no queue stores it."""

    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, repr=False)
class LogRecord(Message):
    """A log record from the ``logs`` exchange. Its payload is a GELF record. Only tools receive these."""

    meta: dict[str, Any] = field(default_factory=dict)


#: A message of any kind.
AnyMessage = Event | Command | Result | Configuration | LogRecord


def kind_of(message: AnyMessage) -> str:
    """Return the kind of a message in one word: event, command, result, configuration or log."""
    return "log" if type(message) is LogRecord else type(message).__name__.lower()
