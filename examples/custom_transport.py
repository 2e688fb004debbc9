"""The core in a transport of one's own: asyncio streams and pamqp's frames, no client library.

``Wire`` turns bytes into methods and back. ``Link`` performs the machine's effects on two of them, and makes
inputs of what they receive. How user code runs is in ``custom_service.py``; docs/embedding.rst explains both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import base, body, constants, frame, header, heartbeat
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.driver import Driver

FRAME_MAX, MAX_UNSENT = 131_072, 1_000_000  # bytes; a log is dropped rather than queued behind more than MAX_UNSENT
ABILITIES = "authentication_failure_close basic.nack connection.blocked consumer_cancel_notify publisher_confirms"


class Wire:
    """One AMQP 0-9-1 connection. Malformed frames raise; so does a peer silent for two heartbeats (section 4.2.7)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.patience: float | None = None  # seconds that the peer may be silent
        self.content: Any = None  # the Deliver or Return whose header and body are to come
        self.header, self.body = header.ContentHeader(), bytearray()

    async def handshake(self, asked: Connect) -> None:
        """Log in and agree on limits (section 2.2.4). The machine watches the time, and would close the link."""
        url = urlsplit(asked.url)
        login = f"\0{unquote(url.username or 'guest')}\0{unquote(url.password or 'guest')}"
        about: Any = {"connection_name": asked.name, "capabilities": dict.fromkeys(ABILITIES.split(), True)}
        await self.ask(0, header.ProtocolHeader(), Connection.Start)
        tune = await self.ask(0, Connection.StartOk(about, "PLAIN", login), Connection.Tune)
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        self.send(0, Connection.TuneOk(tune.channel_max, self.frame_max, asked.heartbeat))
        if asked.heartbeat:
            self.patience = 2.0 * asked.heartbeat
            self.keep_alive(asked.heartbeat / 2)
        await self.ask(0, Connection.Open(unquote(url.path[1:]) or "/"), Connection.OpenOk)

    def keep_alive(self, period: float) -> None:
        if not self.writer.is_closing():
            self.writer.write(heartbeat.Heartbeat.value)
            asyncio.get_running_loop().call_later(period, self.keep_alive, period)

    def send(self, channel: int, method: Any, properties: Any = None, data: bytes = b"") -> None:
        frames = [method]
        if properties is not None:
            step = self.frame_max - 8  # the frame's own bytes
            frames.append(header.ContentHeader(0, len(data), properties))
            frames.extend(body.ContentBody(data[at : at + step]) for at in range(0, len(data), step))
        self.writer.write(b"".join(frame.marshal(each, channel) for each in frames))

    async def ask(self, channel: int, method: Any, reply: type[base.Frame]) -> Any:
        self.send(channel, method)
        if not isinstance(got := (await self.receive())[1], reply):
            raise ConnectionError(f"{reply.name} expected, {got} received")
        return got

    async def receive(self) -> tuple[Any, ...]:
        """The next method: its channel, itself and, if a message comes with it, that one's properties and body."""
        while True:
            async with asyncio.timeout(self.patience):
                start = await self.reader.readexactly(7)  # type, channel, size
                if (size := int.from_bytes(start[3:])) > FRAME_MAX:
                    raise ValueError(f"a frame of {size} bytes")
                data = start + await self.reader.readexactly(size + 1)
            try:
                got: Any = frame.unmarshal(data)[2]
            except Exception:  # properties can be made to crash who reads them; without any it is dead-lettered
                if start[0] != constants.FRAME_HEADER:
                    raise
                got = header.ContentHeader(0, int.from_bytes(data[11:19]))
            if isinstance(got, Connection.Close):
                self.send(0, Connection.CloseOk())
                raise (PermissionError if got.reply_code == 403 else ConnectionError)(got.reply_text)
            if isinstance(got, (Basic.Deliver, Basic.Return)):
                self.content = got
            elif isinstance(got, base.Frame):
                return int.from_bytes(start[1:3]), got
            elif isinstance(got, header.ContentHeader):
                self.header, self.body = got, bytearray()
            elif isinstance(got, body.ContentBody):
                self.body += got.value
            if isinstance(got, (header.ContentHeader, body.ContentBody)) and len(self.body) >= self.header.body_size:
                return int.from_bytes(start[1:3]), self.content, self.header.properties, bytes(self.body)


