"""A connection to the broker on the core's own AMQP: channels, replies, and whatever else the broker sends.

::

    connection = await Connection.open(url, "eda-inspect@host:7", timeout=10.0)
    channel = await connection.channel(heard)               # heard(event) is given deliveries, confirms and returns
    declared = await channel.ask(Queue.Declare(queue="q", passive=True))   # pamqp's Queue.DeclareOk
    await connection.close()

It does not know what tools ask for. Its errors are :class:`ChannelClosed` and :class:`ConnectionLost`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from ssl import create_default_context
from typing import Any, Final, Self

from pamqp import base
from pamqp import commands as spec
from pamqp.commands import Basic

from eda_aio.native import SocketWire, connect
from eda_core._version import __version__
from eda_core.amqp import Client, Event, Opened, Received
from eda_core.text import as_text
from eda_core.urls import Address
from eda_tools.cli.threads import in_daemon_thread

#: Seconds for an AMQP method to be answered.
RPC_TIMEOUT: Final = 10.0
#: Seconds for a connection to close.
CLOSE_TIMEOUT: Final = 3.0
HEARTBEAT: Final = 20

# Reply codes (AMQP 0-9-1, section 1.2)
ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406

#: What a broker sends on a channel without being asked.
_UNASKED: Final = frozenset({Basic.Deliver, Basic.Return, Basic.Ack, Basic.Nack})
#: What nobody needs to know: the client has answered, or the next question will show it.
_IGNORED: Final = frozenset({spec.Channel.Flow, Basic.Cancel})
#: How many bytes may wait to be sent before :meth:`Channel.drain` waits.
_MOST_UNSENT: Final = 65_536
#: The first octet of what every AMQP 0-9-1 broker says first: a frame with a method.
_METHOD: Final = b"\x01"


class AmqpError(Exception):
    """What was asked for is not done, because the broker has closed a channel, or the connection is lost.

    Attributes:
        code: the broker's reply code, such as 404; ``None`` if it gave none.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code: int | None = code


class ChannelClosed(AmqpError):
    """The broker has closed the channel. The text is the broker's."""


class ConnectionLost(AmqpError):
    """The connection is closed or broken. The text is the broker's if there is a code.

    Attributes:
        silently: the broker has closed the socket without a word, or has broken it.
    """

    silently: bool = False


class _ToolWire(SocketWire):
    """The socket. It knows whether its buffer is full, and keeps the exception that has broken it."""

    def __init__(self, owner: Connection) -> None:
        super().__init__(owner, "")
        self.broken: Exception | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.broken = error
        self.writable.set()
        super().connection_lost(error)


class Connection:
    """One connection. Make it with :meth:`open`.

    Attributes:
        error: why it is closed; ``None`` while it is open.
    """

    def __init__(self, address: Address, name: str) -> None:
        self.error: ConnectionLost | None = None
        self._loop = asyncio.get_running_loop()
        self._client = Client(
            now=self._loop.time(),
            user=address.user,
            password=address.password,
            vhost=address.vhost,
            mechanism=address.mechanism,
            heartbeat=HEARTBEAT,
            name=name,
            properties={"product": "eda-core", "version": __version__},
            close_timeout=CLOSE_TIMEOUT,
        )
        self._wire = _ToolWire(self)
        self._wire.client = self._client
        self._connected = False
        self._foreign = False  # what answers does not speak AMQP 0-9-1
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._channels: dict[int, Channel] = {}  # closed ones, too, until their numbers are used again

    @classmethod
    async def open(cls, url: str, name: str, *, timeout: float) -> Self:
        """Connect to a broker and log in.

        Args:
            url: a URL that ``check_urls`` has accepted.
            name: of the connection, for the broker's list.
            timeout: seconds.

        Raises:
            LocalError: the URL asks for something that does not exist.
            ConnectionLost: the broker refuses the login, or is none.
            OSError, UnicodeError: it cannot be reached; ``TimeoutError`` if it does not answer in time.
        """
        address = Address.of(url)
        connection = cls(address, name)
        try:
            async with asyncio.timeout(timeout):
                # In a thread, because it reads files.
                ssl = await in_daemon_thread(lambda: address.tls_context(None, create_default_context))
                await connect(address, {}, ssl, lambda: connection._wire)
                await connection._opened
        except BaseException:
            connection.abort()
            raise
        return connection

    async def channel(
        self,
        heard: Callable[[Received], object] = lambda event: None,
        lost: Callable[[AmqpError], object] = lambda error: None,
    ) -> Channel:
        """Open a channel.

        Args:
            heard: is given what the broker sends without being asked: deliveries, returns, confirms. It must not raise.
            lost: is called once if the broker closes the channel, or the connection is lost. It must not raise.

        Raises:
            ConnectionLost: the connection is closed.
            ChannelClosed: the broker allows no more channels.
            TimeoutError: it has not answered within :data:`RPC_TIMEOUT`.
        """
        if self.error is not None:
            raise self.error
        number = self._client.open_channel()
        made = self._channels[number] = Channel(self, self._client, number, heard, lost)
        await made.opened()
        return made

    async def close(self) -> None:
        """Close in good order, and by force if that takes longer than :data:`CLOSE_TIMEOUT`."""
        self._hear(self._client.close(self._loop.time()))
        self._arm()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._gone.wait()
        except TimeoutError:
            return
        finally:
            self.abort()

    def abort(self) -> None:
        """Close by force."""
        self._opened.cancel()
        if self._connected:
            self._wire.abort()

    def send_soon(self) -> None:
        """Write what is to be sent, when the tasks that are ready have had their turn."""
        self._wire.send_soon()

    async def drain(self) -> None:
        """Wait while much is still to be sent, because the broker does not read. Returns as well if it is lost."""
        if self._client.pending + self._wire.unsent() > _MOST_UNSENT:
            await asyncio.sleep(0)  # it is written
            await self._wire.writable.wait()

    # What the socket tells

    def connected(self, name: str, wire: object) -> None:
        """The socket is connected."""
        self._connected = True
        self.send_soon()
        self._arm()

    def take(self, name: str, data: bytes) -> None:
        """Bytes have come."""
        self._foreign |= not self._client.received and data[:1] != _METHOD
        self._hear(self._client.receive(data, self._loop.time()))

    def lost(self, name: str, reason: str) -> None:
        """The socket is closed."""
        error = ConnectionLost("the broker closed the connection without giving a reason")
        error.silently = True
        error.__cause__ = self._wire.broken
        self._client.lose(reason)
        self._end(error)
        self._gone.set()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._client.deadline()
        self._timer = None if due is None else self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._hear(self._client.tick(self._loop.time()))
        self._arm()

    def _hear(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Received):
                channel = self._channels.get(event.channel)
                if channel is not None:
                    channel.take(event)
            elif isinstance(event, Opened):
                if not self._opened.done():
                    self._opened.set_result(None)
            else:
                reason = "it is not an AMQP 0-9-1 broker" if self._foreign else event.reason
                self._end(ConnectionLost(reason or "the connection was closed", event.code))
        if self._client.has_data or self._client.should_close:
            self.send_soon()

    def _end(self, error: ConnectionLost) -> None:
        if self.error is None:
            self.error = error
            if not self._opened.done():
                self._opened.set_exception(error)
            for channel in list(self._channels.values()):
                channel.lose(error)


