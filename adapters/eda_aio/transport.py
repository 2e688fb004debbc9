"""One link to the broker: performs the machine's effects on it and tells the machine what comes of them.

A link has two connections, one for consuming and one for publishing: during a resource alarm the broker reads nothing
from a connection that has published, not even acknowledgements (docs/design.rst, "Resource alarms"). They are aiormq's,
the layer below aio-pika, because it takes pamqp's commands as the core makes them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ssl import SSLContext, create_default_context
from typing import Any, cast

from aiormq import Channel
from aiormq import Connection as Aiormq
from aiormq.abc import DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import AuthenticationError, DeliveryError, ProbableAuthenticationError
from pamqp import base
from pamqp.commands import Connection as Method
from yarl import URL

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.drivers import link as transport
from eda_core.drivers.base import Driver
from eda_core.drivers.link import reason
from eda_core.urls import Address

#: Seconds that a connection has to close by itself once the link is lost.
_GRACE = 0.5


class _Transports(TransportFactory):
    """Opens transports as aiormq does, which keeps them to itself, and remembers the last one."""

    last: asyncio.WriteTransport

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **options)
        self.last = writer.transport
        return reader, writer


class Connection(Aiormq):
    """aiormq only logs that the broker blocks publishing; this one tells ``link`` what the broker says.

    The methods are private to aiormq, and replaced by having the same class name; a test sees that they are called.
    """

    def __init__(self, url: URL, context: SSLContext | None, link: Link) -> None:
        self._transports = _Transports()
        super().__init__(url, context=context, transport_factory=self._transports)
        self.link = link

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._transports.last.get_write_buffer_size()

    async def __handle_connection_blocked(self, frame: Method.Blocked) -> None:
        self.link.hear(frame)

    async def __handle_connection_unblocked(self, frame: Method.Unblocked) -> None:
        self.link.hear(frame)


class Link(transport.Link):
    """The connections and channels of one epoch. Made with what the machine asked for, it begins to open.

    Args:
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.
    """

    def __init__(self, asked: Connect, driver: Driver, ssl: SSLContext | None) -> None:
        super().__init__(asked, driver)
        self._ssl = ssl
        self._timeout = driver.machine.config.close_timeout  # of each AMQP command, too
        self._connections: list[Connection] = []
        self._effects: asyncio.Queue[Effect] = asyncio.Queue()
        self._publishing: set[asyncio.Task[None]] = set()
        self._abandoned = False
        self.task: asyncio.Task[None] = asyncio.create_task(self._run(), name=f"eda link {asked.epoch}")
        self._end, self._refused = "given up", False
        # Not at the end of the task, which does not even begin when it is cancelled at once.
        self.task.add_done_callback(lambda _: self.tell(self.machine.link_down, self._end, refused=self._refused))

    def perform(self, effect: Effect) -> None:
        """Do it in its turn. Never raises: what fails is reported."""
        if isinstance(effect, Publish):
            task = asyncio.create_task(self.publish(effect))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
        elif isinstance(effect, Close) and not self.up:
            self.abandon()
        else:
            self._effects.put_nowait(effect)
            if isinstance(effect, Close):
                self.task.get_loop().call_later(max(0.0, self._timeout - 2 * _GRACE), self.abandon)

    def abandon(self) -> None:
        """Close by force."""
        if not self._abandoned:
            self._abandoned = True  # aiormq turns some cancellations into other errors
            self.task.cancel()

    def hear(self, frame: base.Frame, *content: Any) -> None:
        """What the broker sends."""
        self.received(frame.name, frame, *content)

    # Opening and closing

    async def _run(self) -> None:
        try:
            await self._connect()
            self.opened()
            while not self._abandoned and not isinstance(effect := await self._effects.get(), Close):
                try:
                    if (action := self.actions[type(effect)](effect)) is not None:
                        await action
                except Exception as error:
                    self.failed(effect, error)
            if not self._abandoned:
                await self._leave()
                self._end = "closed"
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._end = reason(error)
            self._refused = isinstance(error, (AuthenticationError, ProbableAuthenticationError))
        self._abandoned = True
        self.closing = True
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*map(_drop, self._connections))

    async def _connect(self) -> None:
        address = Address.of(self.asked.url)
        if address.tls:  # in a thread, since it reads files
            self._ssl = await asyncio.to_thread(address.tls_context, self._ssl, create_default_context)
        consuming, publishing = await self._connection(), await self._connection()
        self._publishes = publishing
        self._consumer = await self._channel(consuming, confirms=False)
        self._consumer.on_consumer_cancel_callbacks.add(self.hear)
        self._publisher = await self._channel(publishing, confirms=True)
        self._logger = await self._channel(publishing, confirms=False)

    async def _connection(self) -> Connection:
        url = URL(self.asked.url).with_query(heartbeat=self.asked.heartbeat, name=self.asked.name)
        connection = Connection(url, self._ssl, self)
        await connection.connect()
        self._connections.append(connection)
        connection.closing.add_done_callback(self._on_connection_closed)
        return connection

    async def _channel(self, connection: Connection, *, confirms: bool) -> Channel:
        channel = cast(Channel, await connection.channel(publisher_confirms=confirms, on_return_raises=False))
        channel.closing.add_done_callback(self._on_channel_closed)
        return channel

    def _on_connection_closed(self, closing: asyncio.Future[Any]) -> None:
        if not self.closing:
            error = closing.exception()
            self.tell(self.machine.link_down, "closed" if error is None else reason(error))
            self.abandon()

    def _on_channel_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if not self.closing and isinstance(error, Exception):
            self.tell(self.machine.channel_closed, reason(error))

    async def _leave(self) -> None:
        """A channel's close is answered after all that was sent before it; a connection's close may overtake that."""
        self.closing: bool = True
        for end in (self._consumer, self._logger, *self._connections):
            await end.close()

    # Effects

    async def declare(self, effect: Declare) -> None:
        replies = [await self._consumer.rpc(command, timeout=self._timeout) for command in effect.commands]
        self.tell(self.machine.declared, replies)

    async def consume(self, effect: Consume) -> None:
        tag = effect.consumer_tag
        await self._consumer.basic_consume(effect.queue, self._on_message, consumer_tag=tag, timeout=self._timeout)

    async def _on_message(self, message: DeliveredMessage) -> None:
        self.hear(message.delivery, message.header.properties, message.body)

    async def cancel(self, effect: Cancel) -> None:
        await self._consumer.basic_cancel(effect.consumer_tag, timeout=self._timeout)

    async def ack(self, effect: Ack) -> None:
        await self._consumer.basic_ack(effect.tag, effect.multiple, wait=False)

    async def nack(self, effect: Nack) -> None:
        await self._consumer.basic_nack(effect.tag, requeue=effect.requeue, wait=False)

    async def log(self, effect: PublishLog) -> None:
        key, properties = effect.routing_key, effect.properties
        await self._logger.basic_publish(
            effect.body, exchange="logs", routing_key=key, properties=properties, wait=False
        )

    def congested(self) -> bool:
        return self._publishes.unsent >= transport.MAX_UNSENT

    async def publish(self, effect: Publish) -> None:
        try:
            answer = await self._publisher.basic_publish(
                effect.body,
                exchange=effect.exchange,
                routing_key=effect.routing_key,
                properties=effect.properties,
                mandatory=effect.mandatory,
                wait=False,
            )
        except DeliveryError:
            self.tell(self.machine.refused, effect.tag)
        except (Exception, asyncio.CancelledError) as error:  # aiormq cancels what waits on a connection that died
            self.failed(effect, error)
        else:
            if isinstance(answer, DeliveredMessage):  # a returned message instead of its confirm
                self.hear(answer.delivery, answer.header.properties, answer.body)
            self.tell(self.machine.confirmed, effect.tag)


async def _drop(connection: Connection) -> None:
    """Close it within :data:`_GRACE`, by force if need be: aiormq's second ``close`` does not wait for the peer."""
    for _ in range(2):
        with suppress(Exception):
            await asyncio.wait_for(connection.close(), _GRACE)
