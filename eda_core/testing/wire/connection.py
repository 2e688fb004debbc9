"""The server side of one AMQP 0-9-1 connection, without I/O.

A connection decides about the protocol header, log-in, negotiation, heartbeats, frames, the assembly of content, which
channels are open, and closing. It does not know what the methods on a channel mean. Its rules are those of AMQP 0-9-1
(sections 2.2.4, 2.3.5, 4.2), unless RabbitMQ does otherwise. It differs from RabbitMQ on purpose in one point: for most
faults before the connection is open RabbitMQ closes the socket without a reason; here the client is sent
Connection.Close.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, cast

from pamqp import base, commands

from eda_core.amqp import writing
from eda_core.testing.broker.message import Dropped
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.broker.versions import LARGEST_BODY
from eda_core.testing.wire import frames
from eda_core.testing.wire.frames import WireError

#: The first bytes of a client of AMQP 0-9-1.
PROTOCOL_HEADER: Final[bytes] = writing.PROTOCOL_HEADER
#: The largest body of a message that any release takes, in bytes.
MAX_BODY: Final = LARGEST_BODY
#: How long a client may take from the connection of its socket to ``Connection.Open``, in seconds.
HANDSHAKE_TIMEOUT: Final = 10.0
#: How long a client may take to answer ``Connection.Close``, in seconds.
CLOSING_TIMEOUT: Final = 10.0

_FRAME_MIN: Final = 4096  # section 4.2.3: frame-min-size
_FRAME_BEFORE_TUNING: Final = 8192  # until a size is agreed. That is RabbitMQ 4's bound: log-in tokens may be long.
_TURN: Final = 3  # frames of a client that are taken in each turn at least: a publish
_SMALL: Final = 1 << 16  # bytes of a body of which all frames are made at once
_CLOSE_OK: Final = frames.encode_method(0, commands.Connection.CloseOk())


class Host(Protocol):
    """What a connection needs of its server."""

    server_properties: dict[str, Any]
    mechanisms: str
    heartbeat: int
    frame_max: int
    channel_max: int
    room: int

    def log_in(self, mechanism: str, response: bytes) -> str:
        """The name of the user; ``""`` if the user is refused.

        Raises:
            KeyError: the server does not offer this mechanism.
        """

    def has_vhost(self, vhost: str) -> bool:
        """Whether the model has this virtual host."""

    def arm(self, connection: ServerConnection) -> None:
        """The connection may have something to do earlier than before: see its deadline."""

    def mark(self, connection: ServerConnection) -> None:
        """The connection has bytes to send, or is to be closed."""

    def largest_body(self) -> int:
        """The largest body that the broker takes, in bytes."""

    def turn_is_over(self) -> bool:
        """Whether the turn of a connection is over."""

    def leave(self, connection: ServerConnection) -> None:
        """The turn of the connection is over, and it has frames left: it takes them when others have had theirs."""

    def resume(self, connection: ServerConnection) -> None:
        """The connection is blocked no more: it takes what it has received at the end of the turn."""

    def register(self, connection: ServerConnection, now: float) -> ConnectionId:
        """Connect to the model."""

    def release(self, number: ConnectionId, now: float) -> None:
        """Disconnect from the model."""

    def command(
        self,
        number: ConnectionId,
        channel: int,
        method: base.Frame,
        properties: commands.Basic.Properties | None,
        body: bytes,
        now: float,
    ) -> None:
        """Hand a complete method to the model."""


# States of a connection, in order.
_HEADER, _START, _TUNE, _OPENING, _RUNNING, _CLOSING, _CLOSED = range(7)
_STATE_NAMES: Final = {_START: "starting", _TUNE: "tuning", _OPENING: "opening", _RUNNING: "running"}


class _Channel:
    """What the connection knows of a channel: whether the server has closed it, and the content that is arriving."""

    __slots__ = ("body", "closing", "dropped", "method", "missing", "properties")

    def __init__(self) -> None:
        self.closing = False  # Channel.Close sent, CloseOk not received
        self.forget()

    def forget(self) -> None:
        self.method: commands.Basic.Publish | None = None
        self.properties: frames.ReceivedProperties | None = None
        self.missing = 0  # bytes of the body
        self.dropped = 0  # bytes of a body that is too large to be kept
        self.body: list[bytes] = []


class ServerConnection:
    """The connection of one client. ``Server.accept`` makes it, ``Server.receive`` feeds it.

    Attributes:
        should_close: close the socket when the bytes to send are written. Nothing more is sent or read.
        user, vhost: what the client has logged in as and to; empty before.
        client_properties: what the client has announced in Connection.StartOk.
        blocked: by a resource alarm. What comes in is kept, so the driver should not read on.
        behind: it has received frames that it has not taken yet, so the driver should not read on.
        choked: the client does not read what it is sent, so nothing of it is taken.
        unwritten: how many bytes there are to send.
        id: its number in the model; ``None`` before the handshake is done, and after its end.
    """

    def __init__(self, host: Host, now: float) -> None:
        self.should_close: bool = False
        self.blocked: bool = False
        self.behind: bool = False
        self.choked: bool = False
        self.unwritten: int = 0
        self.user: str = ""
        self.vhost: str = ""
        self.client_properties: Mapping[str, Any] = {}
        self._host = host
        self._state = _HEADER
        self._buffer = bytearray()
        self._lost_sync = False
        self._out: deque[bytes | Iterator[bytes]] = deque()
        self._has_bodies = False  # in _out, one frame of which is made at a time
        self._capabilities: frozenset[str] = frozenset()
        self._channels: dict[int, _Channel] = {}
        self._channel_max = 0
        self._frame_max = _FRAME_BEFORE_TUNING
        self._heartbeat = 0
        self._received = now
        self._sent = now
        self._expires: float | None = now + HANDSHAKE_TIMEOUT
        self.id: ConnectionId | None = None

    def data_to_send(self, most: int = 0) -> bytes:
        """Bytes to write. They are returned once.

        Args:
            most: about so many bytes; 0 for all.
        """
        if not self._has_bodies and (not most or self.unwritten <= most):
            data = b"".join(cast("deque[bytes]", self._out))
            self._out.clear()
        else:
            data = b"".join(self._some(most))
            self._has_bodies = bool(self._out)
        self.unwritten -= len(data)
        return data

    def _some(self, most: int) -> Iterator[bytes]:
        size = 0
        while self._out and (not most or size < most):
            first = self._out[0]
            data = first if isinstance(first, bytes) else next(first, None)
            if data is None or data is first:
                self._out.popleft()
            if data is not None:
                size += len(data)
                yield data

    # --- called by the server ---

    def feed(self, data: bytes, now: float) -> None:
        """Keep bytes from the client."""
        if not self.should_close:
            self._received = now
            self._buffer += data

    def take(self, now: float) -> None:
        """Take the frames that were received. What is left when the turn is over waits for the next one."""
        if self.should_close or self.blocked:
            return
        full = self.choked or 0 < self._host.room < self.unwritten
        was_behind, self.behind = self.behind, full
        if not full:
            self._take(now)
        if self.behind != was_behind:
            self._host.mark(self)

    def _take(self, now: float) -> None:
        at = 0
        if self._state == _HEADER:
            if len(self._buffer) < len(PROTOCOL_HEADER):
                return
            at = len(PROTOCOL_HEADER)
            self._protocol_header(bytes(self._buffer[:at]), now)
        # The block ends the view, because a bytearray cannot shrink while there is one.
        with memoryview(self._buffer) as view:
            at = self._frames(view, at, now)
        del self._buffer[:at]

    def deadline(self) -> float:
        """When :meth:`tick` may have something to do; infinite for never."""
        due = math.inf if self._expires is None else self._expires
        if self._heartbeat and self._state < _CLOSING:
            due = min(due, self._sent + self._heartbeat / 2, self._dead_at())
        return due

    def tick(self, now: float) -> None:
        """Send a heartbeat, or end a connection whose client is silent, if it is time for that."""
        if self.should_close:
            return
        beats = self._heartbeat if self._state < _CLOSING else 0
        expired = self._expires is not None and now >= self._expires
        if expired or (beats and now >= self._dead_at()):
            self.abort(now)
        elif beats and now >= self._sent + beats / 2:
            self._write(frames.HEARTBEAT_FRAME, now)

    def _dead_at(self) -> float:
        # The driver does not read a blocked connection, so no heartbeat of its client arrives.
        return math.inf if self.blocked else self._received + self._heartbeat * 2

    def emit(self, item: Outgoing, now: float) -> None:
        """Send a method of the broker, unless it needs a capability that the client has not announced."""
        kind = type(item.method)
        if kind in _BLOCKS:
            self.blocked = _BLOCKS[kind]
            self._host.mark(self)
            if not self.blocked:
                self._host.resume(self)
        needed = _NEEDS_CAPABILITY.get(kind)
        if needed is not None and needed not in self._capabilities:
            return
        if kind is commands.Connection.Close:
            self.close(item.method, now)
            return
        data = frames.encode_method(item.channel, item.method)
        if kind in _WITH_CONTENT:
            self._write_content(data, item, now)
            return
        if kind is commands.Channel.CloseOk:
            self._channels.pop(item.channel, None)
        elif kind is commands.Channel.Close and item.channel in self._channels:
            self._channels[item.channel].forget()
            self._channels[item.channel].closing = True
        self._write(data, now)

    def close(self, method: base.Frame, now: float) -> None:
        """Send Connection.Close and wait for the answer. What the client holds is released at once, as in RabbitMQ."""
        if self._state >= _CLOSING:
            return
        if self._state == _HEADER:  # whether the client speaks AMQP is not known
            self.abort(now)
            return
        self._state = _CLOSING
        self.blocked = False
        self._expires = now + CLOSING_TIMEOUT
        self._host.arm(self)
        self._channels.clear()
        self._write(frames.encode_method(0, method), now)
        self._release(now)

    def abort(self, now: float) -> None:
        """End the connection without more words. The driver closes the socket when the bytes to send are written."""
        self._state = _CLOSED
        self.should_close = True
        self._expires = None
        self._channels.clear()
        self._release(now)
        self._host.mark(self)

    def discard(self) -> None:
        """The socket is gone. Drop what was to be sent, and what was received."""
        self._buffer = bytearray()
        self._out.clear()
        self.unwritten = 0

    # --- the model ---

    def _release(self, now: float) -> None:
        number, self.id = self.id, None
        if number is not None:
            self._host.release(number, now)

    def _command(
        self, number: int, method: base.Frame, properties: commands.Basic.Properties | None, body: bytes, now: float
    ) -> None:
        assert self.id is not None  # only a running connection has open channels
        self._host.command(self.id, number, method, properties, body, now)

    # --- output ---

    def _write_content(self, method: bytes, item: Outgoing, now: float) -> None:
        size = len(item.body)
        data = method + frames.encode_header(item.channel, item.properties, size)
        body = frames.encode_body(item.channel, item.body, self._frame_max)
        if size <= _SMALL:
            self._write(data + b"".join(body), now)
            return
        self._write(data, now)
        self._out.append(body)
        self._has_bodies = True
        self.unwritten += frames.size_of_body(size, self._frame_max)

    def _write(self, data: bytes, now: float) -> None:
        self._out.append(data)
        self.unwritten += len(data)
        self._sent = now
        self._host.mark(self)

    def _send(self, method: base.Frame, now: float) -> None:
        self._write(frames.encode_method(0, method), now)

    def _fail(self, error: WireError, now: float) -> None:
        self.close(commands.Connection.Close(error.code, error.text, error.class_id, error.method_id), now)

    # --- frames (section 4.2.3) ---

    def _frames(self, view: memoryview, at: int, now: float) -> int:
        """Take the complete frames from ``at`` on. Returns where the rest begins."""
        size_of_view, least = len(view), _TURN
        room, turn_is_over = self._host.room, self._host.turn_is_over
        while size_of_view - at >= 7 and not (self.should_close or self._lost_sync or self.blocked):
            if least <= 0 and (turn_is_over() or 0 < room < self.unwritten):
                self.behind = True
                self._host.leave(self)
                break
            least -= 1
            kind, channel, size = frames.HEADER.unpack_from(view, at)
            start = at + 7
            end = start + size
            fault = None if kind in _WITH_PAYLOAD and size <= self._frame_max else self._framing_fault(kind, size)
            if fault is None:
                if end >= size_of_view:
                    return at
                if view[end] != frames.FRAME_END:
                    fault = "FRAME_ERROR - frame does not end with the frame end octet"
            if fault is not None:
                self._fail(WireError(501, fault), now)
                self._lost_sync = True
                break
            try:
                self._frame(kind, channel, bytes(view[start:end]), now)
            except WireError as error:
                self._fail(error, now)
            at = end + 1
        if self.should_close:
            return size_of_view
        return self._seek_close_ok(view, at, now) if self._lost_sync else at

    def _framing_fault(self, kind: int, size: int) -> str | None:
        if kind not in _FRAME_HANDLERS:
            return f"FRAME_ERROR - unknown frame type {kind}"
        if 0 < self._frame_max < size:  # as in RabbitMQ, which does not count the eight octets around the payload
            return f"FRAME_ERROR - frame with {size} bytes of payload, over the maximum of {self._frame_max}"
        if kind == frames.FRAME_HEARTBEAT and size:
            return "FRAME_ERROR - heartbeat with a payload"
        return None

    def _seek_close_ok(self, view: memoryview, at: int, now: float) -> int:
        """Look for the client's CloseOk. After a framing error nobody knows where a frame begins."""
        if _CLOSE_OK in bytes(view[at:]):
            self.abort(now)
            return len(view)
        return max(at, len(view) - len(_CLOSE_OK) + 1)

    def _frame(self, kind: int, channel: int, payload: bytes, now: float) -> None:
        if self._state == _CLOSING:
            self._while_closing(kind, payload, now)
        else:
            _FRAME_HANDLERS[kind](self, channel, payload, now)

    def _while_closing(self, kind: int, payload: bytes, now: float) -> None:
        """After Connection.Close everything except Close and CloseOk is discarded (section 1.4.2.10)."""
        index = int.from_bytes(payload[:4], "big") if kind == frames.FRAME_METHOD else 0
        if index == commands.Connection.Close.index:
            self._send(commands.Connection.CloseOk(), now)
        elif index == commands.Connection.CloseOk.index:
            self.abort(now)

    def _on_heartbeat(self, channel: int, payload: bytes, now: float) -> None:
        if channel:
            raise WireError(505, "UNEXPECTED_FRAME - heartbeat on a channel other than 0")

    def _on_method(self, channel: int, payload: bytes, now: float) -> None:
        method = frames.decode_method(payload)
        if channel == 0:
            self._connection_method(method, now)
        elif self._state != _RUNNING:
            raise WireError(505, "UNEXPECTED_FRAME - method on a channel before the connection is open", *_ids(method))
        else:
            self._channel_method(channel, method, now)

    def _on_content_header(self, number: int, payload: bytes, now: float) -> None:
        channel = self._content_channel(number, header=True)
        if channel is None:
            return
        size, properties = frames.decode_content_header(payload)
        channel.properties = properties
        channel.missing = size
        channel.dropped = size if size > self._host.largest_body() else 0
        if not size:
            self._publish(number, channel, now)

    def _on_content_body(self, number: int, payload: bytes, now: float) -> None:
        channel = self._content_channel(number, header=False)
        if channel is None:
            return
        channel.missing -= len(payload)
        if channel.missing < 0:
            raise WireError(501, "FRAME_ERROR - more body than the content header announced", *_PUBLISH)
        if not channel.dropped:
            channel.body.append(payload)
        if not channel.missing:
            self._publish(number, channel, now)

    def _content_channel(self, number: int, *, header: bool) -> _Channel | None:
        """The channel that waits for this kind of content frame; ``None`` if it is closing, and discards everything.

        Raises:
            WireError: 505. No channel waits for it.
        """
        channel = self._channels.get(number)
        if channel is not None and channel.closing:
            return None
        if not number:
            raise WireError(505, "UNEXPECTED_FRAME - content on channel 0")
        if channel is None or channel.method is None or (channel.properties is None) != header:
            raise _out_of_turn(channel)
        return channel

    def _publish(self, number: int, channel: _Channel, now: float) -> None:
        method, properties = channel.method, channel.properties
        body = channel.body[0] if len(channel.body) == 1 else b"".join(channel.body)
        if channel.dropped:
            body = Dropped(channel.dropped)
        channel.forget()
        assert method is not None  # _content_channel saw it
        self._command(number, method, properties, body, now)

    # --- methods of channels ---

    def _channel_method(self, number: int, method: base.Frame, now: float) -> None:
        channel = self._channels.get(number)
        kind = type(method)
        if channel is not None and channel.closing:
            if kind is commands.Channel.Close:  # both sides close at once: answer, and wait for CloseOk all the same
                self._write(frames.encode_method(number, commands.Channel.CloseOk()), now)
            if kind is not commands.Channel.CloseOk:
                return
            del self._channels[number]
        elif channel is None:
            self._open_channel(number, method)
        elif channel.method is not None:
            raise _out_of_turn(channel)
        elif isinstance(method, commands.Basic.Publish):
            channel.method = method
            return
        self._command(number, method, None, b"", now)

    def _open_channel(self, number: int, method: base.Frame) -> None:
        if type(method) is not commands.Channel.Open:
            raise WireError(504, "CHANNEL_ERROR - expected 'channel.open'", *_ids(method))
        if 0 < self._channel_max <= (count := len(self._channels)):  # their numbers may be higher
            limit = f"has reached the negotiated channel_max ({self._channel_max})"
            raise WireError(530, f"NOT_ALLOWED - number of channels opened ({count}) {limit}")
        self._channels[number] = _Channel()

    # --- methods of the connection (section 2.2.4) ---

    def _protocol_header(self, header: bytes, now: float) -> None:
        host = self._host
        if header != PROTOCOL_HEADER:
            self._write(PROTOCOL_HEADER, now)
            self.abort(now)
            return
        self._state = _START
        self._send(commands.Connection.Start(0, 9, host.server_properties, host.mechanisms, "en_US"), now)

    def _connection_method(self, method: base.Frame, now: float) -> None:
        handler = _CONNECTION_METHODS.get((self._state, type(method))) or _CONNECTION_METHODS.get((None, type(method)))
        if handler is None:
            text = "CHANNEL_ERROR - unexpected method in connection state "
            raise WireError(504, text + _STATE_NAMES[self._state], *_ids(method))
        handler(self, method, now)

    def _on_start_ok(self, method: commands.Connection.StartOk, now: float) -> None:
        self.client_properties = method.client_properties
        announced = method.client_properties.get("capabilities")
        if isinstance(announced, dict):
            self._capabilities = frozenset(name for name, value in announced.items() if value is True)
        response: str | bytes = method.response
        try:
            user = self._host.log_in(method.mechanism, response.encode() if isinstance(response, str) else response)
        except KeyError:
            text = f"COMMAND_INVALID - mechanism '{method.mechanism}' is not supported"
            raise WireError(503, text, *_ids(method)) from None
        if not user:
            self._refuse(method.mechanism, now)
            return
        self.user = user
        self._state = _TUNE
        host = self._host
        self._send(commands.Connection.Tune(host.channel_max, host.frame_max, host.heartbeat), now)

    def _refuse(self, mechanism: str, now: float) -> None:
        if "authentication_failure_close" in self._capabilities:
            raise WireError(403, f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}.")
        self.abort(now)

    def _on_tune_ok(self, method: commands.Connection.TuneOk, now: float) -> None:
        if 0 < method.frame_max < _FRAME_MIN:
            text = f"FRAME_ERROR - frame_max {method.frame_max} is under the minimum of {_FRAME_MIN}"
            raise WireError(501, text, *_ids(method))
        for name, limit in (("frame_max", self._host.frame_max), ("channel_max", self._host.channel_max)):
            value = getattr(method, name)
            if limit and (value == 0 or value > limit):  # 0 asks for no limit
                text = f"NOT_ALLOWED - negotiated {name} {value} is over the maximum of {limit}"
                raise WireError(530, text, *_ids(method))
        self._frame_max = method.frame_max
        self._channel_max = method.channel_max
        self._heartbeat = method.heartbeat
        self._state = _OPENING
        self._host.arm(self)

    def _on_open(self, method: commands.Connection.Open, now: float) -> None:
        vhost = method.virtual_host
        if not self._host.has_vhost(vhost):
            raise WireError(530, f"NOT_ALLOWED - vhost {vhost} not found", *_ids(method))
        self.vhost = vhost
        self.id = self._host.register(self, now)
        self._state = _RUNNING
        self._expires = None
        self._send(commands.Connection.OpenOk(), now)

    def _on_close(self, method: base.Frame, now: float) -> None:
        self._send(commands.Connection.CloseOk(), now)
        self.abort(now)

    def _on_update_secret(self, method: base.Frame, now: float) -> None:
        # A user with a password needs none of the tokens that this is for. RabbitMQ looks at the secret no more then.
        self._send(commands.Connection.UpdateSecretOk(), now)


