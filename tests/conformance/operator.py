"""The plain AMQP client beside the services: an operator, a peer, a witness. It goes past the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from eda_core.testing.conformance import Declare, Put, Taken
from tests.support.octets import OctetPublisher

T = TypeVar("T")

#: Seconds between two looks at a queue, and for the broker to answer.
POLL, TIMEOUT = 0.01, 15.0


async def _whole(request: Coroutine[Any, Any, T]) -> T:
    """Let a request end although its caller is cancelled: aiormq closes the channel of a request that is cancelled."""
    return await asyncio.shield(asyncio.ensure_future(request))


class Operator:
    """Connects when it needs to. Publishing has a connection of its own: an alarm blocks those that publish.

    Args:
        url: of the broker itself.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: dict[str, tuple[AbstractConnection, AbstractChannel]] = {}
        self._publisher: OctetPublisher | None = None

    async def close(self) -> None:
        """Close all connections. The next request connects again."""
        if self._publisher is not None:
            self._publisher.abort()
            self._publisher = None
        closing, self._open = self._open, {}
        tasks = [asyncio.ensure_future(connection.close()) for connection, _ in closing.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=TIMEOUT)  # the broker may be gone

    async def _use(self, what: str) -> tuple[AbstractConnection, AbstractChannel]:
        if what not in self._open:
            connection = await aiormq.connect(self._url)
            self._open[what] = connection, await _whole(connection.channel())
        return self._open[what]

    async def put(self, put: Put) -> None:
        """Publish, and wait for the confirm. The message may be one that no client library writes."""
        if self._publisher is None:
            self._publisher = await OctetPublisher.open(self._url)
        await self._publisher.put(put)

    async def take(self, queue: str) -> Taken:
        """Wait for a message in ``queue``, without end."""
        _, channel = await self._use("to look")
        while True:
            got = await _whole(channel.basic_get(queue, no_ack=True, timeout=TIMEOUT))
            if isinstance(ok := got.delivery, Basic.GetOk):
                key = ok.routing_key or ""
                return Taken(ok.exchange, key, bytes(got.body), got.header.properties, ok.redelivered)
            await asyncio.sleep(POLL)

    async def count(self, queue: str, until: int | None) -> int | None:
        """How many messages are ready in ``queue``; None if it does not exist. Waits for ``until``, without end."""
        while (count := await _whole(self._count(queue))) != until and until is not None:
            await asyncio.sleep(POLL)
        return count

    async def _count(self, queue: str) -> int | None:
        connection, _ = await self._use("to look")
        channel = await connection.channel()  # of its own: not to find the queue closes it
        try:
            found = await channel.queue_declare(queue, passive=True, timeout=TIMEOUT)
        except ChannelNotFoundEntity:
            return None
        await channel.close()
        return found.message_count

    async def declare(self, asked: Declare) -> None:
        await _whole(self._declare(asked))

    async def _declare(self, asked: Declare) -> None:
        _, channel = await self._use("to look")
        arguments = dict(asked.arguments)
        await channel.queue_declare(asked.queue, durable=True, arguments=arguments, timeout=TIMEOUT)
        if asked.exchange:
            exchange = asked.exchange
            await channel.exchange_declare(exchange=exchange, exchange_type="topic", durable=True, timeout=TIMEOUT)
            await channel.queue_bind(asked.queue, exchange, routing_key=asked.key, timeout=TIMEOUT)

    async def delete(self, queue: str) -> None:
        _, channel = await self._use("to look")
        await _whole(channel.queue_delete(queue, timeout=TIMEOUT))
