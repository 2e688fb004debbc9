"""One link to the broker on kombu's py-amqp connection, driven frame by frame.

py-amqp's own wait for a confirm takes any ack for the one it waits for, and may wait for ever (docs/design.rst, "False
confirms"). So the channel is used below it: what is published is sent, what the broker sends is read, and the machine
says what both mean. Every wait in py-amqp ends at a deadline.
"""

from __future__ import annotations

import contextlib
import socket
import time
from ssl import SSLContext, SSLSocket, create_default_context
from typing import TYPE_CHECKING, Any

from amqp.exceptions import AMQPError, ChannelError, RecoverableConnectionError
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp
from pamqp import body, frame, header
from pamqp.commands import Basic, Exchange

from eda_core import Connect, Declare, Effect, Publish, PublishLog
from eda_core.drivers import link as transport
from eda_core.drivers.blocking import FAULTS
from eda_core.drivers.link import reason
from eda_core.urls import Address, redact

if TYPE_CHECKING:
    from eda_kombu.session import Session

#: Seconds between two looks at the heartbeats, as py-amqp asks for.
_BEAT = 1.0
#: Seconds to read what has come already. Not 0: py-amqp then spins for the rest of a frame that has come in part.
_INSTANT = 0.001
#: What is sent within so many seconds may go out in one write, up to so many bytes: it halves the cost of each message.
_TOGETHER = 0.01
_ENOUGH = 65536
#: The option of sockets, where there is one. py-amqp's is 1 s: an alarm, or a hiccup, would cut the connection.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_FAULTS = (*FAULTS, AMQPError)
#: Where py-amqp's names of properties are others than pamqp's.
_NAMES = {"application_headers": "headers", "type": "message_type"}


class _Silence(TimeoutError):
    """The deadline of a wait is over."""


class _Tls(SSLTransport):  # type: ignore[misc]
    def _wrap_socket(self, sock: socket.socket, context: SSLContext, server_hostname: str) -> SSLSocket:
        return context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)

    def _shutdown_transport(self) -> None:
        """Nothing: AMQP has said good-bye; TLS would wait for an answer that a dead peer does not give."""


class _Connection(pyamqp.Connection):
    deadline: float

    def Transport(self, host: str, timeout: float, ssl: Any, *_timeouts: None, **settings: Any) -> Any:
        return (_Tls if ssl else TCPTransport)(host, connect_timeout=timeout, ssl=ssl, **settings)

    def blocking_read(self, timeout: float | None = None) -> Any:
        if self._transport is None:  # py-amqp would connect again
            raise RecoverableConnectionError("the connection is closed")
        try:
            if (left := self.deadline - time.monotonic()) > 0:
                return super().blocking_read(left)
        except TimeoutError as error:
            if error.errno is not None:  # ETIMEDOUT, the system's: the peer is gone
                raise
        raise _Silence("no answer from the broker")


