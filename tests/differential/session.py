"""One side of a comparison: performs operations through the client, and notes everything that a client can observe."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pamqp import base, commands

from eda_core.testing.broker.addresses import NAME, PREFIX
from tests.differential import writing
from tests.differential.client import Client, Received
from tests.differential.known_differences import in_any_order, sender_of
from tests.differential.operations import Call, Leave, Operation, Place, Publish, Settle, SettleUnknown

#: What was seen, by the place where it was: one list of lines for each place with a defined order.
Observation = dict[str, list[str]]
#: A queue to look at, and the connection that it is exclusive to, if it is.
Probe = tuple[str, int | None]

MONITOR = 9  # the channel on which a connection looks at its exclusive queues
GET = "get"  # the source of what was fetched
_SYMBOL = re.compile(r"[qx][0-9]|none[0-9]")
_METHODS: dict[str, type[base.Frame]] = {str(vars(kind)["name"]): kind for kind in commands.INDEX_MAPPING.values()}


def method(name: str, values: Mapping[str, Any]) -> base.Frame:
    """A method by its name. (pamqp's constructor would refuse values that a client may send.)"""
    made = _METHODS[name]()
    for key, value in values.items():
        setattr(made, key, value)
    return made


def _ends(answer: base.Frame) -> bool:
    """Whether it is an answer to ``Tx.Commit``."""
    return isinstance(answer, commands.Tx.CommitOk | commands.Channel.Close | commands.Connection.Close)


@dataclass(slots=True)
class Pending:
    """A delivery that is not settled. ``source`` is its consumer, or GET with the queue."""

    source: str
    queue: str
    tag: int


@dataclass(slots=True)
class ChannelState:
    """What the client knows of a channel.

    Attributes:
        consumers: by tag.
        mandatory: the numbers of publishes, by body.
        held: the deliveries that a transaction settles.
        requested: how many requests for direct replies a transaction publishes.
    """

    confirming: bool = False
    shared_prefetch: bool = False
    published: int = 0
    consumers: dict[str, tuple[str, bool]] = field(default_factory=dict)
    asked: list[tuple[str, bool, str]] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    highest: int = 0
    mandatory: dict[bytes, int] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)
    transactional: bool = False
    held: list[Pending] = field(default_factory=list)
    requested: int = 0

    def ordered(self) -> list[Pending]:
        """The unsettled deliveries, in an order that is the same on both sides."""
        return sorted(self.pending, key=lambda pending: (pending.source, pending.tag))

    def meaning(self, tag: int) -> list[tuple[str, int]]:
        """How many deliveries of each source ``multiple`` with ``tag`` settles."""
        return sorted(Counter(pending.source for pending in self.pending if pending.tag <= tag).items())

    def settle(self, covered: Callable[[int], bool], *, now: bool = False) -> None:
        """The deliveries with these tags are settled: ``now``, or when a transaction is committed."""
        gone = [pending for pending in self.pending if covered(pending.tag)]
        self.settled += [pending.tag for pending in gone]
        self.pending = [pending for pending in self.pending if not covered(pending.tag)]
        if self.transactional and not now:
            self.held += gone

    def roll_back(self) -> None:
        """The deliveries that a transaction was to settle are unsettled."""
        tags = {pending.tag for pending in self.held}
        self.settled = [tag for tag in self.settled if tag not in tags]
        self.pending, self.held, self.requested = self.pending + self.held, [], 0


