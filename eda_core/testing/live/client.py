"""A small client of AMQP 0-9-1 on asyncio, for tests: what stands beside the services, and needs no client library.

It writes and reads frames as the core does. So a property or a routing key may be anything that the wire can carry.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pamqp import base, body, header
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue

from eda_core.amqp.reading import named, read_frame
from eda_core.drivers import login_refusal
from eda_core.testing.wire import frames
from eda_core.urls import Address, redact

FRAME_MAX: Final = 131_072  # bytes
_ABILITIES: Final = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "publisher_confirms",
)


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

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._channels: dict[int, ClientChannel] = {0: ClientChannel(self, 0)}
        self._frame_max = FRAME_MAX
        self._reading: asyncio.Task[None] | None = None

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
        try:
            client = cls(*await asyncio.open_connection(address.host, address.port, ssl=tls))
        except OSError as error:
            raise ConnectionError(f"cannot connect to {redact(url)}: {error}") from error
        client._reading = asyncio.create_task(client._read())
        try:
            await client._log_in(url, address, name)
        except BaseException:
            client.abort()
            raise
        return client

    async def _log_in(self, url: str, address: Address, name: str) -> None:
        zero = self._channels[0]
        abilities = dict.fromkeys(_ABILITIES, True)
        about: Any = {"connection_name": name, "capabilities": abilities}
        try:
            begun = zero.expect()
            self.write(header.ProtocolHeader().marshal())
            await begun
            tune = await zero.ask(Connection.StartOk(about, "PLAIN", f"\0{address.user}\0{address.password}"))
            self._frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
            # No heartbeats: a test that freezes a broker must not lose what watches it.
            zero.send(Connection.TuneOk(tune.channel_max, self._frame_max, 0))
            await zero.ask(Connection.Open(address.vhost))
        except ChannelClosed as error:
            refusal, _ = login_refusal(url, error.code, error.text)
            raise (PermissionError(refusal) if refusal else error) from None

    async def channel(self) -> ClientChannel:
        """Open a channel. Raises ConnectionError if the connection is lost."""
        channel = ClientChannel(self, next(self._numbers))
        self._channels[channel.number] = channel
        await channel.ask(Channel.Open())
        return channel

    async def close(self) -> None:
        """Close in good order; at once if the broker is gone."""
        try:
            await self._channels[0].ask(Connection.Close(200, "done", 0, 0))
        except OSError:
            pass
        finally:
            self.abort()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    def abort(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()
        if self._reading is not None:
            self._reading.cancel()

    def write(self, data: bytes) -> None:
        """Send frames."""
        self._writer.write(data)

    def forget(self, number: int) -> None:
        """Forget a channel that is closed."""
        self._channels.pop(number, None)

    @property
    def frame_max(self) -> int:
        """The size of the largest frame, in bytes."""
        return self._frame_max

    async def _read(self) -> None:
        error: Exception = ConnectionError("the connection was closed")
        try:
            while True:
                start = await self._reader.readexactly(7)  # type, channel, size
                if (size := int.from_bytes(start[3:])) > FRAME_MAX:
                    raise ConnectionError(f"a frame of {size} bytes: this is no AMQP broker")
                number, got = read_frame(start + await self._reader.readexactly(size + 1))
                if isinstance(got, Connection.Close):
                    self._channels[0].send(Connection.CloseOk())
                    error = ChannelClosed(got.reply_code or 0, got.reply_text or "")
                    return
                channel = self._channels.get(number)
                if channel is not None:
                    channel.received(got)
        except asyncio.IncompleteReadError:
            error = ConnectionError("the broker has closed the connection")
        except Exception as problem:
            error = ConnectionError(f"{type(problem).__name__}: {problem}")
        finally:
            for channel in self._channels.values():
                channel.lose(error)
            self._writer.transport.abort()


class ClientChannel:
    """One channel. ``Client.channel`` opens it.

    Attributes:
        number: on its connection.
        closed: why it is closed, or ``None``.
    """

    def __init__(self, client: Client, number: int) -> None:
        self.number: int = number
        self.closed: Exception | None = None
        self._client = client
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._consumers: dict[str, Callable[[Received], object]] = {}
        self._confirms: dict[int, asyncio.Future[bool]] = {}
        self._published = 0
        self._returned = False
        self._selected = False
        self._publishing = asyncio.Lock()
        self._content: Any = None
        self._header = header.ContentHeader()
        self._body = bytearray()

    def send(self, method: base.Frame) -> None:
        """Send a method, and wait for nothing. Raises what has closed the channel."""
        if self.closed is not None:
            raise self.closed
        self._client.write(frames.encode_method(self.number, method))

    def expect(self) -> asyncio.Future[Any]:
        """What the next reply of the broker will be given to."""
        future = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        return future

    async def ask(self, method: base.Frame) -> Any:
        """Send a method and return the broker's reply; for ``Basic.Get``, the message or ``None``.

        Raises:
            ChannelClosed: the broker refuses it, and the channel is closed.
            ConnectionError: the connection is lost.
        """
        self.send(method)
        return await self.expect()

    async def close(self) -> None:
        """Close the channel. Raises what ``ask`` raises."""
        await self.ask(Channel.Close(200, "done", 0, 0))
        self.lose(ConnectionError("the channel was closed"))
        self._client.forget(self.number)

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
            self._client.write(frames.encode_content(self.number, properties, data, self._client.frame_max))
            if not await confirm:
                raise ConnectionError(f"the broker refuses the message {key!r}")
            return not self._returned

    # What the broker sends

    def received(self, got: Any) -> None:
        """Take a frame."""
        if isinstance(got, header.ContentHeader):
            self._header, self._body = got, bytearray()
        elif isinstance(got, body.ContentBody):
            self._body += got.value
        elif isinstance(got, base.Frame):
            self._method(got)
            return
        else:  # a heartbeat
            return
        if len(self._body) >= self._header.body_size:
            self._message(self._content, bytes(self._body))

    def _method(self, got: base.Frame) -> None:
        if isinstance(got, (Basic.Deliver, Basic.Return, Basic.GetOk)):
            self._content = got
        elif isinstance(got, (Basic.Ack, Basic.Nack)):
            tags = [each for each in self._confirms if each <= got.delivery_tag] if got.multiple else [got.delivery_tag]
            for tag in tags:
                _settle(self._confirms.pop(tag, None), isinstance(got, Basic.Ack))
        elif isinstance(got, Channel.Close):
            self.send(Channel.CloseOk())
            self.lose(ChannelClosed(got.reply_code or 0, got.reply_text or ""))
        elif isinstance(got, Basic.Cancel):
            self.lose(ChannelClosed(404, "the queue was deleted"))
        elif isinstance(got, (Connection.Blocked, Connection.Unblocked)):
            pass
        elif self._asked:
            _settle(self._asked.popleft(), None if isinstance(got, Basic.GetEmpty) else got)

    def _message(self, method: Any, data: bytes) -> None:
        if isinstance(method, Basic.Return):
            self._returned = True
            return
        message = Received(*named(method, self._header.properties), data, bool(method.redelivered))
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
