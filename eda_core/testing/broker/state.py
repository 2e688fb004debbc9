"""The state of connections and channels, and what is sent to them. Data only: the engine changes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pamqp import base, commands

from eda_core.testing.broker.message import AmqpMessage
from eda_core.testing.broker.queue import ConnectionId, entry_image
from eda_core.testing.broker.ready import Entry

F = TypeVar("F", bound=base.Frame)


@dataclass(slots=True)
class Outgoing:
    """One method that the broker sends to a client.

    Attributes:
        channel: 0 for the methods of class Connection.
        properties: of the content of Deliver, GetOk and Return. They are shared: nobody may change them in place.
        body: of that content.
    """

    connection: ConnectionId
    channel: int
    method: base.Frame
    properties: commands.Basic.Properties | None = None
    body: bytes = b""


def frame(kind: type[F], **values: Any) -> F:
    """A method with these arguments. (pamqp's constructor would refuse names that RabbitMQ allows.)"""
    made = kind()
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Pending(NamedTuple):
    """A delivery that is not settled.

    Attributes:
        queue: the uid of its queue.
        tag: of the consumer that has it; ``None`` if ``Basic.Get`` fetched it.
        number: of that consumer on its channel; 0 if ``Basic.Get`` fetched it.
    """

    queue: int
    tag: str | None
    entry: Entry
    number: int


class HeldPublish(NamedTuple):
    """A message that a transaction publishes when it is committed.

    Attributes:
        queues: the names of those that it goes to, as the exchanges had it when it came.
        uids: of those that there were, by name; ``None`` for a quorum queue, which is found by its name.
    """

    message: AmqpMessage
    mandatory: bool
    queues: tuple[str, ...]
    uids: dict[str, int | None]

    def image(self) -> tuple[Any, ...]:
        return (self.message.image(), self.mandatory, self.queues, tuple(self.uids.items()))


class HeldSettlement(NamedTuple):
    """Deliveries that a transaction settles when it is committed.

    Attributes:
        how, failed: as for ``Engine.settle``.
        deliveries: by tag.
    """

    how: str
    failed: bool
    deliveries: dict[int, Pending]


@dataclass(slots=True)
class Transaction:
    """What a channel with ``Tx.Select`` holds until it is committed, in order."""

    publishes: list[HeldPublish] = field(default_factory=list)
    settlements: list[HeldSettlement] = field(default_factory=list)

    def hold(self, how: str, failed: bool, deliveries: dict[int, Pending]) -> None:
        """Hold a settlement. It joins the last one if that is of the same kind."""
        if self.settlements and self.settlements[-1][:2] == (how, failed):
            self.settlements[-1].deliveries.update(deliveries)
        else:
            self.settlements.append(HeldSettlement(how, failed, deliveries))

    def deliveries(self) -> dict[int, Pending]:
        """The deliveries that it settles, by tag."""
        return {tag: pending for held in self.settlements for tag, pending in held.deliveries.items()}

    def clone(self) -> Transaction:
        settlements = [HeldSettlement(how, failed, held.copy()) for how, failed, held in self.settlements]
        return Transaction(self.publishes.copy(), settlements)


class ReplyConsumer(NamedTuple):
    """The consumer of direct replies of a channel."""

    tag: str
    key: str


@dataclass(slots=True)
class Channel:
    """The state of one channel.

    Attributes:
        closing: the broker has closed it, and the client has not confirmed that.
        confirming: the client has asked for confirms.
        next_publish, next_delivery: the next tags.
        unconfirmed: the tags of publishes that wait for ``Broker.confirm``, in order.
        unacked: the deliveries that are not settled, by tag.
        consumers: the uids of their queues, by consumer tag.
        consumed: how many consumers it has had.
        prefetch: for each new consumer; 0 for no limit.
        global_limit: a prefetch that the consumers share; 0 for none.
        volume: how many deliveries count towards ``global_limit``.
        suspended: the uids of queues that wait until ``volume`` is below ``global_limit``.
        last_queue: the queue that was declared last: methods may leave out its name.
        serial: how many channels the connection had before it.
        transaction: what waits for a commit, if the client has asked for transactions.
        replies: its consumer of direct replies, if there is one.
    """

    connection: ConnectionId
    number: int
    closing: bool = False
    confirming: bool = False
    next_publish: int = 1
    unconfirmed: list[int] = field(default_factory=list)
    next_delivery: int = 1
    unacked: dict[int, Pending] = field(default_factory=dict)
    consumers: dict[str, int] = field(default_factory=dict)
    consumed: int = 0
    prefetch: int = 0
    global_limit: int = 0
    volume: int = 0
    suspended: set[int] = field(default_factory=set)
    last_queue: str = ""
    serial: int = 0
    transaction: Transaction | None = None
    replies: ReplyConsumer | None = None

    def outstanding(self) -> Iterator[tuple[int, Pending]]:
        """The deliveries that their queues wait for, by tag: those that a transaction holds are among them."""
        yield from self.unacked.items()
        if self.transaction is not None:
            yield from self.transaction.deliveries().items()

    def roll_back(self) -> None:
        """Forget what a transaction holds: the deliveries that it was to settle are unsettled."""
        if self.transaction is not None:
            self.unacked = dict(sorted(self.outstanding()))
            self.transaction = Transaction()

    @property
    def limited(self) -> bool:
        """Whether the shared prefetch is used up."""
        return self.global_limit > 0 and self.volume >= self.global_limit

    def clone(self) -> Channel:
        copy = Channel(self.connection, self.number, self.closing, self.confirming, self.next_publish)
        copy.unconfirmed = self.unconfirmed.copy()
        copy.next_delivery = self.next_delivery
        copy.unacked = self.unacked.copy()
        copy.consumers, copy.consumed = dict(self.consumers), self.consumed
        copy.prefetch, copy.global_limit, copy.volume = self.prefetch, self.global_limit, self.volume
        copy.suspended = set(self.suspended)
        copy.last_queue = self.last_queue
        copy.transaction = None if self.transaction is None else self.transaction.clone()
        copy.serial, copy.replies = self.serial, self.replies
        return copy

    def snapshot(self, ranks: dict[int, dict[int, int]]) -> tuple[Any, ...]:
        def image(deliveries: dict[int, Pending]) -> tuple[Any, ...]:
            return tuple(
                (tag, p.queue, p.tag, entry_image(p.entry, ranks.get(p.queue, {}))) for tag, p in deliveries.items()
            )

        held: tuple[Any, ...] | None = None
        if self.transaction is not None:
            settlements = tuple((how, failed, image(held)) for how, failed, held in self.transaction.settlements)
            held = (tuple(publish.image() for publish in self.transaction.publishes), settlements)
        return (
            (self.number, self.closing, self.confirming, self.next_publish, self.next_delivery, self.last_queue),
            (self.prefetch, self.global_limit, self.volume, tuple(sorted(self.suspended))),
            tuple(self.unconfirmed),
            tuple(sorted(self.consumers.items())),
            image(self.unacked),
            (held, self.replies, self.serial),
        )


Held = tuple[int, base.Frame, commands.Basic.Properties | None, bytes]


@dataclass(slots=True)
class Connection:
    """The state of one connection.

    Attributes:
        blocked: by a resource alarm.
        held: what came in since: channel, method, properties, body.
        opened: how many channels it has had.
        room: how many bytes its consumers may get before the client has read some; ``None`` for any number.
    """

    id: ConnectionId
    vhost: str
    user: str
    channels: dict[int, Channel] = field(default_factory=dict)
    blocked: bool = False
    held: list[Held] = field(default_factory=list)
    room: int | None = None
    opened: int = 0

    @property
    def full(self) -> bool:
        """Whether the client has to read before its consumers get more."""
        return self.room is not None and self.room <= 0

    def clone(self) -> Connection:
        channels = {number: channel.clone() for number, channel in self.channels.items()}
        return Connection(
            self.id, self.vhost, self.user, channels, self.blocked, self.held.copy(), self.room, self.opened
        )
