"""Performs a sequence of operations on the model and on RabbitMQ, side by side, and shows the first difference."""

from __future__ import annotations

import itertools
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pamqp import commands

from eda_core.testing.broker import AmqpMessage, Broker, ConnectionId, Entry, Queue
from eda_core.testing.broker.addresses import NAME, PREFIX, Address
from eda_core.testing.broker.addresses import Place as Home
from eda_core.testing.broker.engine import Engine
from eda_core.testing.broker.queue import Consumer, ConsumerKey
from eda_core.testing.broker.state import Channel, Connection
from eda_core.testing.broker.versions import NEWEST, VERSIONS
from eda_core.testing.wire import Server
from tests.differential.client import Client, Clock, MemoryPipe, Pipe, SilenceError, TcpPipe
from tests.differential.operations import (
    ADDRESS,
    ANY,
    ASKED,
    CONSUME_REPLIES,
    CONSUMED,
    EXCHANGES,
    FILLED,
    FOREIGN,
    PLACES,
    QUEUES,
    TINY,
    Call,
    Leave,
    Operation,
    Place,
    Publish,
    Settle,
)
from tests.differential.session import Observation, Probe, Session
from tests.support.rabbitmq import RabbitNode

#: RabbitMQ is asynchronous. It gets so many seconds to show what the model shows; then that counts as a difference.
DEADLINE = 1.5
#: The same after a difference was found, while hypothesis tries many shorter sequences that may show it.
SHORT_DEADLINE = 0.4
#: A difference has to show so many times. If it does not, it was chance: a time to live may be over in the middle of
#: an operation on a busy machine, for example.
ATTEMPTS = 3
_WIDTH = 88
#: An operation enqueues more messages than this only if dead letters go round in a circle; RabbitMQ never ends that.
_CIRCLE = 300
#: How many messages of each queue are compared when a sequence is over.
_LEFTOVERS = 3


class DifferenceError(AssertionError):
    """The model and RabbitMQ differ. The text shows both."""


