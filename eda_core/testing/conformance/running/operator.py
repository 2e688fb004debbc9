"""The plain AMQP client beside the services: an operator, a peer, a witness. It goes past the proxy."""

from __future__ import annotations

import asyncio
from typing import Final

from pamqp.commands import Exchange, Queue

from eda_core.testing.conformance.script import Declare, Put, Taken
from eda_core.testing.live.client import ChannelClosed, Client, ClientChannel

#: Seconds between two looks at a queue.
_POLL: Final = 0.01
#: Seconds for the broker to close a connection.
_TIMEOUT: Final = 15.0


class Operator:
    """Connects when it needs to. Publishing has a connection of its own: an alarm blocks those that publish.

    Args:
        url: of the broker itself.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: dict[str, tuple[Client, ClientChannel]] = {}

    async def close(self) -> None:
        """Close all connections. The next request connects again."""
        closing, self._open = self._open, {}
        tasks = [asyncio.ensure_future(client.close()) for client, _ in closing.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=_TIMEOUT)  # the broker may be gone

    async def _use(self, what: str) -> tuple[Client, ClientChannel]:
        if what not in self._open:
            client = await Client.connect(self._url, "operator")
            self._open[what] = client, await client.channel()
        return self._open[what]

    async def put(self, put: Put) -> None:
        """Publish, and wait for the confirm. The message may be one that no client library writes."""
        _, channel = await self._use("to publish")
        await channel.publish(put.exchange, put.key, put.properties, put.body)

    async def take(self, queue: str) -> Taken:
        """Wait for a message in ``queue``, without end."""
        _, channel = await self._use("to look")
        while (got := await channel.get(queue)) is None:
            await asyncio.sleep(_POLL)
        return Taken(got.exchange, got.routing_key, got.body, got.properties, got.redelivered)

    async def count(self, queue: str, until: int | None) -> int | None:
        """How many messages are ready in ``queue``; None if it does not exist. Waits for ``until``, without end."""
        while (count := await self._count(queue)) != until and until is not None:
            await asyncio.sleep(_POLL)
        return count

    async def _count(self, queue: str) -> int | None:
        client, _ = await self._use("to look")
        channel = await client.channel()  # of its own: not to find the queue closes it
        try:
            found = await channel.ask(Queue.Declare(queue=queue, passive=True))
        except ChannelClosed:
            return None
        await channel.close()
        return int(found.message_count)

    async def declare(self, asked: Declare) -> None:
        """Declare a queue, and bind it."""
        _, channel = await self._use("to look")
        await channel.ask(Queue.Declare(queue=asked.queue, durable=True, arguments=dict(asked.arguments)))
        if asked.exchange:
            exchange = asked.exchange
            await channel.ask(Exchange.Declare(exchange=exchange, exchange_type="topic", durable=True))
            await channel.ask(Queue.Bind(queue=asked.queue, exchange=exchange, routing_key=asked.key))

    async def delete(self, queue: str) -> None:
        """Delete a queue."""
        _, channel = await self._use("to look")
        await channel.ask(Queue.Delete(queue=queue))
