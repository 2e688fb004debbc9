"""A client that publishes what client libraries refuse to write: any octets as properties and routing key."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from pamqp.commands import Basic, Channel, Confirm

from eda_core import Connect, Epoch
from eda_core.testing.conformance import Put
from eda_core.testing.wire import frames
from examples.custom_transport import Wire

#: Seconds for the broker to confirm.
TIMEOUT = 15.0


class OctetPublisher:
    """Use :func:`octet_publisher`, or :meth:`open` and :meth:`abort`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    async def open(cls, url: str, context: ssl.SSLContext | None = None) -> OctetPublisher:
        """Connect, and open a channel."""
        address = urlsplit(url)
        wire = Wire(*await asyncio.open_connection(address.hostname, address.port, ssl=context))
        await wire.handshake(Connect(Epoch(1), url, "publisher of octets", 0))
        await wire.ask(1, Channel.Open(), Channel.OpenOk)
        await wire.ask(1, Confirm.Select(), Confirm.SelectOk)
        return cls(wire)

    async def put(self, put: Put) -> None:
        """Publish, and wait for the confirm."""
        method = frames.encode_method(1, Basic.Publish(exchange=put.exchange, routing_key=put.key))
        content = frames.encode_content(1, put.properties, put.body, self._wire.frame_max)
        self._wire.writer.write(method + content)
        async with asyncio.timeout(TIMEOUT):
            while not isinstance(got := (await self._wire.receive())[1], Basic.Ack):
                assert not isinstance(got, Channel.Close), got.reply_text

    def abort(self) -> None:
        """Drop the connection."""
        self._wire.writer.transport.abort()


@asynccontextmanager
async def octet_publisher(url: str, context: ssl.SSLContext | None = None) -> AsyncIterator[OctetPublisher]:
    """A publisher, which is closed at the end of the block."""
    publisher = await OctetPublisher.open(url, context)
    try:
        yield publisher
    finally:
        publisher.abort()