class WatchedEngine(Engine):
    """An engine that notes what RabbitMQ leaves to chance, and what takes time.

    Attributes:
        origins: where the messages of each queue came from, by name. The order between two origins is chance.
        raced: two processes of RabbitMQ acted on the same queue or channel at the same time, and which of them is first
            is chance. A dead letter came to a queue while one of its consumers went with the channel that ended, or was
            a direct reply to that channel; or a
            queue asked whether the shared prefetch of a channel is used up while the channel told that it is not; or a
            dead letter that the queue must deliver at once or drop came while the queue was being told so; or a commit
            publishes to a queue that must deliver at once or drop, and settles some of its messages; or a lost
            connection gave messages back to an exclusive queue, which went with it, and had no room for them.
        arrivals: how many messages the queues got.
        events: what only the server sees, and how often.
        ageing: one of them has a tiny time to live.
    """

    __slots__ = (
        "_closed",
        "_ending",
        "_filled",
        "_left",
        "_publishing",
        "_receivers",
        "_settling",
        "_told",
        "ageing",
        "arrivals",
        "events",
        "origins",
        "raced",
    )

    def __init__(self, vhost: str, version: str) -> None:
        super().__init__([vhost], (), 0.0, VERSIONS[version])
        self.events: Counter[str] = Counter()
        self._receivers: dict[int, ConsumerKey] = {}
        self._ending: int | None = None
        self.forget()

    def forget(self) -> None:
        self.origins: dict[str, set[str]] = {}
        self.raced = False
        self._left: set[int] = set()
        self._told: set[int] = set()
        self._filled: set[int] = set()
        self._closed: set[Address] = set()
        self.ageing = False
        self.arrivals = 0
        self._publishing = False
        self._settling: Channel | None = None

    def place(self, vhost: str, names: Sequence[str], message: AmqpMessage) -> tuple[bool, bool]:
        self._publishing = True
        answer = super().place(vhost, names, message)
        self._publishing = False
        return answer

    def enqueue(self, queue: Queue, message: AmqpMessage) -> bool:
        # A client may send x-death, too.
        headers: dict[str, Any] = {} if self._publishing else message.properties.headers or {}
        deaths = headers.get("x-death")
        self.origins.setdefault(queue.name, set()).add(deaths[0]["queue"] if deaths else "")
        self.arrivals += 1
        self.raced |= queue.uid in self._left
        limits = queue.limits
        bounded = limits.max_length is not None or limits.max_length_bytes is not None
        if bounded or 0 in (message.ttl, limits.message_ttl):  # the message cannot wait
            self.raced |= queue.uid in self._told
            self._filled.add(queue.uid)
        self.ageing |= TINY in (message.ttl, queue.limits.message_ttl)
        return super().enqueue(queue, message)

    def close_channels(self, channels: list[Channel]) -> None:
        consumed = [uid for channel in channels for uid in set(channel.consumers.values())]
        self.raced |= any(consumed.count(uid) > 1 and self.uids[uid].single for uid in consumed)
        ended = {(channel.connection, channel.number) for channel in channels}
        active = (self.uids[uid].active for uid in consumed if self.uids[uid].quiescing)
        self.raced |= any(key is not None and key[:2] in ended for key in active)
        self._left.update(consumed)
        self._closed.update(
            Address(Home(channel.connection, channel.number, channel.serial), channel.replies.key)
            for channel in channels
            if channel.replies is not None
        )
        super().close_channels(channels)

    def close_connection(self, connection: Connection) -> None:
        self._ending = connection.id
        super().close_connection(connection)
        self._ending = None

    def dead_letter(self, queue: Queue, message: AmqpMessage, reason: str) -> None:
        self.raced |= queue.owner is not None and queue.owner == self._ending
        super().dead_letter(queue, message, reason)

    def reply_channel(self, address: Address, vhost: str) -> Channel | None:
        self.raced |= address in self._closed
        return super().reply_channel(address, vhost)

    def cancel(self, queue: Queue, key: ConsumerKey) -> None:
        was_active = queue.single and not queue.quorum and key == queue.active
        super().cancel(queue, key)
        self.raced |= (
            was_active and queue.active is not None and self.version.name == "3.10" and self._was_filled(queue)
        )

    def _was_filled(self, queue: Queue) -> bool:
        """Whether the queue had messages before the active consumer got some."""
        return len(queue) > 0 or any(out.method.name == "Basic.Deliver" for out in self.out)

    def _hand_out(
        self, channel: Channel, queue: Queue, entry: Entry, consumer: Consumer | None, *, no_ack: bool
    ) -> int:
        order = queue.priorities
        overtaken = (other for other in queue.ready if other.position < entry.position)
        self.events["overtook an older message"] += any(order.of(other) < order.of(entry) for other in overtaken)
        return super()._hand_out(channel, queue, entry, consumer, no_ack=no_ack)

    def _deliver(self, queue: Queue, consumer: Consumer, entry: Entry) -> None:
        if queue.single:
            before = self._receivers.get(queue.uid, consumer.key)
            self.events["delivered while other consumers wait"] += len(queue.consumers) > 1
            self.events["delivered to the next active consumer"] += before != consumer.key
            self._receivers[queue.uid] = consumer.key
        super()._deliver(queue, consumer, entry)

    def settle(self, channel: Channel, tags: list[int], how: str, *, failed: bool = False) -> None:
        self._settling = channel
        self.raced |= any(channel.unacked[tag].queue in self._filled for tag in tags)
        super().settle(channel, tags, how, failed=failed)
        self._settling = None

    def _may_send(self, queue: Queue, consumer: Consumer) -> bool:
        channel = self.channel(consumer.key)
        asks = channel is self._settling and channel.limited and queue.uid not in channel.suspended
        self.raced |= asks and not queue.quorum and consumer.credit != 0 and len(queue.consumers) > 1
        return super()._may_send(queue, consumer)

    def resume(self, channel: Channel) -> None:
        self._settling = None  # the channel has told the queues
        self._told |= channel.suspended
        super().resume(channel)

    def _requeue(self, queue: Queue, entries: list[Entry], *, failed: bool) -> None:
        if entries:
            self.origins.setdefault(queue.name, set()).add("returned")
        super()._requeue(queue, entries, failed=failed)

    def _return_limited(self, queue: Queue, entries: list[Entry], *, failed: bool) -> int:
        if entries:
            self.origins.setdefault(queue.name, set()).add("returned")
        return super()._return_limited(queue, entries, failed=failed)


