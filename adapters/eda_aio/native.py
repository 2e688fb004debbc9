"""One link to the broker without a client library: moves bytes between sockets and the core's own AMQP 0-9-1.

This module decides when bytes are read and written. What they mean is decided by :mod:`eda_core.amqp` and
:class:`eda_core.drivers.AmqpLink`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from ssl import SSLContext, create_default_context
from typing import Any, Protocol, cast

from eda_core import Connect
from eda_core.amqp import Client
from eda_core.drivers import CONNECTIONS, AmqpLink, Driver, LookUps, Wire, library_at_work, reason
from eda_core.urls import Address

#: The most that is read at once, bytes. A buffer of its own saves three system calls with each read.
_READ = 262_144
#: Seconds for the last bytes to be sent once a connection has ended.
_GRACE = 0.5
_LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)


class Owner(Protocol):
    """Who is told what happens on a socket: a link, or whatever else has connections."""

    def connected(self, name: str, wire: Wire) -> None:
        """The socket is connected. The owner sets the client of the wire, unless it is set."""

    def take(self, name: str, data: bytes) -> None:
        """Bytes have come."""

    def lost(self, name: str, reason: str) -> None:
        """The socket is closed. ``reason`` says why; "" if nobody knows."""


class SocketWire(asyncio.BufferedProtocol):
    """The socket of one connection. It is written to once in a turn of the loop.

    Args:
        owner: is told what happens.
        name: of the connection, for the owner.
    """

    client: Client

    def __init__(self, owner: Owner, name: str) -> None:
        self._owner, self._name = owner, name
        self._loop = asyncio.get_running_loop()
        self._sending = False
        self._buffer = memoryview(bytearray(_READ))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = cast(asyncio.Transport, transport)
        self._owner.connected(self._name, self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._owner.take(self._name, bytes(self._buffer[:nbytes]))

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.lost(self._name, "" if error is None else reason(error))

    def send_soon(self) -> None:
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        if self.client.has_data:
            self.transport.write(self.client.data_to_send())
        if self.client.should_close and not self.transport.is_closing():
            self.transport.close()
            self._loop.call_later(_GRACE, self.transport.abort)

    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        self.transport.abort()


async def connect(
    address: Address, options: Mapping[str, int], ssl: SSLContext | None, make: Callable[[], SocketWire]
) -> None:
    """Look up the host of a broker, and connect a socket to it.

    Args:
        options: of the socket, as ``eda_core.drivers.Link.socket_options`` returns them.
        ssl: for ``amqps://``; not looked at otherwise.
        make: makes the wire, which is told when the socket is connected and secured.

    Raises:
        OSError, UnicodeError: see ``LookUps.connect``; also ``ssl.SSLError``.
    """
    loop, host = asyncio.get_running_loop(), address.host
    sock = await _LOOK_UPS.connect(host, address.port, options, loop.sock_connect, asyncio.wrap_future)
    secured: dict[str, Any] = {"ssl": ssl, "server_hostname": host} if address.tls else {}
    await loop.create_connection(make, sock=sock, **secured)


class NativeLink(AmqpLink):
    """The connections of one epoch. It begins to open when it is made.

    Args:
        asked: the effect that asks for it.
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.

    Attributes:
        task: it ends when no socket is left.
    """

    def __init__(self, asked: Connect, driver: Driver, ssl: SSLContext | None) -> None:
        super().__init__(asked, driver)
        self._ssl, self._loop = ssl, asyncio.get_running_loop()
        self._connects: list[asyncio.Task[None]] = []
        self._dropped = False
        self._left = asyncio.Event()
        with library_at_work():
            self.task: asyncio.Task[None] = self._loop.create_task(self._run(), name=f"eda link {asked.epoch}")
        self.task.add_done_callback(lambda _: self.end("given up"))

    async def _run(self) -> None:
        try:
            if self.address.tls:  # in a thread, because it reads files
                self._ssl = await asyncio.to_thread(self.address.tls_context, self._ssl, create_default_context)
            if not self._dropped:
                self._connects = [self._loop.create_task(self._connect(name)) for name in CONNECTIONS]
                await asyncio.wait(self._connects, return_when=asyncio.FIRST_EXCEPTION)
                for connect in self._connects:
                    if connect.done() and not connect.cancelled():
                        connect.result()
        except Exception as error:
            self.fail(reason(error))
        if self._connects:
            await asyncio.wait(self._connects)
        if self.wires:
            await self._left.wait()

    async def _connect(self, name: str) -> None:
        options = self.socket_options(socket, name)
        await connect(self.address, options, self._ssl, lambda: SocketWire(self, name))

    def lost(self, name: str, reason: str) -> None:
        super().lost(name, reason)
        if not self.wires:
            self._left.set()

    def abandon(self) -> None:
        """Close by force. ``task`` ends soon."""
        self.abort()

    def drop(self) -> None:
        self._dropped = True
        for connect in self._connects:
            connect.cancel()

    def call_at(self, due: float, call: Callable[[], None]) -> Callable[[], object]:
        return self._loop.call_at(due, call).cancel
