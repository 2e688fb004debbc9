"""Connections of pika with what the core asks of them beyond pika's API.

The methods that begin with an underscore are pika's private ones, of 1.4: ``pyproject.toml`` asks for that, and
``tests/pika/test_connection.py`` notices when another version has none of them any more.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pika
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pika.exceptions import AMQPConnectionError
from pika.frame import Header

from eda_core import Connect

_HEADER, _END = 2, 0xCE  # AMQP 0-9-1, section 4.2.3: a frame's type, and its last byte


class Properties(pika.BasicProperties):  # type: ignore[misc]  # pika publishes no types
    """Properties to publish with, as pamqp encodes them: pika would refuse floats and cut decimals."""

    def __init__(self, properties: Basic.Properties) -> None:
        self._encoded = properties.marshal()

    def encode(self) -> list[bytes]:
        return [self._encoded]


class Connection(pika.SelectConnection):  # type: ignore[misc]
    """Hands over properties as pamqp decodes them, and can be aborted."""

    _aborted = False

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return int(self._get_write_buffer_size()) if self._transport is not None else 0

    def abort(self) -> None:
        """Drop the socket, whatever the state. The callback for errors or for the close is called soon after."""
        if not self._aborted and not self.is_closed:
            self._aborted = True
            # By another error than ConnectionOpenAborted, over which pika's own workflow fails an assertion.
            self._terminate_stream(AMQPConnectionError("aborted"))

    def _read_frame(self) -> tuple[int, Any]:
        """Headers that pika would change (floats), or die of and get again for ever (dates beyond 9999)."""
        data: bytes = self._frame_buffer
        end = 7 + int.from_bytes(data[3:7]) + 1
        if data[0] != _HEADER or not 19 < end <= len(data) or data[end - 1] != _END:
            return super()._read_frame()  # type: ignore[no-any-return]
        header = ContentHeader()
        try:
            header.unmarshal(data[7 : end - 1])
        except Exception:  # a message without properties is dead-lettered
            header = ContentHeader(0, int.from_bytes(data[11:19]))
        return end, Header(int.from_bytes(data[1:3]), header.body_size, header.properties)


def parameters(asked: Connect, context: ssl.SSLContext | None, timeout: float) -> Any:
    """What pika needs to connect. The URL means what it means to eda_aio, which is not what pika reads in it.

    Args:
        context: for ``amqps://``; ``None`` checks the chain and the host name.
        timeout: seconds for all of it.
    """
    url = urlsplit(asked.url)
    query = {key: values[-1] for key, values in parse_qs(url.query).items()}
    options = None
    if url.scheme == "amqps":
        if context is None:
            context = ssl.create_default_context(cafile=query.get("cafile"), capath=query.get("capath"))
            if "certfile" in query:
                context.load_cert_chain(query["certfile"], query.get("keyfile"))
        options = pika.SSLOptions(context, url.hostname)
    return pika.ConnectionParameters(
        host=url.hostname,
        port=url.port or (5671 if options else 5672),
        virtual_host=unquote(url.path[1:]) or "/",
        credentials=pika.PlainCredentials(unquote(url.username or "guest"), unquote(url.password or "guest")),
        heartbeat=asked.heartbeat,
        ssl_options=options,
        stack_timeout=timeout,
        blocked_connection_timeout=None,  # the core decides
        client_properties={"connection_name": asked.name},
    )