class Model:
    """The side of the model: a new broker for each sequence, in virtual time."""

    def __init__(self, prefix: str, vhost: str = "/", version: str = NEWEST) -> None:
        self.vhost = vhost
        numbers = itertools.count(1)
        self.broker = Broker(vhosts=[vhost], names=lambda: f"{next(numbers):08d}", version=version)
        self.engine = self.broker._engine = WatchedEngine(vhost, version)
        self.clock = Clock()
        self.server = Server(self.broker)
        self._numbers: dict[ConnectionId, int] = {}
        self._were_quorum: set[str] = set()
        observer = Client(MemoryPipe(self.server, self.clock), vhost)
        observer.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
        self.session = Session(self.connect, observer, prefix)

    def connect(self, number: int, channel_max: int | None = None) -> Client:
        client = Client(MemoryPipe(self.server, self.clock), self.vhost, channel_max)
        self._numbers[max(self.broker.connections())] = number
        return client

    def let_time_pass(self) -> None:
        """Let every tiny time to live pass, one after the other."""
        self.clock.now += 1.0
        self.server.tick(now=self.clock.now)

    def some_queue(self, wanted: str, connection: int) -> str | None:
        """The first queue that a name like FILLED stands for on a connection; ``None`` if there is none."""
        suits: dict[str, Callable[[Queue], int]] = {
            ANY: lambda queue: True,
            ASKED: lambda queue: any((e.message.properties.reply_to or "").startswith(PREFIX) for e in queue.entries()),
            CONSUMED: lambda queue: len(queue.consumers),
            FILLED: len,
        }
        for name, owner in sorted(self.queues(), key=str):
            if wanted == FOREIGN and owner == 1 - connection:
                return name
            queue = self.broker.queue(self.session.real(name), self.vhost)
            if wanted == FILLED and queue.quorum and queue.single:
                continue  # nothing can be fetched from it
            if wanted != FOREIGN and owner in (None, connection) and suits[wanted](queue):
                return name
        return None

    def would_change_type(self, declare: Call) -> bool:
        """Whether a classic queue would get the name of a deleted quorum queue.

        A channel of RabbitMQ 3.10.8 that has used the deleted queue may crash when it uses the new one.
        """
        present = self.broker.queue_names(self.vhost)
        self._were_quorum.update(name for name in present if self.broker.queue(name, self.vhost).quorum)
        name = self.session.real(declare.arguments.get("queue", ""))
        return name in self._were_quorum and name not in present

    def would_fail(self, cancel: Call) -> bool:
        """Whether a classic queue of RabbitMQ 3.10 would have messages and a new single active consumer."""
        wanted = (cancel.at.connection, cancel.at.channel, cancel.arguments["consumer_tag"])
        for queue in self.engine.queues.values() if self.broker.version == "3.10" else ():
            if queue.single and not queue.quorum and queue.active is not None and len(queue.consumers) > 1:
                active = (self._numbers[queue.active.connection], queue.active.channel, queue.active.tag)
                if len(queue) and active == wanted:
                    return True
        return False

    def would_end_in_turn(self, leave: Leave) -> bool:
        """Whether several channels of the connection have consumers of a queue with a single active one."""
        for queue in self.engine.queues.values():
            keys = [key for key in queue.consumers if self._numbers[key.connection] == leave.at.connection]
            if queue.single and len({key.channel for key in keys}) > 1:
                return leave.what != "channel"
        return False

    def would_compete(self, consume: Call) -> bool:
        """Whether several consumers of a quorum queue would get messages, one of them without acknowledgement.

        A limit of length takes messages as well.
        """
        name = self.session.real(consume.arguments["queue"])
        if name not in self.broker.queue_names(self.vhost):
            return False
        queue = self.broker.queue(name, self.vhost)
        no_ack = consume.arguments.get("no_ack") or any(consumer.no_ack for consumer in queue.consumers.values())
        return bool(queue.quorum and no_ack and (queue.consumers or queue.limits.max_length is not None))

    def origins(self, *, ordered: bool) -> Iterator[set[str]]:
        """Where the messages came from, for each queue.

        Args:
            ordered: what was published and then returned to a classic queue comes from one channel, in order.
        """
        for name, found in self.engine.origins.items():
            queue = self.engine.queues.get((self.vhost, name))
            both = ordered and queue is not None and not queue.quorum
            yield {"" if both and origin == "returned" else origin for origin in found}

    def queues(self) -> set[Probe]:
        found: set[Probe] = set()
        for name in self.broker.queue_names(self.vhost):
            owner = self.broker.queue(name, self.vhost).owner
            found.add((self.session.symbolic(name), None if owner is None else self._numbers[owner]))
        return found


