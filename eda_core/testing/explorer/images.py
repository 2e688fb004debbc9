"""The image of a whole world: equal for worlds that behave alike, and are judged alike, from now on.

:class:`Images` numbers the images of parts, so that a world's image is a short tuple of numbers and comparing two is
exact. Epochs are counted back from the machine's present one, tags from the newest of their link; publishes are
numbered by their order. Only :mod:`eda_core.testing.explorer.snapshot` knows what is inside of machines and of the
broker.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from pamqp import commands

from eda_core.machine.identifiers import TAG_BITS, TAG_MASK, DeliveryId
from eda_core.testing.explorer.judge import DEAD, SINK
from eda_core.testing.explorer.snapshot import broker_image, collected, label_of, machine_image, neutral
from eda_core.testing.explorer.state import ALIVE, PROBE, Node, SimulatedLink, State

_UNREAD: Final = frozenset((DEAD, SINK))


class Images:
    """Numbers images: equal images get the same number."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, image: Hashable) -> int:
        """The number of an image."""
        return self._numbers.setdefault(image, len(self._numbers))

    def world(self, state: State) -> tuple[Hashable, ...]:
        """The image of a world."""
        ranks = {connection: rank for rank, connection in enumerate(state.broker.connections())}
        return (
            self._broker(state),
            *[self.number(self._node(node, state.now, ranks)) for node in state.nodes],
            self.number(
                (
                    state.promised,
                    state.sent,
                    state.doubled,
                    state.done,
                    state.settled,
                    tuple(sorted(state.failures.items())),
                    tuple(sorted(state.requeues.items())),
                    tuple(sorted(state.database)),
                    state.effects,
                    state.alarm,
                    state.inbox,
                    state.left,
                )
            ),
        )

    def _broker(self, state: State) -> int:
        known = state.broker_image
        if known is None or (known[2] and known[1] != state.now):
            image, timed = broker_image(state.broker, state.now, _UNREAD)
            known = state.broker_image = (self.number(image), state.now, timed)
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
        order = {key: rank for rank, key in enumerate(sorted(node.unconfirmed))}
        places = {delivery: place for place, delivery in enumerate(node.runs)}
        return (
            self._machine(node, now),
            tuple([_link(link, epoch - each, ranks.get(link.connection), order) for each, link in node.links.items()]),
            tuple(
                [
                    (newest - (key & TAG_MASK) if key >> TAG_BITS == epoch else None, *run[:3], *run[6:])
                    for key, run in node.runs.items()
                ]
            ),
            _calls_and_batches(node, now, newest),
            tuple(
                [
                    (
                        newest - tag,
                        places.get(each.id),
                        each.label,
                        each.end,
                        each.retried,
                        tuple([order[key] for key in each.publishes if key in order]),
                        tuple([newest - tag for tag in each.group if tag in node.unsettled]),
                    )
                    for tag, each in node.unsettled.items()
                ]
            ),
            tuple(
                [
                    (
                        each.post.label,
                        each.held,
                        each.delivery and newest - (each.delivery & TAG_MASK),
                        places.get(each.delivery),
                        places.get(each.run),
                        each.ticket > 0,
                        each.retry,
                        each.unwanted,
                    )
                    for _, each in sorted(node.unconfirmed.items())
                ]
            ),
            (
                node.outside,
                node.seen,
                node.unseen,
                tuple(sorted((newest - tag, label) for tag, label in node.copied)),
                node.wants_space,
                node.over,
                node.wants_configuration,
                node.configured,
                node.opened,
                node.silent,
                node.refused,
            ),
            None if node.stop_due is None else max(node.stop_due - now, 0.0),
        )


def _calls_and_batches(node: Node, now: float, newest: int) -> Hashable:
    """The calls and batches of a worker that has any."""
    if not node.calls_made and node.batch is None:
        return None
    due = None if node.batch is None else node.batch.deadline()
    runs = {delivery: place for place, delivery in enumerate(node.runs)}

    def relative(delivery: DeliveryId | None) -> int | None:
        if delivery is None or delivery >> TAG_BITS != node.machine.epoch:
            return None
        return newest - (delivery & TAG_MASK)

    return (
        node.calls_made,
        tuple(
            [
                (call.label, call.due - now, call.epoch == node.machine.epoch, runs.get(call.caller or DeliveryId(0)))
                for call in node.calls.values()
            ]
        ),
        None if node.batch is None else tuple([relative(delivery) for delivery in collected(node.batch)]),
        None if due is None else due - now,
        tuple(
            [
                (
                    tuple([(relative(delivery), label) for delivery, label in run.taken]),
                    runs.get(run.handled or DeliveryId(0)),
                    relative(run.within),
                    run.made,
                )
                for run in node.batch_runs
            ]
        ),
    )


def _link(link: SimulatedLink, age: int, connection: int | None, order: dict[int, int]) -> tuple[Hashable, ...]:
    last, newest = link.last, link.newest
    return (
        age,
        connection,
        (link.connecting, link.attended, link.closing, link.shut, link.blocked, link.silent),
        tuple([_to_the_consuming_channel(item, newest) for item in link.up[0]]),
        tuple([_to_the_publishing_channel(item, last) for item in link.up[1]]),
        tuple([_from_the_consuming_channel(item, newest) for item in link.down[0]]),
        tuple([_from_the_publishing_channel(item, last) for item in link.down[1]]),
        tuple([(last - tag, order.get(key)) for tag, key in link.sent.items()]),
    )


def _to_the_consuming_channel(item: tuple[Any, ...], newest: int) -> Hashable:
    if item == PROBE:
        return item
    kind, content = item
    if kind == "declare":
        return (kind, content.channel, len(content.commands))
    if kind == "consume":
        return (kind, content.consumer_tag, neutral(content.queue))
    if kind == "cancel":
        return (kind, content.consumer_tag)
    if isinstance(content, commands.Basic.Ack):
        return ("ack", newest - content.delivery_tag, content.multiple)
    return ("nack", newest - content.delivery_tag, content.requeue)


def _to_the_publishing_channel(item: tuple[Any, ...], last: int) -> Hashable:
    if item[0] != "publish":
        return item
    _, tag, method, properties, body = item
    return (last - tag, label_of(body), method.exchange, (properties.headers or {}).get("attempt"))


def _from_the_consuming_channel(item: tuple[Any, ...], newest: int) -> Hashable:
    if item[0] != "deliver":
        return item if item == ALIVE else (item[0], item[1] if item[0] == "cancelled" else (len(item[1]), *item[2:]))
    _, tag, redelivered, exchange, _key, properties, body = item
    return (newest - tag, redelivered, exchange, label_of(body), (properties.headers or {}).get("attempt"))


def _from_the_publishing_channel(item: tuple[Any, ...], last: int) -> Hashable:
    if item[0] == "confirm":
        return (last - item[1], *item[2:])
    return (item[0], label_of(item[4]) if item[0] == "returned" else None)
