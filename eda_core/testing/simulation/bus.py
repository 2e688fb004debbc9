"""The broker of a simulation, with its faults: the model of :mod:`eda_core.testing.broker`, behind connections.

This module decides what the broker takes, when it confirms, and what becomes of connections. It does not know services.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pamqp import base, commands
from pamqp.commands import Basic

from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS
from eda_core.testing.broker import Broker, ConnectionId
from eda_core.testing.broker.dead_letters import POLICY, declarations, exchanges
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.simulation.plan import Deviations, Fault
from eda_core.testing.simulation.schedule import Event, Schedule
from eda_core.testing.simulation.sent import TEST, Sent
from eda_core.testing.simulation.story import Story
from eda_core.testing.simulation.wire import LATENCY, Lane, ToBroker, Wire

#: For how long something is delayed, seconds, by the number of a deviation.
DELAYS: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 3.0, 10.0)
#: Seconds for which a broker that was killed is away.
AWAY: Final = 2.0
#: How long an alarm lasts, seconds, by the number of a deviation.
ALARMS: Final = (2.0, 2.0, 5.0, 5.0, 20.0, 20.0, 60.0, 60.0)
#: How late the broker, or the worker, notices the loss of a connection, seconds.
LATE: Final = 30.0
SOON: Final = 1.0
#: The broker in a story.
BROKER: Final = "broker"

#: What the story calls methods without content.
_TO_BROKER: Final = {"Basic.Ack": "an acknowledgement", "Basic.Nack": "a rejection"}
_FROM_BROKER: Final = {"Basic.Ack": "a confirm", "Basic.Nack": "a refusal"}


@dataclass(slots=True)
class Watchers:
    """Who is told what happens at the broker.

    Attributes:
        delivered: a message, by its id, is delivered from a queue.
        acknowledged: it is acknowledged.
        handles_returns: whether this worker handles returned messages.
    """

    delivered: Callable[[str, str], None] = lambda message, queue: None
    acknowledged: Callable[[str, str], None] = lambda message, queue: None
    handles_returns: Callable[[str], bool] = lambda worker: False


@dataclass(slots=True, eq=False)
class Bus:
    """The broker and the connections to it.

    Attributes:
        broker: the model.
        wires: the connections of workers that the broker knows.
        sent: the messages that it has taken, in order.
        by_id: the first message with each message id.
        up: whether the broker runs.
        alarm: whether it is short of memory.
    """

    _schedule: Schedule
    _deviations: Deviations
    _story: Story
    watchers: Watchers = field(default_factory=Watchers)
    broker: Broker = field(default_factory=lambda: Broker(auto_confirm=False, policies=[POLICY]))
    wires: dict[ConnectionId, Wire] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    by_id: dict[str, Sent] = field(default_factory=dict)
    up: bool = True
    alarm: bool = False
    _tick: Event | None = None
    _test: ConnectionId = field(init=False)

    def __post_init__(self) -> None:
        self._connect_test()
        for method in (*exchanges(), *declarations()):
            self._as_test(method)

    # The test's own connection

    def _connect_test(self) -> None:
        self._test = self.broker.connect()
        self._as_test(commands.Channel.Open())

    def _as_test(self, method: base.Frame, properties: Basic.Properties | None = None, body: bytes = b"") -> bool:
        """Send a method on the test's connection. Returns whether a message came back as unroutable."""
        answers = self.broker.receive(self._test, 1, method, properties, body, now=self._schedule.now)
        self._route(answers)
        return any(isinstance(out.method, commands.Basic.Return) for out in answers if out.connection == self._test)

    def take_results(self, key: str) -> None:
        """Let results with this routing key come to the test."""
        self._as_test(commands.Queue.Declare(queue=TEST, durable=True))
        self._as_test(commands.Queue.Bind(queue=TEST, exchange=COMMANDS, routing_key=key))

    def publish(self, exchange: str, key: str, properties: Basic.Properties, body: bytes) -> Sent:
        """Publish a message of the test. The broker takes it at once."""
        sent = Sent(self._schedule.now, TEST, exchange, key, properties, body)
        method = commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=exchange != CONFIGURATIONS)
        sent.returned = self._as_test(method, properties, body)
        self._taken(sent)
        return sent

    def again(self, sent: Sent) -> None:
        """Let the broker take a message once more."""
        copy = Sent(self._schedule.now, sent.sender, sent.exchange, sent.key, sent.properties, sent.body, copy=True)
        self.sent.append(copy)
        method = commands.Basic.Publish(exchange=sent.exchange, routing_key=sent.name)
        self._as_test(method, sent.properties, sent.body)

    def _taken(self, sent: Sent) -> None:
        """Note a message that the broker has taken. A fault may let it come twice."""
        self.sent.append(sent)
        self.by_id.setdefault(sent.id, sent)
        if sent.exchange in (EVENTS, COMMANDS) and not sent.returned and self._deviations.at(Fault.DUPLICATE):
            text = f"{sent.name} comes twice: {sent.sender} did not get the confirm, and sent it again"
            self._story.tell(self._schedule.now, BROKER, text, fault=True)
            self.again(sent)

    # Connections

    def connect(self, wire: Wire, channels: int) -> None:
        """Open a connection with so many channels, and let the broker know it."""
        now = self._schedule.now
        wire.id = self.broker.connect()
        wire.up = Lane(self._schedule, partial(self._arrived, wire), partial(self._delay, wire, True))
        wire.down = Lane(self._schedule, wire.heard, partial(self._delay, wire, False))
        self.wires[wire.id] = wire
        for number in range(1, channels + 1):
            self.broker.receive(wire.id, number, commands.Channel.Open(), now=now)
        if wire.confirms:
            self.broker.receive(wire.id, wire.confirms, commands.Confirm.Select(), now=now)

    def _delay(self, wire: Wire, upwards: bool, item: Any) -> float:
        """Return for how long a connection holds up what comes next. By a fault it breaks instead."""
        drop = self._deviations.at(Fault.DROP)
        if drop is not None and wire.id is not None:
            self._drop(wire, drop.how)
        deviation = self._deviations.at(Fault.DELAY)
        if deviation is None:
            return 0.0
        seconds = DELAYS[deviation.how]
        what = _words(item, self.by_id)
        where = f"{what} from {wire.owner}" if upwards else f"{what} to {wire.owner}"
        self._story.tell(self._schedule.now, BROKER, f"{where} is delayed by {seconds:g} s", fault=True)
        return seconds

    def _drop(self, wire: Wire, how: int) -> None:
        """A connection breaks. One side may notice late, and what is on its way may be lost."""
        tell = partial(self._story.tell, self._schedule.now, BROKER, fault=True)
        if how & 4:
            tell(f"the connection of {wire.owner} breaks, which {wire.owner} notices {SOON:g} s later")
            self.forget(wire)
            self._schedule.after(SOON, partial(wire.lost, "the connection broke"))
        else:
            late = LATE if how & 2 else 0.0
            noticed = f", which the broker notices {late:g} s later" if late else ""
            lost = ", and what it has just sent is lost" if how & 1 else ""
            tell(f"the connection of {wire.owner} breaks{noticed}{lost}")
            wire.lost("the connection broke", up_lost=bool(how & 1), late=late)

    def cut(self, wire: Wire, *, up_lost: bool, late: float = 0.0) -> None:
        """The worker's side of a connection is gone. The broker notices that ``late`` seconds later.

        Args:
            up_lost: what is on its way to the broker is lost.
        """
        wire.down.clear()
        if up_lost:
            wire.up.clear()
        self._schedule.after(late, lambda: wire.up.put(ToBroker()))

    def forget(self, wire: Wire) -> None:
        """The broker sees a connection end."""
        if wire.id is not None:
            gone, wire.id = wire.id, None
            self.wires.pop(gone, None)
            wire.deliveries.clear()
            self._route(self.broker.disconnect(gone, now=self._schedule.now))

    # What comes from workers

    def _arrived(self, wire: Wire, item: ToBroker) -> None:
        if wire.id is None:
            return
        method, now = item.method, self._schedule.now
        if method is None:
            self.forget(wire)
            return
        if isinstance(method, commands.Basic.Consume):
            wire.consumers[method.consumer_tag] = method.queue
        elif isinstance(method, (commands.Basic.Ack, commands.Basic.Nack)):
            self._settled(wire, method)
        elif isinstance(method, commands.Basic.Publish):
            self._published(wire, item, method)
            return
        self._route(self.broker.receive(wire.id, item.channel, method, item.properties, item.body, now=now))

    def _settled(self, wire: Wire, method: commands.Basic.Ack | commands.Basic.Nack) -> None:
        tag = method.delivery_tag or 0
        tags = [each for each in wire.deliveries if each <= tag] if method.multiple else [tag]
        for each in tags:
            found = wire.deliveries.pop(each, None)
            if found is not None and isinstance(method, commands.Basic.Ack):
                self.watchers.acknowledged(*found)

    def _published(self, wire: Wire, item: ToBroker, method: commands.Basic.Publish) -> None:
        """The broker takes a publish, holds it during an alarm, or, by a fault, returns it."""
        assert wire.id is not None
        now, properties = self._schedule.now, item.properties or Basic.Properties()
        sent = Sent(now, wire.owner, method.exchange, method.routing_key, properties, item.body)
        if item.channel != wire.confirms:
            self.sent.append(sent)
            self._route(self.broker.receive(wire.id, item.channel, method, properties, item.body, now=now))
            return
        wire.count += 1
        wire.published[wire.count] = sent
        if method.mandatory and self.watchers.handles_returns(wire.owner) and self._deviations.at(Fault.RETURN):
            self._story.tell(now, BROKER, f"{sent.name} comes back to {wire.owner} as unroutable", fault=True)
            method = commands.Basic.Publish(exchange=method.exchange, routing_key="unroutable." * 3, mandatory=True)
        answers = self.broker.receive(wire.id, item.channel, method, properties, item.body, now=now)
        for out in answers:
            if isinstance(out.method, commands.Basic.Return):
                sent.returned = True
                out.method.routing_key = sent.name
        self._route(answers)
        self._confirm_later(wire)

    def _confirm_later(self, wire: Wire) -> None:
        """Note what the broker has taken, and let it confirm that soon."""
        if wire.id is None or not wire.confirms:
            return
        for tag in self.broker.unconfirmed(wire.id, wire.confirms):
            if tag > wire.asked:
                wire.asked = tag
                sent = wire.published.get(tag)
                if sent is not None:
                    sent.time = self._schedule.now
                    self._taken(sent)
                self._schedule.after(LATENCY, partial(self._confirm, wire, wire.id, tag))

    def _confirm(self, wire: Wire, connection: ConnectionId, tag: int) -> None:
        """The broker confirms a publish. By a fault it does so later, so that others overtake, or refuses it."""
        if wire.id != connection or tag not in self.broker.unconfirmed(connection, wire.confirms):
            return
        sent, now = wire.published.get(tag), self._schedule.now
        name = "a publish" if sent is None else sent.name
        delay = self._deviations.at(Fault.DELAY)
        if delay is not None:
            seconds = DELAYS[delay.how]
            self._story.tell(now, BROKER, f"the confirm of {name} is delayed by {seconds:g} s", fault=True)
            self._schedule.after(seconds, partial(self._confirm, wire, connection, tag))
            return
        refused = self._deviations.at(Fault.REFUSE) is not None
        if refused:
            self._story.tell(now, BROKER, f"{name} of {wire.owner} is refused for now", fault=True)
        wire.published.pop(tag, None)
        self._route(self.broker.confirm(connection, wire.confirms, tag=tag, ok=not refused))

    # What goes to workers

    def _route(self, answers: list[Outgoing]) -> None:
        for out in answers:
            wire = self.wires.get(out.connection)
            if wire is None:
                continue
            method = out.method
            if isinstance(method, commands.Basic.Deliver):
                message = "" if out.properties is None else out.properties.message_id or ""
                queue = wire.consumers.get(method.consumer_tag or "", "")
                wire.deliveries[method.delivery_tag or 0] = (message, queue)
                self.watchers.delivered(message, queue)
            elif isinstance(method, commands.Connection.Close):
                self.wires.pop(out.connection, None)
                wire.id = None
            elif isinstance(method, commands.Channel.Close) and out.channel == wire.confirms:
                wire.published.clear()
                wire.count = wire.asked = 0
            wire.down.put(out)
        self._arm()

    def _arm(self) -> None:
        """Let the broker be told when the time of something is over."""
        deadline = self.broker.deadline()
        if deadline is None or (self._tick is not None and self._tick.live and self._tick.time <= deadline):
            return
        if self._tick is not None:
            self._tick.cancel()
        self._tick = self._schedule.at(deadline, self._time)

    def _time(self) -> None:
        self._route(self.broker.tick(now=self._schedule.now))

    # Faults of the broker

    def restart(self) -> None:
        """The broker is killed, and starts again a little later. Every connection is lost."""
        self._story.tell(self._schedule.now, BROKER, f"is killed, and away for {AWAY:g} s", fault=True)
        lost = list(self.wires.values())
        self.broker.restart(now=self._schedule.now)
        self.wires.clear()
        self.up = self.alarm = False
        for wire in lost:
            wire.id = None
            wire.deliveries.clear()
            wire.up.clear()
            wire.down.clear()
            self._schedule.after(LATENCY, partial(wire.lost, "the broker was killed"))
        self._connect_test()
        self._schedule.after(AWAY, self._up)

    def _up(self) -> None:
        self.up = True

    def begin_alarm(self, seconds: float) -> None:
        """The broker is short of memory for a while."""
        self._story.tell(self._schedule.now, BROKER, f"is short of memory for {seconds:g} s", fault=True)
        self.alarm = True
        self._route(self.broker.set_alarm(True, now=self._schedule.now))
        self._schedule.after(seconds, self._end_alarm)

    def _end_alarm(self) -> None:
        if self.alarm:
            self.alarm = False
            self._route(self.broker.set_alarm(False, now=self._schedule.now))
            for wire in list(self.wires.values()):
                self._confirm_later(wire)


def _words(item: Any, known: dict[str, Sent]) -> str:
    """Say what is on its way."""
    method = item.method
    properties = item.properties
    if method is None:
        return "the end of the connection"
    if isinstance(method, (commands.Basic.Publish, commands.Basic.Deliver, commands.Basic.Return)):
        name = (properties.message_id or "") if properties is not None else ""
        return known[name].name if name in known else str(method.routing_key)
    if isinstance(item, ToBroker):
        return _TO_BROKER.get(method.name, str(method.name))
    return _FROM_BROKER.get(method.name, str(method.name))
