"""Identifiers, the messages of the architecture, and what a handler's run came to.

Identifiers are whole numbers that carry the epoch of their link in their upper bits (rule R4): one that outlives its
link can never be mistaken for one of the next. Deliveries and publishes have types of their own (rule R5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NewType, TypeAlias

from eda_core.criticality import ALERT
from eda_core.errors import LocalError
from eda_core.gelf import check_level

#: Counts the links of one service, from 1. Each attempt to connect is a new one.
Epoch = NewType("Epoch", int)
#: A message received, unique over the life of the service. Handlers see it as ``meta["delivery_tag"]``.
DeliveryId = NewType("DeliveryId", int)
#: A message accepted for publishing, unique over the life of the service, in the order of acceptance.
PublishId = NewType("PublishId", int)

#: eventail's names for the types of payloads and of headers.
JSON_MODEL: TypeAlias = dict[str, Any]
HEADER: TypeAlias = dict[str, Any]

#: AMQP delivery tags are per channel and count from 1; 2^48 deliveries on one link take ninety years at 100,000 per
#: second.
TAG_BITS: Final = 48
TAG_MASK: Final = (1 << TAG_BITS) - 1

SUCCESS: Final = "success"
ERROR: Final = "error"


def delivery_id(epoch: Epoch, tag: int) -> DeliveryId:
    """The identifier of the delivery with the broker's ``tag`` on link ``epoch``."""
    return epoch << TAG_BITS | tag  # type: ignore[return-value]  # calling a NewType costs as much as all of this


def shortened(text: str, width: int = 80) -> str:
    """The first line of ``text``, of at most ``width`` characters, for a ``repr``."""
    line = text.partition("\n")[0]
    return line if len(line) <= width and line == text else f"{line[: width - 1]}…"


def is_number(value: object) -> bool:
    """Whether ``value`` is a whole number or a float, which ``True`` is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_seconds(what: str, value: object) -> None:
    """See that ``value`` is a length of time.

    Raises:
        LocalError: it is no number, not more than 0, or endless.
    """
    if not is_number(value) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise LocalError(f"{what} is {value!r}", hint="give seconds, more than 0")


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


@dataclass(frozen=True, slots=True)
class Done:
    """The handler succeeded: publish what it published, then acknowledge."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The handler succeeded and will acknowledge the message itself."""


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration handler succeeded and the service is now configured."""


@dataclass(frozen=True, slots=True, repr=False)
class Failed:
    """The handler failed: what it published is forgotten, the retry policy decides.

    Attributes:
        reason: one line.
        detail: the traceback, or "".
        permanent: trying again cannot help: dead-letter at once.
        level: criticality of the log.

    Raises:
        LocalError: the level is not a syslog severity.
    """

    reason: str
    detail: str = ""
    permanent: bool = False
    level: int = ALERT

    def __post_init__(self) -> None:
        check_level(self.level)

    def __repr__(self) -> str:
        return f"Failed({shortened(self.reason)!r})"


Outcome = Done | Deferred | Configured | Failed

DONE: Final = Done()
DEFERRED: Final = Deferred()
CONFIGURED: Final = Configured()
