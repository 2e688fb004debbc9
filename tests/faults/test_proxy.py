"""The proxy mistreats connections as it says, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eda_core.testing.live.proxy import BOTH, DOWN, UP, Direction, Link, Proxy
from tests.support.services import asynchronous, within


class Echo:
    """A server that sends back what it receives, behind a proxy.

    Attributes:
        proxy: that one.
        received: bytes, of all connections.
    """

    def __init__(self) -> None:
        self.received = b""
        self.proxy = Proxy(0)
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        """A new connection through the proxy."""
        new = Client(*await asyncio.open_connection("127.0.0.1", self.proxy.port))
        self._writers.append(new.writer)
        return new

    async def client(self) -> Client:
        """A new connection, known to work."""
        new = await self.connect()
        assert await within(new.ask(b"hello"), "the echo") == b"hello"
        return new

    def hang_up(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                self.received += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Send, and wait for the echo."""
        self.writer.write(data)
        return await self.reader.readexactly(len(data))

    async def silent(self, data: bytes, seconds: float = 0.2) -> bool:
        """Send; whether no echo comes."""
        self.writer.write(data)
        try:
            async with asyncio.timeout(seconds):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def through() -> AsyncIterator[tuple[Proxy, Echo]]:
    """A proxy before an echo."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1")
    try:
        async with Proxy(server.sockets[0].getsockname()[1]) as echo.proxy:
            yield echo.proxy, echo
    finally:
        echo.hang_up()
        server.close()


@asynchronous
async def test_it_carries_much_and_closes_what_is_closed() -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        body = bytes(range(256)) * 16_384  # 4 MiB
        one.writer.write(body)
        assert await within(one.reader.readexactly(len(body)), "the echo") == body
        assert len(echo.received) == len(body) + 5
        assert (proxy.accepted, proxy.open) == (1, 1)
        one.writer.close()
        await within(proxy.quiet(), "the link is gone")
        assert proxy.links == []


@asynchronous
async def test_who_does_not_read_is_not_read() -> None:
    async with through() as (_, echo):
        one = await echo.client()
        # It does not read: its buffer holds no more than a few kilobytes, and then that of the system fills.
        for _ in range(256):
            one.writer.write(bytes(1 << 20))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.writer.drain(), 1)
        assert len(echo.received) < 128 << 20


@asynchronous
async def test_one_link_or_all_are_cut() -> None:
    async with through() as (proxy, echo):
        one, two, three = [await echo.client() for _ in range(3)]
        proxy.links[1].cut()
        assert await within(two.reader.read(), "the end of the second") == b""
        assert await within(one.ask(b"still"), "the echo") == b"still"
        proxy.cut()
        assert await within(one.reader.read(), "the end of the first") == b""
        assert await within(three.reader.read(), "the end of the third") == b""
        await echo.client()


@asynchronous
async def test_a_reset_is_an_error_and_no_end() -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await within(one.reader.read(), "the reset")


@pytest.mark.parametrize("directions", [(), (UP,), (DOWN,)])
@asynchronous
async def test_what_is_frozen_arrives_when_it_thaws(directions: tuple[Direction, ...]) -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        proxy.freeze(*directions)
        assert proxy.open == 0
        await echo.client()  # later connections are not frozen
        before = len(echo.received)
        assert await one.silent(b"abc")
        assert len(echo.received) == before + (3 if directions == (DOWN,) else 0)
        proxy.thaw()
        assert await within(one.reader.readexactly(3), "the echo") == b"abc"


@asynchronous
async def test_a_frozen_link_is_cut_without_what_it_held() -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        proxy.freeze()
        assert await one.silent(b"abc")
        proxy.cut()
        assert await within(one.reader.read(), "the end") == b""
        assert echo.received == b"hello"


@asynchronous
async def test_a_delay_holds_back_all_alike() -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        proxy.delay = 0.1
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for _ in range(20):  # in one go: they are late together, not one after another
            one.writer.write(b"a")
            await asyncio.sleep(0.001)
        await within(one.reader.readexactly(20), "the echoes")
        assert 0.2 <= loop.time() - begin < 1.5


@asynchronous
async def test_a_rate_is_kept() -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        proxy.rate = 100_000
        loop = asyncio.get_running_loop()
        begin = loop.time()
        one.writer.write(bytes(50_000))
        await within(one.reader.readexactly(50_000), "the echo")
        assert 0.5 <= loop.time() - begin < 3


@asynchronous
async def test_new_connections_are_refused_or_vanish() -> None:
    async with through() as (proxy, echo):
        old = await echo.client()
        proxy.refusing = True
        refused = await echo.connect()
        with pytest.raises(ConnectionResetError):
            await within(refused.reader.read(), "the reset")
        proxy.refusing, proxy.hole = False, True
        lost = await echo.connect()
        assert await lost.silent(b"abc")
        assert await within(old.ask(b"still"), "the echo") == b"still"


@asynchronous
async def test_a_link_ends_after_what_a_watch_lets_through() -> None:
    seen: list[tuple[Direction, bytes]] = []

    def watch(link: Link, direction: Direction, data: bytes) -> bytes:
        seen.append((direction, data))
        if direction == DOWN:
            link.ending = True
            return data[:2]
        return data

    async with through() as (proxy, echo):
        proxy.watch = watch
        one = await echo.connect()
        one.writer.write(b"hello")
        assert await within(one.reader.read(), "what is let through, and the end") == b"he"
        assert seen == [(UP, b"hello"), (DOWN, b"hello")]


@asynchronous
async def test_a_target_that_is_down_closes_the_connection() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with Proxy(port) as proxy:
        one = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await within(one.reader.read(), "the end") == b""
        one.writer.close()
    assert BOTH == (UP, DOWN)


@asynchronous
async def test_data_can_be_injected() -> None:
    async with through() as (proxy, echo):
        one = await echo.client()
        proxy.inject(b"forged")
        assert await within(one.reader.readexactly(6), "the forged data") == b"forged"
        assert echo.received == b"hello"