def modelled_release(node: RabbitNode) -> str:
    """The release of a node, as the model knows it. Skips the test if it is not modelled."""
    release = ".".join(map(str, node.version[:2]))
    if release not in VERSIONS:
        pytest.skip(f"RabbitMQ {release} is not modelled")
    return release


def pipes(node: RabbitNode, vhost: str = "/") -> list[Pipe]:
    """To the model, as the release of the node, and to RabbitMQ."""
    server = Server(Broker(vhosts=[vhost], version=modelled_release(node)))
    return [MemoryPipe(server, Clock()), TcpPipe("127.0.0.1", node.port)]


class Rabbit:
    """The side of RabbitMQ. Its observer stays connected from sequence to sequence."""

    def __init__(self, host: str, port: int, vhost: str, version: str) -> None:
        self.vhost, self.version = vhost, version
        self._address = (host, port)
        self._observer = self.connect()
        self._observer.call(1, commands.Channel.Open(), commands.Channel.OpenOk)

    def connect(self, channel_max: int | None = None) -> Client:
        return Client(TcpPipe(*self._address), self.vhost, channel_max)

    def session(self, prefix: str) -> Session:
        return Session(lambda number: self.connect(), self._observer, prefix)

    def close(self) -> None:
        self._observer.close()


@dataclass(slots=True)
class Statistics:
    """How much was compared."""

    sequences: int = 0
    cut_short: int = 0
    observations: int = 0
    chance: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        total = sum(self.operations.values())
        lines = [
            f"{self.sequences} sequences ({self.cut_short} cut short where the order is chance, {self.chance} repeated)"
            f", {total} operations, {self.observations} observations in {self.seconds:.1f} s"
        ]
        for title, counter in (("operations", self.operations), ("outcomes", self.outcomes)):
            words = ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
            lines += textwrap.wrap(f"{title}: {words}", 118, subsequent_indent="    ")
        return "\n".join(lines)


Page = tuple[str, Observation, Observation]


class Comparison:
    """Compares sequences, one by one."""

    def __init__(self, rabbit: Rabbit) -> None:
        self.statistics = Statistics()
        self._rabbit = rabbit
        self._numbers = itertools.count(1)
        self._deadline = DEADLINE

    def run(self, sequence: Sequence[Operation]) -> None:
        """Compare one sequence.

        Raises:
            DifferenceError: the two sides differ.
        """
        begin = time.monotonic()
        for attempt in range(ATTEMPTS):
            try:
                self._attempt(sequence)
                self.statistics.chance += attempt > 0
                break
            except DifferenceError:
                if attempt == ATTEMPTS - 1:
                    self._deadline = SHORT_DEADLINE
                    raise
        self.statistics.seconds += time.monotonic() - begin

    def _attempt(self, sequence: Sequence[Operation]) -> None:
        prefix = f"s{next(self._numbers):06d}."
        model = Model(prefix, self._rabbit.vhost, self._rabbit.version)
        session = self._rabbit.session(prefix)
        pages: list[Page] = []
        done: Counter[str] = Counter()
        try:
            for operation in itertools.chain(sequence, _leftovers(model)):
                operation = _same_for_both(_adapted(operation, model), model.session, session)
                if _is_idle(operation, model.session) or _is_left_to_chance(operation, model):
                    continue
                page = self._step(operation, model, session)
                if page is None:
                    self.statistics.cut_short += 1
                    break
                pages.append(page)
                done[operation.label] += 1
                if page[1] != page[2]:
                    raise DifferenceError(render(pages))
        finally:
            session.finish(QUEUES, EXCHANGES)
        self.statistics.sequences += 1
        self.statistics.operations += done
        self.statistics.outcomes += model.session.outcomes + model.engine.events
        self.statistics.observations += sum(len(lines) for _, seen, _ in pages for lines in seen.values())

    def _step(self, operation: Operation, model: Model, session: Session) -> Page | None:
        """Perform an operation on both sides. Returns both observations; ``None`` if RabbitMQ leaves them to chance."""
        before = model.queues()
        rivals = model.session.has_rivals(operation.at.connection)
        commits = isinstance(operation, Call) and operation.name == "Tx.Commit"
        consumes = commits and bool(model.session.consumed(operation.at))
        model.engine.forget()
        model.session.start()
        try:
            model.session.perform(operation)
            model.let_time_pass()
            after = model.queues()
            known = {name for name, _ in after}
            probes = sorted(after | {(name, None) for name, _ in before if name not in known}, key=str)
            expected = model.session.observe(probes)
        except SilenceError as error:
            return (str(operation), {"client": [str(error)]}, {})
        if rivals and not model.session.alive(operation.at.connection):
            return None
        if consumes and operation.at not in model.session.channels:
            return None
        if any(len(origins) > 1 for origins in model.origins(ordered=commits)):
            return None
        if model.engine.raced or model.engine.arrivals > _CIRCLE:
            return None
        session.start()
        try:
            session.perform(operation)
            actual = _await(session, probes, expected, self._deadline)
        except SilenceError as error:
            actual = {"client": [str(error)]}
        if model.engine.ageing:
            time.sleep((TINY + 3) / 1000)  # the time to live of what was delivered at once has to be over, too
        return (str(operation), expected, actual)


