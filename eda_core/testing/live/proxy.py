"""A TCP proxy between services and their broker, that can mistreat what goes through it.

It can cut, reset, freeze, delay and throttle connections, all of them or one, in both directions or one, and refuse new
ones. If one side does not read, the proxy does not read from the other side either.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Literal, Self

Direction = Literal["up", "down"]
#: To the broker, and to the service.
UP: Final = "up"
DOWN: Final = "down"
BOTH: Final[tuple[Direction, ...]] = (UP, DOWN)

CHUNK = 65_536  # bytes
#: Bytes of one direction that the proxy holds when it neither delays nor throttles.
HELD = 4 * CHUNK
#: With linger time 0, closing a socket resets its connection.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a free port of 127.0.0.1, once entered; an asynchronous context manager.

    Attributes:
        port: where it listens.
        accepted: how many connections it has taken so far.
        links: the connections that are there, the oldest first.
        delay: seconds that everything is held back in each direction; it keeps its order.
        rate: bytes per second and direction of each connection; 0 for no limit.
        refusing: new connections are reset at once.
        hole: new connections are taken, and nothing comes of them: as with a network that drops everything.
        watch: called with what a connection carries, before that is sent on; returns what to send. It may set
            the link's ``ending``, to have the connection closed after that.
    """

    def __init__(self, target: int) -> None:
        self.port: int = 0
        self.accepted: int = 0
        self.links: list[Link] = []
        self.delay: float = 0.0
        self.rate: float = 0.0
        self.refusing: bool = False
        self.hole: bool = False
        self.watch: Callable[[Link, Direction, bytes], bytes] | None = None
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def open(self) -> int:
        """Connections that are open and not frozen in either direction."""
        return sum(not link.frozen for link in self.links)

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
        """Close all connections at once, the frozen ones too."""
        for link in list(self.links):
            link.cut()

    def reset(self) -> None:
        """Reset all connections: both ends see an error, and not an end."""
        for link in list(self.links):
            link.reset()

    def freeze(self, *directions: Direction) -> None:
        """Forward nothing more on what is connected now. What is sent stays in the buffers of the system."""
        for link in self.links:
            link.freeze(*directions)

    def thaw(self) -> None:
        """Let all frozen connections go on."""
        for link in self.links:
            link.thaw()

    def inject(self, data: bytes) -> None:
        """Have all clients receive ``data``, as if the broker had sent it."""
        for link in self.links:
            link.writers[DOWN].write(data)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._news.set()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        except asyncio.CancelledError:  # at the proxy's end; the server would log it
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            self._news.set()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            return _reset(writer)
        if self.hole:
            await asyncio.Event().wait()  # for ever: the proxy's end cancels it
        try:
            broker = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
        except OSError:  # as if there were no proxy: the broker is down
            return writer.transport.abort()
        link = Link(self, {UP: reader, DOWN: broker[0]}, {UP: broker[1], DOWN: writer})
        self.links.append(link)
        try:
            await link.run()
        finally:
            self.links.remove(link)


class Link:
    """One connection through the proxy.

    Attributes:
        readers, writers: by direction: where it comes from, and where it goes.
        ending: nothing more is read; when all that was read is sent, the connection is closed.
    """

    def __init__(
        self,
        proxy: Proxy,
        readers: dict[Direction, asyncio.StreamReader],
        writers: dict[Direction, asyncio.StreamWriter],
    ) -> None:
        self.proxy: Proxy = proxy
        self.readers: dict[Direction, asyncio.StreamReader] = readers
        self.writers: dict[Direction, asyncio.StreamWriter] = writers
        self.ending: bool = False
        self._ways = {direction: _Way(self, direction) for direction in BOTH}

    async def run(self) -> None:
        """Carry what there is to carry, until one end closes."""
        tasks = [asyncio.ensure_future(step()) for way in self._ways.values() for step in (way.read, way.write)]
        writing = [tasks[1], tasks[3]]
        try:
            await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self.writers.values():
                writer.close()  # what is written is sent first

    @property
    def frozen(self) -> bool:
        """Whether one of the directions is."""
        return any(not way.gate.is_set() for way in self._ways.values())

    def freeze(self, *directions: Direction) -> None:
        """Forward nothing more in these directions, by default in both. Not even the end of the connection."""
        for direction in directions or BOTH:
            self._ways[direction].gate.clear()

    def thaw(self) -> None:
        """Go on in both directions."""
        for way in self._ways.values():
            way.gate.set()

    def cut(self) -> None:
        """Close both ends at once."""
        self._end()
        for writer in self.writers.values():
            writer.transport.abort()

    def reset(self) -> None:
        """Reset both ends."""
        self._end()
        for writer in self.writers.values():
            _reset(writer)

    def _end(self) -> None:
        self.ending = True
        for way in self._ways.values():
            way.drop()
        self.thaw()


class _Way:
    """One direction of a connection: reads as far as there is room, and writes when it is time."""

    def __init__(self, link: Link, direction: Direction) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self._link, self._direction = link, direction
        self._held: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._read_all = False
        self._changed = asyncio.Event()

    async def read(self) -> None:
        reader, proxy, clock = self._link.readers[self._direction], self._link.proxy, asyncio.get_running_loop().time
        while not self._link.ending:
            await self.gate.wait()
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            await self.gate.wait()
            if data and proxy.watch is not None:
                data = proxy.watch(self._link, self._direction, data)
            elif not data:
                break
            self._held.append((clock() + proxy.delay, data))
            self._size += len(data)
            self._changed.set()
            while self._size > HELD and not proxy.delay:
                await self._news()
        self._read_all = True
        self._changed.set()

    async def write(self) -> None:
        writer, proxy, clock = self._link.writers[self._direction], self._link.proxy, asyncio.get_running_loop().time
        with suppress(OSError):
            while self._held or not self._read_all:
                if not self._held:
                    await self._news()
                    continue
                due, data = self._held[0]
                await asyncio.sleep(max(0.0, due - clock()))
                for part in _parts(data, proxy.rate):
                    if proxy.rate:
                        await asyncio.sleep(len(part) / proxy.rate)
                    await self.gate.wait()
                    writer.write(part)
                    await writer.drain()
                if self._held:
                    self._held.popleft()
                    self._size -= len(data)
                    self._changed.set()

    async def _news(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def drop(self) -> None:
        """Forget what was read and not sent."""
        self._held.clear()
        self._size = 0
        self._read_all = True
        self._changed.set()


def _parts(data: bytes, rate: float) -> Iterator[bytes]:
    """The data in pieces; at a limited rate, of a tenth of a second each."""
    step = max(1, int(rate / 10)) if rate else len(data) or 1
    return (data[at : at + step] for at in range(0, len(data), step))


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # its other end may have closed it
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
