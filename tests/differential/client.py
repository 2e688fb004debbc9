"""A small synchronous AMQP 0-9-1 client, which talks to RabbitMQ over TCP and to the broker model in memory.

Both servers get the same octets, because one encoder writes them (``eda_core.testing.wire.frames``, which refuses
nothing that a client may send). pamqp reads what they answer; it shares no code with the model's side of the wire.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pamqp import base, body, commands, header
from pamqp import frame as pamqp_frame

from eda_core.testing.wire import PROTOCOL_HEADER, Server, ServerConnection, frames

Properties = commands.Basic.Properties
M = TypeVar("M", bound=base.Frame)

#: Seconds to wait for an answer.
TIMEOUT = 20.0
_CAPABILITIES: dict[str, Any] = {"consumer_cancel_notify": True, "basic.nack": True, "publisher_confirms": True}
_WITH_CONTENT = (commands.Basic.Deliver, commands.Basic.GetOk, commands.Basic.Return)


class SilenceError(Exception):
    """The server did not answer in time, or closed the socket without a reason."""


class Pipe(Protocol):
    """One connection as a stream of bytes."""

    def send(self, data: bytes) -> None:
        """Send bytes. If the server is gone they are lost."""

    def receive(self, timeout: float) -> bytes | None:
        """The bytes that came: ``b""`` if none came in ``timeout`` seconds, ``None`` if the server has hung up."""

    def close(self) -> None:
        """Hang up."""


class TcpPipe:
    """A socket."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it sent before can still be read
            self._socket.sendall(data)

    def receive(self, timeout: float) -> bytes | None:
        if not select.select([self._socket], [], [], timeout)[0]:
            return b""
        try:
            return self._socket.recv(1 << 18) or None
        except ConnectionResetError:
            return None

    def close(self) -> None:
        self._socket.close()


@dataclass(slots=True)
class Clock:
    """The virtual time of the model, in seconds."""

    now: float = 0.0