def _await(session: Session, probes: Sequence[Probe], expected: Observation, deadline: float) -> Observation:
    """What RabbitMQ shows, as soon as it is what was expected, or when the time is over."""
    give_up = time.monotonic() + deadline
    pause = 0.0
    while (actual := session.observe(probes)) != expected and time.monotonic() < give_up:
        time.sleep(pause)
        pause = min(pause + 0.001, 0.01)
    return actual


def _adapted(operation: Operation, model: Model) -> Operation:
    """The operation, at a place where it can do something. If there is none, another one that leads to such a place."""
    if isinstance(operation, Settle) and _is_idle(operation, model.session):
        busy = [place for place, state in sorted(model.session.channels.items()) if state.pending]
        if busy:
            return replace(operation, at=busy[0])
        if queue := model.some_queue(FILLED, operation.at.connection):
            return Call("get", operation.at, "Basic.Get", {"queue": queue, "no_ack": False})
        return Publish("publish", operation.at, "", f"q{operation.pick % 3}", operation.pick + 1)
    if isinstance(operation, Call) and operation.name in ("Tx.Commit", "Tx.Rollback"):
        return _in_a_transaction(operation, model.session)
    if ADDRESS in (getattr(operation, "key", None), getattr(operation, "arguments", {}).get("queue")):
        return _with_an_address(operation, model)
    if isinstance(operation, Publish) and operation.key == CONSUMED:
        return replace(operation, key=model.some_queue(CONSUMED, operation.at.connection) or "q0")
    if isinstance(operation, Publish) and operation.properties.get("reply_to") == NAME:
        if "without" not in operation.label and not model.session.asks(operation.at):
            place = _asking(model.session)
            return replace(operation, at=place) if place else replace(CONSUME_REPLIES, at=operation.at)
        return replace(operation, key=model.some_queue(CONSUMED, operation.at.connection) or "q0")
    wanted = operation.arguments.get("queue") if isinstance(operation, Call) else None
    if isinstance(operation, Call) and wanted in (FILLED, CONSUMED, FOREIGN):
        queue = model.some_queue(wanted, operation.at.connection)
        if queue is None and wanted == FOREIGN:
            arguments = {"queue": "q3", "exclusive": True}
            return Call("declare exclusive queue", Place(1 - operation.at.connection, 1), "Queue.Declare", arguments)
        return replace(operation, arguments={**operation.arguments, "queue": queue or "q0"})
    return operation


def _in_a_transaction(operation: Call, session: Session) -> Operation:
    """The commit or rollback, on a transactional channel. If there is none, one becomes so."""
    state = session.channels.get(operation.at)
    if "without" in operation.label or (state is not None and state.transactional):
        return operation
    if (at := session.place(lambda state: state.transactional)) is not None:
        return replace(operation, at=at)
    return Call("tx.select", operation.at, "Tx.Select")