class Channel:
    """A channel. :meth:`Connection.channel` opens it.

    Its methods raise what has closed it: :class:`ChannelClosed` or :class:`ConnectionLost`.

    Attributes:
        closed: what has closed it; ``None`` while it is open.
    """

    def __init__(
        self,
        connection: Connection,
        client: Client,
        number: int,
        heard: Callable[[Received], object],
        lost: Callable[[AmqpError], object],
    ) -> None:
        self.closed: AmqpError | None = None
        self._connection, self._client, self._number = connection, client, number
        self._heard, self._lost = heard, lost
        #: Who waits for replies, which come in this order. Who has given up stays until the reply has come.
        self._asked: deque[asyncio.Future[Received]] = deque()

    async def opened(self) -> None:
        """Wait until the broker has opened it. Raises TimeoutError."""
        self._connection.send_soon()
        await self._reply()

    async def ask(self, method: base.Frame) -> Any:
        """Send a method and return the reply, a method of pamqp.

        Raises:
            TimeoutError: there is none within :data:`RPC_TIMEOUT`.
        """
        self.send(method)
        return (await self._reply()).method

    async def get(self, queue: str) -> Received | None:
        """Take the first message of a queue; ``None`` if no message is ready. Raises what :meth:`ask` raises."""
        self.send(Basic.Get(queue=queue))
        got = await self._reply()
        return got if isinstance(got.method, Basic.GetOk) else None

    def send(self, method: base.Frame) -> None:
        """Send a method that the broker does not answer."""
        self._check()
        self._client.send(self._number, method)
        self._connection.send_soon()

    def publish(self, exchange: str, routing_key: str, properties: Basic.Properties, body: bytes) -> None:
        """Publish a message, which comes back if no queue gets it."""
        self._check()
        self._client.publish(self._number, exchange, routing_key, properties, body, mandatory=True)
        self._connection.send_soon()

    async def drain(self) -> None:
        """Wait while the broker does not take what is to be sent. Returns as well if the connection is lost."""
        await self._connection.drain()

    async def close(self) -> None:
        """Close it. What the broker still sends on it is dropped. Raises what :meth:`ask` raises."""
        self._check()
        self._asked.clear()  # replies are dropped, too, but for that to this
        self._client.close_channel(self._number)
        self._connection.send_soon()
        await self._reply()
        self.closed = AmqpError("the channel was closed")

    def _check(self) -> None:
        if self.closed is not None:
            raise self.closed

    async def _reply(self) -> Received:
        reply: asyncio.Future[Received] = asyncio.get_running_loop().create_future()
        self._asked.append(reply)
        async with asyncio.timeout(RPC_TIMEOUT):
            return await reply

    # What the broker sends

    def take(self, event: Received) -> None:
        """The broker has sent a method on it."""
        method, kind = event.method, type(event.method)
        if kind in _UNASKED:
            self._heard(event)
        elif kind is spec.Channel.Close:
            self.lose(ChannelClosed(as_text(method.reply_text) or "the broker closed the channel", method.reply_code))
        elif kind not in _IGNORED and self._asked:
            reply = self._asked.popleft()
            if not reply.done():
                reply.set_result(event)

    def lose(self, error: AmqpError) -> None:
        """It is closed, or its connection is lost."""
        if self.closed is None:
            self.closed = error
            for reply in self._asked:
                if not reply.done():
                    reply.set_exception(error)
            self._lost(error)
