"""One link to the broker: performs the machine's effects on it and tells the machine what comes of them.

A link has two connections, one for consuming and one for publishing: during a resource alarm the broker reads nothing
from a connection that has published, not even acknowledgements (docs/design.rst, "Resource alarms"). They are aiormq's,
the layer below aio-pika, because it takes pamqp's commands as the core makes them. This module decides nothing about
messages, and does not know when a link is opened.
"""
# ruff: noqa: E402 - the check comes before the imports that would fail

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from ssl import SSLContext, create_default_context
from typing import Any, ClassVar, cast
from urllib.parse import urlencode, urlsplit

from eda_core.drivers.library import require

# Private methods of aiormq are replaced here, which another minor version may not have.
require("eda_aio", "aio", {"aiormq.connection": "7.2.4"})

import aiormq.connection
from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, DeliveryError
from pamqp import base
from pamqp.commands import Channel as Channels
from pamqp.commands import Connection as Method

from eda_aio.connection import AmqpConnection, refusal
from eda_core import (
    Ack,
    Cancel,
    Connect,
    Consume,
    Declare,
    Effect,
    Nack,
    OpenChannel,
    Probe,
    Publish,
    PublishLog,
)
from eda_core.drivers import CONSUMING, LOGGING, MAX_UNSENT, PUBLISHING, Driver, Link, LookUps, library_at_work, reason
from eda_core.urls import Address

#: Seconds for a connection to close in good order once the link is lost.
_GRACE = 0.5
_LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)


