"""A transport of one's own for the core: asyncio streams and the frames of pamqp, without a client library.

``Wire`` turns bytes into methods and methods into bytes. ``CustomLink`` performs the machine's effects on two wires,
and makes inputs of what they receive. ``custom_service.py`` runs user code; docs/embedding.rst explains both.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from concurrent.futures import Future
from itertools import count
from typing import Any

from pamqp import base, body, frame, header, heartbeat
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue

from eda_core import Ack, Address, Cancel, Connect, Consume, Declare, Nack, OpenChannel, Probe, Publish, PublishLog
from eda_core.amqp import read_frame
from eda_core.drivers import CONSUMING, LOGGING, MAX_UNSENT, PUBLISHING, Driver, Link, LookUps, login_refusal, reason

FRAME_MAX = 131_072  # bytes
#: What the broker sends about a channel, and the replies to the commands of a ``Declare``.
DECLARED = (Exchange.DeclareOk, Queue.DeclareOk, Queue.BindOk, Basic.QosOk)
ON_A_CHANNEL = (Channel.Close, Channel.OpenOk, Channel.FlowOk, *DECLARED)
LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)  # asyncio would wait for a hung resolver at the end
ABILITIES = "authentication_failure_close basic.nack connection.blocked consumer_cancel_notify publisher_confirms"


class LoginRefused(Exception):
    """Why, and what the broker refuses."""


class Wire:
    """One AMQP 0-9-1 connection. It raises if a frame is malformed or the peer is silent for two heartbeats (4.2.7)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.longest_silence: float | None = None  # seconds that the peer may be silent
        self.content: Any = None  # the Deliver or Return whose header and body are to come
        self.header, self.body = header.ContentHeader(), bytearray()
        self.received = 0  # frames

    async def handshake(self, asked: Connect) -> None:
        """Log in and agree on limits (section 2.2.4). If this takes too long, the machine closes the link."""
        self.url, address = asked.url, Address.of(asked.url)
        login = f"\0{address.user}\0{address.password}"
        about: Any = {"connection_name": asked.name, "capabilities": dict.fromkeys(ABILITIES.split(), True)}
        start = await self.ask(0, header.ProtocolHeader(), Connection.Start)
        self.server = start.server_properties
        tune = await self.ask(0, Connection.StartOk(about, "PLAIN", login), Connection.Tune)
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        self.send(0, Connection.TuneOk(tune.channel_max, self.frame_max, asked.heartbeat))
        if asked.heartbeat:
            self.longest_silence = 2.0 * asked.heartbeat
            self.keep_alive(asked.heartbeat / 2)
        await self.ask(0, Connection.Open(address.vhost), Connection.OpenOk)

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
        """The next method: its channel and the method; the properties and the body if a message comes with it."""
        while True:
            async with asyncio.timeout(self.longest_silence):
                start = await self.reader.readexactly(7)  # type, channel, size
                if (size := int.from_bytes(start[3:])) > FRAME_MAX:
                    raise ValueError(f"a frame of {size} bytes")
                data = start + await self.reader.readexactly(size + 1)
            self.received += 1
            got: Any
            channel, got = read_frame(data)
            if isinstance(got, Connection.Close):
                self.send(0, Connection.CloseOk())
                why, refused = login_refusal(self.url, got.reply_code, got.reply_text)
                raise LoginRefused(why, refused) if refused else ConnectionError(got.reply_text)
            if isinstance(got, (Basic.Deliver, Basic.Return)):
                self.content = got
            elif isinstance(got, base.Frame):
                return channel, got
            elif isinstance(got, header.ContentHeader):
                self.header, self.body = got, bytearray()
            elif isinstance(got, body.ContentBody):
                self.body += got.value
            if isinstance(got, (header.ContentHeader, body.ContentBody)) and len(self.body) >= self.header.body_size:
                return channel, self.content, self.header.properties, bytes(self.body)


