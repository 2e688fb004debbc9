"""A client that publishes what client libraries refuse to write: any octets as properties and routing key."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eda_core.testing.conformance import Put
from eda_core.testing.live.client import Client, ClientChannel

#: Seconds for the broker to confirm.
TIMEOUT = 15.0


class OctetPublisher:
    """Use :func:`octet_publisher`."""

    def __init__(self, channel: ClientChannel) -> None:
        self._channel = channel

    async def put(self, put: Put) -> None:
        """Publish, and wait for the confirm."""
        async with asyncio.timeout(TIMEOUT):
            await self._channel.publish(put.exchange, put.key, put.properties, put.body)


@asynccontextmanager
async def octet_publisher(url: str, context: ssl.SSLContext | None = None) -> AsyncIterator[OctetPublisher]:
    """A publisher, which is closed at the end of the block."""
    client = await Client.connect(url, "publisher of octets", context=context)
    try:
        yield OctetPublisher(await client.channel())
    finally:
        client.abort()
