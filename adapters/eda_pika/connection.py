"""Connections of pika that do what the core asks for and the public methods of pika cannot do.

The methods that begin with an underscore are private methods of pika 1.4. ``eda_pika/__init__.py`` checks the version;
tests/adapters/pika checks what they do.
"""

import os
import socket
import ssl
import threading
from concurrent.futures import Future
from typing import Any

import pika
from pamqp.commands import Basic
from pika.adapters.utils.nbio_interface import AbstractIOReference
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.credentials import ExternalCredentials, PlainCredentials
from pika.exceptions import AMQPConnectionError
from pika.frame import Header

from eda_core import Ack, Connect, Publish, PublishLog
from eda_core.amqp import read_header
from eda_core.drivers.lookups import CallbackLookUp, LookUps
from eda_core.urls import Address

_LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)
_HEADER, _END = 2, 0xCE  # AMQP 0-9-1, section 4.2.3: a frame's type, and its last byte


class Properties(pika.BasicProperties):  # type: ignore[misc]  # pika publishes no types
    """Properties that pamqp encodes: pika refuses floats in headers."""

    def __init__(self, properties: Basic.Properties) -> None:
        self._encoded = properties.marshal()

    def encode(self) -> list[bytes]:
        return [self._encoded]


class Network(SelectorIOServicesAdapter):  # type: ignore[misc]
    """What one connection uses to connect and to send. Here everything goes through pika; ``fast.py`` has another way.

    It looks up host names in threads that do not keep the process alive. A hung resolver would keep those of pika.

    Attributes:
        connection: of pika.
    """

    connection: Any

    def getaddrinfo(self, host: str, port: int, on_done: Any, *_options: Any, **_named: Any) -> AbstractIOReference:
        return _LookUp(_LOOK_UPS.begin(host, port), self.add_callback_threadsafe, on_done)

    def opened(self, channel: Any) -> None:
        """Messages or confirms will come on a channel."""

    def closed(self, channel: Any) -> None:
        """The broker has closed a channel."""

    def ack(self, channel: Any, effect: Ack) -> None:
        """Send ``Basic.Ack``."""
        channel.basic_ack(effect.tag, effect.multiple)

    def publish(self, channel: Any, effect: Publish | PublishLog, mandatory: bool = False) -> None:
        """Send ``Basic.Publish`` and the message."""
        properties = Properties(effect.properties)
        channel.basic_publish(effect.exchange, effect.routing_key, effect.body, properties, mandatory)


class _LookUp(CallbackLookUp, AbstractIOReference):  # type: ignore[misc]
    """A look-up that pika may cancel."""


class Connection(pika.SelectConnection):  # type: ignore[misc]
    """Reads properties as the core does, and can be aborted."""

    _aborted = False

    def abort(self) -> None:
        """Drop the socket, whatever its state. The callback for errors or for the close is called soon after."""
        if not self._aborted and not self.is_closed:
            self._aborted = True  # not by ConnectionOpenAborted, on which an assertion in pika fails
            self._terminate_stream(AMQPConnectionError("aborted"))

    def _read_frame(self) -> tuple[int, Any]:
        """Read a header frame as the core does, and leave other frames to pika.

        pika cuts floats in headers. A date beyond the year 9999 makes it lose the connection, and the broker delivers
        the message again.
        """
        data: bytes = self._frame_buffer
        end = 8 + int.from_bytes(data[3:7])
        if data[0] != _HEADER or not 19 < end <= len(data) or data[end - 1] != _END:
            return super()._read_frame()  # type: ignore[no-any-return]
        header = read_header(data[7 : end - 1])
        return end, Header(int.from_bytes(data[1:3]), header.body_size, header.properties)


def parameters(asked: Connect, given: ssl.SSLContext | None, socket_options: dict[str, int] | None = None) -> Any:
    """The parameters of pika. pika would read the URL in another way than the other adapters do.

    Args:
        socket_options: see ``Link.socket_options``.
    """
    address = Address.of(asked.url)
    context = address.tls_context(given, ssl.create_default_context)
    return pika.ConnectionParameters(
        address.host,
        address.port,
        address.vhost,
        ExternalCredentials() if address.mechanism == "EXTERNAL" else PlainCredentials(address.user, address.password),
        heartbeat=asked.heartbeat,
        ssl_options=pika.SSLOptions(context, address.host) if context else None,
        stack_timeout=None,  # the core decides
        blocked_connection_timeout=None,
        tcp_options=socket_options,
        client_properties={"connection_name": asked.name},
    )