class CustomLink(Link):
    """Two connections: an alarm stops all that a publisher sends, acknowledgements too. It opens when it is made."""

    def __init__(self, asked: Connect, driver: Driver) -> None:
        super().__init__(asked, driver)
        self.wires: list[Wire] = []
        self.names = {1: CONSUMING}  # of the consumer's channels
        self.task = asyncio.get_running_loop().create_task(self.run())
        self.task.add_done_callback(self.ended)

    async def run(self) -> None:
        self.consumer, self.publisher = await self.connect(1), await self.connect(2)
        await self.publisher.ask(1, Confirm.Select(), Confirm.SelectOk)
        self.report_open(self.publisher.server)
        async with asyncio.TaskGroup() as readers:
            for wire in self.wires:
                readers.create_task(self.read(wire))

    async def connect(self, channels: int) -> Wire:
        address = Address.of(self.asked.url)
        options = self.socket_options(socket, CONSUMING if channels == 1 else PUBLISHING)
        tls, connect = address.tls_context(None, ssl.create_default_context), asyncio.get_running_loop().sock_connect
        sock = await LOOK_UPS.connect(address.host, address.port, options, connect, asyncio.wrap_future)
        secured = {"ssl": tls, "server_hostname": address.host} if tls else {}
        wire = Wire(*await asyncio.open_connection(sock=sock, **secured))
        self.wires.append(wire)
        await wire.handshake(self.asked)
        for channel in range(1, channels + 1):
            await wire.ask(channel, Channel.Open(), Channel.OpenOk)
        return wire

    async def read(self, wire: Wire) -> None:
        while not isinstance((got := await wire.receive())[1], Connection.CloseOk):
            channel, method, *message = got
            if isinstance(method, Channel.Close):
                wire.send(channel, Channel.CloseOk())
            if isinstance(method, Channel.CloseOk):
                del self.names[channel]
                continue
            if isinstance(method, ON_A_CHANNEL):
                message = [self.names[channel] if wire is self.consumer else PUBLISHING if channel == 1 else LOGGING]
            self.receive(method.name, method, *message)

    def ended(self, task: asyncio.Task[None]) -> None:
        for wire in self.wires:
            wire.writer.transport.abort()
        error = None if task.cancelled() else task.exception()
        while isinstance(error, ExceptionGroup):  # the readers raised several: the first one says why
            error = error.exceptions[0]
        why, refused = error.args if isinstance(error, LoginRefused) else (error and reason(error), "")
        self.tell(self.machine.link_down, why or "closed", refused=refused)

    def close(self) -> None:
        self.closing, in_order = True, self.up and not self.unresponsive
        for wire in self.wires if in_order else ():
            wire.send(0, Connection.Close(200, "closed by the service", 0, 0))
        asyncio.get_running_loop().call_later(self.machine.config.close_timeout * in_order, self.task.cancel)

    # Effects. What is written is sent in order.

    def declare(self, effect: Declare) -> None:
        number = 1
        if effect.channel != CONSUMING:
            number = next(each for each in count(2) if each not in self.names)
            self.names[number] = effect.channel
            self.consumer.send(number, Channel.Open())
        for command in effect.commands:
            self.consumer.send(number, command)

    def close_channel(self, channel: str) -> None:
        number = next(number for number, name in self.names.items() if name == channel)
        self.consumer.send(number, Channel.Close(200, "", 0, 0))

    def consume(self, effect: Consume) -> None:
        self.consumer.send(1, Basic.Consume(queue=effect.queue, consumer_tag=effect.consumer_tag))

    def cancel(self, effect: Cancel) -> None:
        self.consumer.send(1, Basic.Cancel(effect.consumer_tag))

    def open_channel(self, effect: OpenChannel) -> None:
        self.publisher.send(1 if effect.channel == PUBLISHING else 2, Channel.Open())
        if effect.channel == PUBLISHING:
            self.publisher.send(1, Confirm.Select())

    def probe(self, effect: Probe) -> None:
        self.wire(effect.channel).send(1, Channel.Flow(True))

    def traffic(self, channel: str) -> tuple[int, int]:
        wire = self.wire(channel)
        return wire.received, wire.writer.transport.get_write_buffer_size()

    def wire(self, channel: str) -> Wire:
        return self.consumer if channel == CONSUMING else self.publisher

    def ack(self, effect: Ack) -> None:
        self.consumer.send(1, Basic.Ack(effect.tag, effect.multiple))

    def nack(self, effect: Nack) -> None:
        self.consumer.send(1, Basic.Nack(effect.tag, requeue=effect.requeue))

    def publish(self, effect: Publish) -> None:
        command = Basic.Publish(0, effect.exchange, effect.routing_key, effect.mandatory)
        self.publisher.send(1, command, effect.properties, effect.body)

    def log(self, effect: PublishLog) -> None:
        command = Basic.Publish(0, effect.exchange, effect.routing_key)
        self.publisher.send(2, command, effect.properties, effect.body)

    def congested(self) -> bool:
        return self.publisher.writer.transport.get_write_buffer_size() >= MAX_UNSENT
