"""The image of a whole world: the same number for worlds that behave alike from now on, and are judged alike.

Images of parts are numbered by :class:`Images`, so that a world's is a short tuple of numbers and comparing two is
exact. Epochs are counted back from the machine's present one, tags from the newest of their link, publishes by rank.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from pamqp import commands

from eda_core.machine.identifiers import TAG_BITS, TAG_MASK, DeliveryId
from eda_core.testing.explorer.invariants import DEAD, SINK
from eda_core.testing.explorer.model import Link, Node
from eda_core.testing.explorer.snapshot import broker_image, label_of, machine_image, neutral
from eda_core.testing.explorer.state import WorldState

_UNREAD: Final = frozenset((DEAD, SINK))


class Images:
    """Numbers images: equal ones get the same number."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, image: Hashable) -> int:
        return self._numbers.setdefault(image, len(self._numbers))

    def world(self, world: WorldState) -> tuple[Hashable, ...]:
        """The image of a world."""
        ranks = {connection: rank for rank, connection in enumerate(world.broker.connections())}
        return (
            self._broker(world),
            *[self.number(self._node(node, world.now, ranks)) for node in world.nodes],
            self.number(
                (
                    world.promised,
                    world.done,
                    world.settled,
                    tuple(sorted(world.failures.items())),
                    tuple(sorted(world.requeues.items())),
                    world.alarm,
                    world.inbox,
                    world.left,
                )
            ),
        )

    def _broker(self, world: WorldState) -> int:
        known = world._broker_image
        if known is None or (known[2] and known[1] != world.now):
            image, timed = broker_image(world.broker, world.now, _UNREAD)
            known = world._broker_image = (self.number(image), world.now, timed)
        return known[0]

    def _machine(self, node: Node, now: float) -> int:
        if node.image is None or node.image[0] != now:
            link = node.links.get(node.machine.epoch)
            told, last = (0, 0) if link is None else (link.told, link.last)
            node.image = (now, self.number(machine_image(node.machine, now, told, last)))
        return node.image[1]

    def _node(self, node: Node, now: float, ranks: dict[Any, int]) -> tuple[Hashable, ...]:
        epoch = node.machine.epoch
        present = node.links.get(epoch)
        newest = 0 if present is None else present.newest
        order = {key: rank for rank, key in enumerate(sorted(node.pieces))}
        return (
            self._machine(node, now),
            tuple([_link(link, epoch - each, ranks.get(link.connection), order) for each, link in node.links.items()]),
            tuple(
                [
                    (newest - (key & TAG_MASK) if key >> TAG_BITS == epoch else None, *run[:3], *run[4:])
                    for key, run in node.runs.items()
                ]
            ),
            _extras(node, now, newest),
            tuple(
                [
                    (
                        newest - tag,
                        t.label,
                        t.end,
                        t.retried,
                        tuple([order[k] for k in t.pieces if k in order]),
                        tuple([newest - tag for tag in t.group if tag in node.tracks]),
                    )
                    for tag, t in node.tracks.items()
                ]
            ),
            tuple(
                [
                    (
                        p.post.label,
                        p.held,
                        p.delivery and newest - (p.delivery & TAG_MASK),
                        p.ticket > 0,
                        p.retry,
                        p.last_time,
                    )
                    for _, p in sorted(node.pieces.items())
                ]
            ),
            (
                node.outside,
                node.known,
                node.unseen,
                node.starved,
                node.over,
                node.wants_configuration,
                node.configured,
                node.refused,
            ),
            None if node.stop_due is None else max(node.stop_due - now, 0.0),
        )


def _extras(node: Node, now: float, newest: int) -> Hashable:
    """Calls and batches, of workers that have any."""
    if not node.asked and node.batch is None:
        return None
    due = None if node.batch is None else node.batch.deadline()
    runs = {delivery: place for place, delivery in enumerate(node.runs)}

    def relative(delivery: DeliveryId | None) -> int | None:
        if delivery is None or delivery >> TAG_BITS != node.machine.epoch:
            return None
        return newest - (delivery & TAG_MASK)

    return (
        node.asked,
        tuple(
            [
                (call.label, call.due - now, call.epoch == node.machine.epoch, runs.get(call.caller or DeliveryId(0)))
                for call in node.calls.values()
            ]
        ),
        None if node.batch is None else tuple([relative(delivery) for delivery, _ in node.batch._entries]),
        None if due is None else due - now,
        tuple(
            [
                (
                    tuple([(relative(delivery), label) for delivery, label in hand.taken]),
                    runs.get(hand.handled or DeliveryId(0)),
                    relative(hand.within),
                    hand.made,
                )
                for hand in node.hands
            ]
        ),
    )


def _link(link: Link, age: int, connection: int | None, order: dict[int, int]) -> tuple[Hashable, ...]:
    last, newest = link.last, link.newest
    return (
        age,
        connection,
        (link.connecting, link.attended, link.closing, link.blocked),
        tuple([_settling(item, newest) for item in link.up[0]]),
        tuple([_publish(item, last) for item in link.up[1]]),
        tuple([_delivery(item, newest) for item in link.down[0]]),
        tuple([_answer(item, last) for item in link.down[1]]),
        tuple([(last - tag, order.get(key)) for tag, key in link.sent.items()]),
    )


def _settling(item: tuple[Any, ...], newest: int) -> Hashable:
    kind, content = item
    if kind == "declare":
        return (kind, len(content))
    if kind == "consume":
        return (kind, content.consumer_tag, neutral(content.queue))
    if kind == "cancel":
        return (kind, content.consumer_tag)
    if isinstance(content, commands.Basic.Ack):
        return ("ack", newest - content.delivery_tag, content.multiple)
    return ("nack", newest - content.delivery_tag, content.requeue)


def _publish(item: tuple[Any, ...], last: int) -> Hashable:
    _, tag, method, properties, body = item
    return (last - tag, label_of(body), method.exchange, (properties.headers or {}).get("attempt"))


def _delivery(item: tuple[Any, ...], newest: int) -> Hashable:
    if item[0] != "deliver":
        return (item[0], item[1] if item[0] == "cancelled" else len(item[1]))
    _, tag, redelivered, exchange, _key, properties, body = item
    return (newest - tag, redelivered, exchange, label_of(body), (properties.headers or {}).get("attempt"))


def _answer(item: tuple[Any, ...], last: int) -> Hashable:
    if item[0] == "confirm":
        return (last - item[1], *item[2:])
    return (item[0], label_of(item[4]) if item[0] == "returned" else None)
