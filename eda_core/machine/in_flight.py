"""The deliveries of one link that are not settled, and how they are acknowledged together (rule R8).

It decides which acknowledgements are sent as one. It knows nothing of handlers, attempts and publishes:
:mod:`eda_core.machine.deliveries` decides when a delivery is settled.
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

#: How much larger than the last tag the next one may be. The tags of a channel are consecutive. A much larger one is a
#: fault of the peer: it may have more than 48 bits, or there may be too many tags to count up to it.
_LONGEST_GAP: Final = 1 << 20


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """A message that was delivered and is not settled.

    Attributes:
        id: its identifier.
        tag: the broker's delivery tag.
        message: the message as its handler has it.
        properties: its properties as they were received, for a delayed retry.
        body: its body as it was received, likewise.
        key: identifies the message when it is delivered again.
        attempt: which attempt at the message this is, from 1.
        held: what its handler has published so far. It is sent when the handler has succeeded (rule R6).
        stage: the stage of its life, a constant of :mod:`eda_core.machine.deliveries`.
        run: the identifier by which its handler knows it. It is that of an earlier delivery of the message if the
            handler has been running since then.
        began: when its handler began, monotonic seconds.
        unconfirmed: how many of its publishes were accepted, are not held, and are not confirmed.
        failure: how it has failed, or will have failed when its handler ends; ``None`` if it has not.
        group: the group with which it is acknowledged; ``None`` if it is in none.
        overruns: how often the link of its message was lost in this worker because its handler took too long.
        source: what identifies the message in the ``deduplication_id`` of each of its publishes; "" if they have none,
            ``None`` if that was not asked yet.
        numbers: how many publishes have such an identifier, by routing key.
        waited: how long it had waited before its handler could begin, seconds.
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
    run: DeliveryId
    began: float
    unconfirmed: int = 0
    failure: Failed | None = None
    group: Group | None = None
    overruns: int = 0
    source: str | None = None
    numbers: dict[str, int] | None = None
    waited: float = 0.0

    def __repr__(self) -> str:
        return f"<Delivery {self.tag} {self.message!r} {self.stage}, attempt {self.attempt}>"


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """Deliveries that are acknowledged together: none is before all can be.

    Attributes:
        members: the deliveries of the group that have not failed.
        missing: how many of them cannot be acknowledged yet.
    """

    members: list[Delivery]
    missing: int

    def __repr__(self) -> str:
        return f"<Group of {len(self.members)}, {self.missing} missing>"


class InFlight:
    """The unsettled deliveries of one link, in the order of delivery.

    All consumers of a link share a channel, so its tags are consecutive. An acknowledgement of many deliveries may
    reach up to the lowest unsettled tag.

    Attributes:
        epoch: the number of the link.
        by_id: the deliveries by identifier. Callers use the dict directly, because each message needs it four times.
        to_ack: the tags of deliveries that were removed. The next :meth:`flush` acknowledges them.
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
        """Note the tag of a delivery. Returns false if the broker has used it before, or cannot have reached it yet."""
        newest = self._newest
        if newest < tag <= newest + _LONGEST_GAP:
            self._newest = tag
            return True
        return False

    def flush(self, effects: list[Effect]) -> None:
        """Acknowledge the deliveries in ``to_ack``, which must not be empty.

        The tags below the lowest unsettled one are acknowledged together. The others are acknowledged one by one, so
        that a slow handler does not delay them.
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
