"""The effects: what the machine asks its driver to do.

An input returns a list of effects. The driver performs them in order, and must not change them. Every effect that is
about the link has the number of that link as ``epoch``; the driver drops it if that link is closed. If an effect cannot
be performed, the driver reports ``effect_failed`` or ``link_down``, and raises nothing. This module only defines the
effects; it does not know when the machine asks for which.

The effects that come with each message are not frozen, because a frozen data class takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic

from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId
from eda_core.messages.values import AnyMessage, Result
from eda_core.text import shortened
from eda_core.urls import redact


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the link. Then report ``link_up``, or ``link_down`` if it cannot be opened.

    A link has three open channels: one to consume on, one to publish on, for which the broker has answered
    ``Confirm.Select``, and one for logs. They may share a connection. But if there is a connection of its own for
    publishing, acknowledgements get through during a resource alarm (docs/design.rst, "Resource alarms").

    Attributes:
        url: the URL of the broker.
        name: the name of the connection, for the broker's list of connections.
        heartbeat: the heartbeat to propose, seconds; 0 for none.
    """

    epoch: Epoch
    url: str
    name: str
    heartbeat: int

    @property
    def user_timeout(self) -> int:
        """Two heartbeats, in milliseconds: for how long the peer may acknowledge nothing that was sent. 0: any time.

        It is the value for the socket option ``TCP_USER_TIMEOUT`` of the connection for consuming. With it the system
        ends a connection on a network that stalls; without it that takes up to 15 minutes. A connection on which
        messages are published must not have it: during a resource alarm the broker reads nothing from that one, and
        the system would end it.
        """
        return 2000 * self.heartbeat

    def __repr__(self) -> str:
        return f"Connect(epoch={self.epoch}, url={shortened(redact(self.url))!r})"


#: The channel of a link to declare, to consume and to acknowledge.
CONSUMING: Final = "consuming"
#: The channel of a link to publish with confirms.
PUBLISHING: Final = "publishing"
#: The channel of a link to publish logs.
LOGGING: Final = "logging"
#: A channel that is opened for one ``Declare``, which shows whether the node can still change definitions.
CHECKING: Final = "checking"

# What a broker may refuse during the login, for ``link_down``
#: The user name or the password.
CREDENTIALS: Final = "credentials"
#: The virtual host: it is missing, or the user may not use it.
VHOST: Final = "vhost"


