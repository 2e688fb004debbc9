"""The embedded broker: an AMQP 0-9-1 server in one process, for trials, demos and tests. In production use RabbitMQ.

It keeps everything in memory and forgets it when it stops. ``eda broker`` runs it. In a program::

    async with EmbeddedBroker(port=0) as broker:
        ...  # connect any client to broker.url

and without an event loop ``with EmbeddedBrokerThread() as broker``. ``eda_core.testing.broker`` decides how the broker
behaves and ``eda_core.testing.wire`` speaks AMQP. This module has only the sockets and the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Self, cast

from pamqp import commands

from eda_core.testing.broker import Broker, Outgoing
from eda_core.testing.broker import dead_letters as set_up
from eda_core.testing.broker.versions import NEWEST
from eda_core.testing.wire import GUEST, Server, ServerConnection

LOGGER: Final = logging.getLogger(__name__)

# What is left to the operator (docs/architecture.rst, "Dead letters").
DEAD_LETTER_EXCHANGE: Final = set_up.EXCHANGE
DEAD_LETTER_QUEUE: Final = set_up.QUEUE
DEAD_LETTER_POLICY: Final = set_up.POLICY

#: Where a broker listens by default.
LOOPBACK: Final = "127.0.0.1"
LOOPBACK_6: Final = "::1"

_SHUTDOWN_TIMEOUT: Final = 2.0  # seconds for the clients to answer Connection.Close
_TURN: Final = 0.01  # seconds of work for all clients, before the sockets are looked at again
_ROOM: Final = 1 << 16  # bytes for a client that has not read them
_PIECE: Final = 1 << 18  # bytes that are written at once
_WRITTEN: Final = 1 << 20  # bytes that are written to one client, before others have their turn
_SILENCE: Final = 0.5  # seconds without a byte from a client of TLS that is being closed: it sends nothing more
_FLUSH_TIMEOUT: Final = 5.0  # seconds for a client that is being closed to read what it was sent, and to hang up


def operated_broker(
    *,
    dead_letters: bool = True,
    vhosts: Sequence[str] = ("/",),
    version: str = NEWEST,
    confirm_interval: float = 0.0,
) -> Broker:
    """A broker model, by default with what the operator of a RabbitMQ sets up for dead letters.

    This is, in each virtual host, the topic exchange ``am-dlx``, the queue ``dead-letters`` bound with ``#``, and the
    policy that sends the dead letters of the queues ``*.events`` and ``*.commands`` there.

    Args:
        dead_letters: whether there are dead letters.
        vhosts: the names of the virtual hosts.
        version: the release of RabbitMQ that is modelled.
        confirm_interval: how many seconds confirms are collected (see ``Broker``); 0 sends each at once.

    Raises:
        LocalError: this release is not modelled, or ``confirm_interval`` is no time.
    """
    now = time.monotonic()
    broker = Broker(
        policies=[DEAD_LETTER_POLICY] if dead_letters else (),
        vhosts=vhosts,
        version=version,
        confirm_interval=confirm_interval,
        # A client may still use names from an earlier broker; they must not exist in this one.
        names=lambda: secrets.token_urlsafe(16),
        epoch=time.time() - now,
    )
    if not dead_letters:
        return broker
    for vhost in vhosts:
        operator = broker.connect(vhost=vhost)
        for method in (commands.Channel.Open(), *set_up.declarations()):
            broker.receive(operator, 1, method, now=now)
        broker.disconnect(operator, now=now)
    return broker


def report_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for a loop with an embedded broker: too many open files are one line, without traceback."""
    error = context.get("exception")
    if isinstance(error, ValueError) and "_start_serving(" in context.get("message", ""):
        return  # asyncio listens again a second after there were too many, also on a socket that is closed meanwhile
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        LOGGER.error("no more connections for now: %s (see `ulimit -n`). Who connects has to wait.", error.strerror)
    else:
        loop.default_exception_handler(context)


