"""A link of a simulated worker: performs effects on the broker model, over connections that may fail.

It has two connections, as the adapters for services have: one to consume, one to publish. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from pamqp import base, commands

from eda_core.drivers.base import Driver
from eda_core.drivers.link import Link
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
from eda_core.machine.identifiers import TAG_BITS, TAG_MASK, DeliveryId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.simulation.bus import Bus
from eda_core.testing.simulation.failures import SimulationFailed
from eda_core.testing.simulation.schedule import Schedule
from eda_core.testing.simulation.wire import LATENCY, ToBroker, Wire

#: The channels on the connection for publishing. The one for consuming has the number 1 on its own.
_PUBLISHES: Final = 1
_LOGS: Final = 2
_CLOSE: Final = commands.Connection.Close(200, "closed", 0, 0)


class SimulatedLink(Link):
    """The connections of one epoch. It begins to open when it is made."""

    library: ClassVar[str] = "a simulation"

    def __init__(
        self,
        asked: Connect,
        driver: Driver,
        bus: Bus,
        schedule: Schedule,
        owner: str,
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(asked, driver)
        self._bus, self._schedule, self._owner, self._fail = bus, schedule, owner, fail
        #: The deliveries whose acknowledgement waits for a confirm, by the tag of the publish.
        self._unconfirmed: dict[int, DeliveryId] = {}
        self._ended = False
        lost = self.lose
        self._consumes = Wire(owner, partial(self._hear, False), lost)
        self._publishes = Wire(owner, partial(self._hear, True), lost, confirms=_PUBLISHES)
        schedule.after(2 * LATENCY, self._open)

    def _open(self) -> None:
        if self._ended or self.closing:
            return
        if not self._bus.up:
            self.lose("connection refused")
            return
        self._bus.connect(self._consumes, 1)
        self._bus.connect(self._publishes, 2)
        self.report_open({"product": "RabbitMQ", "version": "simulated"})

    def close(self) -> None:
        self.closing = True
        if not self.up:
            self._schedule.after(0.0, partial(self._end, "closed"))
            return
        for wire in (self._consumes, self._publishes):
            wire.up.put(ToBroker(0, _CLOSE))

    def lose(self, why: str, *, up_lost: bool = False, late: float = 0.0) -> None:
        """The worker sees that a connection is gone, and gives up both. See :meth:`Bus.cut`."""
        if not self._ended:
            self._cut(up_lost=up_lost, late=late)
            self._end(why)

    def abandon(self, *, up_lost: bool) -> None:
        """The worker is gone, and tells nobody."""
        self._cut(up_lost=up_lost, late=0.0)
        self._ended = self.closing = True

    def _cut(self, *, up_lost: bool, late: float) -> None:
        for wire in (self._consumes, self._publishes):
            if self.up and wire.id is not None:
                self._bus.cut(wire, up_lost=up_lost, late=late)

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended = True
            self.closing: bool = True
            self.up: bool = False
            self.driver.links.pop(self.asked.epoch, None)
            self.tell(self.machine.link_down, why)

    # What the broker sends

    def _hear(self, publishes: bool, out: Outgoing) -> None:
        if self._ended:
            return
        method, name = out.method, out.method.name
        if isinstance(method, commands.Connection.CloseOk):
            wire = self._publishes if publishes else self._consumes
            self._bus.forget(wire)
            if self._publishes.id is None and self._consumes.id is None:
                self._end("closed")
        elif isinstance(method, commands.Connection.Close):
            self.lose(str(method.reply_text))
        elif isinstance(method, (commands.Channel.Close, commands.Channel.OpenOk)):
            channel = CONSUMING if not publishes else PUBLISHING if out.channel == _PUBLISHES else LOGGING
            if isinstance(method, commands.Channel.Close):
                self._unconfirmed.clear()
                if "unknown delivery tag" in str(method.reply_text):
                    self._fail(SimulationFailed(f"I2: {self._owner} settles a delivery twice: {method.reply_text}"))
                self._send(channel, commands.Channel.CloseOk())
            self.receive(name, method, channel)
        elif out.properties is not None:
            self.receive(name, method, out.properties, out.body)
        else:
            if isinstance(method, (commands.Basic.Ack, commands.Basic.Nack)):
                self._unconfirmed.pop(method.delivery_tag or 0, None)
            self.receive(name, method)

    # Effects

    def _send(self, channel: str, method: base.Frame, properties: Any = None, body: bytes = b"") -> None:
        wire = self._consumes if channel == CONSUMING else self._publishes
        wire.up.put(ToBroker(_LOGS if channel == LOGGING else 1, method, properties, body))

    def declare(self, effect: Declare) -> None:
        for command in effect.commands:
            self._send(CONSUMING, command)

    def consume(self, effect: Consume) -> None:
        self._send(CONSUMING, commands.Basic.Consume(queue=effect.queue, consumer_tag=effect.consumer_tag))

    def cancel(self, effect: Cancel) -> None:
        self._send(CONSUMING, commands.Basic.Cancel(effect.consumer_tag))

    def open_channel(self, effect: OpenChannel) -> None:
        self._send(effect.channel, commands.Channel.Open())
        if effect.channel == PUBLISHING:
            self._send(PUBLISHING, commands.Confirm.Select())

    def probe(self, effect: Probe) -> None:
        """Answer at once: a connection works until a fault breaks it, and then the worker is told."""
        self.receive("Channel.FlowOk", None, effect.channel)

    def traffic(self, channel: str) -> tuple[int, int]:
        return 0, 0

    def ack(self, effect: Ack) -> None:
        for tag, delivery in self._unconfirmed.items():
            acknowledged = delivery & TAG_MASK
            if delivery >> TAG_BITS == self.asked.epoch and (
                acknowledged == effect.tag or (effect.multiple and acknowledged < effect.tag)
            ):
                text = f"I1: {self._owner} acknowledges delivery {acknowledged} before its publish {tag} is confirmed"
                self._fail(SimulationFailed(text))
        self._send(CONSUMING, commands.Basic.Ack(effect.tag, effect.multiple))

    def nack(self, effect: Nack) -> None:
        self._send(CONSUMING, commands.Basic.Nack(effect.tag, False, effect.requeue))

    def publish(self, effect: Publish) -> None:
        if effect.delivery is not None:
            self._unconfirmed[effect.tag] = effect.delivery
        method = commands.Basic.Publish(0, effect.exchange, effect.routing_key, effect.mandatory)
        self._send(PUBLISHING, method, effect.properties, effect.body)

    def log(self, effect: PublishLog) -> None:
        method = commands.Basic.Publish(0, effect.exchange, effect.routing_key)
        self._send(LOGGING, method, effect.properties, effect.body)

    def congested(self) -> bool:
        return False
