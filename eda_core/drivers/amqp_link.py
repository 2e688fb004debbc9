"""A link on two connections of :mod:`eda_core.amqp`: everything but the sockets.

It decides on which channel each effect is sent, what the broker's methods mean to the machine, and in which order the
connections are closed. A transport derives from :class:`AmqpLink` and moves the bytes of each :class:`Wire`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final, Protocol

from pamqp.commands import Basic, Channel, Confirm

from eda_core._version import __version__
from eda_core.amqp import Client, Ended, Event, Opened, Received
from eda_core.amqp.content import COMMAND_INVALID
from eda_core.drivers.base import Driver
from eda_core.drivers.link import MAX_UNSENT, Link
from eda_core.drivers.login import login_refusal
from eda_core.drivers.timers import not_set
from eda_core.errors import LocalError, StateError
from eda_core.machine.effects import (
    CONSUMING,
    LOGGING,
    PUBLISHING,
    Ack,
    Cancel,
    Connect,
    Consume,
    Declare,
    Nack,
    OpenChannel,
    Probe,
    Publish,
    PublishLog,
)
from eda_core.text import as_text
from eda_core.urls import Address

#: What a link is made of: two connections. The first one consumes; on the second one are two channels.
CONNECTIONS: Final = (CONSUMING, PUBLISHING)
#: The channels of each connection when the link opens.
_CHANNELS: Final = {CONSUMING: (CONSUMING,), PUBLISHING: (PUBLISHING, LOGGING)}
#: The replies that make a link complete: three times Channel.OpenOk, and Confirm.SelectOk.
_REPLIES: Final = 4
_WITH_MESSAGE: Final = frozenset({Basic.Deliver, Basic.Return})
#: The methods that mean the same on every channel.
_ANYWHERE: Final = frozenset({Basic.Ack, Basic.Nack, Basic.Cancel, Confirm.SelectOk})


class Wire(Protocol):
    """The socket of one connection, which a transport makes.

    Attributes:
        client: the protocol of the connection. The transport sets it by :meth:`AmqpLink.connected`.
    """

    client: Client

    def send_soon(self) -> None:
        """Write what ``client`` has to send soon, once for all calls of a turn of the loop.

        If its ``should_close`` is set then, close the socket when the bytes are written, and by force if the broker
        does not take them.
        """

    def unsent(self) -> int:
        """Return how many bytes wait to be sent, besides those of the ``pending`` of ``client``."""

    def abort(self) -> None:
        """Close the socket at once, whatever its state, also if it is still being opened."""


class AmqpLink(Link):
    """The two connections of one epoch.

    A transport opens a socket for each name in :data:`CONNECTIONS`, with :meth:`socket_options`, and then calls
    :meth:`connected`; or :meth:`fail`. It calls :meth:`take` with what it reads, and :meth:`lost` when a socket is
    closed.

    Attributes:
        address: the parts of the URL.
        wires: the sockets that are connected, by the names of the connections.
    """

    library: ClassVar[str] = f"eda-core {__version__}"

    def __init__(self, asked: Connect, driver: Driver) -> None:
        super().__init__(asked, driver)
        self._now = driver.now
        self.address: Address = Address.of(asked.url)
        self.wires: dict[str, Wire] = {}
        #: The channels of each connection, by their numbers, and the numbers by the names of the channels.
        self._names: dict[str, dict[int, str]] = {name: {} for name in CONNECTIONS}
        self._numbers: dict[str, int] = {}
        self._replies = 0
        self._server: Mapping[str, Any] = {}
        self._force_at: float | None = None
        #: ``Consume`` and ``Cancel`` that the broker has not answered, and when the answer is overdue.
        self._unanswered: deque[tuple[float, Consume | Cancel]] = deque()
        self._ended = False
        self._disarm: Callable[[], object] = not_set

    # A transport fills in

    def drop(self) -> None:
        """Give up opening the sockets that are not connected yet. It must not raise."""
        raise NotImplementedError

    def call_at(self, due: float, call: Callable[[], None]) -> Callable[[], object]:
        """Call a function at ``due``, in monotonic seconds. Returns a function that cancels this, also later."""
        raise NotImplementedError

    # A transport calls

    def connected(self, name: str, wire: Wire) -> None:
        """The socket of a connection is connected, and secured if the URL says so."""
        self.wires[name] = wire
        try:
            wire.client = self._client()
        except LocalError as error:  # the URL asks for something that does not exist
            wire.client = Client(now=self._now())
            self._give_up(str(error))
        else:
            wire.send_soon()
            self.rearm()

    def _client(self) -> Client:
        config, address = self.machine.config, self.address
        return Client(
            now=self._now(),
            user=address.user,
            password=address.password,
            vhost=address.vhost,
            mechanism=address.mechanism,
            heartbeat=self.asked.heartbeat,
            name=self.asked.name,
            properties={"product": "eda-core", "version": __version__},
            max_body=config.limits.max_bytes,
            close_timeout=config.close_timeout,
        )

    def take(self, name: str, data: bytes) -> None:
        """Bytes of the broker have come. All that they mean is told before any effect is performed."""
        wire = self.wires.get(name)
        if wire is not None:
            with self.driver.together():
                self._hear(name, wire, wire.client.receive(data, self._now()))

    def lost(self, name: str, reason: str) -> None:
        """The socket of a connection is closed. ``reason`` says why; "" if nobody knows."""
        wire = self.wires.get(name)
        if wire is not None:
            self._hear(name, wire, wire.client.lose(reason))
        self.wires.pop(name, None)
        if not self.wires and self.closing:
            self.end("closed")
        self.rearm()

    def fail(self, reason: str) -> None:
        """A socket cannot be opened."""
        self._give_up(reason)

    def rearm(self) -> None:
        """Set the timer to :meth:`deadline`, which may be earlier now."""
        self._disarm()
        due = self.deadline()
        self._disarm = not_set if due is None else self.call_at(due, self._look)

    def _look(self) -> None:
        self.tick()
        self.rearm()

    def deadline(self) -> float | None:
        """Return when to call :meth:`tick`, in monotonic seconds; ``None`` for never. It may be too early."""
        times = [due for wire in self.wires.values() if (due := wire.client.deadline()) is not None]
        if self._force_at is not None:
            times.append(self._force_at)
        if self._unanswered and not self.closing:
            times.append(self._unanswered[0][0])
        return min(times, default=None)

    def tick(self) -> None:
        """Do what is due. Early and repeated calls do nothing."""
        now = self._now()
        if self._force_at is not None and now >= self._force_at:
            self.abort()
            return
        for name, wire in list(self.wires.items()):
            self._hear(name, wire, wire.client.tick(now))
        if self._unanswered and now >= self._unanswered[0][0]:
            self._miss_answer(now)

    def _miss_answer(self, now: float) -> None:
        """Report the first question as failed: a node of a cluster waits so for a queue whose leader stands still.

        If this is called late, the event loop was blocked. The answer may have come, and has to be read first.
        """
        due, effect = self._unanswered.popleft()
        half = self.machine.config.close_timeout / 2
        if now >= due + half:
            self._unanswered.appendleft((now + half, effect))
        else:
            self.report_failure(effect, TimeoutError("no answer"))

    # What the broker sends

    def _hear(self, name: str, wire: Wire, events: list[Event]) -> None:
        for event in events:
            if type(event) is Received:
                try:
                    self._received(name, wire, event)
                except ValueError as error:  # AMQP 0-9-1 has such a method, but nothing that we send leads to it
                    wire.client.close(self._now(), COMMAND_INVALID, str(error))
                    self._give_up(f"the broker breaks the protocol: {error}")
            elif isinstance(event, Opened):
                self._begin_channels(name, wire, event)
            else:
                assert isinstance(event, Ended)
                self._connection_ended(event)
        if wire.client.has_data or wire.client.should_close:
            wire.send_soon()

    def _begin_channels(self, name: str, wire: Wire, opened: Opened) -> None:
        self._server = opened.server_properties
        for channel in _CHANNELS[name]:
            self._begin_channel(name, wire, channel)

    def _begin_channel(self, name: str, wire: Wire, channel: str) -> None:
        number = wire.client.open_channel()
        self._names[name][number] = channel
        self._numbers[channel] = number
        if channel == PUBLISHING:
            wire.client.send(number, Confirm.Select())

    def _received(self, name: str, wire: Wire, event: Received) -> None:
        method, kind = event.method, type(event.method)
        if kind in _WITH_MESSAGE:
            self.receive(method.name, method, event.properties, event.body)
        elif not self.up and kind in (Channel.OpenOk, Confirm.SelectOk):
            self._replies += 1
            if self._replies == _REPLIES and not self.closing:
                self.report_open(self._server)
        elif not self.up and kind is Channel.Close:
            self._give_up(f"the broker does not open a channel: {as_text(method.reply_text)}")
        elif kind in _ANYWHERE or not event.channel:
            self.receive(method.name, method)
        else:
            self._on_channel(name, wire, event)

    def _on_channel(self, name: str, wire: Wire, event: Received) -> None:
        method, names = event.method, self._names[name]
        channel = names.get(event.channel, "")
        if isinstance(method, (Channel.Close, Channel.CloseOk)):
            names.pop(event.channel, None)
        if isinstance(method, Channel.CloseOk):
            self._leave_if_alone(wire)
        elif isinstance(method, (Basic.ConsumeOk, Basic.CancelOk)):
            if self._unanswered:
                self._unanswered.popleft()
        elif not isinstance(method, Channel.OpenOk) or channel == LOGGING:
            self.receive(method.name, method, channel)

    # Closing

    def close(self) -> None:
        """Close in good order: channels first, because a connection's close may overtake what was sent on them."""
        self.closing: bool = True
        if not self.up or self.unresponsive:
            self.abort()
            return
        self._force_at = self._now() + self.machine.config.close_timeout
        for name, wire in self.wires.items():
            for number in self._names[name]:
                if wire.client.is_open(number):
                    wire.client.close_channel(number)
            self._leave_if_alone(wire)
        self.rearm()

    def _leave_if_alone(self, wire: Wire) -> None:
        """Close a connection that has no channel any more, if the link is being closed."""
        if self.closing and not wire.client.channels:
            wire.client.close(self._now(), text="closed by the service")
        wire.send_soon()

    def _connection_ended(self, end: Ended) -> None:
        if self.closing:
            return  # lost() tells when the last socket is closed
        why, refused = login_refusal(self.asked.url, end.code, end.reason) if not self.up else ("", "")
        self._give_up(why or end.reason, refused)

    def _give_up(self, why: str, refused: str = "") -> None:
        """The link is lost: tell the machine, and close what is left of it."""
        if not self.closing:
            self.closing = True
            self.end(why, refused)
            self.abort()

    def abort(self) -> None:
        """Close by force. A connection that has answered the broker's ``Close`` may still send that."""
        self.closing = True
        self._force_at = None
        self.drop()
        for wire in list(self.wires.values()):
            if wire.client.should_close:
                wire.send_soon()
            else:
                wire.abort()
        if not self.wires:
            self.end("closed")

    def end(self, why: str, refused: str = "") -> None:
        """Tell the machine that the link is lost or closed, unless it was told."""
        self._force_at = None
        if not self._ended:
            self._ended = True
            self.tell(self.machine.link_down, why, refused=refused)

    # Effects

    def _send(self, name: str, channel: str, *methods: Any) -> None:
        wire, number = self.wires[name], self._numbers[channel]
        with suppress(StateError):  # the broker has closed the channel, which was told then
            for method in methods:
                wire.client.send(number, method)
            wire.send_soon()

    def declare(self, effect: Declare) -> None:
        if effect.channel != CONSUMING:
            self._begin_channel(CONSUMING, self.wires[CONSUMING], effect.channel)
        self._send(CONSUMING, effect.channel, *effect.commands)

    def close_channel(self, channel: str) -> None:
        wire, number = self.wires[CONSUMING], self._numbers.pop(channel)
        if wire.client.is_open(number):
            wire.client.close_channel(number)
            wire.send_soon()

    def consume(self, effect: Consume) -> None:
        self._ask(effect, Basic.Consume(queue=effect.queue, consumer_tag=effect.consumer_tag))

    def cancel(self, effect: Cancel) -> None:
        self._ask(effect, Basic.Cancel(effect.consumer_tag))

    def _ask(self, effect: Consume | Cancel, method: Any) -> None:
        """Send a method that the broker has to answer in time. The machine waits for no answer to it."""
        self._send(CONSUMING, CONSUMING, method)
        self._unanswered.append((self._now() + self.machine.config.close_timeout, effect))
        self.rearm()

    def open_channel(self, effect: OpenChannel) -> None:
        wire = self.wires[PUBLISHING]
        self._begin_channel(PUBLISHING, wire, effect.channel)
        wire.send_soon()

    def probe(self, effect: Probe) -> None:
        self._send(effect.channel, effect.channel, Channel.Flow(True))

    def traffic(self, channel: str) -> tuple[int, int]:
        return self.wires[channel].client.received, self._unsent(channel)

    def _unsent(self, name: str) -> int:
        wire = self.wires[name]
        return wire.client.pending + wire.unsent()

    def ack(self, effect: Ack) -> None:
        wire = self.wires[CONSUMING]
        try:  # not by suppress(), because each message comes here
            wire.client.ack(self._numbers[CONSUMING], effect.tag, effect.multiple)
        except StateError:
            return
        wire.send_soon()

    def nack(self, effect: Nack) -> None:
        self._send(CONSUMING, CONSUMING, Basic.Nack(effect.tag, requeue=effect.requeue))

    def publish(self, effect: Publish) -> None:
        self._publish(self._numbers[PUBLISHING], effect, effect.mandatory)

    def log(self, effect: PublishLog) -> None:
        self._publish(self._numbers[LOGGING], effect, False)

    def _publish(self, number: int, effect: Publish | PublishLog, mandatory: bool) -> None:
        wire = self.wires[PUBLISHING]
        try:
            wire.client.publish(number, effect.exchange, effect.routing_key, effect.properties, effect.body, mandatory)
        except StateError:
            return
        wire.send_soon()

    def congested(self) -> bool:
        return self._unsent(PUBLISHING) >= MAX_UNSENT
