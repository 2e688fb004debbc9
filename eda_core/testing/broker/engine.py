"""What happens to messages: they are published, delivered, settled, dead-lettered; channels, queues and times end.

The engine holds the whole state of the broker. It does not know the methods of clients: those call it from
:mod:`eda_core.testing.broker.methods`. What it sends collects in ``out``, in the order of the wire.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from pamqp import base, commands

from eda_core.testing.broker.addresses import PREFIX, Address, Place, among, read
from eda_core.testing.broker.agenda import Agenda
from eda_core.testing.broker.arguments import Policy, effective_limits
from eda_core.testing.broker.message import (
    DELIVERY_LIMIT,
    EXPIRED,
    MAXLEN,
    NOT_FOUND,
    REJECTED,
    RESOURCE_LOCKED,
    AmqpMessage,
    Refusal,
    dead_letter_of,
    is_cycle,
    with_properties,
)
from eda_core.testing.broker.queue import ConnectionId, Consumer, ConsumerKey, Queue
from eda_core.testing.broker.ready import Entry
from eda_core.testing.broker.state import Channel, Connection, Outgoing, Pending, frame
from eda_core.testing.broker.topology import QUEUE, Exchange, Topology
from eda_core.testing.broker.versions import Version

ACK: Final = "ack"
REQUEUE: Final = "requeue"
DISCARD: Final = "discard"

#: Dead letters may go round through full queues. If a client has rejected them once, RabbitMQ lets them go round for
#: ever. Here they are dropped when they are dead-lettered so many times in one operation.
MAX_DEATHS: Final = 1_000
#: What a delivery needs on the wire besides the body, about, in bytes.
_OVERHEAD: Final = 200


class Engine:
    """The state of the broker, and what changes it.

    Attributes:
        now: seconds; ``epoch + now`` is the time of day.
        queues: by virtual host and name; ``uids`` has the same ones by uid.
        out: what was sent and not taken.
    """

    __slots__ = (
        "_dead",
        "_deaths",
        "_looks",
        "connections",
        "epoch",
        "max_message_bytes",
        "next_uid",
        "now",
        "out",
        "policies",
        "queues",
        "topologies",
        "uids",
        "version",
    )

    def __init__(self, vhosts: Iterable[str], policies: Sequence[Policy], epoch: float, version: Version) -> None:
        self.version: Final = version
        self.now: float = 0.0
        self.epoch: float = epoch
        self.policies: tuple[Policy, ...] = tuple(policies)
        self.max_message_bytes: int = version.max_message_bytes
        self.topologies: dict[str, Topology] = {vhost: Topology(vhost, version) for vhost in vhosts}
        self.queues: dict[tuple[str, str], Queue] = {}
        self.uids: dict[int, Queue] = {}
        self.next_uid: int = 1
        self.connections: dict[ConnectionId, Connection] = {}
        self.out: list[Outgoing] = []
        # Dead letters wait here until the present operation is done, because each queue of RabbitMQ is a process of its
        # own. Each has the number of times that it was dead-lettered since; ``_deaths`` is that of the present one.
        self._dead: deque[tuple[int, AmqpMessage, int]] = deque()
        self._deaths = 0
        #: When to look at which queue, by uid, because something in it may expire.
        self._looks: Agenda[int] = Agenda()

    def clone(self) -> Engine:
        """An independent copy, which shares the messages."""
        copy = Engine.__new__(Engine)
        copy.version = self.version  # type: ignore[misc]
        copy.now, copy.epoch, copy.policies, copy.next_uid = self.now, self.epoch, self.policies, self.next_uid
        copy.max_message_bytes = self.max_message_bytes
        copy.topologies = {vhost: topology.clone() for vhost, topology in self.topologies.items()}
        copy.queues = {name: queue.clone() for name, queue in self.queues.items()}
        copy.uids = {queue.uid: queue for queue in copy.queues.values()}
        copy.connections = {id_: connection.clone() for id_, connection in self.connections.items()}
        copy.out = []
        copy._dead = deque()
        copy._deaths = 0
        copy._looks = self._looks.clone()
        return copy

    def send(self, channel: Channel, method: base.Frame) -> None:
        """Send a method without content."""
        self.out.append(Outgoing(channel.connection, channel.number, method))

    def channel(self, key: ConsumerKey) -> Channel:
        """The channel of a consumer."""
        return self.connections[key.connection].channels[key.channel]

    # -- queues -------------------------------------------------------------------------------------------------------

    def queue(self, vhost: str, name: str) -> Queue:
        """The queue of this name.

        Raises:
            Refusal: 404. There is none.
        """
        queue = self.queues.get((vhost, name))
        if queue is None:
            raise Refusal(NOT_FOUND, f"no {self.topologies[vhost].word(QUEUE, name)}")
        return queue

    def add_queue(self, queue: Queue) -> None:
        """Add a new queue."""
        self.queues[queue.vhost, queue.name] = queue
        self.uids[queue.uid] = queue
        self.next_uid = queue.uid + 1
        self.apply_policies(queue)
        self.note_unused(queue)

    def apply_policies(self, queue: Queue) -> None:
        """Give a queue the limits of its arguments and policies."""
        before = queue.limits.expires
        queue.limits = effective_limits(queue.name, queue.kind, queue.arguments, self.policies, self.version)
        if queue.limits.expires != before:
            queue.expires_at = None
            self.note_unused(queue)
        self.shorten(queue)

    def delete_queue(self, queue: Queue) -> None:
        """Delete a queue with its messages and bindings, and tell its consumers."""
        del self.queues[queue.vhost, queue.name]
        del self.uids[queue.uid]
        self.topologies[queue.vhost].forget_destination(QUEUE, queue.name)
        for key in sorted(queue.consumers):
            channel = self.channel(key)
            del channel.consumers[key.tag]
            channel.suspended.discard(queue.uid)
            self.send(channel, commands.Basic.Cancel(key.tag, nowait=True))

    def consumer_count(self, queue: Queue) -> int:
        """The number of consumers that RabbitMQ reports.

        For a quorum queue that includes those that are cancelled and have an unsettled delivery, and not those that
        wait until they are active.
        """
        if not queue.quorum:
            return len(queue.consumers)
        holders: set[Any] = set(queue.consumers).difference(queue.waiting)
        for connection in self.connections.values():
            for number, channel in connection.channels.items():
                for tag, pending in channel.outstanding():
                    if pending.queue == queue.uid:
                        holders.add((connection.id, number, pending.tag or str(tag)))
        return len(holders)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def route(self, exchange: Exchange, vhost: str, message: AmqpMessage) -> list[str]:
        """The names of the queues of a message, in the order in which RabbitMQ looks for them.

        There may be no queue of such a name. An address for direct replies is among them if it is a queue; else a reply
        is sent now.
        """
        names = self.topologies[vhost].route(exchange, message)
        if exchange.name:
            names.reverse()
        elif not self.version.replies_are_queues and among(names):
            self._answer(vhost, names, message)
            names = [name for name in names if not name.startswith(PREFIX)]
        return names

    def place(self, vhost: str, names: Sequence[str], message: AmqpMessage) -> tuple[bool, bool]:
        """Put a message in the queues of these names.

        Returns:
            Whether there is one, and whether all that there are took it.
        """
        found = self._find(vhost, names)
        answered = len(found) < len(names) and self._answer(vhost, names, message)
        accepted = [self.enqueue(queue, message) for queue in found]
        return bool(found) or answered, all(accepted)

    def _find(self, vhost: str, names: Sequence[str]) -> list[Queue]:
        """The queues of these names that there are, in the order in which RabbitMQ usually comes to them."""
        if len(names) == 1:
            queue = self.queues.get((vhost, names[0]))
            return [] if queue is None else [queue]
        found = [self.queues[vhost, name] for name in sorted(names, reverse=True) if (vhost, name) in self.queues]
        return sorted(found, key=lambda queue: queue.quorum)

    def _answer(self, vhost: str, names: Sequence[str], message: AmqpMessage) -> bool:
        """Send a message as a direct reply, to each channel once. Returns whether one of the names is an address."""
        answered: set[Place] = set()
        for name in sorted(names, reverse=True):
            address = read(name, self.version) if name.startswith(PREFIX) else None
            if address is not None and address.place not in answered:
                answered.add(address.place)
                channel = self.reply_channel(address, vhost)
                if channel is not None:
                    self._reply(channel, message)
        return bool(answered)

    def reply_channel(self, address: Address, vhost: str) -> Channel | None:
        """The channel whose consumer has this address, for a message from ``vhost``; ``None`` if there is none."""
        connection = self.connections.get(address.place.connection)
        if connection is None or (self.version.replies_are_queues and connection.vhost != vhost):
            return None
        channel = connection.channels.get(address.place.number)
        if channel is None or channel.replies is None:
            return None
        return channel if (channel.serial, channel.replies.key) == (address.place.serial, address.key) else None

    def _reply(self, channel: Channel, message: AmqpMessage) -> None:
        assert channel.replies is not None  # reply_channel saw it
        method = frame(
            commands.Basic.Deliver,
            consumer_tag=channel.replies.tag,
            delivery_tag=channel.next_delivery,
            redelivered=False,
            exchange=message.exchange,
            routing_key=message.routing_keys[0],
        )
        channel.next_delivery += self.version.replies_are_queues
        self.out.append(Outgoing(channel.connection, channel.number, method, message.properties, message.body))
        self._use_room(channel.connection, message)

    def enqueue(self, queue: Queue, message: AmqpMessage) -> bool:
        """Put a message in a queue. Returns whether the queue takes it."""
        if queue.refuses(message):
            if queue.limits.overflow.endswith("dlx"):
                self.dead_letter(queue, message, MAXLEN)
            return False
        entry = queue.append(message, self.now)
        if queue.quorum:
            queue.mark_failed(entry)
        self.deliver_ready(queue)
        queue.mark_failed(entry)  # what a consumer of a classic queue gets at once is not marked
        self.shorten(queue, new=True)
        return True

    def shorten(self, queue: Queue, *, new: bool = False) -> None:
        """Take from the head of a queue the messages that are too many, and those that have expired.

        Args:
            new: because a message came. A classic queue looks then only if the head can have changed, and forgets that
                priorities may change it, too.
        """
        if queue.quorum:
            self._drop_expired(queue)
        dropped: list[AmqpMessage] = []
        while queue.overflows():
            dropped.append(self._leaving(queue.pop()))
        if queue.quorum and self.version.drops_in_reverse:
            dropped.reverse()
        for message in dropped:
            self.dead_letter(queue, message, MAXLEN)
        if dropped or not (new and queue.by_maximum) or len(queue) == 1 or queue.limits.message_ttl == 0:
            self._drop_expired(queue)
        queue.watch_length()
        self._watch(queue)

    def _drop_expired(self, queue: Queue) -> None:
        while (expired := queue.pop_expired(self.now)) is not None:
            self.dead_letter(queue, self._leaving(expired), EXPIRED)
        if queue.by_maximum:
            queue.arm()

    def _leaving(self, entry: Entry, *, failed: bool = False) -> AmqpMessage:
        """The message of an entry that leaves its queue, or comes back to it if the queue is a classic queue.

        Args:
            failed: a consumer has failed to handle it.
        """
        failures = max(entry.failures, entry.message.failures)
        if not self.version.remembers_failures or failures + failed == entry.message.failures:
            return entry.message
        return replace(entry.message, failures=failures + failed)

    def dead_letter(self, queue: Queue, message: AmqpMessage, reason: str) -> None:
        """Dead-letter a message that has left a queue. It is dropped if there is no dead-letter exchange."""
        topology = self.topologies[queue.vhost]
        name = queue.limits.dead_letter_exchange
        exchange = topology.exchanges.get(name) if name is not None else None
        if exchange is None:
            return
        routing_key = queue.limits.dead_letter_routing_key
        dead = dead_letter_of(
            message, reason, queue.name, exchange.name, routing_key, self.epoch + self.now, self.version
        )
        names = self.route(exchange, queue.vhost, dead)
        self._answer(queue.vhost, names, dead)
        for target in self._find(queue.vhost, names):
            if not is_cycle(dead, target.name, reason) and self._deaths < MAX_DEATHS:
                self._dead.append((target.uid, dead, self._deaths + 1))

    def place_dead_letters(self) -> None:
        """Put the dead letters in their queues, and those that are dead-lettered because of that."""
        while self._dead:
            uid, message, self._deaths = self._dead.popleft()
            if uid in self.uids:
                self.enqueue(self.uids[uid], message)
        self._deaths = 0

    # -- delivering ---------------------------------------------------------------------------------------------------

    def deliver_ready(self, queue: Queue) -> None:
        """Deliver messages to the consumers whose turn it is, until there are no more of one or the other."""
        if queue.quorum:  # a classic queue looks at what comes back before, and does not look at what is new
            self._drop_expired(queue)
        while len(queue) and (consumer := self._next_consumer(queue)) is not None:
            self._deliver(queue, consumer, queue.pop())
            self._drop_expired(queue)
        self._watch(queue)

    def _next_consumer(self, queue: Queue) -> Consumer | None:
        if queue.single and not queue.quorum:
            return self._active_consumer(queue)
        while queue.line:
            key = queue.line.pop(0)
            consumer = queue.consumers[key]
            if self._may_send(queue, consumer):
                if consumer.credit is not None and not consumer.no_ack:
                    consumer.credit -= 1
                if consumer.credit != 0 or not queue.quorum:
                    queue.enter_line(key)
                return consumer
            if not queue.quorum:
                queue.blocked.append(key)
        return None

    def _active_consumer(self, queue: Queue) -> Consumer | None:
        """The single active consumer of a classic queue, if it may get a message. It keeps its place in the line."""
        key = queue.active
        if key is None or key in queue.blocked:
            return None
        consumer = queue.consumers[key]
        if not self._may_send(queue, consumer):
            queue.line.remove(key)
            queue.blocked.append(key)
            return None
        if consumer.credit is not None and not consumer.no_ack:
            consumer.credit -= 1
        return consumer

    def activate(self, queue: Queue) -> None:
        """Choose the single active consumer of a quorum queue, if it has such consumers."""
        if not queue.single or not queue.quorum:
            return
        if queue.quiescing and queue.active is not None and not self._holds(queue, queue.active):
            queue.let_wait(queue.active)
            queue.active, queue.quiescing = None, False
        if queue.unranked and self.version.yields_to_priority:
            queue.rank_waiting()
        if not queue.waiting:
            return
        candidate = queue.waiting[0]
        if queue.active is None:
            queue.take_turn(candidate)
        elif (
            self.version.yields_to_priority
            and queue.consumers[candidate].priority > queue.consumers[queue.active].priority
        ):
            if self._holds(queue, queue.active):
                queue.quiesce()
            else:
                queue.take_turn(candidate)

    def _holds(self, queue: Queue, key: ConsumerKey) -> bool:
        """Whether a consumer has messages that it has not settled."""
        consumer = (queue.uid, key.tag, queue.consumers[key].number)
        return any((p.queue, p.tag, p.number) == consumer for p in self.channel(key).unacked.values())

    def _may_send(self, queue: Queue, consumer: Consumer) -> bool:
        channel = self.channel(consumer.key)
        if queue.uid in channel.suspended or consumer.credit == 0 or self.connections[consumer.key.connection].full:
            return False
        if channel.global_limit and not queue.quorum:
            if channel.limited:
                channel.suspended.add(queue.uid)
                return False
            channel.volume += not consumer.no_ack
        return True

    def _deliver(self, queue: Queue, consumer: Consumer, entry: Entry) -> None:
        channel = self.channel(consumer.key)
        tag = self._hand_out(channel, queue, entry, consumer, no_ack=consumer.no_ack)
        method = frame(
            commands.Basic.Deliver,
            consumer_tag=consumer.key.tag,
            delivery_tag=tag,
            redelivered=entry.redelivered,
            exchange=entry.message.exchange,
            routing_key=entry.message.routing_keys[0],
        )
        self._send_content(channel, method, entry, self._counts(entry) if queue.quorum else {})
        self._use_room(consumer.key.connection, entry.message)

    def _use_room(self, id_: ConnectionId, message: AmqpMessage) -> None:
        connection = self.connections[id_]
        if connection.room is not None:
            connection.room -= len(message.body) + _OVERHEAD

    def _hand_out(
        self, channel: Channel, queue: Queue, entry: Entry, consumer: Consumer | None, *, no_ack: bool
    ) -> int:
        tag = channel.next_delivery
        channel.next_delivery += 1
        if not no_ack:
            known = (None, 0) if consumer is None else (consumer.key.tag, consumer.number)
            channel.unacked[tag] = Pending(queue.uid, known[0], entry, known[1])
        return tag

    def _counts(self, entry: Entry) -> dict[str, int]:
        """The headers with which a quorum queue counts deliveries."""
        counts = {"x-delivery-count": entry.failures}
        if not self.version.counts_each_return:
            counts["x-acquired-count"] = entry.returns or entry.message.failures
        return {name: count for name, count in counts.items() if count}

    def _send_content(self, channel: Channel, method: base.Frame, entry: Entry, counts: dict[str, int]) -> None:
        properties = entry.message.properties
        if counts:
            headers = {**(properties.headers or {}), **counts}
            properties = with_properties(properties, headers=dict(sorted(headers.items())))
        self.out.append(Outgoing(channel.connection, channel.number, method, properties, entry.message.body))

    def fetch(self, channel: Channel, queue: Queue, *, no_ack: bool) -> None:
        """Answer ``Basic.Get``.

        Raises:
            Refusal: 405. It is a quorum queue with a single active consumer.
        """
        if queue.single and queue.quorum:
            raise self._no_get(queue)
        if not queue.quorum:
            self.note_unused(queue)
        if not len(queue):
            self.send(channel, commands.Basic.GetEmpty())
            return
        entry = queue.pop()
        left = len(queue)
        self.shorten(queue)
        if not queue.quorum or no_ack:  # else RabbitMQ counts the messages that expire now
            left = len(queue)
        method = frame(
            commands.Basic.GetOk,
            delivery_tag=self._hand_out(channel, queue, entry, None, no_ack=no_ack),
            redelivered=entry.redelivered,
            exchange=entry.message.exchange,
            routing_key=entry.message.routing_keys[0],
            message_count=left,
        )
        counts = self._counts(entry) if queue.quorum else {}
        if queue.quorum and self.version.counts_from_zero:
            counts.setdefault("x-delivery-count", 0)
        self._send_content(channel, method, entry, counts)

    def _no_get(self, queue: Queue) -> Refusal:
        word = self.topologies[queue.vhost].word(QUEUE, queue.name)
        kind = '<<"quorum">>' if self.version.writes_type_as_term else "quorum"
        explanation = (
            f"cannot obtain access to locked {word}. basic.get operations are not supported by {kind} queues with "
            "single active consumer"
        )
        return Refusal(RESOURCE_LOCKED, explanation)

    # -- settling -----------------------------------------------------------------------------------------------------

    def settle(self, channel: Channel, tags: list[int], how: str, *, failed: bool = False) -> None:
        """Settle deliveries, all of which exist, in RabbitMQ's order: by queue, then by consumer.

        Args:
            how: ``ACK``, ``REQUEUE`` or ``DISCARD``.
            failed: the client has said so by ``Basic.Reject``, and not by ``Basic.Nack``.
        """
        groups: dict[tuple[Any, ...], list[Pending]] = {}
        fetched = 0
        for tag in tags:
            pending = channel.unacked.pop(tag)
            fetched += pending.tag is None
            queue = self.uids.get(pending.queue)
            if queue is not None:
                place = (1, pending.tag) if pending.tag is not None else (0, tag)
                groups.setdefault((queue.name, queue.uid, *place), []).append(pending)
        for group in sorted(groups):
            pendings = groups[group]
            queue = self.uids[pendings[0].queue]
            (self._settle_quorum if queue.quorum else self._settle_classic)(channel, queue, pendings, how, failed)
        if channel.global_limit:
            was_limited = channel.limited
            channel.volume = max(0, channel.volume - (len(tags) - fetched))
            if was_limited and not channel.limited:
                self.resume(channel)

    def _settle_classic(self, channel: Channel, queue: Queue, pendings: list[Pending], how: str, failed: bool) -> None:
        unblocked = False
        if pendings[0].tag is not None:
            key = ConsumerKey(channel.connection, channel.number, pendings[0].tag)
            unblocked = queue.give_credit(key, len(pendings)) and queue.unblock(channel.connection, channel.number)
        if how == REQUEUE:
            self._requeue(queue, [pending.entry for pending in pendings], failed=failed)
        elif how == DISCARD:
            for pending in sorted(pendings, key=lambda pending: -queue.priorities.of(pending.entry)):
                self.dead_letter(queue, self._leaving(pending.entry, failed=failed), REJECTED)
        if unblocked:
            self.deliver_ready(queue)

    def _requeue(self, queue: Queue, entries: list[Entry], *, failed: bool) -> None:
        queue.put_back([entry._replace(message=self._leaving(entry, failed=failed)) for entry in entries])
        self.shorten(queue)
        self.deliver_ready(queue)

    def _settle_quorum(self, channel: Channel, queue: Queue, pendings: list[Pending], how: str, failed: bool) -> None:
        key = ConsumerKey(channel.connection, channel.number, pendings[0].tag or "")
        if how == REQUEUE and queue.limits.delivery_limit is None:
            for pending in pendings:
                queue.put_last(self._returned(pending.entry, failed=failed))
                self._credit_quorum(queue, key, 1)
                self.activate(queue)
                self.deliver_ready(queue)
                self.shorten(queue)
            return
        if how == REQUEUE:
            buried = self._return_limited(queue, [pending.entry for pending in pendings], failed=failed)
            if self.version.credits_buried_twice:
                self._credit_quorum(queue, key, buried)
        elif how == DISCARD:
            for pending in pendings:
                self.dead_letter(queue, self._leaving(pending.entry, failed=failed), REJECTED)
        self._credit_quorum(queue, key, len(pendings))
        self.activate(queue)
        self.deliver_ready(queue)
        self.shorten(queue)

    def _return_limited(self, queue: Queue, entries: list[Entry], *, failed: bool) -> int:
        """Requeue in a quorum queue. Returns how many were over the delivery limit."""
        limit = queue.limits.delivery_limit
        buried = 0
        for entry in [self._returned(entry, failed=failed) for entry in entries]:
            if limit is not None and entry.failures > limit:
                self.dead_letter(queue, self._leaving(entry), DELIVERY_LIMIT)
                buried += 1
            else:
                queue.put_first(entry)
        return buried

    def _returned(self, entry: Entry, *, failed: bool) -> Entry:
        """An entry of a quorum queue that comes back to it."""
        counted = failed or self.version.counts_each_return
        return entry._replace(redelivered=True, returns=entry.returns + 1, failures=entry.failures + counted)

    @staticmethod
    def _credit_quorum(queue: Queue, key: ConsumerKey, count: int) -> None:
        queue.give_credit(key, count)
        if count and queue.serves(key) and key not in queue.line:
            queue.enter_line(key)

    def resume(self, channel: Channel) -> None:
        """The shared prefetch of a channel is not used up any more, or is gone."""
        for uid in sorted(channel.suspended):
            channel.suspended.discard(uid)
            queue = self.uids.get(uid)
            if queue is not None and queue.unblock(channel.connection, channel.number):
                self.deliver_ready(queue)

    def give_room(self, connection: Connection, room: int | None) -> None:
        """Let the consumers of a connection get so many bytes more; ``None`` for any number."""
        was_full, connection.room = connection.full, room
        if not was_full or connection.full:
            return
        starved: dict[int, list[ConsumerKey]] = {}
        for channel in connection.channels.values():
            for tag, uid in channel.consumers.items():
                starved.setdefault(uid, []).append(ConsumerKey(connection.id, channel.number, tag))
        for uid, keys in starved.items():
            queue = self.uids[uid]
            if queue.quorum:
                line = set(queue.line)
                for key in keys:
                    if key not in line and queue.serves(key) and queue.consumers[key].credit != 0:
                        queue.enter_line(key)
            queue.unblock(connection.id)
            self.deliver_ready(queue)

    # -- the end of consumers, channels, connections ------------------------------------------------------------------

    def cancel(self, queue: Queue, key: ConsumerKey) -> None:
        """Remove a consumer. Its unsettled deliveries stay with the channel. An auto-delete queue may go."""
        queue.remove_consumers(key)
        del self.channel(key).consumers[key.tag]
        if queue.auto_delete and not queue.consumers:
            self.delete_queue(queue)
            return
        self.note_unused(queue)
        if queue.single:
            self.activate(queue)
            self.deliver_ready(queue)

    def close_channels(self, channels: list[Channel]) -> None:
        """Remove the consumers of channels, then requeue their unsettled deliveries."""
        lost: dict[int, list[Entry]] = {}
        gone: dict[int, list[ConsumerKey]] = {}
        for channel in channels:
            channel.roll_back()
            channel.replies = None
            for tag, uid in channel.consumers.items():
                gone.setdefault(uid, []).append(ConsumerKey(channel.connection, channel.number, tag))
                lost.setdefault(uid, [])
            for _, pending in sorted(channel.unacked.items(), key=self._place_among_lost):
                lost.setdefault(pending.queue, []).append(pending.entry)
            channel.consumers.clear()
            channel.unacked.clear()
            channel.suspended.clear()
            channel.unconfirmed.clear()
        for uid, keys in gone.items():
            self.uids[uid].remove_consumers(*keys)
        for uid in sorted(lost):
            if uid in self.uids:
                self._take_back(self.uids[uid], lost[uid])

    def _place_among_lost(self, item: tuple[int, Pending]) -> tuple[Any, ...]:
        """Where a delivery comes among those that a queue gets back from a channel that ends."""
        tag, pending = item
        if self.version.returns_by_age:
            return (pending.tag is None, pending.number, str(tag) if pending.tag is None else "", tag)
        return (pending.tag or str(tag), tag)

    def fail_channel(self, channel: Channel) -> None:
        """A channel error.

        The classic queues that the channel consumes from are told now, the others when the client confirms.
        """
        channel.roll_back()
        told = {uid for uid in channel.consumers.values() if not self.uids[uid].quorum}
        kept = {tag: pending for tag, pending in channel.unacked.items() if pending.queue not in told}
        channel.unacked = {tag: pending for tag, pending in channel.unacked.items() if tag not in kept}
        # Another consumer is active only when these messages are back.
        active = {tag: uid for tag, uid in channel.consumers.items() if uid not in told and self.uids[uid].single}
        channel.consumers = {tag: uid for tag, uid in channel.consumers.items() if tag not in active}
        self.close_channels([channel])
        channel.unacked, channel.consumers = kept, active
        channel.closing = True

    def _take_back(self, queue: Queue, entries: list[Entry]) -> None:
        if queue.auto_delete and queue.had_consumers and not queue.consumers:
            self.delete_queue(queue)
            return
        self.note_unused(queue)
        if queue.quorum:
            self._return_limited(queue, entries, failed=True)
            self.activate(queue)
            self.deliver_ready(queue)
            self.shorten(queue)
        else:
            self._requeue(queue, entries, failed=True)

    def close_connection(self, connection: Connection) -> None:
        """A connection ends: its channels, then its exclusive queues."""
        self.close_channels(list(connection.channels.values()))
        connection.channels.clear()
        del self.connections[connection.id]
        for queue in [queue for queue in self.queues.values() if queue.owner == connection.id]:
            self.delete_queue(queue)

    # -- time ---------------------------------------------------------------------------------------------------------

    def note_unused(self, queue: Queue) -> None:
        """Begin again to count the time after which an unused queue expires."""
        queue.unused_until(self.now)
        self._watch(queue)

    def _watch(self, queue: Queue) -> None:
        """Note when something in a queue expires. Whatever puts another message to its head calls this."""
        self._looks.note(queue.uid, queue.due())

    def advance(self, now: float) -> None:
        """Let time pass, from one deadline to the next: the time to live of a dead letter begins when it is one."""
        while (due := self.earliest) is not None and due <= now:
            due = self.deadline()
            if due is None or due > now:
                break
            self.now = max(due, self.now)
            self._expire()
        self.now = max(now, self.now)

    def _expire(self) -> None:
        due = sorted(self._looks.take_due(self.now))
        for queue in [self.uids[uid] for uid in due if uid in self.uids]:  # the oldest first
            if queue.uid in self.uids:
                self._expire_in(queue)
        self.place_dead_letters()

    def _expire_in(self, queue: Queue) -> None:
        if queue.expires_at is not None and queue.expires_at <= self.now:
            queue.expires_at = None
            if not queue.consumers:
                self.delete_queue(queue)
                return
        if queue.by_maximum:
            if queue.timer is None or queue.timer > self.now:
                self._watch(queue)
                return
            queue.timer = None
        self.shorten(queue)

    def deadline(self) -> float | None:
        """When the next message or queue expires; ``None`` if none does."""
        while (first := self._looks.first()) is not None:
            time, uid = first
            due = self.uids[uid].due() if uid in self.uids else math.inf
            if time == due:
                return time
            self._looks.forget(uid)
            self._looks.note(uid, due)
        return None

    @property
    def earliest(self) -> float | None:
        """A time before which nothing expires; ``None`` if nothing ever does."""
        return self._looks.earliest()
