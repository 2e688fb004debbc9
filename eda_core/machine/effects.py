"""What the machine asks of its driver.

An input returns a list of these, to be performed in order. Every effect that touches the link carries the ``epoch`` of
that link: a driver that has gone on to another one drops it. An effect that could not be performed is reported by
``effect_failed`` (or ``link_down``), never raised.

Effects are not to be changed by a driver. Those that come with each message are not frozen all the same: freezing makes
the construction of a data class three times slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic

from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId
from eda_core.messages.values import AnyMessage, Result
from eda_core.text import shortened
from eda_core.urls import redact


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the link and report ``link_up`` once it is complete, or ``link_down``.

    Complete means three open channels: one to consume on, one to publish on with ``Confirm.Select`` answered, one for
    logs. They may share a connection, but a connection of its own for publishing lets acknowledgements through during a
    resource alarm (docs/design.rst, "Resource alarms").

    Attributes:
        url: where to.
        name: the connection name to announce.
        heartbeat: seconds to propose.
    """

    epoch: Epoch
    url: str
    name: str
    heartbeat: int

    def __repr__(self) -> str:
        return f"Connect(epoch={self.epoch}, url={shortened(redact(self.url))!r})"


@dataclass(frozen=True, slots=True)
class Declare:
    """Send these commands on the consuming channel, in order, and report ``declared`` with their replies."""

    epoch: Epoch
    commands: tuple[base.Frame, ...]

    def __repr__(self) -> str:
        return f"Declare(epoch={self.epoch}, {shortened(', '.join(command.name for command in self.commands))})"


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
    """Cancel the consumer on the consuming channel."""

    epoch: Epoch
    consumer_tag: str


#: Of what was not sent yet.
_NO_LINK: Final = Epoch(0)


@dataclass(slots=True, eq=False, repr=False)
class Publish:
    """Publish on the publishing channel; report ``confirmed`` or ``refused`` with ``tag``.

    Attributes:
        pid: which publish it is, the same when it is sent again.
        exchange, routing_key, properties, body: the message.
        mandatory: the broker returns the message if no queue is bound for it.
        delivery: the delivery whose acknowledgement waits for the confirm, if any.
        ticket: what the caller gave to recognize its ``PublishDone`` by.
        kept: sent again after a lost link (otherwise the redelivery of ``delivery`` makes it again).
        epoch: the link that it was handed to.
        tag: the delivery tag of its confirm. The tags of a link count from 1, in the order of the effects; 0 before it
            was handed to the driver.
        sent_at: when it was handed to the driver, monotonic seconds.
        asks_return: ``PublishDone`` alone says whether it was unroutable: no hook, no report.
        returned: why the broker returned it as unroutable; ``None`` if it did not.
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
        """A copy that was not sent yet. The driver may still hold this one."""
        return replace(self, tag=0, sent_at=0.0, returned=None)

    def __repr__(self) -> str:
        where = shortened(f"{self.exchange}/{self.routing_key}")
        return f"Publish(#{self.pid} {where}, {len(self.body)} bytes, tag={self.tag})"


@dataclass(slots=True)
class PublishLog:
    """Publish on the logs channel, to ``exchange``: transient, not confirmed, never repeated. A failure is no error."""

    epoch: Epoch
    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes

    def __repr__(self) -> str:
        return f"PublishLog({shortened(self.routing_key)}, {len(self.body)} bytes)"


@dataclass(slots=True)
class Ack:
    """``Basic.Ack`` on the consuming channel; ``tag`` is the broker's."""

    epoch: Epoch
    tag: int
    multiple: bool


@dataclass(slots=True)
class Nack:
    """``Basic.Nack`` of one delivery on the consuming channel: back to the queue, or to the dead letters."""

    epoch: Epoch
    tag: int
    requeue: bool


@dataclass(slots=True)
class Dispatch:
    """Run the handler for ``message`` and report ``handled`` with its outcome."""

    delivery: DeliveryId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Close:
    """Close the link, in time or by force, and report ``link_down``. Nothing more is sent on it."""

    epoch: Epoch
    reason: str

    def __repr__(self) -> str:
        return f"Close(epoch={self.epoch}, reason={shortened(self.reason)!r})"


@dataclass(frozen=True, slots=True)
class Ready:
    """The service consumes business messages: call ``on_ready``."""


@dataclass(frozen=True, slots=True)
class Unconfigured:
    """The service waits for its configuration: call ``on_unconfigured``."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A mandatory publish had no queue to go to: call ``handle_returned_message``.

    Attributes:
        envelope: ``reply_to`` and ``correlation_id`` where given, and the headers.
        reason: the broker's words.
    """

    name: str
    payload: Any
    envelope: Mapping[str, Any]
    reason: str

    def __repr__(self) -> str:
        return f"Returned({shortened(self.name)!r}, {shortened(self.reason)!r})"


@dataclass(slots=True)
class PublishDone:
    """The publish made with ``ticket`` is confirmed, or held for the end of its handler, or has failed for good.

    Attributes:
        error: why it has failed.
        returned: it is confirmed, but it was mandatory and no queue was bound for it: the broker's words.
    """

    ticket: int
    error: str | None = None
    returned: str | None = None

    def __repr__(self) -> str:
        returned = f", returned={shortened(self.returned)!r}" if self.returned is not None else ""
        return f"PublishDone({self.ticket}{_because(self.error)}{returned})"


@dataclass(slots=True)
class Replied:
    """The call made with ``ticket`` is over; :func:`eda_core.machine.calls.answer` is what to tell the caller.

    Attributes:
        result: ``None`` if there is none, and then ``error`` says why.
        timed_out: because it did not come in time.
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
    """The buffer takes publishes again, after one was refused with ``BufferFull``."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something for the local log of the process.

    Attributes:
        level: criticality, 0 to 7.
    """

    level: int
    text: str

    def __repr__(self) -> str:
        return f"Report({self.level}, {shortened(self.text)!r})"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The life of the service is over. ``error`` says why when it was not asked to stop."""

    error: str | None = None

    def __repr__(self) -> str:
        return f"Stopped({_because(self.error)[2:]})"


def _because(error: str | None) -> str:
    return f", error={shortened(error)!r}" if error else ""


#: Effects whose failure means that the link is of no use any more.
ON_LINK: Final = (Declare, Consume, Cancel, Publish, Ack, Nack)

Effect = (
    Connect
    | Declare
    | Consume
    | Cancel
    | Publish
    | PublishLog
    | Ack
    | Nack
    | Dispatch
    | Close
    | Ready
    | Unconfigured
    | Returned
    | PublishDone
    | Replied
    | BufferAvailable
    | Report
    | Stopped
)