class Link:
    """Two connections: an alarm holds up all that a publisher sends, acknowledgements included. Made, it opens."""

    def __init__(self, asked: Connect, driver: Driver) -> None:
        self.asked, self.driver, self.machine = asked, driver, driver.machine
        self.wires: list[Wire] = []
        self.replies: list[base.Frame] = []
        self.up = self.closing = False
        self.task = asyncio.get_running_loop().create_task(self.run())
        self.task.add_done_callback(self.ended)

    async def run(self) -> None:
        self.consumer, self.publisher = await self.connect(1), await self.connect(2)
        await self.publisher.ask(1, Confirm.Select(), Confirm.SelectOk)
        self.up = True
        self.tell(self.machine.link_up)
        async with asyncio.TaskGroup() as readers:
            for wire in self.wires:
                readers.create_task(self.read(wire))

    async def connect(self, channels: int) -> Wire:
        url, tls = urlsplit(self.asked.url), self.asked.url.startswith("amqps:")
        port = url.port or (5671 if tls else 5672)
        wire = Wire(*await asyncio.open_connection(url.hostname, port, ssl=tls or None))
        self.wires.append(wire)
        await wire.handshake(self.asked)
        for channel in range(1, channels + 1):
            await wire.ask(channel, Channel.Open(), Channel.OpenOk)
        return wire

    def ended(self, task: asyncio.Task[None]) -> None:
        for wire in self.wires:
            wire.writer.transport.abort()
        error = None if task.cancelled() else task.exception()
        while isinstance(error, ExceptionGroup):  # of the readers: the first one says why
            error = error.exceptions[0]
        refused = isinstance(error, PermissionError) and error.errno is None  # by the broker, not by our own system
        self.tell(self.machine.link_down, "closed" if error is None else repr(error), refused=refused)

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        self.driver.tell(method, self.asked.epoch, *arguments, **named)

    async def read(self, wire: Wire) -> None:
        while not isinstance((got := await wire.receive())[1], Connection.CloseOk):
            channel, method, *message = got
            if isinstance(method, Channel.Close):
                wire.send(channel, Channel.CloseOk())
            INPUTS[type(method)](self, method, *message)

    def replied(self, reply: base.Frame) -> None:
        self.replies.append(reply)
        if len(self.replies) == self.awaited:
            replies, self.replies = self.replies, []
            self.tell(self.machine.declared, replies)

    def perform(self, effect: Any) -> None:
        """Never raises: what fails is reported. What is written leaves in order."""
        if not self.closing:
            try:
                EFFECTS[type(effect)](self, effect)
            except Exception as error:
                self.driver.tell(self.machine.effect_failed, effect, repr(error))

    def declare(self, effect: Declare) -> None:
        self.awaited = len(effect.commands)
        for command in effect.commands:
            self.consumer.send(1, command)

    def log(self, effect: PublishLog) -> None:
        if self.publisher.writer.transport.get_write_buffer_size() < MAX_UNSENT:
            self.publisher.send(2, Basic.Publish(0, "logs", effect.routing_key), effect.properties, effect.body)

    def close(self, effect: Close) -> None:
        self.closing = True
        for wire in self.wires if self.up else ():
            wire.send(0, Connection.Close(200, "closed by the service", 0, 0))
        asyncio.get_running_loop().call_later(self.machine.config.close_timeout * self.up, self.task.cancel)


EFFECTS: dict[type, Callable[[Link, Any], None]] = {
    Declare: Link.declare,
    Consume: lambda link, it: link.consumer.send(1, Basic.Consume(queue=it.queue, consumer_tag=it.consumer_tag)),
    Cancel: lambda link, it: link.consumer.send(1, Basic.Cancel(it.consumer_tag)),
    Ack: lambda link, it: link.consumer.send(1, Basic.Ack(it.tag, it.multiple)),
    Nack: lambda link, it: link.consumer.send(1, Basic.Nack(it.tag, requeue=it.requeue)),
    Publish: lambda link, it: link.publisher.send(
        1, Basic.Publish(0, it.exchange, it.routing_key, it.mandatory), it.properties, it.body
    ),
    PublishLog: Link.log,
    Close: Link.close,
}
INPUTS: dict[type, Callable[..., None]] = {
    Basic.Deliver: lambda link, it, *message: link.tell(
        link.machine.delivered, it.delivery_tag, it.redelivered, it.exchange, it.routing_key, *message
    ),
    Basic.Return: lambda link, it, *m: link.tell(link.machine.returned, it.exchange, it.routing_key, *m, it.reply_text),
    Basic.Ack: lambda link, it: link.tell(link.machine.confirmed, it.delivery_tag, multiple=it.multiple),
    Basic.Nack: lambda link, it: link.tell(link.machine.refused, it.delivery_tag, multiple=it.multiple),
    Basic.Cancel: lambda link, it: link.tell(link.machine.consumer_cancelled, it.consumer_tag),
    Channel.Close: lambda link, it: link.tell(link.machine.channel_closed, it.reply_text),
    Connection.Blocked: lambda link, it: link.tell(link.machine.blocked, it.reason),
    Connection.Unblocked: lambda link, it: link.tell(link.machine.unblocked),
    **dict.fromkeys((Exchange.DeclareOk, Queue.DeclareOk, Queue.BindOk, Basic.QosOk), Link.replied),
    **dict.fromkeys((Basic.ConsumeOk, Basic.CancelOk), lambda link, it: None),
}
