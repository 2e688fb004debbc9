"""The deliveries of one link that are not settled, and how their acknowledgements go out (rule R8)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pamqp.commands import Basic

from eda_core.machine.effects import Ack, Effect, Publish
from eda_core.machine.identifiers import DeliveryId, Epoch, delivery_id
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import AnyMessage

# Where a delivery stands
RUNNING: Final = "running"  # its handler runs
DEFERRED: Final = "deferred"  # its handler succeeded and will acknowledge by itself
WAITING: Final = "waiting"  # to be settled as soon as its publishes are confirmed

# What a handler that settles its message by hand wants of it
ACK: Final = "ack"
REJECT: Final = "reject"
REQUEUE: Final = "requeue"

#: A broker's tags are consecutive. One out of the blue would be no identifier (of 48 bits), or take for ever to count
#: up to; so many may be missing.
_LONGEST_GAP: Final = 1 << 20


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """A message being handled.

    Attributes:
        tag: the broker's.
        properties, body: as it was delivered, for a delayed retry.
        key: what recognizes the message when it is redelivered.
        attempt: which attempt at it this is, from 1.
        stage: RUNNING, DEFERRED or WAITING.
        held: what its handler published so far, to be sent when it succeeds (rule R6).
        unconfirmed: how many of its publishes were sent and are not confirmed.
        verdict: how it was settled by hand: ACK, REJECT, REQUEUE, a failure, or ``None`` if it was not.
        group: those it is to be acknowledged together with.
    """

    id: DeliveryId
    tag: int
    message: AnyMessage
    properties: Basic.Properties
    body: bytes
    key: Hashable
    attempt: int
    held: list[Publish]
    stage: str = RUNNING
    unconfirmed: int = 0
    verdict: str | Failed | None = None
    group: Group | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self.tag} {self.message!r} {self.stage}, attempt {self.attempt}>"


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """Deliveries of which none is acknowledged before all can be.

    Attributes:
        members: those that have not failed.
        missing: how many cannot be yet.
        ready: the others.
    """

    members: list[Delivery]
    missing: int
    ready: list[Delivery] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Group of {len(self.members)}, {self.missing} missing>"

    def one_less(self) -> list[Delivery]:
        """One is no longer waited for; what can be acknowledged now."""
        self.missing -= 1
        return [] if self.missing else self.ready


class InFlight:
    """The unsettled deliveries of one link, by identifier, in the order of delivery.

    Attributes:
        by_id: they; to be looked up in, and added to, directly: each message takes four looks.
        settled: the broker's tags of what is to be acknowledged with the next :meth:`flush`.

    All consumers of a link share a channel, so its tags are consecutive, and the lowest unsettled one tells how far a
    ``multiple`` acknowledgement may reach.
    """

    __slots__ = ("_base", "_epoch", "_low", "_newest", "by_id", "settled")

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self._base = delivery_id(epoch, 0)
        self.by_id: dict[DeliveryId, Delivery] = {}
        self._low = 1
        self._newest = 0
        self.settled: list[int] = []

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self.by_id.values())

    def seen(self, tag: int) -> bool:
        """Note that the broker has used this tag; false if it had before, or cannot have come so far."""
        newest = self._newest
        if newest < tag <= newest + _LONGEST_GAP:
            self._newest = tag
            return True
        return False

    def remove(self, delivery: Delivery) -> None:
        """It was settled in another way than by an acknowledgement."""
        del self.by_id[delivery.id]

    def acknowledge(self, delivery: Delivery) -> None:
        """It is to be acknowledged with the next :meth:`flush`."""
        del self.by_id[delivery.id]
        self.settled.append(delivery.tag)

    def flush(self, effects: list[Effect]) -> None:
        """Acknowledge what was settled since the last flush; there must be something.

        What lies below every unsettled delivery goes out as one acknowledgement; what lies behind a gap goes singly, so
        that a slow handler holds nobody up.
        """
        settled = self.settled
        if len(settled) == 1:
            effects.append(Ack(self._epoch, settled.pop(), False))
            return
        settled.sort()
        low = self._lowest_unsettled()
        prefix = [tag for tag in settled if tag < low]
        if prefix:
            effects.append(Ack(self._epoch, prefix[-1], len(prefix) > 1))
        effects.extend(Ack(self._epoch, tag, False) for tag in settled[len(prefix) :])
        settled.clear()

    def _lowest_unsettled(self) -> int:
        while self._low <= self._newest and self._base + self._low not in self.by_id:
            self._low += 1
        return self._low