class Link(transport.Link):
    """The connection of one epoch. Its methods tell the machine what happens, and raise nothing.

    Attributes:
        up: whether there is something to read from.
    """

    def __init__(self, asked: Connect, session: Session) -> None:
        super().__init__(asked, session)
        self._session = session
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
            connection.sock.settimeout(self._timeout)  # of a write; reading has its own
            self._channel, self._logs = connection.channel(), connection.channel()
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_ack)
            self._channel.events["basic_nack"].add(self._on_nack)
            self._channel.events["basic_return"].add(self._on_return)
        except _FAULTS as error:
            self._lose(error, refused=not logged_in and getattr(error, "reply_code", None) == 403)
        except BaseException:
            self.abort()
            raise
        else:
            self.opened()

    def _new_connection(self, timeout: float, ssl: SSLContext | None) -> _Connection:
        asked, address = self.asked, Address.of(self.asked.url)
        context = address.tls_context(ssl, create_default_context)
        return _Connection(
            f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}",
            address.user,
            address.password,
            login_method="PLAIN",
            virtual_host=address.vhost,
            heartbeat=asked.heartbeat,
            connect_timeout=timeout,
            ssl={"context": context, "server_hostname": address.host} if context else False,
            socket_settings={_USER_TIMEOUT: int(self._timeout * 1000)} if _USER_TIMEOUT else {},
            client_properties={"connection_name": asked.name, "capabilities": {"basic.nack": True}},
            on_blocked=lambda reason: self._on_blocked(True, self.machine.blocked, reason),
            on_unblocked=lambda: self._on_blocked(False, self.machine.unblocked),
        )

    def failed(self, effect: Effect, error: BaseException) -> None:
        """In the middle of a frame, perhaps: there is no going on."""
        if not isinstance(error, _FAULTS):
            raise error
        self._lose(error)

    def flush(self) -> None:
        """Send what waits for more to go with it."""
        try:
            if self._unsent:
                unsent, self._unsent = self._unsent, bytearray()
                self._connection.transport.write(unsent)
                self._connection.bytes_sent += 1  # what py-amqp goes by, to see whether a heartbeat is due
                self._next_write = time.monotonic() + _TOGETHER
        except _FAULTS as error:
            self._lose(error)

    def look(self) -> None:
        """Send what waits, and see what has come if that was not done for a while."""
        if time.monotonic() >= self._next_beat:
            self.read(0.0)
        else:
            self.flush()

    def read(self, timeout: float) -> None:
        """Take in what the broker has sent, waiting for it at most ``timeout`` seconds; keep up the heartbeat."""
        self.flush()
        now = time.monotonic()
        self._connection.deadline = now + max(timeout, _INSTANT)
        try:
            with contextlib.suppress(_Silence):
                self._connection.drain_events()
            if self.up and now >= self._next_beat:
                self._next_beat = now + _BEAT
                self._connection.heartbeat_tick()
        except _FAULTS as error:
            self._lose(error)

    def abort(self) -> None:
        """Drop the connection, without a word to anybody."""
        self.up = False
        with contextlib.suppress(Exception):
            self._connection.collect()

    # Effects. What is published may wait for the next flush() or read().

    def declare(self, effect: Declare) -> None:
        self._connection.deadline = time.monotonic() + self._timeout
        for command in effect.commands:
            if isinstance(command, Exchange.Declare):  # the rest is for consumers
                self._logs.exchange_declare(command.exchange, "topic", durable=True, auto_delete=False)
        self.tell(self.machine.declared, [])

    def publish(self, effect: Publish) -> None:
        self._session.waiting.sent(effect)
        self._send(self._channel.channel_id, effect, effect.exchange, effect.mandatory)

    def log(self, effect: PublishLog) -> None:
        self._send(self._logs.channel_id, effect, "logs", False)

    def congested(self) -> bool:
        """Not by bytes: a write waits until the broker reads."""
        return self._blocked

    def _send(self, channel: int, effect: Publish | PublishLog, exchange: str, mandatory: bool) -> None:
        data, step = effect.body, self._connection.frame_max - 8  # the frame's own bytes
        self._unsent += frame.marshal(Basic.Publish(0, exchange, effect.routing_key, mandatory), channel)
        self._unsent += frame.marshal(header.ContentHeader(0, len(data), effect.properties), channel)
        for at in range(0, len(data), step):
            self._unsent += frame.marshal(body.ContentBody(data[at : at + step]), channel)
        if len(self._unsent) > _ENOUGH or time.monotonic() >= self._next_write:
            self.flush()

    def close(self) -> None:
        if self.up and self._session.graceful:
            self.flush()
            self._connection.deadline = time.monotonic() + self.machine.config.close_timeout
            with contextlib.suppress(Exception):
                self._logs.close()  # answered after all that was sent on it; a connection's close may overtake that
                self._connection.close()
        self._end("closed", False)

    # What the broker sends

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self.tell(self.machine.confirmed, tag, multiple=multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._session.waiting.refused(time.monotonic())
        self.tell(self.machine.refused, tag, multiple=multiple)

    def _on_return(self, error: Any, exchange: str, key: str, message: Any) -> None:
        properties = Basic.Properties()
        for name, value in message.properties.items():
            setattr(properties, _NAMES.get(name, name), value)
        self._session.waiting.returned(properties.message_id, error.reply_text)
        self.tell(self.machine.returned, exchange, key, properties, bytes(message.body), error.reply_text)

    def _on_blocked(self, blocked: bool, *told: Any) -> None:
        self._blocked = blocked
        self.tell(*told)

    # The end

    def _lose(self, error: BaseException, refused: bool = False) -> None:
        if not self._ended:
            why = reason(error)
            self._session.waiting.link_failed(f"{redact(self.asked.url)}: {why}")
            if isinstance(error, ChannelError) and self.up:
                self.tell(self.machine.channel_closed, why)
            self._end(why, refused)

    def _end(self, why: str, refused: bool) -> None:
        self._ended = True
        self.abort()
        self.tell(self.machine.link_down, why, refused=refused)
