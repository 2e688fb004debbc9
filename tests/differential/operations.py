"""What a client may do, as values.

Names are symbolic: ``q0`` and ``x0`` get the prefix of the sequence when they are sent, ``@1`` is the first queue that
the server named. A delivery is named by its place among the unsettled ones, never by its tag: tags depend on the order
between queues, which RabbitMQ does not define.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from eda_core.testing.broker.addresses import NAME

#: Times to live in milliseconds: one is over before the next operation, the other never is in a test.
TINY: Final = 8
NEVER: Final = 3_600_000

QUEUES: Final = ("q0", "q1", "q2", "q3")
EXCHANGES: Final = ("x0", "x1", "x2")
#: Stands for the first queue with messages that the connection may use.
FILLED: Final = "a filled queue"
#: Stand for the first queue that the connection may use, and the first of those with a request for a direct reply.
ANY: Final = "any queue"
ASKED: Final = "a queue with a request"
#: Stands for a queue that has a consumer, if there is one.
CONSUMED: Final = "a consumed queue"
#: Stands for an address for direct replies, if there is one. If there is none, something is done towards it.
ADDRESS: Final = "an address"
#: Stands for a queue that is exclusive to the other connection. If there is none, one is declared instead.
FOREIGN: Final = "a foreign queue"


class Place(NamedTuple):
    """A channel of one of the two connections."""

    connection: int
    channel: int


@dataclass(frozen=True, slots=True)
class Call:
    """One method. ``name`` is its name in pamqp."""

    label: str
    at: Place
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publish:
    """``count`` messages at once. The bodies of a sequence are numbered."""

    label: str
    at: Place
    exchange: str
    key: str
    count: int = 1
    mandatory: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle the delivery at place ``pick`` (modulo their number).

    If no delivery of the channel is unsettled, one of another channel is settled. If there is none at all, a message is
    fetched instead, or published.
    """

    label: str
    at: Place
    how: str
    pick: int
    multiple: bool = False
    requeue: bool = False


@dataclass(frozen=True, slots=True)
class SettleUnknown:
    """Settle a tag that was never delivered (``future``, ``huge``), one that is settled (``past``), or tag 0."""

    label: str
    at: Place
    how: str
    tag: str
    multiple: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """Close a ``channel`` or a ``connection``, or ``hang up``: cut the connection."""

    label: str
    at: Place
    what: str


Operation = Call | Publish | Settle | SettleUnknown | Leave

PLACES: Final = tuple(Place(connection, channel) for connection in (0, 1) for channel in (1, 2))

#: A channel begins to consume direct replies.
CONSUME_REPLIES: Final = Call(
    "consume direct replies",
    PLACES[0],
    "Basic.Consume",
    {"queue": NAME, "consumer_tag": "r", "no_ack": True, "exclusive": False},
)