def _ids(method: base.Frame) -> tuple[int, int]:
    return method.index >> 16, method.index & 0xFFFF


def _out_of_turn(channel: _Channel | None) -> WireError:
    """The error, in RabbitMQ's words, for a frame of another kind than the one that has to come next on a channel."""
    if channel is None or channel.method is None:
        return WireError(505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead")
    wanted, of = ("content header", " for class 60") if channel.properties is None else ("content body", "")
    return WireError(505, f"UNEXPECTED_FRAME - expected {wanted}{of}, got non {wanted} frame instead", *_PUBLISH)


_PUBLISH: Final = _ids(commands.Basic.Publish())
_WITH_CONTENT: Final = frozenset((commands.Basic.Deliver, commands.Basic.GetOk, commands.Basic.Return))
# RabbitMQ reads nothing from a blocked connection. It does not even answer Close before the alarm is cleared.
_BLOCKS: Final = {commands.Connection.Blocked: True, commands.Connection.Unblocked: False}
_NEEDS_CAPABILITY: Final[dict[type[base.Frame], str]] = {
    commands.Connection.Blocked: "connection.blocked",
    commands.Connection.Unblocked: "connection.blocked",
    commands.Basic.Cancel: "consumer_cancel_notify",
}
_FRAME_HANDLERS: Final[dict[int, Callable[[ServerConnection, int, bytes, float], None]]] = {
    frames.FRAME_METHOD: ServerConnection._on_method,
    frames.FRAME_HEADER: ServerConnection._on_content_header,
    frames.FRAME_BODY: ServerConnection._on_content_body,
    frames.FRAME_HEARTBEAT: ServerConnection._on_heartbeat,
}
_WITH_PAYLOAD: Final = frozenset((frames.FRAME_METHOD, frames.FRAME_HEADER, frames.FRAME_BODY))
_MethodHandler = Callable[[ServerConnection, Any, float], None]
_CONNECTION_METHODS: Final[dict[tuple[int | None, type[base.Frame]], _MethodHandler]] = {
    (_START, commands.Connection.StartOk): ServerConnection._on_start_ok,
    (_TUNE, commands.Connection.TuneOk): ServerConnection._on_tune_ok,
    (_OPENING, commands.Connection.Open): ServerConnection._on_open,
    (_RUNNING, commands.Connection.UpdateSecret): ServerConnection._on_update_secret,
    (None, commands.Connection.Close): ServerConnection._on_close,
}
