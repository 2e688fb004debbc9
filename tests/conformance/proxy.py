"""A TCP proxy between services and their broker. It can cut, freeze and delay connections.

If one side does not read, the proxy does not read from the other side either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self


class Proxy:
    """Listens on a free port of 127.0.0.1, once entered; an asynchronous context manager.

    Attributes:
        port: where it listens.
        accepted: how many connections it has taken so far.
        delay: seconds that everything is held back in each direction. Set it before there are connections.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepted = 0
        self.delay = 0.0
        self._held: deque[tuple[asyncio.Transport, bytes]] = deque()
        self._target = target
        self._pairs: set[tuple[asyncio.Transport, asyncio.Transport]] = set()
        self._frozen: set[tuple[asyncio.Transport, asyncio.Transport]] = set()
        self._openings: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self), "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in self._openings:
            task.cancel()
        self.cut()
        await self.quiet()

    @property
    def open(self) -> int:
        """Connections that are open and not frozen."""
        return len(self._pairs - self._frozen)

    async def linked(self, count: int) -> int:
        """Wait until so many connections were taken. Returns how many were."""
        while self.accepted < count:
            self._news.clear()
            await self._news.wait()
        return self.accepted

    async def quiet(self) -> None:
        """Wait until no connection is open, those that are frozen left aside."""
        while self.open:
            self._news.clear()
            await self._news.wait()

    def cut(self) -> None:
        """Cut all connections, the frozen ones too."""
        for pair in list(self._pairs):
            for transport in pair:
                transport.abort()

    def freeze(self) -> None:
        """Forward nothing more on what is connected now. What is sent stays in the buffers of the system."""
        self._frozen |= self._pairs
        for pair in self._pairs:
            for transport in pair:
                transport.pause_reading()

    def carry(self, to: asyncio.Transport, data: bytes) -> None:
        """Send ``data`` on, after the delay, in order."""
        if self.delay:
            self._held.append((to, data))
            asyncio.get_running_loop().call_later(self.delay, self._carry_held)
        else:
            to.write(data)

    def _carry_held(self) -> None:
        to, data = self._held.popleft()
        if not to.is_closing():
            to.write(data)

    def inject(self, data: bytes) -> None:
        """Have all clients receive ``data``, as if the broker had sent it."""
        for client, _ in self._pairs:
            client.write(data)

    # For the protocols

    def taken(self, client: _Client) -> None:
        self.accepted += 1
        self._news.set()
        task = asyncio.get_running_loop().create_task(self._open(client))
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)

    async def _open(self, client: _Client) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, broker = await loop.create_connection(lambda: _Broker(self, client), "127.0.0.1", self._target)
        except OSError:  # as if there were no proxy: the broker is down
            client.transport.abort()
            return
        client.pair = broker.pair = pair = (client.transport, broker.transport)
        if client.transport.is_closing() or broker.transport.is_closing():
            client.transport.abort()
            broker.transport.abort()
            return
        self._pairs.add(pair)
        broker.transport.write(client.early)

    def regulate(self, end: _End, full: bool) -> None:
        if end.pair is not None and end.pair not in self._frozen:
            other = end.pair[end.pair[0] is end.transport]
            other.pause_reading() if full else other.resume_reading()

    def lost(self, pair: tuple[asyncio.Transport, asyncio.Transport] | None) -> None:
        if pair is not None:
            for transport in pair:
                transport.close()
            self._pairs.discard(pair)
            self._frozen.discard(pair)
        self._news.set()


class _End(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.pair: tuple[asyncio.Transport, asyncio.Transport] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def pause_writing(self) -> None:
        self.proxy.regulate(self, True)

    def resume_writing(self) -> None:
        self.proxy.regulate(self, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy.lost(self.pair)


class _Client(_End):
    """The end towards a service.

    Attributes:
        early: what it sent before there was a connection to the broker.
    """

    early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.proxy.taken(self)

    def data_received(self, data: bytes) -> None:
        if self.pair is None:
            self.early += data
        else:
            self.proxy.carry(self.pair[1], data)


class _Broker(_End):
    """The end towards the broker."""

    def __init__(self, proxy: Proxy, client: _Client) -> None:
        super().__init__(proxy)
        self._client = client

    def data_received(self, data: bytes) -> None:
        self.proxy.carry(self._client.transport, data)