class EmbeddedBroker:
    """A listening broker in the running event loop. An asynchronous context manager.

    Args:
        host: address to listen on. By default that is the loopback, by IPv6 as well where the machine has it: for some
            clients ``localhost`` is ``::1``.
        port: port to listen on; 0 takes a free one, which is then the attribute ``port``.
        users: passwords by user name.
        dead_letters, vhosts, version, confirm_interval: see ``operated_broker``; ignored if ``broker`` is given.
        heartbeat: seconds proposed to clients; 0 is no heartbeat.
        broker: the model to serve, which a test can share.
        ssl: a server's context; the broker then speaks TLS only.

    Raises (on entering):
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = 0,
        *,
        users: Mapping[str, str] = GUEST,
        dead_letters: bool = True,
        vhosts: Sequence[str] = ("/",),
        version: str = NEWEST,
        confirm_interval: float = 0.0,
        heartbeat: int = 60,
        broker: Broker | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port: int = port
        self.broker: Broker = (
            broker
            if broker is not None
            else operated_broker(
                dead_letters=dead_letters, vhosts=vhosts, version=version, confirm_interval=confirm_interval
            )
        )
        self.server: Server = Server(
            self.broker, users=users, heartbeat=heartbeat, turn=_TURN, clock=time.monotonic, room=_ROOM
        )
        self._users, self._ssl = users, ssl
        self._clients: dict[ServerConnection, _Client] = {}
        self._slow: set[_Client] = set()  # those that do not read at present
        self._listeners: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._proceeding = False
        self._empty = asyncio.Event()

    @property
    def url(self) -> str:
        """``amqp://guest:guest@host:port/`` or ``amqps://…``, with the default virtual host.

        Not all clients log in as guest where the URL has no user. It has none if there is no such guest.
        """
        scheme, _, address = self.address.partition("//")
        return f"{scheme}//guest:guest@{address}" if self._users.get("guest") == "guest" else self.address

    @property
    def address(self) -> str:
        """``amqp://host:port/`` or ``amqps://…``: the URL without a user."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqps' if self._ssl else 'amqp'}://{host}:{self.port}/"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        while not self._listeners:
            await self._listen(loop)
        self._arm(loop)

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen on each address. There is no listener afterwards if a free port of the one is taken on the other."""
        port = self.port
        for host in (LOOPBACK, LOOPBACK_6) if self.host == LOOPBACK else (self.host,):
            try:
                listener = await loop.create_server(lambda: _Client(self, loop), host, port, ssl=self._ssl)
            except OSError as error:
                if host == LOOPBACK_6 and error.errno != errno.EADDRINUSE:
                    break  # the machine has no IPv6
                self._close_listeners()
                if host == LOOPBACK_6 and not self.port:
                    return  # the port is free on the other one only: take another port
                raise
            self._listeners.append(listener)
            port = listener.sockets[0].getsockname()[1]
        self.port = port

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def stop(self) -> None:
        """Stop listening and close every connection with 320 CONNECTION_FORCED. Waits up to 2 s for the clients."""
        if self.stopping:
            return
        self._close_listeners()
        self._empty.clear()
        loop = asyncio.get_running_loop()
        self.server.shutdown(now=loop.time())
        self._turn(loop)
        for client in self._clients.values():
            client.let_go()
        if self._clients:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _SHUTDOWN_TIMEOUT)
        await self._drop_clients()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def stopping(self) -> bool:
        """Whether it stops, or has stopped."""
        return not self._listeners

    async def cut(self) -> None:
        """Cut every connection without closing it, as a failing network does. Clients can connect again at once."""
        await self._drop_clients()

    async def kill(self) -> None:
        """Do what killing and starting a broker does: every connection is cut, and only what is durable stays."""
        self.broker.restart(now=asyncio.get_running_loop().time())
        await self._drop_clients()

    async def operate(self, action: Callable[[Broker, float], list[Outgoing]]) -> None:
        """Call ``action`` with the model and the time, and send what it answers.

        For example, ``lambda broker, now: broker.set_alarm(True, now=now)``.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.server.route(action(self.broker, now), now=now)
        self._turn(loop)

    async def _drop_clients(self) -> None:
        clients = list(self._clients.values())
        for client in clients:
            client.transport.abort()
        for client in clients:  # not those that have connected again meanwhile
            await client.gone.wait()

    # --- everything that follows from one input ---

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in self.server.dirty():
            client = self._clients.get(connection)
            if client is not None:
                client.flush(loop)
        if self.server.busy and not self._proceeding:
            self._proceeding = True
            loop.call_soon(self._proceed, loop)
        self._arm(loop)

    def _proceed(self, loop: asyncio.AbstractEventLoop) -> None:
        self._proceeding = False
        self.server.proceed(now=loop.time())
        self._turn(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = self.server.deadline()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # a timer may fire early, and this is cheaper than a new one for each message
            self._timer.cancel()
        self._timer = None if due is None else loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = None
        # A timer of the loop may fire early, by up to the resolution of its clock.
        now = max(due, loop.time())
        for client in self._slow:
            client.count_as_alive(now)
        self.server.tick(now=now)
        self._turn(loop)

    def _connected(self, client: _Client, now: float) -> ServerConnection:
        connection = self.server.accept(now=now)
        self._clients[connection] = client
        return connection

    def _lost(self, connection: ServerConnection, now: float) -> None:
        self.server.lost(connection, now=now)
        self._clients.pop(connection, None)
        if not self._clients:
            self._empty.set()


class _Client(asyncio.Protocol):
    """The socket of one client."""

    transport: asyncio.Transport
    connection: ServerConnection

    def __init__(self, owner: EmbeddedBroker, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._peer = ""
        self._unsent = 0  # bytes, while the client does not read
        self._ending = False  # all is said; the client has to hang up
        self._heard = False  # since it was looked at last
        self._last_call: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has the methods but not the class
        self.connection = self._owner._connected(self, self._loop.time())
        self._peer = str(transport.get_extra_info("peername"))
        LOGGER.info("%s connected", self._peer)
        self._owner._turn(self._loop)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._owner.server.receive(self.connection, data, now=self._loop.time())
        self._owner._turn(self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        LOGGER.info("%s gone%s", self._peer, f" ({exc})" if exc else "")
        self._owner._slow.discard(self)
        if self._last_call is not None:
            self._last_call.cancel()
        self._owner._lost(self.connection, self._loop.time())
        self.gone.set()
        self._owner._turn(self._loop)

    # Nothing is read from a client that does not read, so that the answers for it cannot fill the memory.
    def pause_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._owner._slow.add(self)
        self._owner.server.choked(self.connection)
        self._regulate()

    def resume_writing(self) -> None:
        self._unsent = 0
        self._owner._slow.discard(self)
        self.flush(self._loop)
        self._owner._turn(self._loop)

    def _regulate(self) -> None:
        if (self._unsent or self.connection.blocked or self.connection.behind) and not self._ending:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def count_as_alive(self, now: float) -> None:
        """Count a client as alive that reads what it is sent. Nothing is read from it, so no heartbeat is either."""
        if self._unsent:
            before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
            if self._unsent < before:
                self._owner.server.receive(self.connection, b"", now=now)

    def _write(self) -> None:
        connection, left = self.connection, _WRITTEN
        # Writing may find that the client does not read: pause_writing() is called then.
        while connection.unwritten and left > 0 and not self._unsent:
            data = connection.data_to_send(_PIECE)
            left -= len(data)
            self.transport.write(data)
        if self._unsent:
            return
        if connection.unwritten:
            self._owner.server.mark(connection)
        else:
            self._owner.server.written(connection, now=self._loop.time())

    def let_go(self) -> None:
        """Wait no longer for a client that should hang up."""
        if self._ending:
            self.transport.close()

    def flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.transport.is_closing():
            return
        self._write()
        self._regulate()
        if self.connection.should_close:
            self._end(loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._last_call is None:
            self._last_call = loop.call_later(_FLUSH_TIMEOUT, self.transport.abort)  # a client may do nothing for ever
        if not self.connection.unwritten and not self._ending:
            self._ending = True
            # What the client still sends is read and dropped. The system answers unread octets in a socket that is
            # closed by a reset, and a reset takes away what the client has not read yet: the reason of the end.
            self.transport.resume_reading()
            if self._owner.stopping:
                self.transport.close()
            elif self.transport.can_write_eof():
                try:
                    self.transport.write_eof()
                except OSError:  # the client has gone meanwhile, which the loop has not heard yet
                    self.transport.abort()
            else:  # TLS has no end of one direction, and a client that sends after its end is reset as well
                loop.call_later(_SILENCE, self._close_when_silent)

    def _close_when_silent(self) -> None:
        if self._heard:
            self._heard = False
            self._loop.call_later(_SILENCE, self._close_when_silent)
        else:
            self.transport.close()


class EmbeddedBrokerThread:
    """An ``EmbeddedBroker`` in a thread of its own, for synchronous programs. A context manager.

    Its arguments are those of ``EmbeddedBroker``.

    Attributes:
        url: the URL of the broker, once entered.
        port: its port, once entered.

    Raises (on entering):
        OSError: the address cannot be listened on.
    """

    def __init__(self, host: str = LOOPBACK, port: int = 0, **options: Any) -> None:
        self._make: Callable[[], EmbeddedBroker] = lambda: EmbeddedBroker(host, port, **options)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(report_fault)
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded-broker", daemon=True)
        self._broker: EmbeddedBroker | None = None
        self.url: str = ""
        self.port: int = port

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._broker = self._call(self._start)
        except BaseException:
            self._end()
            raise
        self.url, self.port = self._broker.url, self._broker.port
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._call(self._embedded().stop)
        finally:
            self._end()

    def cut(self) -> None:
        """See ``EmbeddedBroker.cut``."""
        self._call(self._embedded().cut)

    def kill(self) -> None:
        """See ``EmbeddedBroker.kill``."""
        self._call(self._embedded().kill)

    def operate(self, action: Callable[[Broker, float], list[Outgoing]]) -> None:
        """See ``EmbeddedBroker.operate``. ``action`` runs in the broker's thread."""
        embedded = self._embedded()
        self._call(lambda: embedded.operate(action))

    async def _start(self) -> EmbeddedBroker:
        broker = self._make()
        await broker.start()
        return broker

    def _embedded(self) -> EmbeddedBroker:
        if self._broker is None:
            raise RuntimeError("the broker is not running")
        return self._broker

    def _call(self, function: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