def _with_an_address(operation: Operation, model: Model) -> Operation:
    """The operation, with the address that was seen last, or a step towards one: a consumer, a request, a get."""
    session, at = model.session, operation.at
    if addresses := session.addresses():
        if isinstance(operation, Publish):
            return replace(operation, key=addresses[-1])
        assert isinstance(operation, Call)
        return replace(operation, arguments={**operation.arguments, "queue": addresses[-1]})
    place = _asking(session)
    if place is None:
        return replace(CONSUME_REPLIES, at=at)
    if session.channels[place].transactional and session.channels[place].requested:
        return Call("tx.commit", place, "Tx.Commit")
    if queue := model.some_queue(ASKED, place.connection):
        return Call("get", place, "Basic.Get", {"queue": queue, "no_ack": True})
    if queue := model.some_queue(ANY, place.connection):
        return Publish("publish a request", place, "", queue, properties={"reply_to": NAME})
    return Call("declare queue", place, "Queue.Declare", {"queue": "q0"})


def _asking(session: Session) -> Place | None:
    """The first channel that consumes direct replies."""
    return session.place(lambda state: any(queue == NAME for queue, _ in state.consumers.values()))


def _leftovers(model: Model) -> Iterator[Operation]:
    """Operations that fetch the messages that are left at the end."""
    for name, owner in sorted(model.queues(), key=str):
        queue = model.broker.queue(model.session.real(name), model.vhost)
        if owner in (None, 0) and not (queue.quorum and queue.single):
            for _ in range(min(_LEFTOVERS, len(queue))):
                yield Call("get what is left", PLACES[0], "Basic.Get", {"queue": name, "no_ack": True})


def _same_for_both(operation: Operation, one: Session, other: Session) -> Operation:
    """The operation, for a single delivery if ``multiple`` would settle different ones: tags are in any order."""
    if isinstance(operation, Settle) and operation.multiple and one.coverage(operation) != other.coverage(operation):
        return replace(operation, label=operation.label.replace(" multiple", ""), multiple=False)
    return operation


def _is_idle(operation: Operation, session: Session) -> bool:
    """Whether an operation can do nothing."""
    if isinstance(operation, Settle):
        return not session.coverage(operation)
    return isinstance(operation, Leave) and not session.knows(operation)


def _is_left_to_chance(operation: Operation, model: Model) -> bool:
    """Whether an operation would have several queues or consumers compete, so that the result is chance.

    Or RabbitMQ fails. Several queues compete for the prefetch that the consumers of a channel share. Consumers of a
    quorum queue compete if one of them does not acknowledge: it has a prefetch in RabbitMQ too, and gets it back at
    some later time.
    """
    if isinstance(operation, Leave):
        return model.would_end_in_turn(operation)
    if not isinstance(operation, Call):
        return False
    if operation.name == "Queue.Declare":
        return model.would_change_type(operation)
    if operation.name == "Basic.Cancel":
        return model.would_fail(operation)
    queues, state = model.session.consumed(operation.at), model.session.channels.get(operation.at)
    shares = model.engine.version.shares_prefetch
    if operation.name == "Basic.Consume":
        shared = shares and state is not None and state.shared_prefetch
        return bool(shared and queues - {operation.arguments["queue"]}) or model.would_compete(operation)
    return operation.name == "Basic.Qos" and bool(operation.arguments.get("global_")) and shares and len(queues) > 1


# -- showing a difference ----------------------------------------------------------------------------------------------


def render(pages: Sequence[Page]) -> str:
    """Both traces, side by side, with a mark at the first difference."""
    lines = ["the model and RabbitMQ differ", f"{'MODEL':<{_WIDTH}} | RABBITMQ"]
    marked = False
    for operation, expected, actual in pages:
        lines.append(f"=== {operation}")
        for where in sorted(expected.keys() | actual.keys()):
            for one, other in itertools.zip_longest(expected.get(where, []), actual.get(where, []), fillvalue="-"):
                mark = "  "
                if one != other:
                    mark = ".." if marked else ">>"
                    marked = True
                left = textwrap.wrap(f"{where}: {one}", _WIDTH - 3, subsequent_indent="   ") or [""]
                right = textwrap.wrap(f"{where}: {other}", _WIDTH - 3, subsequent_indent="   ") or [""]
                for begin, (a, b) in enumerate(itertools.zip_longest(left, right, fillvalue="")):
                    lines.append(f"{mark if not begin else '  '} {a:<{_WIDTH - 3}} | {b}")
    return "\n".join(lines)
