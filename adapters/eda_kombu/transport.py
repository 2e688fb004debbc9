"""One link to the broker on kombu's py-amqp connection, driven frame by frame.

py-amqp's own wait for a confirm takes any ack for the one it waits for, and waits for ever (``FACTS.md``, "kombu,
py-amqp"); so the channel is used below it: what is published is sent, what the broker sends is read, and what both mean
is the machine's business. Every wait in py-amqp ends at a deadline.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from ssl import SSLContext, SSLSocket, create_default_context
from typing import TYPE_CHECKING, Any

from amqp.exceptions import ChannelError, RecoverableConnectionError
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp
from kombu.utils.url import url_to_parts
from pamqp import body, frame, header
from pamqp.commands import Basic, Exchange

from eda_core import Close, Connect, Declare, Publish, PublishLog
from eda_core.urls import redact

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


class Link:
    """The connection of one epoch. Its methods tell the machine what happens, and raise nothing.

    Args:
        timeout: seconds to connect.
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.

    Attributes:
        is_open: whether there is something to read from.
    """

    def __init__(self, asked: Connect, session: Session, timeout: float, ssl: SSLContext | None) -> None:
        self.is_open: bool = False
        self._asked, self._session, self._machine = asked, session, session.machine
        self._timeout = self._machine.config.connect_timeout
        self._blocked = self._ended = False
        self._next_beat = self._next_write = 0.0
        self._unsent = bytearray()
        url = url_to_parts(asked.url)
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        tls = url.scheme == "amqps"
        self._connection = _Connection(
            f"{host}:{url.port or (5671 if tls else 5672)}",
            url.username or "guest",
            url.password or "guest",
            login_method="PLAIN",
            virtual_host=url.path or "/",
            heartbeat=asked.heartbeat,
            connect_timeout=timeout,
            ssl={"context": ssl or create_default_context(), "server_hostname": url.hostname} if tls else False,
            socket_settings={_USER_TIMEOUT: int(self._timeout * 1000)} if _USER_TIMEOUT else {},
            client_properties={"connection_name": asked.name, "capabilities": {"basic.nack": True}},
            on_blocked=lambda reason: self._on_blocked(True, self._machine.blocked, reason),
            on_unblocked=lambda: self._on_blocked(False, self._machine.unblocked),
        )

    def open(self) -> None:
        """Connect, and open the channels."""
        connection, logged_in = self._connection, False
        connection.deadline = time.monotonic() + connection.connect_timeout
        try:
            connection.connect()
            logged_in = True
            connection.sock.settimeout(self._timeout)  # of a write; reading has its own
            self._channel, self._logs = connection.channel(), connection.channel()
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_ack)
            self._channel.events["basic_nack"].add(self._on_nack)
            self._channel.events["basic_return"].add(self._on_return)
        except Exception as error:
            self._lose(error, refused=not logged_in and getattr(error, "reply_code", None) == 403)
        except BaseException:
            self.abort()
            raise
        else:
            self.is_open = True
            self._tell(self._machine.link_up)

    def perform(self, effect: Any) -> None:
        """Do it at once; what is published may wait for the next :meth:`flush` or :meth:`read`."""
        try:
            if isinstance(effect, Close):
                self._close()
            elif self.is_open and isinstance(effect, Publish):
                self._session.waiting.sent(effect)
                self._send(self._channel.channel_id, effect, effect.exchange, effect.mandatory)
            elif self.is_open and isinstance(effect, Declare):
                self._declare(effect)
            elif self.is_open and not self._blocked:  # the broker does not read, and a log is not worth to wait
                self._send(self._logs.channel_id, effect, "logs", False)
        except Exception as error:  # in the middle of a frame, perhaps: there is no going on
            self._lose(error)

    def flush(self) -> None:
        """Send what waits for more to go with it."""
        try:
            if self._unsent:
                unsent, self._unsent = self._unsent, bytearray()
                self._connection.transport.write(unsent)
                self._connection.bytes_sent += 1  # what py-amqp goes by, to see whether a heartbeat is due
                self._next_write = time.monotonic() + _TOGETHER
        except Exception as error:
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
            if self.is_open and now >= self._next_beat:
                self._next_beat = now + _BEAT
                self._connection.heartbeat_tick()
        except Exception as error:
            self._lose(error)

    def abort(self) -> None:
        """Drop the connection, without a word to anybody."""
        self.is_open = False
        with contextlib.suppress(Exception):
            self._connection.collect()

    # Effects

    def _declare(self, effect: Declare) -> None:
        self._connection.deadline = time.monotonic() + self._timeout
        for command in effect.commands:
            if isinstance(command, Exchange.Declare):  # the rest is for consumers
                self._logs.exchange_declare(command.exchange, "topic", durable=True, auto_delete=False)
        self._tell(self._machine.declared, [])

    def _send(self, channel: int, effect: Publish | PublishLog, exchange: str, mandatory: bool) -> None:
        data, step = effect.body, self._connection.frame_max - 8  # the frame's own bytes
        self._unsent += frame.marshal(Basic.Publish(0, exchange, effect.routing_key, mandatory), channel)
        self._unsent += frame.marshal(header.ContentHeader(0, len(data), effect.properties), channel)
        for at in range(0, len(data), step):
            self._unsent += frame.marshal(body.ContentBody(data[at : at + step]), channel)
        if len(self._unsent) > _ENOUGH or time.monotonic() >= self._next_write:
            self.flush()

    def _close(self) -> None:
        if self.is_open and self._session.graceful:
            self.flush()
            self._connection.deadline = time.monotonic() + self._machine.config.close_timeout
            with contextlib.suppress(Exception):
                self._logs.close()  # answered after all that was sent on it; a connection's close may overtake that
                self._connection.close()
        self._end("closed", False)

    # What the broker sends

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._tell(self._machine.confirmed, tag, multiple=multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._session.waiting.refused(time.monotonic())
        self._tell(self._machine.refused, tag, multiple=multiple)

    def _on_return(self, error: Any, exchange: str, key: str, message: Any) -> None:
        properties = Basic.Properties()
        for name, value in message.properties.items():
            setattr(properties, _NAMES.get(name, name), value)
        self._session.waiting.returned(properties.message_id, error.reply_text)
        self._tell(self._machine.returned, exchange, key, properties, bytes(message.body), error.reply_text)

    def _on_blocked(self, blocked: bool, *told: Any) -> None:
        self._blocked = blocked
        self._tell(*told)

    # The end

    def _lose(self, error: Exception, refused: bool = False) -> None:
        if not self._ended:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self._session.waiting.link_failed(f"{redact(self._asked.url)}: {reason}")
            if isinstance(error, ChannelError) and self.is_open:
                self._tell(self._machine.channel_closed, reason)
            self._end(reason, refused)

    def _end(self, reason: str, refused: bool) -> None:
        self._ended = True
        self.abort()
        self._tell(self._machine.link_down, reason, refused=refused)

    def _tell(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self._session.tell(method, self._asked.epoch, *arguments, **named)