class _Transports(TransportFactory):
    """Opens transports, and keeps the last one, which aiormq does not give out.

    Args:
        socket_options: see :meth:`Link.socket_options`.
    """

    last: asyncio.WriteTransport

    def __init__(self, socket_options: Mapping[str, int]) -> None:
        self._socket_options = socket_options

    async def create(self, url: Any, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls: dict[str, Any] = {}
        if url.scheme == "amqps":
            tls = {"ssl": await options["ssl_context_provider"].get_context(), "server_hostname": url.host}
        try:
            # Not by asyncio: the end of the program would wait for its threads, and a hung resolver would keep them.
            connect = asyncio.get_running_loop().sock_connect
            sock = await _LOOK_UPS.connect(url.host, url.port, self._socket_options, connect, asyncio.wrap_future)
            reader, writer = await asyncio.open_connection(sock=sock, **tls)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.last = writer.transport
        return reader, writer


class _Frames(asyncio.Queue[ChannelFrame]):
    """The frames to write. It drops those of a channel that the broker has closed.

    aiormq would write what its tasks still have for that channel after the reply to the close, and the broker would
    close the connection for it (504).
    """

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._closed: set[bytes] = set()

    def _put(self, item: ChannelFrame) -> None:
        channel, method = item.payload[1:3], int.from_bytes(item.payload[7:11])
        if method == Channels.Open.index:
            self._closed.discard(channel)
        if channel in self._closed:
            if item.drain_future is not None:
                item.drain_future.cancel()
            return
        if method == Channels.CloseOk.index:
            self._closed.add(channel)
        super()._put(item)


class Connection(AmqpConnection):
    """Tells ``link`` when the broker blocks publishing and when that ends. aiormq only logs it."""

    HEARTBEAT_GRACE_MULTIPLIER: int = 2  # aiormq waits for a silent peer three times the heartbeat, others twice

    def __init__(self, url: str, context: SSLContext | None, link: AioLink, socket_options: Mapping[str, int]) -> None:
        self._transports = _Transports(socket_options)
        super().__init__(url, context=context, transport_factory=self._transports)
        self.link = link
        self.write_queue: asyncio.Queue[Any] = _Frames(self.FRAME_BUFFER_SIZE)

    @property
    def unsent(self) -> int:
        """How many bytes wait to be sent."""
        return self._transports.last.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the socket, and what waits to be sent."""
        self._transports.last.abort()

    async def _hear(self, frame: Method.Blocked | Method.Unblocked) -> None:
        self.link.hear(frame)

    # Private methods of aiormq 7.2. ``require`` checks the version; a test sees that they are called.
    _Connection__handle_connection_blocked = _Connection__handle_connection_unblocked = _hear


class AioLink(Link):
    """The connections and channels of one epoch. It begins to open when it is made.

    Args:
        asked: the effect that asks for it.
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.
    """

    library: ClassVar[str] = f"aiormq {aiormq.connection.__version__}"

    def __init__(self, asked: Connect, driver: Driver, ssl: SSLContext | None) -> None:
        super().__init__(asked, driver)
        self._ssl = ssl
        self._timeout = driver.machine.config.close_timeout  # also for each command that is answered
        self._connections: list[Connection] = []
        self._effects: asyncio.Queue[Effect | None] = asyncio.Queue()  # None at the end
        self._tasks: set[asyncio.Task[None]] = set()
        self._declarers: dict[str, Channel] = {}
        self._abandoned = False
        with library_at_work():
            self._context = copy_context()
        name = f"eda link {asked.epoch}"
        self.task: asyncio.Task[None] = asyncio.create_task(self._run(), name=name, context=self._context)
        self._end, self._refused = "given up", ""
        # A callback does this, and not the end of the task: a task that is cancelled at once does not run at all.
        self.task.add_done_callback(lambda _: self.tell(self.machine.link_down, self._end, refused=self._refused))

    def begin(self, effect: Effect) -> None:
        """Perform the effect after those before it, unless it need not wait for them."""
        if isinstance(effect, Publish):  # no blocked connection and no wait holds up this, and what is begun below
            self._begin(self.publish(effect))
        elif isinstance(effect, (OpenChannel, Probe)) or (isinstance(effect, Declare) and effect.channel != CONSUMING):
            self._begin(self._attempt(effect))
        else:
            self._effects.put_nowait(effect)

    def close(self) -> None:
        """Close in good order after the effects that wait; by force if that is no use, or takes too long."""
        self.closing: bool = True
        if self.up and not self.unresponsive:
            self._effects.put_nowait(None)
            self.task.get_loop().call_later(max(0.0, self._timeout - 2 * _GRACE), self.abandon)
        else:
            self.abandon()

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(step, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, effect: Effect) -> None:
        try:
            if (action := self.actions[type(effect)](effect)) is not None:
                await action
        except Exception as error:
            self.report_failure(effect, error)

    def abandon(self) -> None:
        """Close by force."""
        if not self._abandoned:
            self._abandoned = True
            self.task.cancel()
            self._force_soon()  # aiormq turns some cancellations into other errors, or into nothing

    def hear(self, frame: base.Frame, *content: Any) -> None:
        """Pass in what the broker sends."""
        self.receive(frame.name, frame, *content)

    # Opening and closing

    async def _run(self) -> None:
        try:
            await self._connect()
            self.report_open(self._publishes.server_properties)
            while not self._abandoned and (effect := await self._effects.get()) is not None:
                await self._attempt(effect)
            if not self._abandoned:
                await self._leave()
                self._end = "closed"
        except asyncio.CancelledError:
            pass
        except Exception as error:
            why, self._refused = refusal(self.asked.url, error)
            self._end = why or reason(error)
        self._abandoned = self.closing = True
        for task in self._tasks:
            task.cancel()
        self._force_soon()
        await asyncio.gather(*(connection.close() for connection in self._connections), return_exceptions=True)

    def _force_soon(self) -> None:
        """Drop the sockets after :data:`_GRACE` seconds: aiormq waits for ever until a peer has read what was sent."""

        def force() -> None:
            for connection in self._connections:
                connection.abort()

        self.task.get_loop().call_later(_GRACE, force)

    async def _connect(self) -> None:
        address = Address.of(self.asked.url)
        if address.tls:  # in a thread, because it reads files
            self._ssl = await asyncio.to_thread(address.tls_context, self._ssl, create_default_context)
        consuming, publishing = await self._connection(CONSUMING), await self._connection(PUBLISHING)
        self._consumes, self._publishes = consuming, publishing
        self._consumer = self._declarers[CONSUMING] = await self._channel(consuming, CONSUMING)
        self._consumer.on_consumer_cancel_callbacks.add(self.hear)
        self._publisher = await self._channel(publishing, PUBLISHING)
        self._logger = await self._channel(publishing, LOGGING)

    async def _connection(self, name: str) -> Connection:
        mechanism = Address.of(self.asked.url).mechanism
        query = urlencode({"heartbeat": self.asked.heartbeat, "name": self.asked.name, "auth": mechanism})
        url, options = urlsplit(self.asked.url)._replace(query=query).geturl(), self.socket_options(socket, name)
        connection = Connection(url, self._ssl, self, options)
        await connection.connect()
        self._connections.append(connection)
        connection.closing.add_done_callback(self._on_connection_closed)
        return connection

    async def _channel(self, connection: Connection, name: str) -> Channel:
        confirms = name == PUBLISHING
        channel = cast(Channel, await connection.channel(publisher_confirms=confirms, on_return_raises=False))
        channel.closing.add_done_callback(partial(self._on_channel_closed, name))
        return channel

    def _on_connection_closed(self, closing: asyncio.Future[Any]) -> None:
        if not self.closing:
            error = closing.exception()
            if isinstance(error, asyncio.CancelledError):  # aiormq cancels its reader when no heartbeats come
                error = TimeoutError("the broker is silent")
            self.tell(self.machine.link_down, "closed" if error is None else reason(error))
            self.abandon()

    def _on_channel_closed(self, name: str, closing: asyncio.Future[Any]) -> None:
        error, declarer = None if closing.cancelled() else closing.exception(), self._declarers.get(name)
        if not self.closing and isinstance(error, Exception) and (declarer or name in (PUBLISHING, LOGGING)):
            while declarer and self.up and not declarer.rpc_frames.empty():  # what came before
                self.hear(declarer.rpc_frames.get_nowait(), name)
            self.report_channel_closed(name, reason(error))

    async def _leave(self) -> None:
        """Close in good order: channels first, because a connection's close may overtake what was sent on them."""
        for end in (self._consumer, self._logger, *self._connections):
            if not self._abandoned:
                await end.close()

    # Effects

    async def declare(self, effect: Declare) -> None:
        if (name := effect.channel) not in self._declarers:
            self._declarers[name] = await self._channel(self._consumes, name)
        channel = self._declarers[name]
        await channel.create_task(self._declare(channel, effect))  # the channel ends it with its reason

    async def _declare(self, channel: Channel, effect: Declare) -> None:
        """Do what aiormq's ``rpc`` does, for all commands at once."""
        async with channel.lock:
            await channel.write_queue.put(ChannelFrame.marshall(channel.number, effect.commands))
            for _ in effect.commands:
                self.hear(await channel.rpc_frames.get(), effect.channel)

    def close_channel(self, channel: str) -> None:
        self._begin(self._declarers.pop(channel).close())

    async def consume(self, effect: Consume) -> None:
        tag = effect.consumer_tag
        await self._consumer.basic_consume(effect.queue, self._on_message, consumer_tag=tag, timeout=self._timeout)

    async def _on_message(self, message: DeliveredMessage) -> None:
        self.hear(message.delivery, message.header.properties, message.body)

    async def cancel(self, effect: Cancel) -> None:
        await self._consumer.basic_cancel(effect.consumer_tag, timeout=self._timeout)

    async def open_channel(self, effect: OpenChannel) -> None:
        channel = await self._channel(self._publishes, effect.channel)
        if effect.channel == PUBLISHING:
            self._publisher = channel
        else:
            self._logger = channel
        self.report_channel_open(effect.channel)

    async def probe(self, effect: Probe) -> None:
        channel = self._consumer if effect.channel == CONSUMING else self._publisher
        with suppress(Exception):  # if it is closed meanwhile, that is told elsewhere
            self.hear(await channel.flow(active=True), effect.channel)

    def traffic(self, channel: str) -> tuple[int, int]:
        connection = self._consumes if channel == CONSUMING else self._publishes
        return connection.received, connection.unsent

    async def ack(self, effect: Ack) -> None:
        await self._consumer.basic_ack(effect.tag, effect.multiple, wait=False)

    async def nack(self, effect: Nack) -> None:
        await self._consumer.basic_nack(effect.tag, requeue=effect.requeue, wait=False)

    async def log(self, effect: PublishLog) -> None:
        await self._logger.basic_publish(
            effect.body,
            exchange=effect.exchange,
            routing_key=effect.routing_key,
            properties=effect.properties,
            wait=False,
        )

    def congested(self) -> bool:
        return self._publishes.unsent >= MAX_UNSENT

    async def publish(self, effect: Publish) -> None:
        channel = self._publisher
        try:
            answer = await channel.basic_publish(
                effect.body,
                exchange=effect.exchange,
                routing_key=effect.routing_key,
                properties=effect.properties,
                mandatory=effect.mandatory,
                wait=False,
            )
        except DeliveryError:
            self._answered(channel, self.machine.refused, effect)
        except (Exception, asyncio.CancelledError) as error:  # aiormq cancels publishes when their connection is lost
            if not channel.is_closed:  # otherwise the channel or the connection tells
                self.report_failure(effect, error)
        else:
            if isinstance(answer, DeliveredMessage):  # aiormq gives the returned message instead of its confirm
                self.hear(answer.delivery, answer.header.properties, answer.body)
            self._answered(channel, self.machine.confirmed, effect)

    def _answered(self, channel: Channel, answer: Callable[..., list[Effect]], effect: Publish) -> None:
        """Tell what the broker says of a publish, unless another channel counts anew by now."""
        if channel is self._publisher:
            self.tell(answer, effect.tag)