@dataclass(frozen=True, slots=True)
class Declare:
    """Send AMQP methods on one channel, in order. When the broker has answered all, report ``declared``.

    Attributes:
        channel: ``CONSUMING``, or another name. That is the name of a channel for these commands alone: open it on the
            connection for consuming, and close it when the broker has answered all. There may be several at a time.
    """

    epoch: Epoch
    commands: tuple[base.Frame, ...]
    channel: str = CONSUMING

    def __repr__(self) -> str:
        shown = shortened(", ".join(command.name for command in self.commands))
        return f"Declare(epoch={self.epoch}, {shown}{_on(self.channel)})"


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume ``queue`` on the consuming channel under ``consumer_tag``, with acknowledgements."""

    epoch: Epoch
    queue: str
    consumer_tag: str

    def __repr__(self) -> str:
        return f"Consume(epoch={self.epoch}, queue={shortened(self.queue)!r}, consumer_tag={self.consumer_tag!r})"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the consumer ``consumer_tag`` on the consuming channel."""

    epoch: Epoch
    consumer_tag: str


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """Open a channel again that the broker has closed. Then report ``channel_opened``.

    Attributes:
        channel: ``PUBLISHING``, for which the broker has to answer ``Confirm.Select`` as well, or ``LOGGING``.
    """

    epoch: Epoch
    channel: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the broker for a sign of life: send ``Channel.Flow`` with ``active`` set, which changes nothing.

    Report ``alive`` with ``answered`` when ``Channel.FlowOk`` has come. The machine asks again before it gives up the
    link. Then send nothing more, and report ``alive`` if bytes of the broker have come since the last time, or if it
    has taken bytes that waited to be sent: it may be busy with a large message.

    Attributes:
        channel: ``CONSUMING`` or ``PUBLISHING``.
    """

    epoch: Epoch
    channel: str


#: The epoch of a publish that was not sent yet.
_NO_LINK: Final = Epoch(0)


@dataclass(slots=True, eq=False, repr=False)
class Publish:
    """Publish a message on the publishing channel. Then report ``confirmed`` or ``refused`` with its ``tag``.

    Attributes:
        pid: the number of the publish, which stays the same when it is sent again.
        exchange, routing_key, properties, body: the message.
        mandatory: whether the broker returns the message if it routes it to no queue.
        delivery: the delivery whose acknowledgement waits for the confirm, if any.
        ticket: the ticket of the caller, which comes back in ``PublishDone``; ``None`` if nobody waits.
        kept: whether it is sent again after a lost link. If not, the handler publishes it again when the broker has
            delivered ``delivery`` again.
        epoch: the number of the link; 0 before it is sent.
        tag: the broker's delivery tag for the confirm. The broker numbers the publishes of a channel from 1. The
            machine does the same, so a driver that performs these effects in order gets the same numbers. They begin
            again at 1 after ``OpenChannel``. 0 before it is sent.
        sent_at: when it was sent, monotonic seconds.
        asks_return: whether only ``PublishDone`` tells that the message was unroutable, and neither ``Returned`` nor a
            report.
        returned: why the broker has returned the message as unroutable; ``None`` if it has not.
    """

    pid: PublishId
    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes
    mandatory: bool = False
    delivery: DeliveryId | None = None
    ticket: int | None = None
    kept: bool = True
    epoch: Epoch = _NO_LINK
    tag: int = 0
    sent_at: float = 0.0
    asks_return: bool = False
    returned: str | None = None

    def again(self) -> Publish:
        """Return a copy that is not sent yet. (The driver may still hold the original.)"""
        return replace(self, tag=0, sent_at=0.0, returned=None)

    def __repr__(self) -> str:
        where = shortened(f"{self.exchange}/{self.routing_key}")
        return f"Publish(#{self.pid} {where}, {len(self.body)} bytes, tag={self.tag})"


@dataclass(slots=True)
class PublishLog:
    """Publish a log record on the channel for logs. It is not confirmed, and it is no error if this is impossible."""

    epoch: Epoch
    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes

    def __repr__(self) -> str:
        return f"PublishLog({shortened(self.routing_key)}, {len(self.body)} bytes)"


@dataclass(slots=True)
class Ack:
    """Send ``Basic.Ack`` on the consuming channel for a delivery tag of the broker, or, if ``multiple``, up to it."""

    epoch: Epoch
    tag: int
    multiple: bool


@dataclass(slots=True)
class Nack:
    """Send ``Basic.Nack`` on the consuming channel for one delivery tag. Without ``requeue`` it makes a dead letter."""

    epoch: Epoch
    tag: int
    requeue: bool


@dataclass(slots=True)
class Dispatch:
    """Run the handler for a message. Then report ``handled`` with its outcome."""

    delivery: DeliveryId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Close:
    """Close the link, by force after ``Config.close_timeout``, and report ``link_down``. Nothing more is sent on it.

    Attributes:
        unresponsive: the broker does not answer. To close in good order is no use then, and may do harm: a node of
            RabbitMQ that is cut off from its cluster and is asked to cancel a consumer keeps its messages for a minute.
    """

    epoch: Epoch
    reason: str
    unresponsive: bool = False

    def __repr__(self) -> str:
        return f"Close(epoch={self.epoch}, reason={shortened(self.reason)!r})"


@dataclass(frozen=True, slots=True)
class Ready:
    """Call the hook ``on_ready``: the service now consumes its messages."""


@dataclass(frozen=True, slots=True)
class Unconfigured:
    """Call the hook ``on_unconfigured``: the service now waits for its configuration, or the last one was of no use."""


@dataclass(frozen=True, slots=True)
class Returned:
    """Call the hook ``handle_returned_message``: the broker routed a mandatory message to no queue.

    Attributes:
        payload: the payload of the message; ``None`` if it cannot be decoded.
        envelope: its headers, and ``reply_to`` and ``correlation_id`` if it has them.
        reason: the text of the broker.
    """

    name: str
    payload: Any
    envelope: Mapping[str, Any]
    reason: str

    def __repr__(self) -> str:
        return f"Returned({shortened(self.name)!r}, {shortened(self.reason)!r})"


@dataclass(slots=True)
class PublishDone:
    """Tell the caller of ``publish`` that its message is confirmed, or held until its handler ends, or has failed.

    Attributes:
        error: why it has failed, finally; ``None`` if it has not.
        refused: whether it has failed because the broker does not take this message.
        returned: the text with which the broker has returned a mandatory message as unroutable before it confirmed it;
            ``None`` if it has not.
    """

    ticket: int
    error: str | None = None
    returned: str | None = None
    refused: bool = False

    def __repr__(self) -> str:
        returned = f", returned={shortened(self.returned)!r}" if self.returned is not None else ""
        return f"PublishDone({self.ticket}{_because(self.error)}{returned})"


@dataclass(slots=True)
class Replied:
    """Tell the caller of ``call`` that the call has ended. :func:`eda_core.answer` makes a value or an exception of it.

    Attributes:
        result: the result; ``None`` if there is none, and then ``error`` says why.
        timed_out: whether there is none because it did not come in time.
    """

    ticket: int
    command: str
    result: Result | None
    error: str = ""
    timed_out: bool = False

    def __repr__(self) -> str:
        result = "" if self.result is None else f", {self.result!r}"
        return f"Replied({self.ticket}, {shortened(self.command, 60)!r}{result}{_because(self.error)})"


@dataclass(frozen=True, slots=True)
class BufferAvailable:
    """Let the callers that got ``BufferFull`` try again: there is space for at least one publish or call.

    Let them try one after the other, in the order in which they came, until one gets ``BufferFull`` again. Those behind
    it wait for the next effect. To wake all of them for one free place takes quadratic time.
    """


@dataclass(frozen=True, slots=True)
class Report:
    """Write a text to the local log of the process.

    Attributes:
        level: a syslog severity (:mod:`eda_core.criticality`).
        event: the name of what has happened (docs/log-events.rst).
    """

    level: int
    text: str
    event: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"Report({self.level}, {shortened(self.text)!r})"


@dataclass(frozen=True, slots=True)
class Stopped:
    """End: the service has stopped. ``error`` says why if nobody asked it to. No other effect follows."""

    error: str | None = None

    def __repr__(self) -> str:
        return f"Stopped({_because(self.error)[2:]})"


def _on(channel: str) -> str:
    return "" if channel == CONSUMING else f", channel={channel!r}"


def _because(error: str | None) -> str:
    return f", error={shortened(error)!r}" if error else ""


#: The effects after whose failure the link has to be closed.
ON_LINK: Final = (Declare, Consume, Cancel, OpenChannel, Probe, Publish, Ack, Nack)

_ForLink = Connect | Declare | Consume | Cancel | OpenChannel | Probe | Publish | PublishLog | Ack | Nack | Close
_ForService = Dispatch | Ready | Unconfigured | Returned | PublishDone | Replied | BufferAvailable | Report | Stopped
#: Any effect.
Effect = _ForLink | _ForService
