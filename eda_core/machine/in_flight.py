"""The deliveries of one link that are not settled, and how their acknowledgements go out (rule R8).

It knows nothing of handlers, attempts and publishes: :mod:`eda_core.machine.deliveries` decides what becomes of a
delivery.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final

from pamqp.commands import Basic

from eda_core.machine.effects import Ack, Effect, Publish
from eda_core.machine.identifiers import DeliveryId, Epoch, delivery_id
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import AnyMessage

#: The tags of a channel are consecutive. So many may be missing: a tag out of the blue would be no identifier (of 48
#: bits), or take for ever to count up to.
_LONGEST_GAP: Final = 1 << 20


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """A message that was delivered and is not settled.

    Attributes:
        tag: the broker's delivery tag.
        properties, body: as they came, for a delayed retry.
        key: recognizes the message when it is redelivered.
        attempt: which attempt at the message this is, from 1.
        held: what its handler has published so far, to be sent when the handler succeeds (rule R6).
        stage: where its life stands, a constant of :mod:`eda_core.machine.deliveries`.
        unconfirmed: how many of its publishes were accepted, are not held, and are not confirmed.
        failure: how it failed, of one that is to fail when its handler ends.
        group: the deliveries that it is to be acknowledged together with.
    """

    id: DeliveryId
    tag: int
    message: AnyMessage
    properties: Basic.Properties
    body: bytes
    key: Hashable
    attempt: int
    held: list[Publish]
    stage: str
    unconfirmed: int = 0
    failure: Failed | None = None
    group: Group | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self.tag} {self.message!r} {self.stage}, attempt {self.attempt}>"


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """Deliveries of which none is acknowledged before all can be.

    Attributes:
        members: those that have not failed.
        missing: how many of them cannot be acknowledged yet.
    """

    members: list[Delivery]
    missing: int

    def __repr__(self) -> str:
        return f"<Group of {len(self.members)}, {self.missing} missing>"


class InFlight:
    """The unsettled deliveries of one link, by identifier, in the order of delivery.

    All consumers of a link share a channel. So its tags are consecutive, and the lowest unsettled tag tells how far an
    acknowledgement of many may reach.

    Attributes:
        epoch: of the link.
        by_id: the deliveries. To be looked up, added and removed directly: each message takes four looks.
        to_ack: the tags of those that were removed, and that the next :meth:`flush` acknowledges.
    """

    __slots__ = ("_base", "_low", "_newest", "by_id", "epoch", "to_ack")

    def __init__(self, epoch: Epoch) -> None:
        self.epoch: Epoch = epoch
        self._base = delivery_id(epoch, 0)
        self.by_id: dict[DeliveryId, Delivery] = {}
        self._low = 1
        self._newest = 0
        self.to_ack: list[int] = []

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self.by_id.values())

    def is_next(self, tag: int) -> bool:
        """Note that the broker has used this tag; false if it had used it before, or cannot have come so far."""
        newest = self._newest
        if newest < tag <= newest + _LONGEST_GAP:
            self._newest = tag
            return True
        return False

    def flush(self, effects: list[Effect]) -> None:
        """Acknowledge what is in ``to_ack``, which must not be empty.

        What lies below every unsettled delivery goes out as one acknowledgement. What lies behind a gap goes out
        singly, so that a slow handler holds nobody up.
        """
        tags = self.to_ack
        if len(tags) == 1:
            effects.append(Ack(self.epoch, tags.pop(), False))
            return
        tags.sort()
        low = self._lowest_unsettled()
        prefix = [tag for tag in tags if tag < low]
        if prefix:
            effects.append(Ack(self.epoch, prefix[-1], len(prefix) > 1))
        effects.extend(Ack(self.epoch, tag, False) for tag in tags[len(prefix) :])
        tags.clear()

    def _lowest_unsettled(self) -> int:
        while self._low <= self._newest and self._base + self._low not in self.by_id:
            self._low += 1
        return self._low
