"""A model of RabbitMQ 4.3, or 3.10, in memory, without input or output: :class:`Broker`.

The model takes the methods of clients one by one, each with the time, and answers with the methods that go back. It
does not know how methods are written on the wire (:mod:`eda_core.testing.wire` does). It is deterministic: the same
calls give the same answers. RabbitMQ does not define the order of what comes from different queues; the model has the
order that is most usual.

The model answers with 540 (not implemented) to what RabbitMQ can do and the model cannot: streams, consumer credit,
consumer time-outs, delayed retries, at-least-once dead-lettering. It never ignores such a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pamqp import base, commands

from eda_core.errors import LocalError
from eda_core.testing.broker.arguments import Policy
from eda_core.testing.broker.bindings import Binding
from eda_core.testing.broker.call import Call
from eda_core.testing.broker.engine import Engine
from eda_core.testing.broker.message import CHANNEL_ERROR, COMMAND_INVALID, INTERNAL_ERROR, AmqpMessage, Refusal
from eda_core.testing.broker.methods import HANDLERS
from eda_core.testing.broker.queue import ConnectionId, ConsumerKey, Queue
from eda_core.testing.broker.state import Channel, Connection, Outgoing
from eda_core.testing.broker.versions import LARGEST_BODY, NEWEST, VERSIONS

_BLOCKED_REASON = "low on memory"


class Broker:
    """The model. What a client sends never makes a method raise; a wrong call of the test raises ``LocalError``.

    All times are seconds of one clock that never goes back. Properties and bodies are shared with the caller in both
    directions: nobody may change them in place.
    """

    __slots__ = (
        "_alarm",
        "_auto_confirm",
        "_closing",
        "_confirm_interval",
        "_confirms_due",
        "_counter",
        "_engine",
        "_names",
        "_next_connection",
    )

    def __init__(
        self,
        *,
        policies: Sequence[Policy] = (),
        auto_confirm: bool = True,
        confirm_interval: float = 0.0,
        names: Callable[[], str] | None = None,
        vhosts: Iterable[str] = ("/",),
        epoch: float = 0.0,
        version: str = NEWEST,
    ) -> None:
        """
        Args:
            policies: see :class:`Policy`.
            auto_confirm: confirm each publish at once; else when ``confirm`` is called. A refused publish is answered
                at once in any case.
            confirm_interval: collect the confirms of a channel for so many seconds, and send one with ``multiple`` for
                them, as RabbitMQ does under load; 0 sends each at once. Refusals and transactions do not wait.
            names: makes the end of the names of queues and consumers to which the client gives none; by default they
                are numbered.
            vhosts: the names of the virtual hosts.
            epoch: ``epoch + now`` is the time of day in seconds since 1970, for the times in ``x-death``.
            version: the release of RabbitMQ that is modelled, "4.3" or "3.10" (see ``docs/broker-versions.rst``).

        Raises:
            LocalError: this release is not modelled, ``confirm_interval`` is no time, or is given without
                ``auto_confirm``.
        """
        if version not in VERSIONS:
            raise LocalError(f"RabbitMQ {version!r} is not modelled", hint=f"use one of {list(VERSIONS)}")
        if not 0 <= confirm_interval < math.inf:
            raise LocalError(f"confirm_interval is {confirm_interval}", hint="give seconds; 0 for no wait")
        if confirm_interval and not auto_confirm:
            raise LocalError("confirm_interval is given without auto_confirm", hint="leave out one of them")
        self._engine = Engine(vhosts, policies, epoch, VERSIONS[version])
        self._auto_confirm = auto_confirm
        self._confirm_interval = confirm_interval
        #: When the confirms that were collected are sent.
        self._confirms_due = math.inf
        self._names = names
        self._counter = 0
        self._alarm = False
        self._next_connection = 1
        # Connections that the broker has closed. What they send is discarded until they confirm that.
        self._closing: set[ConnectionId] = set()

    # -- connections --------------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """The release of RabbitMQ that is modelled, such as "4.3"."""
        return self._engine.version.name

    @property
    def largest_message(self) -> int:
        """The largest body that is taken, in bytes (see ``limit_messages``)."""
        return self._engine.max_message_bytes

    def has_vhost(self, vhost: str) -> bool:
        """Whether there is a virtual host of this name."""
        return vhost in self._engine.topologies

    def connect(self, *, vhost: str = "/", user: str = "guest") -> ConnectionId:
        """Add a connection, whose handshake has been done.

        Raises:
            LocalError: there is no such virtual host.
        """
        if not self.has_vhost(vhost):
            raise LocalError(f"no vhost {vhost!r}", hint="pass its name to Broker(vhosts=...)")
        new = ConnectionId(self._next_connection)
        self._next_connection += 1
        self._engine.connections[new] = Connection(new, vhost, user)
        return new

    def disconnect(self, connection: ConnectionId, *, now: float) -> list[Outgoing]:
        """A connection has ended. Its unsettled deliveries go back to their queues, and its exclusive queues go.

        A connection that the broker does not know (any more) is ignored.
        """
        self._at(now)
        self._closing.discard(connection)
        known = self._engine.connections.get(connection)
        if known is not None:
            self._engine.close_connection(known)
        return self._answers()

    def receive(
        self,
        connection: ConnectionId,
        channel: int,
        method: base.Frame,
        properties: commands.Basic.Properties | None = None,
        body: bytes = b"",
        *,
        now: float,
    ) -> list[Outgoing]:
        """Take one method of a client, with its content.

        Returns:
            What goes out because of it, to all connections, in order. An error comes out as ``Channel.Close`` or
            ``Connection.Close``; after the latter the broker counts the connection as closed.
        """
        self._at(now)
        known = self._engine.connections.get(connection)
        if known is None:
            self._receive_closing(connection, method)
        elif known.blocked or self._block_at(known, method, body):
            known.held.append((channel, method, properties, body))
        else:
            self._dispatch(known, channel, method, properties, body)
        return self._answers()

    def _receive_closing(self, connection: ConnectionId, method: base.Frame) -> None:
        if connection in self._closing:
            if isinstance(method, commands.Connection.Close):
                self._engine.out.append(Outgoing(connection, 0, commands.Connection.CloseOk()))
            elif isinstance(method, commands.Connection.CloseOk):
                self._closing.discard(connection)

    def _dispatch(
        self,
        connection: Connection,
        number: int,
        method: base.Frame,
        properties: commands.Basic.Properties | None,
        body: bytes,
    ) -> None:
        try:
            channel = connection.channels.get(number)
            if number == 0:
                self._on_connection(connection, method)
            elif channel is None:
                self._open_channel(connection, number, method)
            elif channel.closing:
                self._on_closing_channel(connection, channel, method)
            else:
                self._on_channel(connection, channel, method, properties, body)
        except Refusal as refusal:
            self._refuse(connection, number, method, refusal)

    def _on_connection(self, connection: Connection, method: base.Frame) -> None:
        if not isinstance(method, commands.Connection.Close):
            raise Refusal(CHANNEL_ERROR, "unexpected method in connection state running")
        self._engine.close_connection(connection)
        self._engine.out.append(Outgoing(connection.id, 0, commands.Connection.CloseOk()))

    def _open_channel(self, connection: Connection, number: int, method: base.Frame) -> None:
        if not isinstance(method, commands.Channel.Open):
            raise Refusal(CHANNEL_ERROR, "expected 'channel.open'")
        channel = connection.channels[number] = Channel(connection.id, number, serial=connection.opened)
        connection.opened += 1
        self._engine.send(channel, commands.Channel.OpenOk())

    def _on_closing_channel(self, connection: Connection, channel: Channel, method: base.Frame) -> None:
        if isinstance(method, commands.Channel.CloseOk):
            self._engine.close_channels([channel])
            del connection.channels[channel.number]
        elif isinstance(method, commands.Channel.Close):
            self._engine.send(channel, commands.Channel.CloseOk())

    def _on_channel(
        self,
        connection: Connection,
        channel: Channel,
        method: base.Frame,
        properties: commands.Basic.Properties | None,
        body: bytes,
    ) -> None:
        handler = HANDLERS.get(type(method))
        if handler is None:
            raise Refusal(COMMAND_INVALID, "unimplemented method")
        at_once = self._auto_confirm and not self._confirm_interval
        call = Call(self._engine, connection, channel, properties, body, self._fresh_name, at_once)
        handler(call, method)
        if self._confirm_interval and channel.unconfirmed and self._confirms_due == math.inf:
            self._confirms_due = self._engine.now + self._confirm_interval

    def _refuse(self, connection: Connection, number: int, method: base.Frame, refusal: Refusal) -> None:
        reply, text = refusal.reply, refusal.text(self._engine.version)
        class_id, method_id = method.index >> 16, method.index & 0xFFFF
        if text is None:  # RabbitMQ fails to write it
            reply, text = INTERNAL_ERROR, INTERNAL_ERROR.name
        if reply is INTERNAL_ERROR:  # RabbitMQ does not know any more what it was about
            class_id = method_id = 0
        if number == 0 or reply.hard:
            self._engine.close_connection(connection)
            self._closing.add(connection.id)
            close: base.Frame = commands.Connection.Close(reply.code, text, class_id, method_id)
        else:
            channel = connection.channels[number]
            self._engine.fail_channel(channel)
            close = commands.Channel.Close(reply.code, text, class_id, method_id)
        channel_number = number if isinstance(close, commands.Channel.Close) else 0
        self._engine.out.append(Outgoing(connection.id, channel_number, close))

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, *, now: float) -> list[Outgoing]:
        """Expire the messages and queues whose time is over, and send confirms. Early and repeated calls do nothing."""
        self._at(now)
        return self._answers()

    def deadline(self) -> float | None:
        """When the next message or queue expires or confirms are sent; ``None`` for never."""
        return self._with_confirms(self._engine.deadline())

    def earliest(self) -> float | None:
        """A time before which nothing happens, ``None`` if nothing ever does: :meth:`deadline`, or a time before it.

        It is there at no cost, and :meth:`tick` at that time makes it exact.
        """
        return self._with_confirms(self._engine.earliest)

    def _with_confirms(self, due: float | None) -> float | None:
        first = self._confirms_due if due is None else min(due, self._confirms_due)
        return None if first == math.inf else first

    def _at(self, now: float) -> None:
        self._engine.advance(now)
        if self._confirms_due <= now:
            self._confirms_due = math.inf
            self._confirm_collected()

    def _confirm_collected(self) -> None:
        for channel in self._channels():
            if channel.unconfirmed:
                several = len(channel.unconfirmed) > 1
                self._engine.send(channel, commands.Basic.Ack(channel.unconfirmed[-1], several))
                channel.unconfirmed.clear()

    def _answers(self) -> list[Outgoing]:
        self._engine.place_dead_letters()
        answers, self._engine.out = self._engine.out, []
        return answers

    # -- what the operator, the machine and the explorer do -----------------------------------------------------------

    def restart(self, *, now: float) -> list[ConnectionId]:
        """The broker is killed and starts again. An alarm is over then.

        Durable exchanges, durable queues (auto-delete ones, too) and the bindings between them stay. So do the
        persistent messages of classic queues and all messages of quorum queues. Those that were not settled are back in
        their places. After a kill RabbitMQ does not know what a classic queue had delivered, and marks all of its
        messages as redelivered.

        Returns:
            The connections that were lost. They get nothing any more.
        """
        self._at(now)
        engine = self._engine
        lost = list(engine.connections)
        for queue in engine.queues.values():
            queue.had_consumers = False  # a killed broker does not see them go
        for connection in list(engine.connections.values()):
            engine.close_connection(connection)
        engine.place_dead_letters()
        engine.out.clear()
        self._alarm = False
        self._confirms_due = math.inf
        self._closing.clear()
        for name, queue in list(engine.queues.items()):
            if not queue.durable:
                del engine.queues[name]
                del engine.uids[queue.uid]
                continue
            if not queue.quorum:
                queue.keep_persistent()
            queue.refusing = False
            engine.note_unused(queue)
        for vhost, topology in engine.topologies.items():
            topology.keep_durable({name for home, name in engine.queues if home == vhost})
        return lost

    def set_alarm(self, on: bool, *, now: float) -> list[Outgoing]:
        """Raise or clear the memory alarm.

        While it is on, a connection is blocked as soon as it publishes: the broker holds what the connection sends, and
        takes it in order when the alarm is cleared. A connection that does not publish notices nothing (RabbitMQ
        documentation, "Alarms" and "Blocked Connection Notifications").
        """
        self._at(now)
        self._alarm = on
        for connection in list(self._engine.connections.values()):
            if not on and connection.blocked:
                self._unblock(connection)
        return self._answers()

    def limit_messages(self, size: int, *, now: float) -> list[Outgoing]:
        """Take messages of at most so many bytes from now on, as ``max_message_size`` does.

        For a larger one the channel is closed with 406 (RabbitMQ documentation, "Configuration").

        Raises:
            ValueError: more than the model can take.
        """
        if size > LARGEST_BODY:
            raise ValueError(f"messages of {size} bytes: the model takes at most {LARGEST_BODY}")
        self._at(now)
        self._engine.max_message_bytes = size
        return self._answers()

    def give_room(self, connection: ConnectionId, room: int | None, *, now: float) -> list[Outgoing]:
        """Let the consumers of a connection get so many bytes from now on.

        Whoever writes to a socket calls this when the client has read. Without it a client that reads nothing would get
        all messages of its queues, and they would fill the memory on the way.

        Args:
            room: bytes; ``None``, as at the beginning, for any number.
        """
        self._at(now)
        known = self._engine.connections.get(connection)
        if known is not None:
            self._engine.give_room(known, room)
        return self._answers()

    def room(self, connection: ConnectionId) -> int | None:
        """How many bytes the consumers of a connection may get; ``None`` for any number."""
        known = self._engine.connections.get(connection)
        return None if known is None else known.room

    def _block_at(self, connection: Connection, method: base.Frame, body: bytes) -> bool:
        """Block a connection that publishes during an alarm. Returns whether this publish is held."""
        if not self._alarm or not isinstance(method, commands.Basic.Publish):
            return False
        connection.blocked = True
        self._engine.out.append(Outgoing(connection.id, 0, commands.Connection.Blocked(_BLOCKED_REASON)))
        # RabbitMQ stops reading after the content header. A message without a body has arrived by then.
        return bool(body)

    def _unblock(self, connection: Connection) -> None:
        connection.blocked = False
        self._engine.out.append(Outgoing(connection.id, 0, commands.Connection.Unblocked()))
        held, connection.held = connection.held, []
        for number, method, properties, body in held:
            if connection.id in self._engine.connections:
                self._dispatch(connection, number, method, properties, body)
            else:
                self._receive_closing(connection.id, method)
            self._engine.place_dead_letters()

    def force_consumer_cancel(
        self, connection: ConnectionId, channel: int, consumer_tag: str, *, now: float
    ) -> list[Outgoing]:
        """The broker cancels a consumer, as when the node of its queue goes down.

        Raises:
            LocalError: there is no such consumer.
        """
        self._at(now)
        home = self._channel(connection, channel)
        if consumer_tag not in home.consumers:
            raise LocalError(f"no consumer {consumer_tag!r} on channel {channel}")
        queue = self._engine.uids[home.consumers[consumer_tag]]
        self._engine.send(home, commands.Basic.Cancel(consumer_tag, nowait=True))
        self._engine.cancel(queue, ConsumerKey(connection, channel, consumer_tag))
        return self._answers()

    def set_policy(self, policy: Policy, *, now: float) -> list[Outgoing]:
        """Add a policy, or replace the one of the same name."""
        kept = [other for other in self._engine.policies if other.name != policy.name]
        return self._set_policies([*kept, policy], now)

    def clear_policy(self, name: str, *, now: float) -> list[Outgoing]:
        """Remove a policy if it exists."""
        return self._set_policies([other for other in self._engine.policies if other.name != name], now)

    def _set_policies(self, policies: Sequence[Policy], now: float) -> list[Outgoing]:
        self._at(now)
        self._engine.policies = tuple(policies)
        for queue in list(self._engine.queues.values()):
            self._engine.apply_policies(queue)
        return self._answers()

    def unconfirmed(self, connection: ConnectionId, channel: int) -> list[int]:
        """The tags of the publishes that wait for :meth:`confirm`, in order.

        Raises:
            LocalError: there is no such channel.
        """
        return list(self._channel(connection, channel).unconfirmed)

    def confirm(
        self, connection: ConnectionId, channel: int, *, tag: int, multiple: bool = False, ok: bool = True
    ) -> list[Outgoing]:
        """Confirm a publish, or refuse it.

        Args:
            tag: of the publish.
            multiple: confirm or refuse all publishes up to ``tag`` that wait.
            ok: false to refuse.

        Raises:
            LocalError: ``tag`` does not wait (see :meth:`unconfirmed`).
        """
        home = self._channel(connection, channel)
        if tag not in home.unconfirmed:
            raise LocalError(f"publish {tag} of channel {channel} waits for no confirm", hint="see unconfirmed()")
        home.unconfirmed = [other for other in home.unconfirmed if (other > tag if multiple else other != tag)]
        answer = commands.Basic.Ack(tag, multiple) if ok else commands.Basic.Nack(tag, multiple, requeue=False)
        return [Outgoing(connection, channel, answer)]

    def _channel(self, connection: ConnectionId, channel: int) -> Channel:
        known = self._engine.connections.get(connection)
        if known is None or channel not in known.channels:
            raise LocalError(f"no channel {channel} on connection {connection}")
        return known.channels[channel]

    def _fresh_name(self, prefix: str) -> str:
        if self._names is not None:
            return prefix + self._names()
        self._counter += 1
        return f"{prefix}{self._counter}"

    # -- the model as a value -----------------------------------------------------------------------------------------

    def clone(self) -> Broker:
        """An independent copy. It shares the messages, and ``names`` of the constructor."""
        copy = Broker.__new__(Broker)
        copy._engine = self._engine.clone()
        copy._auto_confirm, copy._names, copy._counter = self._auto_confirm, self._names, self._counter
        copy._confirm_interval, copy._confirms_due = self._confirm_interval, self._confirms_due
        copy._alarm, copy._closing, copy._next_connection = self._alarm, set(self._closing), self._next_connection
        return copy

    def snapshot(self) -> tuple[Any, ...]:
        """A hashable image of the state. Brokers with equal images answer the same calls with the same methods."""
        engine = self._engine
        ranks = self._ranks()
        connections = tuple(
            (
                (c.id, c.vhost, c.user, c.blocked, c.opened),
                tuple((number, type(method).__name__, str(dict(method)), body) for number, method, _, body in c.held),
                tuple(channel.snapshot(ranks) for _, channel in sorted(c.channels.items())),
            )
            for _, c in sorted(engine.connections.items())
        )
        return (
            tuple(topology.snapshot() for _, topology in sorted(engine.topologies.items())),
            tuple((uid, queue.snapshot(ranks[uid])) for uid, queue in sorted(engine.uids.items())),
            connections,
            (self._alarm, self._next_connection, self._counter, tuple(sorted(self._closing)), self._confirms_due),
            tuple((p.name, p.pattern, p.priority, repr(sorted(p.definition.items()))) for p in engine.policies),
        )

    def _ranks(self) -> dict[int, dict[int, int]]:
        positions: dict[int, list[int]] = {
            uid: [e.position for e in q.entries()] for uid, q in self._engine.uids.items()
        }
        for channel in self._channels():
            for _, pending in channel.outstanding():
                if pending.queue in positions:
                    positions[pending.queue].append(pending.entry.position)
        return {uid: {place: rank for rank, place in enumerate(sorted(known))} for uid, known in positions.items()}

    def _channels(self) -> list[Channel]:
        return [channel for c in self._engine.connections.values() for channel in c.channels.values()]

    # -- inspection ---------------------------------------------------------------------------------------------------

    def connections(self) -> list[ConnectionId]:
        """The connections, in the order in which they were made."""
        return list(self._engine.connections)

    def queue_names(self, vhost: str = "/") -> list[str]:
        """The names of the queues, sorted."""
        return sorted(name for home, name in self._engine.queues if home == vhost)

    def exchange_names(self, vhost: str = "/") -> list[str]:
        """The names of the exchanges, sorted; the default exchange has the name ``""``."""
        return sorted(self._engine.topologies[vhost].exchanges)

    def queue(self, name: str, vhost: str = "/") -> Queue:
        """The state of a queue, to read.

        Raises:
            LocalError: there is no such queue.
        """
        found = self._engine.queues.get((vhost, name))
        if found is None:
            raise LocalError(f"no queue {name!r} in vhost {vhost!r}")
        return found

    def messages(self, queue: str, vhost: str = "/") -> list[AmqpMessage]:
        """The messages of a queue that no consumer has, in the order of delivery.

        Raises:
            LocalError: there is no such queue.
        """
        return [entry.message for entry in self.queue(queue, vhost).entries()]

    def unacked(self, queue: str, vhost: str = "/") -> list[tuple[ConnectionId, int, int, AmqpMessage]]:
        """The deliveries of a queue that are not settled: connection, channel, delivery tag, message.

        Raises:
            LocalError: there is no such queue.
        """
        uid = self.queue(queue, vhost).uid
        return [
            (channel.connection, channel.number, tag, pending.entry.message)
            for channel in self._channels()
            for tag, pending in channel.outstanding()
            if pending.queue == uid
        ]

    def bindings(self, vhost: str = "/") -> list[Binding]:
        """The bindings, sorted."""
        return sorted(self._engine.topologies[vhost].bindings(), key=repr)

    def consumers(self, queue: str, vhost: str = "/") -> list[tuple[ConnectionId, int, str]]:
        """The consumers of a queue: connection, channel, consumer tag.

        Raises:
            LocalError: there is no such queue.
        """
        return [(key.connection, key.channel, key.tag) for key in self.queue(queue, vhost).consumers]
