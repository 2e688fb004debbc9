"""The bytes of one connection, on their way between pika and its socket.

pika takes most of its time for the frames that come with each message, and makes several system calls for each of them.
So the core reads and writes these frames here, all that one read of the socket brings is told at once, and what is sent
in a turn of the loop is one write. Everything else is left to pika: login, channels, consumers, heartbeats, closing.

This stands on the interface by which pika runs on other event loops (``pika.adapters.utils.nbio_interface``).
:data:`MISFIT` says whether that is as it is used here. What messages mean is not decided here.
"""

from contextlib import suppress
from socket import socket
from typing import Any

import pika
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol, AbstractStreamTransport
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from eda_core import Ack, Publish, PublishLog
from eda_core.amqp.message_reader import MessageReader
from eda_core.amqp.writing import write_ack, write_message
from eda_core.drivers import Link
from eda_core.drivers.library import misfit
from eda_pika.connection import Network

#: Bytes that are read at once. pika reads 4096, so fewer messages would be told together.
_READ = 65_536


class Direct(Network, AbstractStreamTransport):  # type: ignore[misc]
    """Connects the socket of one connection, and is the transport that pika gets for it.

    Args:
        link: gets the messages.
    """

    _plain: socket | None = None

    def __init__(self, loop: Any, link: Link) -> None:
        super().__init__(loop)
        self._later, self._link = loop.call_later, link
        self._reader = MessageReader(link.machine.config.limits.max_bytes)
        self._waiting: list[bytes] = []
        self._size = 0

    def create_streaming_connection(
        self, protocol_factory: Any, sock: socket, on_done: Any, ssl_context: Any = None, server_hostname: Any = None
    ) -> Any:
        def make() -> Any:
            self._protocol = protocol = protocol_factory()
            self._to_pika, self._made = protocol.data_received, protocol.connection_made
            protocol.data_received, protocol.connection_made = self._received, self._connected
            return protocol

        self._plain = sock if ssl_context is None else None
        return super().create_streaming_connection(make, sock, on_done, ssl_context, server_hostname)

    def _connected(self, transport: Any) -> None:
        self._transport = transport
        transport._MAX_RECV_BYTES = _READ
        if self._plain is not None:  # once in a turn; with TLS there may be more although the socket is not readable
            transport._MAX_CONSUME_BYTES = 1
        self._made(self)

    def _received(self, data: bytes) -> None:
        self.connection.bytes_received += len(data)  # where this stays the same pika takes the broker for dead
        self._link.receive_all(self._reader.receive(data), self._leave)

    def _leave(self, frame: bytes) -> None:
        self.connection.bytes_received -= len(frame)  # pika counts it, too
        self._to_pika(frame)

    # What pika asks of a transport

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._size + int(self._transport.get_write_buffer_size())

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._later(0.0, self.flush)  # this thread runs the loop, so nothing has to wake it
        self._waiting.append(data)
        self._size += len(data)

    def abort(self) -> None:
        self._plain = None
        self._transport.abort()

    # What a link asks

    def flush(self) -> None:
        data, sent = b"".join(self._waiting), 0
        self._waiting.clear()
        self._size = 0
        if self._plain is not None and not self._transport.get_write_buffer_size():
            with suppress(OSError):  # it would block; or it is broken, which pika finds when it writes
                sent = self._plain.send(data)
        if sent < len(data):
            self._transport.write(data[sent:])

    def opened(self, channel: Any) -> None:
        self._reader.open(channel.channel_number)

    def closed(self, channel: Any) -> None:
        self._reader.close(channel.channel_number)

    def ack(self, channel: Any, effect: Ack) -> None:
        if channel.is_open:
            self._send(write_ack(channel.channel_number, effect.tag, effect.multiple))
        else:
            super().ack(channel, effect)

    def publish(self, channel: Any, effect: Publish | PublishLog, mandatory: bool = False) -> None:
        if not channel.is_open:
            super().publish(channel, effect, mandatory)
            return
        self._send(
            write_message(
                channel.channel_number,
                effect.exchange,
                effect.routing_key,
                effect.properties,
                effect.body,
                mandatory=mandatory,
                frame_max=self.connection.params.frame_max,
            )
        )

    def _send(self, data: bytes) -> None:
        self.connection.bytes_sent += len(data)
        self.write(data)


_USED: dict[tuple[type, str], str] = {
    (SelectorIOServicesAdapter, "create_streaming_connection"): (
        "self protocol_factory sock on_done ssl_context server_hostname"
    ),
    (AbstractStreamProtocol, "connection_made"): "self transport",
    (AbstractStreamProtocol, "data_received"): "self data",
    (AbstractStreamTransport, "write"): "self data",
    (AbstractStreamTransport, "abort"): "self",
    (AbstractStreamTransport, "get_write_buffer_size"): "self",
}
#: Why pika cannot be used in this way; "" if it can.
MISFIT: str = misfit(pika.__version__, "1.4.4", _USED)
