"""A transport of one's own for the core: bytes and an event loop, here asyncio's streams, without a client library.

``StreamWire`` is the socket of one connection, and ``CustomLink`` opens the two of a link. All of AMQP is in the core.
``custom_service.py`` runs user code; docs/embedding.rst explains both.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from eda_core import Connect
from eda_core.amqp import Client
from eda_core.drivers import CONNECTIONS, AmqpLink, Driver, LookUps, reason

LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)  # asyncio would wait for a hung resolver at the end
GRACE = 0.5  # seconds for the last bytes to be sent


class StreamWire:
    """The socket of one connection."""

    client: Client  # the link makes it

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.loop = asyncio.get_running_loop()
        self.sending = False

    def send_soon(self) -> None:
        if not self.sending:
            self.sending = True
            self.loop.call_soon(self.send)

    def send(self) -> None:
        self.sending = False
        self.writer.write(self.client.data_to_send())
        if self.client.should_close and not self.writer.is_closing():
            self.writer.close()  # when all is written
            self.loop.call_later(GRACE, self.abort)  # a peer that reads nothing must not keep it open

    def unsent(self) -> int:
        return self.writer.transport.get_write_buffer_size()

    def abort(self) -> None:
        self.writer.transport.abort()


class CustomLink(AmqpLink):
    """Two connections: an alarm stops all that a publisher sends, acknowledgements too. It opens when it is made."""

    def __init__(self, asked: Connect, driver: Driver) -> None:
        super().__init__(asked, driver)
        self.loop = asyncio.get_running_loop()
        self.tasks = [self.loop.create_task(self.run(name)) for name in CONNECTIONS]
        self.task: asyncio.Future[Any] = asyncio.gather(*self.tasks, return_exceptions=True)
        self.task.add_done_callback(lambda _: self.end("given up"))

    async def run(self, name: str) -> None:
        """Open a connection, and pass in what comes, until it is closed."""
        try:
            reader, writer = await self.connect(name)
        except Exception as error:
            self.fail(reason(error))
            return
        self.connected(name, StreamWire(writer))
        why = ""
        try:
            while data := await reader.read(65_536):
                self.take(name, data)
        except OSError as error:
            why = reason(error)
        finally:
            writer.transport.abort()
            self.lost(name, why)

    async def connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address, options = self.address, self.socket_options(socket, name)
        tls = address.tls_context(None, ssl.create_default_context)
        sock = await LOOK_UPS.connect(address.host, address.port, options, self.loop.sock_connect, asyncio.wrap_future)
        secured: dict[str, Any] = {"ssl": tls, "server_hostname": address.host} if tls else {}
        return await asyncio.open_connection(sock=sock, **secured)

    def drop(self) -> None:
        """Nothing waits for an answer of the broker any more."""
        for name, task in zip(CONNECTIONS, self.tasks, strict=True):
            if name not in self.wires and task is not asyncio.current_task():
                task.cancel()

    def call_at(self, due: float, call: Callable[[], None]) -> Callable[[], object]:
        return self.loop.call_at(due, call).cancel