class Session:
    """Two connections with channels, which are opened when they are first used, and an observer.

    Args:
        connect: makes the connection with this number.
        observer: a connection that only looks at queues. It stays open when the session ends.
        prefix: of the names of queues and exchanges. It is left out of observations.
    """

    def __init__(self, connect: Callable[[int], Client], observer: Client, prefix: str) -> None:
        self._connect = connect
        self._observer = observer
        self._prefix = prefix
        self._clients: list[Client | None] = [None, None]
        self._monitored: set[int] = set()  # connections with an open MONITOR channel
        self.channels: dict[Place, ChannelState] = {}
        self._named: dict[str, str] = {}  # by alias, the names that the server made
        self._past: str | None = None
        self._consumes: Counter[Place] = Counter()  # how often a channel has begun to consume direct replies
        self._asked: dict[bytes, str] = {}  # by the bodies of requests, what stands for the address in them
        self._messages = 0
        self._seen: Observation = {}
        self.outcomes: Counter[str] = Counter()

    # -- names --------------------------------------------------------------------------------------------------------

    def real(self, value: Any) -> Any:
        """``value``, with the names on the wire instead of the symbolic ones."""
        if isinstance(value, str):
            if value.startswith("@"):
                return self._named.get(value) or self.real(f"none{value[1:]}")
            if value.startswith("&"):
                return self._named[value]
            return self._prefix + value if _SYMBOL.fullmatch(value) else self._named.get(value, value)
        if isinstance(value, Mapping):
            return {key: self.real(item) for key, item in value.items()}
        return [self.real(item) for item in value] if isinstance(value, list) else value

    def symbolic(self, text: str) -> str:
        """``text``, with symbolic names instead of those on the wire; a tag that was used again becomes a word."""
        if self._past is not None:
            text = text.replace(self._past, "unknown delivery tag (past) ")
        for alias, name in self._named.items():
            text = text.replace(name, alias)
        return text.replace(self._prefix, "")

    def _alias(self, sign: str, name: str) -> str:
        if name.startswith("amq.") and name not in self._named.values():
            number = sum(alias.startswith(sign) for alias in self._named) + 1
            self._named[f"{sign}{number}"] = name
        return self.symbolic(name)

    # -- what the comparison asks -------------------------------------------------------------------------------------

    def alive(self, connection: int) -> bool:
        return self._clients[connection] is not None

    def knows(self, operation: Leave) -> bool:
        """Whether the channel or the connection is open."""
        return operation.at in self.channels if operation.what == "channel" else self.alive(operation.at.connection)

    def coverage(self, operation: Settle) -> list[tuple[str, int]]:
        """How many deliveries of each source the operation would settle with ``multiple``."""
        state = self.channels.get(operation.at, ChannelState())
        waiting = state.ordered()
        return state.meaning(waiting[operation.pick % len(waiting)].tag) if waiting else []

    def consumed(self, at: Place) -> set[str]:
        """The queues of the consumers of a channel."""
        return {queue for queue, _ in self.channels.get(at, ChannelState()).consumers.values()}

    def addresses(self) -> list[str]:
        """What stands for the addresses that the clients have seen, the newest last."""
        return [alias for alias in self._named if alias.startswith("&")]

    def asks(self, at: Place) -> bool:
        """Whether a channel consumes direct replies."""
        return NAME in self.consumed(at)

    def place(self, like: Callable[[ChannelState], bool]) -> Place | None:
        """The first channel that is like this."""
        return next((place for place, state in sorted(self.channels.items()) if like(state)), None)

    def has_rivals(self, connection: int) -> bool:
        """Whether one channel of a connection has unsettled messages that may come to another channel of it.

        They may when the connection ends: its channels end one after the other, and the order is chance.
        """
        channels = [state for place, state in self.channels.items() if place.connection == connection]
        return any(
            one.pending and (other.pending or other.consumers) for one, other in itertools.permutations(channels, 2)
        )

    # -- doing --------------------------------------------------------------------------------------------------------

    def perform(self, operation: Operation) -> None:
        """Perform an operation, and wait until the server has done what it asks for."""
        at = operation.at
        if isinstance(operation, Leave):
            self._leave(operation)
            return
        client = self._client(at.connection)
        if at not in self.channels and at.channel in (1, 2):
            client.send(at.channel, commands.Channel.Open())
            self.channels[at] = ChannelState()
        if isinstance(operation, Call):
            self._call(client, operation)
        elif isinstance(operation, Publish):
            self._publish(client, operation)
        elif isinstance(operation, Settle):
            self._settle(client, operation)
        else:
            self._settle_unknown(client, operation)
        if isinstance(operation, Call) and operation.name == "Tx.Commit":  # before its answer nothing may be sent
            found = client.until(lambda received: received.channel in (0, at.channel) and _ends(received.method))
            self._take(at.connection, found)
        if at in self.channels:
            self.synchronise([at])
        elif self.alive(at.connection) and at.channel not in (1, 2):  # it was never opened, so the connection ends
            self._take(at.connection, client.until(lambda received: client.ended is not None))

    def _client(self, number: int) -> Client:
        client = self._clients[number]
        if client is None:
            client = self._clients[number] = self._connect(number)
        return client

    def _call(self, client: Client, operation: Call) -> None:
        values = self.real(operation.arguments)
        state = self.channels.get(operation.at)
        if state is not None and operation.name == "Basic.Consume":
            tag, queue = operation.arguments["consumer_tag"], operation.arguments["queue"]
            state.asked.append((tag, operation.arguments.get("no_ack", False), queue))
            self._consumes[operation.at] += queue == NAME
        elif state is not None and operation.name == "Basic.Get":
            state.asked.append((GET, operation.arguments["no_ack"], operation.arguments["queue"]))
        elif state is not None and operation.name == "Basic.Qos" and operation.arguments.get("global_"):
            state.shared_prefetch = operation.arguments["prefetch_count"] > 0
        elif state is not None and operation.name == "Basic.Recover" and operation.arguments["requeue"]:
            state.settle(lambda tag: True, now=True)
        client.send(operation.at.channel, method(operation.name, values))

    def _publish(self, client: Client, operation: Publish) -> None:
        state = self.channels[operation.at]
        for _ in range(operation.count):
            self._messages += 1
            state.published += state.confirming
            body = b"m%d" % self._messages
            if operation.mandatory and state.confirming:
                state.mandatory[body] = state.published
            values = {
                "exchange": self.real(operation.exchange),
                "routing_key": self.real(operation.key),
                "mandatory": operation.mandatory,
            }
            if operation.properties.get("reply_to") == NAME:
                at = operation.at
                state.requested += state.transactional
                self._asked[body] = f"&{at.connection}.{at.channel}.{self._consumes[at]}"
            properties = commands.Basic.Properties()
            for name, value in operation.properties.items():
                setattr(properties, name, self.real(value))
            client.send(operation.at.channel, method("Basic.Publish", values), properties, body)

    def _settle(self, client: Client, operation: Settle) -> None:
        state = self.channels[operation.at]
        waiting = state.ordered()
        if not waiting:
            return
        tag = waiting[operation.pick % len(waiting)].tag
        self._send_settle(client, operation.at, operation.how, tag, operation.multiple, operation.requeue)
        state.settle(lambda other: other <= tag if operation.multiple else other == tag)

    def _settle_unknown(self, client: Client, operation: SettleUnknown) -> None:
        state = self.channels[operation.at]
        tag = 0
        if operation.tag == "future":
            tag = state.highest + 5
        elif operation.tag == "huge":
            tag = 2**64 - 1
        elif operation.tag == "past" and state.settled:
            tag = state.settled[-1]
            # Its number depends on the order of deliveries from different queues, which is chance.
            self._past = f"unknown delivery tag {tag} "
        multiple = operation.multiple and operation.how != "Reject"
        self._send_settle(client, operation.at, operation.how, tag, multiple, False)
        if multiple and tag == 0:
            state.settle(lambda other: True)

    def _send_settle(self, client: Client, at: Place, how: str, tag: int, multiple: bool, requeue: bool) -> None:
        values: dict[str, Any] = {"delivery_tag": tag}
        if how != "Reject":
            values["multiple"] = multiple
        if how != "Ack":
            values["requeue"] = requeue
        client.send(at.channel, method(f"Basic.{how}", values))

    def _leave(self, operation: Leave) -> None:
        client = self._client(operation.at.connection)
        if operation.what == "channel":
            client.send(operation.at.channel, commands.Channel.Close(200, "bye", 0, 0))
            found = client.until(lambda received: isinstance(received.method, commands.Channel.CloseOk))
            self._take(operation.at.connection, found)
            self.channels.pop(operation.at, None)
        else:
            if operation.what == "connection":
                client.close()
            else:
                client.hang_up()
            self._forget(operation.at.connection)

    def _forget(self, connection: int) -> None:
        client, self._clients[connection] = self._clients[connection], None
        if client is not None:
            client.hang_up()
        self._monitored.discard(connection)
        for place in [place for place in self.channels if place.connection == connection]:
            del self.channels[place]

    def finish(self, queues: Iterable[str], exchanges: Iterable[str]) -> None:
        """Close the connections, and delete the queues and exchanges of the sequence."""
        for client in self._clients:
            if client is not None:
                client.close()
        named = {name for alias, name in self._named.items() if alias.startswith("@")}
        for name in {*map(self.real, queues), *named, self.real("none1")}:
            self._delete(name)
        for name in exchanges:
            self._observer.send(1, commands.Exchange.Delete(exchange=self.real(name), nowait=True))
        self._observer.call(1, commands.Channel.Flow(True), commands.Channel.FlowOk)

    def _delete(self, queue: str) -> None:
        """Delete a queue, or wait until it is gone, if it is exclusive to a connection that ended a moment ago."""
        self._observer.send(1, commands.Queue.Delete(queue=queue))
        wanted = commands.Queue.DeleteOk | commands.Channel.Close
        while not isinstance(
            self._observer.until(lambda received: isinstance(received.method, wanted))[-1].method,
            commands.Queue.DeleteOk,
        ):
            self._observer.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
            self._observer.send(1, commands.Queue.Delete(queue=queue))

    # -- looking ------------------------------------------------------------------------------------------------------

    def synchronise(self, places: Iterable[Place]) -> None:
        """Wait until the server has taken everything that was sent on these channels.

        ``Channel.Flow`` with active set changes nothing, and is answered in its turn.
        """
        for number in (0, 1):
            client = self._clients[number]
            waiting = {place.channel for place in places if place.connection == number and place in self.channels}
            if client is None or not waiting:
                continue
            for channel in waiting:
                client.send(channel, commands.Channel.Flow(True))
            while waiting and client.ended is None:
                for received in client.until(lambda received: True):
                    if isinstance(received.method, commands.Channel.FlowOk | commands.Channel.Close):
                        waiting.discard(received.channel)
                    self._take(number, [received])

    def observe(self, probes: Iterable[Probe]) -> Observation:
        """Everything that was seen since ``start``, and the queues as they are now."""
        self.synchronise(list(self.channels))
        counts = {f"queue {name}": [self._probe(name, owner)] for name, owner in probes if owner is not None}
        shared = [name for name, owner in probes if owner is None]
        while shared:
            for name in shared:
                self._observer.send(1, self._look_at(name))
            # If a queue is missing the server closes the channel, and does not answer what was sent after that.
            while shared:
                answers = [item.method for item in self._observer.until(lambda received: True)]
                for answer in answers:
                    counts[f"queue {shared.pop(0)}"] = [writing.count(answer)]
                if isinstance(answers[-1], commands.Channel.Close):
                    self._observer.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
                    break
        return {**self._seen, **counts}

    def start(self) -> None:
        """Begin a new observation."""
        self._seen = {}

    def _look_at(self, name: str) -> base.Frame:
        return method("Queue.Declare", {"queue": self.real(name), "passive": True})

    def _probe(self, name: str, owner: int) -> str:
        """Look at a queue that is exclusive to a connection."""
        client = self._client(owner)
        if owner not in self._monitored:
            client.send(MONITOR, commands.Channel.Open())
            self._monitored.add(owner)
        client.send(MONITOR, self._look_at(name))
        ends = (commands.Queue.DeclareOk, commands.Channel.Close)
        found = client.until(lambda received: received.channel == MONITOR and isinstance(received.method, ends))
        answer = next(item.method for item in found if item.channel == MONITOR and isinstance(item.method, ends))
        self._take(owner, found)
        if isinstance(answer, commands.Channel.Close):
            self._monitored.discard(owner)
        return writing.count(answer)

    # -- noting what came ---------------------------------------------------------------------------------------------

    def _write(self, where: str, line: str, outcome: str = "") -> None:
        self._seen.setdefault(where, []).append(self.symbolic(line))
        if outcome:
            self.outcomes[outcome] += 1

    def _take(self, connection: int, found: Iterable[Received]) -> None:
        for received in found:
            place = Place(connection, received.channel)
            if received.channel == 0:
                self._on_connection(connection, received.method)
            elif place in self.channels:
                self._on_channel(place, self.channels[place], received)

    def _on_connection(self, connection: int, method: base.Frame) -> None:
        if isinstance(method, commands.Connection.Close):
            self._write(
                f"connection {connection}", f"closed: {writing.error(method)}", f"connection closed {method.reply_code}"
            )
            self._forget(connection)

    def _on_channel(self, place: Place, state: ChannelState, received: Received) -> None:
        address = received.properties.reply_to if received.properties is not None else None
        if address is not None and address.startswith(PREFIX) and received.body in self._asked:
            self._named[self._asked[received.body]] = address
        where, answer = f"channel {place.connection}.{place.channel}", received.method
        if isinstance(answer, commands.Basic.Deliver):
            self._on_deliver(where, state, received, answer)
        elif isinstance(answer, commands.Basic.GetOk):
            self._on_get(where, state, received, answer)
        elif isinstance(answer, commands.Basic.Return):
            number = state.mandatory.get(received.body)
            moment = "unconfirmed" if number is None else "after" if number in state.confirmed else "before"
            line = f"{answer.reply_code} {answer.reply_text} ({moment} the confirm): {writing.message(received)}"
            outcome = "returned unconfirmed" if number is None else f"returned {moment} the confirm"
            self._write(f"{where} returns", line, outcome)
        elif isinstance(answer, commands.Basic.Ack | commands.Basic.Nack):
            self._on_confirm(where, state, answer)
        elif isinstance(answer, commands.Basic.Cancel):
            tag = self._alias("%", answer.consumer_tag or "")
            self._write(f"{where} cancelled", tag, "consumer cancelled by the server")
            self._seen[f"{where} cancelled"] = in_any_order(self._seen[f"{where} cancelled"])
            state.consumers.pop(tag, None)
        elif isinstance(answer, commands.Channel.Close):
            self._write(where, f"closed: {writing.error(answer)}", f"channel closed {answer.reply_code}")
            del self.channels[place]
        elif not isinstance(answer, commands.Channel.FlowOk | commands.Channel.OpenOk):
            self._on_reply(where, state, answer)

    def _on_deliver(self, where: str, state: ChannelState, received: Received, answer: commands.Basic.Deliver) -> None:
        tag = self._alias("%", answer.consumer_tag or "")
        queue, no_ack = state.consumers.get(tag, ("", False))
        if tag not in state.consumers:
            self._write(f"{where} consumer {tag}", "a delivery to no consumer")
        self._deliver(f"{where} consumer {tag}", state, received, Pending(tag, queue, answer.delivery_tag or 0), no_ack)

    def _on_get(self, where: str, state: ChannelState, received: Received, answer: commands.Basic.GetOk) -> None:
        _, no_ack, queue = state.asked.pop(0)
        pending = Pending(f"{GET} {queue}", queue, answer.delivery_tag or 0)
        self._write(where, f"GetOk, {answer.message_count} left", "got a message")
        self._deliver(where, state, received, pending, no_ack)

    def _deliver(self, where: str, state: ChannelState, received: Received, pending: Pending, no_ack: bool) -> None:
        values = dict(received.method)
        state.highest = max(state.highest, pending.tag)
        if not no_ack:
            state.pending.append(pending)
        redelivered = "redelivered" if values["redelivered"] else "delivered"
        headers: dict[str, Any] = (received.properties.headers if received.properties else None) or {}
        where += sender_of(headers) if pending.queue == NAME else ""
        self._write(where, f"{redelivered} {writing.message(received)}", redelivered)
        self.outcomes["a direct reply"] += pending.queue == NAME
        deaths: list[dict[str, Any]] = headers.get("x-death", [])
        for death in deaths:
            self.outcomes[f"died: {death['reason']}"] += 1
            self.outcomes["died more than once"] += death["count"] > 1 or len(deaths) > 1

    def _on_confirm(self, where: str, state: ChannelState, answer: commands.Basic.Ack | commands.Basic.Nack) -> None:
        low = 1 if answer.multiple else answer.delivery_tag
        verb = "acked" if isinstance(answer, commands.Basic.Ack) else "nacked"
        for tag in range(low, answer.delivery_tag + 1):
            if tag not in state.confirmed:
                state.confirmed.add(tag)
                self._write(f"{where} confirms", f"{tag} {verb}", f"publish {verb}")
        # Whether several publishes are confirmed at once does not matter either.
        self._seen[f"{where} confirms"] = in_any_order(self._seen.get(f"{where} confirms", []))

    def _on_reply(self, where: str, state: ChannelState, answer: base.Frame) -> None:
        values: dict[str, Any] = dict(answer)
        if isinstance(answer, commands.Queue.DeclareOk):
            values["queue"] = self._alias("@", answer.queue or "")
        elif isinstance(answer, commands.Basic.ConsumeOk):
            _, no_ack, queue = state.asked.pop(0)
            values["consumer_tag"] = tag = self._alias("%", answer.consumer_tag or "")
            state.consumers[tag] = (queue, no_ack)
        elif isinstance(answer, commands.Basic.CancelOk):
            state.consumers.pop(answer.consumer_tag or "", None)
        elif isinstance(answer, commands.Basic.GetEmpty):
            state.asked.pop(0)
            self.outcomes["got nothing"] += 1
        elif isinstance(answer, commands.Confirm.SelectOk):
            state.confirming = True
        elif isinstance(answer, commands.Tx.SelectOk):
            state.transactional = True
        elif isinstance(answer, commands.Tx.CommitOk):
            self.outcomes["a transaction with settlements committed"] += bool(state.held)
            state.held, state.requested = [], 0
        elif isinstance(answer, commands.Tx.RollbackOk):
            self.outcomes["a transaction with settlements rolled back"] += bool(state.held)
            state.roll_back()
        self._write(where, " ".join([answer.name, *(f"{key}={value}" for key, value in values.items())]))
