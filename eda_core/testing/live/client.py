"""A small client of AMQP 0-9-1 on asyncio, for tests: what stands beside the services, and needs no client library.

The protocol is the core's (:mod:`eda_core.amqp`), but what is sent is written as a server writes it. So a property or a
routing key may be anything that the wire can carry.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic, Channel, Confirm, Queue

from eda_core import amqp
from eda_core.amqp import named
from eda_core.amqp.states import OPEN
from eda_core.drivers import login_refusal
from eda_core.testing.wire import frames
from eda_core.text import as_text
from eda_core.urls import Address, redact

_READ: Final = 65_536  # bytes
#: The first octet of what every AMQP 0-9-1 broker says first: a frame with a method.
_METHOD: Final = b"\x01"


class ChannelClosed(ConnectionError):
    """The broker has closed a channel.

    Attributes:
        code: the reply code, such as 404.
        text: the reply text.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code: int = code
        self.text: str = text


@dataclass(frozen=True, slots=True)
class Received:
    """A message from a queue.

    Attributes:
        exchange: the exchange that it was published to last.
        routing_key: its routing key.
        properties: as they came; ``Unreadable`` if some cannot be read.
        body: as it came.
        redelivered: whether it was delivered before.
    """

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes
    redelivered: bool


class Client:
    """One connection. Make it with :meth:`connect`. Several tasks of one event loop may share it."""

    def __init__(self, protocol: amqp.Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._reader = reader
        self._writer = writer
        self._now = loop.time
        self._channels: dict[int, ClientChannel] = {}
        self._opened: asyncio.Future[None] = loop.create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str, name: str = "test", *, context: ssl.SSLContext | None = None) -> Client:
        """Connect and log in.

        Args:
            url: of the broker.
            name: of the connection, which the broker shows.
            context: for ``amqps``: how to check the certificate; by default the options of the URL decide.

        Raises:
            PermissionError: the broker refuses the login.
            OSError: there is no broker, or it is no AMQP broker.
        """
        address = Address.of(url)
        tls = address.tls_context(context, ssl.create_default_context)
        protocol = amqp.Client(
            now=asyncio.get_running_loop().time(),
            user=address.user,
            password=address.password,
            vhost=address.vhost,
            heartbeat=0,  # a test that freezes a broker must not lose what watches it
            name=name,
        )
        try:
            client = cls(protocol, *await asyncio.open_connection(address.host, address.port, ssl=tls))
        except OSError as error:
            raise ConnectionError(f"cannot connect to {redact(url)}: {error}") from error
        client.flush()
        try:
            await client._opened
        except ChannelClosed as error:
            client.abort()
            refusal, _ = login_refusal(url, error.code, error.text)
            raise (PermissionError(refusal) if refusal else error) from None
        except BaseException:
            client.abort()
            raise
        return client

    async def channel(self) -> ClientChannel:
        """Open a channel. Raises ConnectionError if the connection is lost."""
        if self._protocol.state is not OPEN:
            raise ConnectionError("the connection was closed")
        channel = ClientChannel(self, self._protocol, self._protocol.open_channel())
        self._channels[channel.number] = channel
        await channel.answer()
        return channel

    async def close(self) -> None:
        """Close in good order; at once if the broker is gone."""
        self._hear(self._protocol.close(self._now()))
        self.flush()
        await asyncio.wait([self._reading])

    def abort(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()
        self._reading.cancel()

    def flush(self) -> None:
        """Send what the protocol has to send."""
        if self._protocol.has_data:
            self._writer.write(self._protocol.data_to_send())

    def write(self, data: bytes) -> None:
        """Send frames, whatever is in them."""
        self._writer.write(data)

    async def _read(self) -> None:
        error = ConnectionError("the connection was closed")
        try:
            while not self._protocol.should_close:
                data = await self._reader.read(_READ)
                if not self._protocol.received and data[:1] not in (b"", _METHOD):
                    raise ConnectionError("this is no AMQP broker")
                self._hear(self._protocol.receive(data, self._now()) if data else self._protocol.lose(""))
                self.flush()
        except Exception as problem:
            error = ConnectionError(f"{type(problem).__name__}: {problem}")
        finally:
            self._end(error)
            self._writer.transport.abort()

    def _hear(self, events: list[amqp.Event]) -> None:
        for event in events:
            if isinstance(event, amqp.Received):
                if event.channel in self._channels:
                    self._channels[event.channel].received(event)
            elif isinstance(event, amqp.Opened):
                self._opened.set_result(None)
            elif event.code is not None:
                self._end(ChannelClosed(event.code, event.reason))
            else:
                self._end(ConnectionError(event.reason or "the connection was closed"))

    def _end(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
        for channel in self._channels.values():
            channel.lose(error)


class ClientChannel:
    """One channel. ``Client.channel`` opens it.

    Attributes:
        number: on its connection.
        closed: why it is closed, or ``None``.
    """

    def __init__(self, client: Client, protocol: amqp.Client, number: int) -> None:
        self.number: int = number
        self.closed: Exception | None = None
        self._client = client
        self._protocol = protocol
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._consumers: dict[str, Callable[[Received], object]] = {}
        self._confirms: dict[int, asyncio.Future[bool]] = {}
        self._published = 0
        self._returned = False
        self._selected = False
        self._publishing = asyncio.Lock()

    def send(self, method: base.Frame) -> None:
        """Send a method, and wait for nothing. Raises what has closed the channel."""
        if self.closed is not None:
            raise self.closed
        self._client.write(frames.encode_method(self.number, method))

    async def answer(self) -> Any:
        """Send what the protocol has to send, and return the next reply of the broker. Raises what ``ask`` raises."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        self._client.flush()
        return await future

    async def ask(self, method: base.Frame) -> Any:
        """Send a method and return the broker's reply; for ``Basic.Get``, the message or ``None``.

        ``Channel.Close`` is not for this: see :meth:`close`.

        Raises:
            ChannelClosed: the broker refuses it, and the channel is closed.
            ConnectionError: the connection is lost.
        """
        self.send(method)
        return await self.answer()

    async def close(self) -> None:
        """Close the channel. Raises what ``ask`` raises."""
        if self.closed is not None:
            raise self.closed
        self._protocol.close_channel(self.number, text="done")
        await self.answer()
        self.lose(ConnectionError("the channel was closed"))

    async def get(self, queue: str) -> Received | None:
        """Take the first message out of a queue; ``None`` if there is none. Raises what ``ask`` raises."""
        got: Received | None = await self.ask(Basic.Get(queue=queue, no_ack=True))
        return got

    async def watch(self, queue: str, received: Callable[[Received], object]) -> None:
        """Consume from a queue without acknowledgements. Raises what ``ask`` raises.

        Args:
            received: called with each message, in the event loop. It must not raise.
        """
        tag = f"watch-{len(self._consumers)}"
        self._consumers[tag] = received
        await self.ask(Basic.Consume(queue=queue, consumer_tag=tag, no_ack=True))

    async def temporary_queue(self, *bindings: tuple[str, str]) -> str:
        """Declare a queue that ends with the connection, and bind it. Returns its name. Raises what ``ask`` raises.

        Args:
            bindings: exchanges, each with the binding key.
        """
        declared = await self.ask(Queue.Declare(exclusive=True, auto_delete=True))
        for exchange, key in bindings:
            await self.ask(Queue.Bind(queue=declared.queue, exchange=exchange, routing_key=key))
        return str(declared.queue)

    async def publish(
        self, exchange: str, key: str, properties: Basic.Properties, data: bytes, *, mandatory: bool = False
    ) -> bool:
        """Publish, and wait until the broker has confirmed it.

        Returns:
            Whether a queue got it; with ``mandatory`` only, and true without.

        Raises:
            ConnectionError: the broker has refused it, or has closed the channel, or the connection is lost.
        """
        async with self._publishing:  # so that a return is the one of this message
            if not self._selected:
                await self.ask(Confirm.Select())
                self._selected = True
            self._published += 1
            self._returned = False
            confirm = self._confirms[self._published] = asyncio.get_running_loop().create_future()
            self.send(Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory))
            self._client.write(frames.encode_content(self.number, properties, data, self._protocol.frame_max))
            if not await confirm:
                raise ConnectionError(f"the broker refuses the message {key!r}")
            return not self._returned

    # What the broker sends

    def received(self, event: amqp.Received) -> None:
        """Take a method, and the message that belongs to it."""
        got = event.method
        if isinstance(got, Basic.Return):
            self._returned = True
        elif isinstance(got, (Basic.Deliver, Basic.GetOk)):
            self._message(got, event)
        elif isinstance(got, (Basic.Ack, Basic.Nack)):
            tags = [each for each in self._confirms if each <= got.delivery_tag] if got.multiple else [got.delivery_tag]
            for tag in tags:
                _settle(self._confirms.pop(tag, None), isinstance(got, Basic.Ack))
        elif isinstance(got, Channel.Close):
            self.lose(ChannelClosed(got.reply_code or 0, as_text(got.reply_text)))
        elif isinstance(got, Basic.Cancel):
            self.lose(ChannelClosed(404, "the queue was deleted"))
        elif self._asked:
            _settle(self._asked.popleft(), None if isinstance(got, Basic.GetEmpty) else got)

    def _message(self, method: Any, event: amqp.Received) -> None:
        message = Received(*named(method, event.properties or Basic.Properties()), event.body, bool(method.redelivered))
        if isinstance(method, Basic.Deliver):
            self._consumers[str(method.consumer_tag)](message)
        elif self._asked:
            _settle(self._asked.popleft(), message)

    def lose(self, error: Exception) -> None:
        """Take note that the channel is closed, and tell everybody who waits."""
        if self.closed is None:
            self.closed = error
        for future in (*self._asked, *self._confirms.values()):
            if not future.done():
                future.set_exception(error)
        self._asked.clear()
        self._confirms.clear()


def _settle(future: asyncio.Future[Any] | None, value: Any) -> None:
    if future is not None and not future.done():  # it may have been cancelled
        future.set_result(value)
