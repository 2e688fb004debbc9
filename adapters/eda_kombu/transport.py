"""One link to the broker on kombu's py-amqp connection, driven frame by frame.

py-amqp's own wait for a confirm takes any ack for the one it waits for, and may wait for ever (docs/design.rst, "False
confirms"). So the channel is used below it: what is published is sent, what the broker sends is read, and the machine
says what both mean. Every wait in py-amqp ends at a deadline.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from ssl import SSLContext, SSLSocket, create_default_context
from typing import Any, ClassVar

import amqp
from amqp.exceptions import AMQPError, ChannelError, FrameSyntaxError, RecoverableConnectionError
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp
from pamqp import frame
from pamqp.commands import INDEX_MAPPING, Basic, Channel
from pamqp.constants import FRAME_MIN_SIZE

from eda_core import Connect, Declare, Effect, OpenChannel, Probe, Publish, PublishLog
from eda_core.amqp.writing import write_message
from eda_core.drivers import CONSUMING, LOGGING, PUBLISHING, BlockingDriver, Link, LookUps, login_refusal, reason
from eda_core.drivers.library import raised_in
from eda_core.urls import Address, redact

#: Seconds between two looks at the heartbeats, as py-amqp asks for.
_BEAT = 1.0
#: Seconds to read what has come already. Not 0: py-amqp would loop without a pause for the rest of a frame.
_INSTANT = 0.001
#: What is sent within this time (seconds) may go out in one write, up to this size (bytes): that halves the cost of a
#: message.
_TOGETHER, _ENOUGH = 0.01, 65536
_LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)
#: The numbers of the channels. py-amqp forgets those of channels that the broker closes.
_PUBLISHES, _LOGS = 1, 2
_LIBRARY = ("amqp", "kombu", "vine")
#: The errors of the network, those of py-amqp, and the error for a host name that cannot be looked up.
_FAULTS = (OSError, AMQPError, UnicodeError)
#: What Python raises in py-amqp on bytes that it cannot decode.
_UNREADABLE = (struct.error, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
#: Names of properties that differ between py-amqp and pamqp.
_NAMES = {"application_headers": "headers", "type": "message_type"}


class NoAnswer(TimeoutError):
    """The deadline of a wait has passed."""


class _LooksUp:
    """Looks up the host within the time to connect. py-amqp would wait until the resolver returns."""

    def _connect(self, host: str, port: int, timeout: float) -> None:
        def connect(address: Any, seconds: float) -> None:
            super(_LooksUp, self)._connect(address[4][0], port, seconds)  # type: ignore[misc]

        _LOOK_UPS.connect_within(timeout, host, port, connect, time.monotonic)


class _Tcp(_LooksUp, TCPTransport):  # type: ignore[misc]
    pass


class _Tls(_LooksUp, SSLTransport):  # type: ignore[misc]
    def _wrap_socket(self, sock: socket.socket, context: SSLContext, server_hostname: str) -> SSLSocket:
        return context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)

    def _shutdown_transport(self) -> None:
        """Do nothing: AMQP has said goodbye, and TLS would wait for an answer, which a dead peer does not give."""


class _Channel(pyamqp.Channel):
    """A channel that may tell when the broker closes it, where py-amqp would open it again and raise."""

    def _on_close(self, code: int, text: str, class_id: int, method_id: int) -> None:
        if (tell := self.connection.on_channel_closed) is None:
            super()._on_close(code, text, class_id, method_id)
        else:
            tell(self, text)


class _Connection(pyamqp.Connection):
    Channel = _Channel
    on_channel_closed: Callable[[_Channel, str], None] | None = None  # while no declaration waits for its reply
    deadline: float

    def Transport(self, host: str, timeout: float, ssl: Any, *_timeouts: None, **settings: Any) -> Any:
        return (_Tls if ssl else _Tcp)(host, connect_timeout=timeout, ssl=ssl, **settings)

    def blocking_read(self, timeout: float | None = None) -> Any:
        if self._transport is None:  # py-amqp would connect again
            raise RecoverableConnectionError("the connection is closed")
        try:
            if (left := self.deadline - time.monotonic()) > 0:
                return super().blocking_read(left)
        except TimeoutError as error:
            if error.errno is not None or not raised_in(_LIBRARY, error):  # with ETIMEDOUT the peer is gone
                raise
        except _UNREADABLE as error:
            if not raised_in(_LIBRARY, error):
                raise
            raise FrameSyntaxError(f"bytes that cannot be decoded ({reason(error)})") from error
        raise NoAnswer("no answer from the broker")


class KombuLink(Link):
    """The connection of one epoch. Its methods tell the machine what happens; failures of the network never raise."""

    library: ClassVar[str] = f"py-amqp {amqp.__version__}"
    driver: BlockingDriver
    _connection: Any = None

    def __init__(self, asked: Connect, driver: BlockingDriver) -> None:
        super().__init__(asked, driver)
        driver.link = self
        self._timeout = self.machine.config.connect_timeout
        self._blocked = self._ended = False
        self._next_beat = self._next_write = 0.0
        self._unsent = bytearray()

    def open(self, timeout: float, ssl: SSLContext | None) -> None:
        """Connect, and open the channels.

        Args:
            timeout: seconds to connect.
            ssl: for ``amqps://``; ``None`` checks the chain and the host name.
        """
        logged_in = False
        try:
            connection = self._connection = self._new_connection(timeout, ssl)
            connection.deadline = time.monotonic() + timeout
            connection.connect()
            logged_in = True
            connection.sock.settimeout(self._timeout)  # for writes; reads have the deadline
            self._channel, self._logs = connection.channel(_PUBLISHES), connection.channel(_LOGS)
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_ack)
            self._channel.events["basic_nack"].add(self._on_nack)
            self._channel.events["basic_return"].add(self._on_return)
            self._channel._callbacks[amqp.spec.Channel.FlowOk] = self._on_flow
        except _FAULTS as error:
            code, text = getattr(error, "reply_code", None), str(getattr(error, "reply_text", ""))
            self._lose(error, *(() if logged_in else login_refusal(self.asked.url, code, text)))
        except BaseException:
            self.abort()
            raise
        else:
            self.report_open(connection.server_properties)

    def _new_connection(self, timeout: float, ssl: SSLContext | None) -> _Connection:
        asked, address = self.asked, Address.of(self.asked.url)
        context = address.tls_context(ssl, create_default_context)
        return _Connection(
            f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}",
            address.user,
            address.password,
            login_method=address.mechanism,
            virtual_host=address.vhost,
            heartbeat=asked.heartbeat,
            connect_timeout=timeout,
            ssl={"context": context, "server_hostname": address.host} if context else False,
            socket_settings={
                getattr(socket, name): value for name, value in self.socket_options(socket, PUBLISHING).items()
            },
            client_properties={"connection_name": asked.name, "capabilities": {"basic.nack": True}},
            on_blocked=lambda reason: self._on_blocked(True, self.machine.blocked, reason),
            on_unblocked=lambda: self._on_blocked(False, self.machine.unblocked),
        )

    def report_failure(self, effect: Effect, error: BaseException) -> None:
        """Give up the link: the failure may have left half a frame on it."""
        self._lose(error)

    def flush(self) -> None:
        """Send what was held back."""
        try:
            if self._unsent:
                unsent, self._unsent = self._unsent, bytearray()
                self._connection.transport.write(unsent)
                self._connection.bytes_sent += 1  # by this py-amqp sees whether a heartbeat is due
                self._next_write = time.monotonic() + _TOGETHER
        except _FAULTS as error:
            self._lose(error)

    def look(self) -> None:
        """Send what was held back; if the last time is long ago, read what the broker has sent."""
        self.read(0.0) if time.monotonic() >= self._next_beat else self.flush()

    def read(self, timeout: float) -> None:
        """Read what the broker sends, waiting for it at most ``timeout`` seconds. Send heartbeats."""
        self.flush()
        now = time.monotonic()
        self._connection.deadline = now + max(timeout, _INSTANT)
        try:
            with contextlib.suppress(NoAnswer):
                self._connection.drain_events()
            if self.up and now >= self._next_beat:
                self._next_beat = now + _BEAT
                self._connection.heartbeat_tick()
        except _FAULTS as error:
            self._lose(error)

    def abort(self) -> None:
        """Drop the connection without telling anybody."""
        self.up = False
        if self._connection is not None:
            self._connection.collect()

    # Effects. What is published may be held back until the next flush() or read().

    def declare(self, effect: Declare) -> None:
        self._connection.on_channel_closed = None
        self._connection.deadline = time.monotonic() + self._timeout
        for command in effect.commands:
            self._unsent += frame.marshal(command, _LOGS)
            self.flush()
            reply: Any = INDEX_MAPPING[command.index + 1]  # it has the number after its command's
            arguments = self._logs.wait(divmod(reply.index, 1 << 16), returns_tuple=True)
            self.receive(reply.name, reply(*arguments), effect.channel)
        self._connection.on_channel_closed = self._on_channel_closed

    def open_channel(self, effect: OpenChannel) -> None:
        self._connection.deadline = time.monotonic() + self._timeout
        if effect.channel == LOGGING:
            self._logs.open()
        else:
            self._channel.open()
            self._channel.confirm_select()
        self.report_channel_open(effect.channel)

    def probe(self, effect: Probe) -> None:
        """Ask on the channel for publishing for both: there is one connection, and the other channel may be closed."""
        self._unsent += frame.marshal(Channel.Flow(True), _PUBLISHES)
        self.flush()

    def traffic(self, channel: str) -> tuple[int, int]:
        return self._connection.bytes_recv, 0  # a write waits until the broker reads

    def publish(self, effect: Publish) -> None:
        self._send(_PUBLISHES, effect, effect.mandatory)

    def log(self, effect: PublishLog) -> None:
        self._send(_LOGS, effect, False)

    def congested(self) -> bool:
        """Whether the broker blocks. Bytes do not pile up, since a write waits until the broker reads."""
        return self._blocked

    def _send(self, channel: int, effect: Publish | PublishLog, mandatory: bool) -> None:
        self._unsent += write_message(
            channel,
            effect.exchange,
            effect.routing_key,
            effect.properties,
            effect.body,
            mandatory=mandatory,
            frame_max=max(self._connection.frame_max, FRAME_MIN_SIZE),
        )
        if len(self._unsent) > _ENOUGH or time.monotonic() >= self._next_write:
            self.flush()

    def close(self) -> None:
        if self.up and self.driver.graceful:
            self.flush()
            self._connection.deadline = time.monotonic() + self.machine.config.close_timeout
            with contextlib.suppress(*_FAULTS):
                self._logs.close()  # answered after all that was sent on it; a connection's close may overtake that
                self._connection.close()
        self._end("closed", "")

    # What the broker sends

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self.tell(self.machine.confirmed, tag, multiple=multiple)

    def _on_flow(self, _active: bool) -> None:
        for channel in (CONSUMING, PUBLISHING):
            self.receive(Channel.FlowOk.name, None, channel)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self.driver.publish_call.refused(time.monotonic())
        self.tell(self.machine.refused, tag, multiple=multiple)

    def _on_return(self, error: Any, exchange: str, key: str, message: Any) -> None:
        properties = Basic.Properties()
        for name, value in message.properties.items():
            setattr(properties, _NAMES.get(name, name), value)
        self.tell(self.machine.returned, exchange, key, properties, bytes(message.body), error.reply_text)

    def _on_channel_closed(self, channel: _Channel, text: str) -> None:
        self.flush()  # what is held back belongs to the channel as it was
        channel.send_method(amqp.spec.Channel.CloseOk)
        channel.is_open = channel._confirm_selected = False
        self.report_channel_closed(PUBLISHING if channel is self._channel else LOGGING, text)

    def _on_blocked(self, blocked: bool, *told: Any) -> None:
        self._blocked = blocked
        self.tell(*told)

    # The end

    def _lose(self, error: BaseException, refusal: str = "", refused: str = "") -> None:
        """End the link because of ``error``. Raise it if it is no fault of the link: it may come from user code."""
        if not isinstance(error, _FAULTS) or not raised_in((*_LIBRARY, "eda_kombu", "eda_core"), error):
            raise error
        if not self._ended:
            why = refusal or reason(error)
            self.driver.publish_call.link_failed(f"{redact(self.asked.url)}: {why}")
            if isinstance(error, ChannelError) and self.up:
                self.report_channel_closed(CONSUMING, why)
            self._end(why, refused)

    def _end(self, why: str, refused: str) -> None:
        if not self._ended:  # what close() sends may have found the link lost
            self._ended = True
            self.abort()
            self.tell(self.machine.link_down, why, refused=refused)