class MemoryPipe:
    """The model's wire server, in the same thread: it has answered when ``send`` returns."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._connection: ServerConnection = server.accept(now=clock.now)

    def send(self, data: bytes) -> None:
        self._server.receive(self._connection, data, now=self._clock.now)

    def receive(self, timeout: float) -> bytes | None:
        data = self._connection.data_to_send()
        return None if not data and self._connection.should_close else data

    def close(self) -> None:
        self._server.lost(self._connection, now=self._clock.now)


@dataclass(slots=True)
class Received:
    """One method from the server, with its content if it has one."""

    channel: int
    method: base.Frame
    properties: Properties | None = None
    body: bytes = b""


class Client:
    """One connection, after the handshake.

    The client answers a Close of the server at once, as client libraries do. It drops what comes on a channel between a
    Close and the next OpenOk, because RabbitMQ may send a delivery or two after it has closed a channel.

    Attributes:
        ended: the server's Connection.Close, or its CloseOk; ``None`` while the connection is open.
    """

    def __init__(self, pipe: Pipe, vhost: str, channel_max: int | None = None) -> None:
        self.ended: base.Frame | None = None
        self._pipe = pipe
        self._unsent: list[bytes] = []
        self._buffer = b""
        self._closed: set[int] = set()
        self._content: dict[int, tuple[base.Frame, Properties | None, int, bytes]] = {}
        self._pipe.send(PROTOCOL_HEADER)
        self._expect(commands.Connection.Start)
        self.send(0, commands.Connection.StartOk({"capabilities": _CAPABILITIES}, "PLAIN", "\0guest\0guest", "en_US"))
        tune = self._expect(commands.Connection.Tune)
        self.send(0, commands.Connection.TuneOk(channel_max or tune.channel_max, tune.frame_max, 0))
        self.send(0, commands.Connection.Open(vhost))
        self._expect(commands.Connection.OpenOk)

    def _expect(self, kind: type[M]) -> M:
        method = self.until(lambda received: received.channel == 0)[-1].method
        if not isinstance(method, kind):
            raise SilenceError(f"expected {kind.__name__}, got {dict(method)}")
        return method

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(
        self, channel: int, method: base.Frame, properties: Properties | None = None, content: bytes | None = None
    ) -> None:
        """Write a method. It goes out with the next ``flush`` or read."""
        self._unsent.append(frames.encode_method(channel, method))
        if content is not None:
            self._unsent.append(frames.encode_content(channel, properties, content, 131072))

    def send_raw(self, data: bytes) -> None:
        """Write any bytes. They go out with the next ``flush`` or read."""
        self._unsent.append(data)

    def flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if data:
            self._pipe.send(data)

    def hang_up(self) -> None:
        """Close the socket, without Connection.Close."""
        self.ended = self.ended or commands.Connection.CloseOk()
        self._pipe.close()

    def close(self) -> None:
        """Close the connection by Connection.Close, and drop what comes until that is answered."""
        try:
            if self.ended is None:
                self.send(0, commands.Connection.Close(200, "bye", 0, 0))
                self.until(lambda received: self.ended is not None)
        finally:
            self._pipe.close()

    # -- receiving ----------------------------------------------------------------------------------------------------

    def until(self, done: Callable[[Received], bool]) -> list[Received]:
        """Read up to the first method that is ``done``, and what came with it.

        Raises:
            SilenceError: none came in time, or the connection ended.
        """
        found: list[Received] = []
        give_up = time.monotonic() + TIMEOUT
        while True:
            new = self.read(1.0)
            found += new
            if any(map(done, new)):
                return found
            if self.ended is not None or time.monotonic() > give_up:
                raise SilenceError(f"no answer; ended by {self.ended and dict(self.ended)}; got {found[-5:]}")

    def call(self, channel: int, method: base.Frame, kind: type[M]) -> M:
        """Send a method, and return its answer of type ``kind``. What comes before is dropped.

        Raises:
            SilenceError: none came in time, or the method was refused.
        """
        self.send(channel, method)
        wanted = (kind, commands.Channel.Close)
        answers = self.until(lambda received: received.channel == channel and isinstance(received.method, wanted))
        for answer in answers:
            if answer.channel == channel and isinstance(answer.method, kind):
                return answer.method
        raise SilenceError(f"{method.name} was refused: {dict(answers[-1].method)}")

    def open_with(self, queue: str) -> None:
        """Open channel 1, with an exclusive queue.

        RabbitMQ may take a while to notice that the previous connection is gone, and keeps its queue until then.
        """
        give_up = time.monotonic() + TIMEOUT
        while True:
            self.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
            try:
                self.call(1, commands.Queue.Declare(queue=queue, exclusive=True), commands.Queue.DeclareOk)
                return
            except SilenceError:
                if time.monotonic() > give_up:
                    raise

    def read(self, timeout: float) -> list[Received]:
        """What has come. If nothing has, wait for something for at most ``timeout`` seconds."""
        self.flush()
        if self.ended is not None:
            return []
        data = self._pipe.receive(timeout)
        if data is None:
            raise SilenceError("the server hung up without Connection.Close")
        self._buffer += data
        found: list[Received] = []
        at = 0
        while len(self._buffer) - at >= 7:
            kind, channel, size = frames.HEADER.unpack_from(self._buffer, at)
            end = at + size + frames.FRAME_OVERHEAD
            if end > len(self._buffer):
                break
            if kind != frames.FRAME_HEARTBEAT:
                self._frame(channel, self.unmarshal(self._buffer[at:end]), found)
            at = end
        self._buffer = self._buffer[at:]
        self.flush()
        return found

    def unmarshal(self, data: bytes) -> object:
        """The object of pamqp for one frame."""
        return pamqp_frame.unmarshal(data)[2]

    def _frame(self, channel: int, value: object, found: list[Received]) -> None:
        if channel in self._closed:
            if not isinstance(value, commands.Channel.OpenOk):
                return
            self._closed.discard(channel)
        if isinstance(value, base.Frame):
            if isinstance(value, _WITH_CONTENT):
                self._content[channel] = (value, None, 0, b"")
                return
            self._react(channel, value)
            found.append(Received(channel, value))
        elif isinstance(value, header.ContentHeader):
            method, _, _, text = self._content[channel]
            self._content[channel] = (method, value.properties, value.body_size, text)
            self._assemble(channel, found)
        elif isinstance(value, body.ContentBody):
            method, properties, size, text = self._content[channel]
            self._content[channel] = (method, properties, size, text + (value.value or b""))
            self._assemble(channel, found)

    def _assemble(self, channel: int, found: list[Received]) -> None:
        method, properties, size, text = self._content[channel]
        if len(text) == size:
            del self._content[channel]
            found.append(Received(channel, method, properties, text))

    def _react(self, channel: int, method: base.Frame) -> None:
        if isinstance(method, commands.Channel.Close):
            self.send(channel, commands.Channel.CloseOk())
            self._closed.add(channel)
        elif isinstance(method, commands.Connection.Close):
            self.send(0, commands.Connection.CloseOk())
            self.flush()
            self.ended = method
        elif isinstance(method, commands.Connection.CloseOk):
            self.ended = method
