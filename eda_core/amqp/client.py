"""The client's side of one AMQP 0-9-1 connection, without I/O: bytes in, events out; commands in, bytes out.

:class:`Client` decides about the handshake, heartbeats, frames, the assembly of messages, which channels are open, and
closing. It has no socket and no clock, and does not know what the methods on a channel mean. Whatever a broker sends,
it raises nothing, and keeps no more than one frame, and for each channel one message up to ``max_body``.

Sources: AMQP 0-9-1, sections 1.4, 2.2.4, 2.3.5 and 4.2; RabbitMQ's extensions ``connection.blocked``,
``connection.update-secret`` and ``authentication_failure_close``.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic, Channel, Connection

from eda_core.amqp import reading, states
from eda_core.amqp.content import COMMAND_INVALID, FRAME_ERROR, UNEXPECTED_FRAME, Content, Fault
from eda_core.amqp.numbers import Numbers
from eda_core.amqp.states import CLOSED, CLOSING, DISCARD, FAULT, OPEN, TABLE
from eda_core.amqp.writing import (
    FRAME_OVERHEAD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    write_ack,
    write_message,
    write_method,
)
from eda_core.errors import LocalError, StateError
from eda_core.text import as_text, one_line, shortened
from eda_core.urls import MECHANISMS

#: The largest frame that is proposed to a broker, bytes. It is what RabbitMQ proposes.
FRAME_MAX: Final = 131_072
#: Section 4.2.3: frame-min-size, bytes.
_FRAME_MIN: Final = 4096
#: The largest body of a message that is kept, bytes: RabbitMQ's own limit was 512 MiB at most.
MAX_BODY: Final = 512 * 1024 * 1024
#: RabbitMQ proposes this number. A broker without a limit has 65535.
_CHANNEL_MAX: Final = 2047
#: What the client can do, for the broker.
ABILITIES: Final = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "exchange_exchange_bindings",
    "publisher_confirms",
)
#: Bytes of a reply text.
_LONGEST_TEXT: Final = 255
_CLOSE_OK: Final = write_method(0, Connection.CloseOk())

#: The reply code of who has nothing to complain about (section 1.2).
_SUCCESS: Final = 200


# Events


@dataclass(slots=True)
class Opened:
    """The handshake is done. Channels can be opened.

    Attributes:
        server_properties: what the broker says of itself.
    """

    server_properties: Mapping[str, Any]


@dataclass(slots=True)
class Received:
    """The broker has sent a method, and the message that belongs to it.

    Attributes:
        channel: the number of the channel; 0 for the connection.
        method: pamqp's. A name that is not UTF-8 is ``bytes``; :func:`eda_core.amqp.named` reads it.
        properties: of the message; :class:`eda_core.messages.Unreadable` if they cannot be read, or if the body is
            larger than ``max_body``. ``None`` if the method has no message.
        body: of the message; empty if it is larger than ``max_body``.
    """

    channel: int
    method: Any
    properties: Basic.Properties | None = None
    body: bytes = b""


@dataclass(slots=True)
class Ended:
    """The connection is closed or given up. It is the last event, and there is one for each connection.

    Attributes:
        reason: why, on one line; "" if :meth:`Client.close` was called, and the broker has answered or has closed the
            connection as well.
        code: the reply code of the broker's ``Connection.Close``; ``None`` if the broker has not closed it.
    """

    reason: str
    code: int | None = None


#: What :meth:`Client.receive` returns.
Event = Opened | Received | Ended


@dataclass(slots=True, eq=False)
class _Channel(Content):
    """A channel, and the message that is arriving on it.

    Attributes:
        opening: ``Channel.Open`` is sent, and not answered. What comes is still about an earlier channel of the number.
        leaving: ``Channel.Close`` is sent, and not answered.
        paused: ``Channel.Flow`` has asked to send no messages; ``held`` has what waits for its end.
    """

    opening: bool = True
    leaving: bool = False
    paused: bool = False
    held: list[bytes] = field(default_factory=list)


class Client:
    """One connection. What it has to send first, the protocol header, is ready when it is made.

    Args:
        now: the time in monotonic seconds, of any clock; all other times are of the same one.
        user, password: the login. With ``EXTERNAL`` the certificate of the client is the login, and they do not count.
        vhost: the virtual host.
        mechanism: ``PLAIN`` or ``EXTERNAL``.
        heartbeat: seconds. The client sends one in half of this time, and gives up a broker that has sent nothing for
            twice the time (section 4.2.7). 0 for none.
        name: the name of the connection, for the broker's list of connections.
        properties: more to tell the broker about the client.
        frame_max: the largest frame, bytes, from 4096. The broker may ask for smaller ones. RabbitMQ 4.3 refuses
            less than 8192.
        channel_max: how many channels there may be, from 1 to 65535. The broker may allow less.
        max_body: the largest body of a message that is kept, bytes. A larger one is received and dropped.
        close_timeout: how long the broker may take to answer ``Connection.Close``, seconds.

    Raises:
        LocalError: a value is not allowed. The text names it.

    Attributes:
        state: one of :mod:`eda_core.amqp.states`.
        should_close: close the socket when the bytes to send are written. Nothing more is sent or read.
        received: how many bytes have come.
        server_properties: what the broker says of itself; empty before it has.
        frame_max: the largest frame that was agreed on, bytes.
        channel_max: how many channels there may be.
    """

    def __init__(
        self,
        *,
        now: float,
        user: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        mechanism: str = "PLAIN",
        heartbeat: int = 20,
        name: str = "",
        properties: Mapping[str, Any] | None = None,
        frame_max: int = FRAME_MAX,
        channel_max: int = _CHANNEL_MAX,
        max_body: int = MAX_BODY,
        close_timeout: float = 5.0,
    ) -> None:
        _check(mechanism, heartbeat, frame_max, channel_max)
        self.state: str = states.GREETING
        self.should_close: bool = False
        self.received: int = 0
        self.server_properties: Mapping[str, Any] = {}
        self.frame_max: int = frame_max
        self.channel_max: int = channel_max
        self._mechanism = mechanism
        about: dict[str, Any] = {**(properties or {}), "capabilities": dict.fromkeys(ABILITIES, True)}
        if name:
            about["connection_name"] = name
        # Written now: what is wrong with the arguments is for the caller, not for who receives the broker's bytes.
        login = "" if mechanism == "EXTERNAL" else _plain(user, password)
        self._secure_ok = _written("the user or the password", lambda: Connection.SecureOk(login))
        self._start_ok = _written("the name or a property", lambda: Connection.StartOk(about, mechanism, login))
        self._open = _written("the virtual host", lambda: Connection.Open(vhost))
        self._heartbeat = heartbeat
        self._max_body = max_body
        self._usual = min(frame_max, max_body)  # the largest body that is read in one step
        self._close_timeout = close_timeout
        self._heard = now
        self._next_beat = now + heartbeat / 2
        self._give_up: float | None = None  # when the broker should have answered Connection.Close
        self._channels: dict[int, _Channel] = {}
        self._numbers = Numbers(self._channels)
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # how many bytes of it there must be before it is looked at again
        self._lost_step = False  # nobody knows where the next frame begins
        self._told = False  # the user knows that the connection is given up
        self._both = False  # the broker has closed the connection, too, before it has answered Connection.Close
        self._out: list[bytes] = [PROTOCOL_HEADER]
        self._counted = (0, 0)  # how many parts of it, and their bytes

    # What the transport calls

    def data_to_send(self) -> bytes:
        """Return the bytes to write. They are returned once."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._counted = (0, 0)
        return data

    @property
    def pending(self) -> int:
        """How many bytes wait to be sent: what :meth:`data_to_send` would return, and what ``Channel.Flow`` holds."""
        parts, size = self._counted  # of what is appended only, the rest is counted
        size += sum(map(len, itertools.islice(self._out, parts, None)))
        self._counted = len(self._out), size
        return size + self._held()

    def _held(self) -> int:
        return sum(sum(map(len, channel.held)) for channel in self._channels.values() if channel.held)

    @property
    def has_data(self) -> bool:
        """Whether there are bytes to write."""
        return bool(self._out)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the broker, any number of them. Returns what they mean, in order."""
        if self.state is CLOSED:
            return []
        self._heard = now
        self.received += len(data)
        if self._needed:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
            self._needed = 0
        events: list[Event] = []
        at = 0 if self._lost_step else self._frames(data, events, now)
        if self._lost_step:
            self._seek_close_ok(data[at:], events)
        elif self.state is not CLOSED and at < len(data):
            self._rest += data[at:]
            self._needed = self._needed or 7
        return events

    def lose(self, reason: str) -> list[Event]:
        """The socket is closed or broken. ``reason`` says why, if that is known."""
        return self._end(reason or "the broker has closed the connection without a reason")

    def deadline(self) -> float | None:
        """Return when to call :meth:`tick`, ``None`` for never. It changes with each call of another method."""
        if self.state is CLOSED:
            return None
        due = [] if self._give_up is None else [self._give_up]
        if self._heartbeat:
            due += (self._heard + 2 * self._heartbeat, self._next_beat)
        return min(due, default=None)

    def tick(self, now: float) -> list[Event]:
        """Do what is due: send a heartbeat, or give up a broker that is silent. Early and repeated calls do nothing."""
        if self.state is CLOSED:
            return []
        if self._give_up is not None and now >= self._give_up:
            return self._end("the broker does not answer Connection.Close")
        if self._heartbeat and now >= self._heard + 2 * self._heartbeat:
            return self._end(f"the broker has been silent for {now - self._heard:.1f} s")
        if self._heartbeat and now >= self._next_beat:
            self._next_beat = now + self._heartbeat / 2
            if self.state not in (states.GREETING, states.LOGGING_IN):
                self._out.append(HEARTBEAT_FRAME)
        return []

    # What the user calls

    def is_open(self, channel: int) -> bool:
        """Return whether methods can be sent on a channel: it was opened, and nobody has closed it."""
        known = self._channels.get(channel)
        return self.state is OPEN and known is not None and not known.leaving

    @property
    def channels(self) -> Collection[int]:
        """The numbers of the channels that are open, being opened, or being closed."""
        return self._channels.keys()

    def open_channel(self, number: int | None = None) -> int:
        """Send ``Channel.Open``, and return the number of the channel.

        Methods may be sent at once. The broker takes them after this one.

        Args:
            number: ``None`` for the lowest one that is free.

        Raises:
            StateError: the connection is not open, or the channel is, or there are too many.
        """
        if self.state is not OPEN:
            raise StateError(f"a channel cannot be opened: the connection is {self.state}", hint="wait for Opened")
        if number is None:
            number = self._numbers.lowest()
        if number in self._channels or not 1 <= number <= self.channel_max:
            hint = f"use another number, from 1 to {self.channel_max}"
            raise StateError(f"channel {number} is in use, or too high", hint=hint)
        self._channels[number] = _Channel(number)
        self._out.append(write_method(number, Channel.Open()))
        return number

    def close_channel(self, number: int, code: int = _SUCCESS, text: str = "") -> None:
        """Send ``Channel.Close``. What the broker sends on the channel is dropped from now on, except the answer.

        The answer is ``Channel.CloseOk``, also if the broker has closed the channel at the same time. Until it has
        come, the number is in use. Raises what :meth:`send` raises.
        """
        self.send(number, Channel.Close(code, text, 0, 0))
        known = self._channels[number]
        known.leaving = True
        known.held.clear()

    def send(self, channel: int, method: base.Frame) -> None:
        """Send a method without a message.

        Args:
            channel: its number, for :meth:`is_open` channels.
            method: pamqp's.

        Raises:
            StateError: the channel is not open.
            TypeError, ValueError, struct.error: AMQP 0-9-1 does not allow an argument, or the method does not fit into
                a frame. Nothing is sent.
        """
        self._check(channel)
        data = write_method(channel, method)
        if len(data) > self.frame_max:
            raise ValueError(f"{method.name} has {len(data)} bytes, and {self.frame_max} fit into a frame")
        self._out.append(data)

    def ack(self, channel: int, tag: int, multiple: bool = False) -> None:
        """Send ``Basic.Ack`` for the delivery tag, or, if ``multiple``, up to it. Raises what :meth:`send` raises."""
        self._check(channel)
        self._out.append(write_ack(channel, tag, multiple))

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        mandatory: bool = False,
    ) -> None:
        """Send ``Basic.Publish`` with its message. Raises what :meth:`send` raises.

        Args:
            properties: :class:`eda_core.messages.Properties` are written exactly, pamqp's as pamqp does it.
        """
        known = self._check(channel)
        data = write_message(
            channel, exchange, routing_key, properties, body, mandatory=mandatory, frame_max=self.frame_max
        )
        (known.held if known.paused else self._out).append(data)

    def update_secret(self, secret: str, reason: str) -> None:
        """Send ``Connection.UpdateSecret``: a new password, such as a token that takes the place of an older one.

        The broker answers with ``Connection.UpdateSecretOk``, or closes the connection.

        Raises:
            StateError: the connection is not open.
            LocalError: the secret is not UTF-8, or the reason is that or longer than 255 bytes. Nothing is sent.
        """
        if self.state is not OPEN:
            raise StateError(f"the secret cannot be updated: the connection is {self.state}", hint="wait for Opened")
        self._out.append(_written("the secret or the reason", lambda: Connection.UpdateSecret(secret, reason)))

    def close(self, now: float, code: int = _SUCCESS, text: str = "") -> list[Event]:
        """Close in good order, if the handshake is done. :class:`Ended` comes when the broker has answered.

        What was sent before is still sent. Calls after the first one do nothing.

        Args:
            code, text: for the broker: the reply code, and the reply text, of which 255 bytes are sent.

        Returns:
            The end, if the connection was not open yet.

        Raises:
            LocalError: the code is none.
        """
        after = TABLE[self.state][states.LEAVE]
        if after is CLOSED:
            return self._end("")
        if after is not DISCARD:
            self._begin_to_close(code, text, now)
        return []

    def _check(self, channel: int) -> _Channel:
        known = self._channels.get(channel)
        if known is None or known.leaving or self.state is not OPEN:
            hint = "open it, and send nothing after Channel.Close"
            raise StateError(f"channel {channel} is not open, and the connection is {self.state}", hint=hint)
        return known

    # Closing

    def _begin_to_close(self, code: int, text: str, now: float) -> None:
        short = one_line(text).encode()[:_LONGEST_TEXT].decode("utf-8", "ignore")
        self._out.append(_written("the reply code", lambda: Connection.Close(code, short, 0, 0)))
        self.state = CLOSING
        self._give_up = now + self._close_timeout
        self._channels.clear()

    def _end(self, reason: str, code: int | None = None) -> list[Event]:
        """End the connection. What is left to send is sent, and then the socket is closed."""
        if self.state is CLOSED:
            return []
        told = self._told
        self.state = CLOSED
        self.should_close = self._told = True
        self._channels.clear()
        self._rest.clear()
        return [] if told else [Ended("" if self._both else reason, code)]

    def _break(self, fault: Fault, events: list[Event], now: float) -> None:
        """The broker has broken the protocol: say so, to the broker and to the user."""
        after = TABLE[self.state][states.BROKEN]
        if after is DISCARD:
            return
        reason = f"the broker breaks the protocol: {fault}"
        self._begin_to_close(fault.code, str(fault), now)
        self._told = True
        events.append(Ended(reason))
        if after is CLOSED:
            self._end(reason)

    def _seek_close_ok(self, data: bytes, events: list[Event]) -> None:
        self._rest += data
        if _CLOSE_OK in self._rest:
            events += self._end("")
        del self._rest[: 1 - len(_CLOSE_OK)]
        self._needed = 1

    # Frames (section 4.2.3)

    def _frames(self, data: bytes, events: list[Event], now: float) -> int:
        """Take the complete frames. Returns where the rest begins, and sets how many bytes it needs."""
        at, size = 0, len(data)
        unpack = reading.FRAME_START.unpack_from
        while size - at >= 7 and self.state is not CLOSED:
            kind, number, length = unpack(data, at)
            start = at + 7
            end = start + length
            if (
                kind not in reading.FRAME_TYPES
                or length > self.frame_max
                or (end < size and data[end] != reading.FRAME_END)
            ):
                self._lost_step = True
                fault = _framing_fault(data[at:start], kind, length, self.frame_max)
                self._break(Fault(FRAME_ERROR, fault), events, now)
                break
            if end >= size:
                self._needed = length + FRAME_OVERHEAD
                break
            usual = length > _SIZE_OF_ACK and kind == reading.METHOD and self.state is OPEN
            if usual and (message := self._delivery(number, data, at)) is not None:
                method, properties, body, at = message
                events.append(Received(number, method, properties, body))
                continue
            at = end + 1
            try:
                if kind == reading.METHOD:
                    self._method(number, data[start:end], events, now)
                elif kind == reading.BODY:
                    self._body(number, data[start:end], events)
                elif kind == reading.HEADER:
                    self._header(number, data[start:end], events)
            except Fault as broken:  # the frames behind it are taken all the same: Connection.Close may be among them
                self._break(broken, events, now)
        return at

    def _delivery(self, number: int, data: bytes, at: int) -> tuple[base.Frame, Basic.Properties, bytes, int] | None:
        """Return a whole delivery that begins here, if nothing is unusual about it and its channel."""
        channel = self._channels.get(number)
        if channel is None or channel.method is not None or channel.opening or channel.leaving:
            return None
        return reading.read_delivery(data, at, self._usual)

    def _method(self, number: int, payload: bytes, events: list[Event], now: float) -> None:
        if number and self.state is OPEN:
            method = _read(payload)
            channel = self._channels.get(number)
            # RabbitMQ may send a delivery behind Channel.Close.
            if channel is not None and (not channel.opening or type(method) in _FIRST):
                self._on_channel(number, channel, method, events)
            return
        if self.state is CLOSING:  # everything but the end is discarded, readable or not
            index = 0 if number else int.from_bytes(payload[:4])
            if index == Connection.CloseOk.index:
                events += self._end("")
            elif index == Connection.Close.index:
                self._out.append(_CLOSE_OK)
                self._both = True
            return
        method = _read(payload)
        signal = _SIGNALS.get(type(method), states.NOTICE) if not number else states.ON_CHANNEL
        after = TABLE[self.state][signal]
        if after is FAULT or (signal is states.NOTICE and type(method) not in _NOTICES):
            raise Fault(COMMAND_INVALID, f"{method.name} on channel {number} while {self.state}")
        _ON_CONNECTION[signal](self, method, events)
        if self.state is not CLOSED:
            self.state = after

    def _on_channel(self, number: int, channel: _Channel, method: base.Frame, events: list[Event]) -> None:
        kind = type(method)
        if channel.method is not None:
            raise Fault(UNEXPECTED_FRAME, f"{method.name} on channel {number} in the middle of a message")
        if kind is Channel.Close:
            self._out.append(write_method(number, Channel.CloseOk()))
            if channel.leaving:  # both have closed it: the broker answers, too, and the number is in use until then
                return
            self._forget(number)
        elif kind is Channel.CloseOk:
            if not channel.leaving:
                raise Fault(COMMAND_INVALID, f"Channel.CloseOk on channel {number}, which was not closed")
            self._forget(number)
        elif kind not in _ON_CHANNEL:
            raise Fault(COMMAND_INVALID, f"{method.name} on channel {number}")
        elif kind in _WITH_CONTENT:
            channel.method = method
            return
        elif kind is Channel.OpenOk:
            channel.opening = False
        elif isinstance(method, Channel.Flow) and not channel.leaving:
            self._flow(number, channel, bool(method.active))
        if not channel.leaving or kind is Channel.CloseOk:
            events.append(Received(number, method))

    def _forget(self, number: int) -> None:
        del self._channels[number]
        self._numbers.give_back(number)

    def _flow(self, number: int, channel: _Channel, active: bool) -> None:
        """Send messages again, or hold them, as the broker asks (section 1.5.2.3)."""
        self._out.append(write_method(number, Channel.FlowOk(active)))
        channel.paused = not active
        if active:
            self._out += channel.held
            channel.held.clear()

    # Messages (section 4.2.6)

    def _header(self, number: int, payload: bytes, events: list[Event]) -> None:
        channel = self._content(number, "a content header")
        if channel is not None and channel.header(payload, self._max_body):
            self._complete(channel, events)

    def _body(self, number: int, payload: bytes, events: list[Event]) -> None:
        channel = self._content(number, "a body")
        if channel is not None and channel.part(payload):
            self._complete(channel, events)

    def _content(self, number: int, what: str) -> _Channel | None:
        """Return the channel on which a part of a message has come; ``None`` if such parts are discarded."""
        if not number or TABLE[self.state][states.ON_CHANNEL] is FAULT:
            raise Fault(COMMAND_INVALID, f"{what} on channel {number} while {self.state}")
        channel = self._channels.get(number)
        return None if channel is None or channel.opening else channel

    def _complete(self, channel: _Channel, events: list[Event]) -> None:
        method, properties, body = channel.take()
        if not channel.leaving:
            events.append(Received(channel.number, method, properties, body))

    # The methods of the connection

    def _start(self, method: Any, events: list[Event]) -> None:
        offered = as_text(method.mechanisms)
        if self._mechanism not in offered.split():
            offers = shortened(one_line(offered), 100)
            events += self._end(f"the broker does not offer the mechanism {self._mechanism}; it offers {offers}")
            return
        self.server_properties = method.server_properties or {}
        self._out.append(self._start_ok)

    def _secure(self, method: Any, events: list[Event]) -> None:
        self._out.append(self._secure_ok)

    def _tune(self, method: Any, events: list[Event]) -> None:
        if 0 < method.frame_max < _FRAME_MIN:
            raise Fault(FRAME_ERROR, f"the broker asks for frames of {method.frame_max} bytes, less than {_FRAME_MIN}")
        self.frame_max = min(method.frame_max or self.frame_max, self.frame_max)
        self._usual = min(self.frame_max, self._max_body)
        self.channel_max = min(method.channel_max or self.channel_max, self.channel_max)
        self._out.append(write_method(0, Connection.TuneOk(self.channel_max, self.frame_max, self._heartbeat)))
        self._out.append(self._open)

    def _open_ok(self, method: Any, events: list[Event]) -> None:
        events.append(Opened(self.server_properties))

    def _notice(self, method: Any, events: list[Event]) -> None:
        events.append(Received(0, method))

    def _close(self, method: Any, events: list[Event]) -> None:
        self._out.append(_CLOSE_OK)
        words = one_line(as_text(method.reply_text))
        events += self._end(words or "the broker has closed the connection", method.reply_code)


def _check(mechanism: str, heartbeat: int, frame_max: int, channel_max: int) -> None:
    if mechanism not in MECHANISMS:
        raise LocalError(f"the mechanism {mechanism!r} is not supported", hint=f"use {' or '.join(MECHANISMS)}")
    for name, value, lowest, highest in (
        ("heartbeat", heartbeat, 0, 65_535),
        ("frame_max", frame_max, _FRAME_MIN, 2**32 - 1),
        ("channel_max", channel_max, 1, 65_535),
    ):
        if type(value) is not int or not lowest <= value <= highest:
            raise LocalError(f"{name} is {value!r}", hint=f"give a whole number from {lowest} to {highest}")


def _plain(user: str, password: str) -> str:
    """Return what logs in by RFC 4616: no identity to act as, the user and the password."""
    if "\0" in user or "\0" in password:
        raise LocalError("the user or the password has a NUL in it", hint="the mechanism PLAIN cannot express it")
    return f"\0{user}\0{password}"


def _written(what: str, make: Callable[[], base.Frame]) -> bytes:
    """Return the frame of a method. Its arguments are not quoted: a password may be among them."""
    try:
        return write_method(0, make())
    except (TypeError, ValueError, AttributeError, struct.error) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeError) else error
        raise LocalError(f"{what} cannot be sent to a broker: {why}", hint="AMQP 0-9-1 does not allow it") from None


def _read(payload: bytes) -> Any:
    try:
        return reading.read_method(payload)
    except ValueError as error:
        raise Fault(FRAME_ERROR, str(error)) from None


def _framing_fault(octets: bytes, kind: int, length: int, largest: int) -> str:
    if octets.startswith(b"AMQP"):
        return "the broker does not speak AMQP 0-9-1"
    if kind not in reading.FRAME_TYPES:
        return f"a frame of the type {kind}"
    if length > largest:
        return f"a frame of {length} bytes, and {largest} were agreed on"
    return f"a frame of {length} bytes does not end with the octet for that"


#: The payload of ``Basic.Ack``, bytes. That of ``Basic.Deliver`` is longer.
_SIZE_OF_ACK: Final = 13
#: What a broker may send on a channel.
_ON_CHANNEL: Final = frozenset(
    {
        *(kind for kind in reading.STEPS if kind.name.endswith("Ok") and kind.index >> 16 != Connection.frame_id),
        *(Channel.Close, Channel.Flow),
        *(Basic.Ack, Basic.Cancel, Basic.Deliver, Basic.GetEmpty, Basic.Nack, Basic.Return),
    }
)
_WITH_CONTENT: Final = frozenset({Basic.Deliver, Basic.Return, Basic.GetOk})
#: What the broker may answer to Channel.Open.
_FIRST: Final = frozenset({Channel.OpenOk, Channel.Close, Channel.CloseOk})
_NOTICES: Final = frozenset({Connection.Blocked, Connection.Unblocked, Connection.UpdateSecretOk})
_SIGNALS: Final[dict[type, str]] = {
    Connection.Start: states.START,
    Connection.Secure: states.SECURE,
    Connection.Tune: states.TUNE,
    Connection.OpenOk: states.OPEN_OK,
    Connection.Close: states.CLOSE,
    Connection.CloseOk: states.CLOSE_OK,
}
_ON_CONNECTION: Final[dict[str, Callable[[Client, Any, list[Event]], None]]] = {
    states.START: Client._start,
    states.SECURE: Client._secure,
    states.TUNE: Client._tune,
    states.OPEN_OK: Client._open_ok,
    states.NOTICE: Client._notice,
    states.CLOSE: Client._close,
}
