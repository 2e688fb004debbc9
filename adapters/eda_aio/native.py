"""One link to the broker without a client library: moves bytes between sockets and the core's own AMQP 0-9-1.

This module decides when bytes are read and written. What they mean is decided by :mod:`eda_core.amqp` and
:class:`eda_core.drivers.AmqpLink`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from ssl import SSLContext, create_default_context
from typing import Any, cast

from eda_core import Connect
from eda_core.amqp import Client
from eda_core.drivers import CONNECTIONS, AmqpLink, Driver, LookUps, library_at_work, reason

#: Seconds for the last bytes to be sent once a connection has ended.
_GRACE = 0.5
_LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)


class _Wire(asyncio.Protocol):
    """The socket of one connection."""

    client: Client

    def __init__(self, link: NativeLink, name: str) -> None:
        self._link, self._name = link, name
        self._loop = asyncio.get_running_loop()
        self._sending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._link.connected(self._name, self)

    def data_received(self, data: bytes) -> None:
        self._link.take(self._name, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._link.lost(self._name, "" if error is None else reason(error))

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
        self._disarm: Callable[[], object] = self._left.is_set
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
        self._disarm()

    async def _connect(self, name: str) -> None:
        host, port = self.address.host, self.address.port
        options, connect = self.socket_options(socket, name), self._loop.sock_connect
        sock = await _LOOK_UPS.connect(host, port, options, connect, asyncio.wrap_future)
        secured: dict[str, Any] = {"ssl": self._ssl, "server_hostname": host} if self.address.tls else {}
        await self._loop.create_connection(lambda: _Wire(self, name), sock=sock, **secured)

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

    def rearm(self) -> None:
        self._disarm()
        due = self.deadline()
        if due is not None:
            self._disarm = self._loop.call_at(due, self._tick).cancel

    def _tick(self) -> None:
        self.tick()
        self.rearm()
