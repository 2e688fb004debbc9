"""The client that stands beside the services in tests, on the embedded broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pamqp.commands import Basic, Queue

from eda_core.testing.live import ChannelClosed, Client, EmbeddedBroker, Received
from tests.support.rabbitmq import free_port
from tests.support.services import asynchronous, within


@asynccontextmanager
async def connected(broker: EmbeddedBroker) -> AsyncIterator[Client]:
    client = await Client.connect(broker.url)
    yield client
    await client.close()


@asynchronous
async def test_a_message_is_published_and_taken() -> None:
    async with EmbeddedBroker() as broker, connected(broker) as client:
        channel = await client.channel()
        queue = await channel.temporary_queue(("amq.topic", "a.#"))
        body = b"x" * 300_000  # three frames
        assert await channel.publish("amq.topic", "a.b", Basic.Properties(message_id="1"), body, mandatory=True)
        got = await channel.get(queue)
        assert got is not None
        assert (got.exchange, got.routing_key, got.properties.message_id, got.body) == ("amq.topic", "a.b", "1", body)
        assert await channel.publish("amq.topic", "a.b", Basic.Properties(), b"")
        empty = await channel.get(queue)
        assert empty is not None
        assert empty.body == b""
        assert await channel.get(queue) is None


@asynchronous
async def test_what_no_queue_gets_is_told() -> None:
    async with EmbeddedBroker() as broker, connected(broker) as client:
        channel = await client.channel()
        routed = [
            await channel.publish("amq.topic", key, Basic.Properties(), b"1", mandatory=key != "other")
            for key in ("nobody", "other", "nobody")
        ]
        assert routed == [False, True, False]


@asynchronous
async def test_messages_are_watched_in_order() -> None:
    seen: asyncio.Queue[Received] = asyncio.Queue()
    async with EmbeddedBroker() as broker, connected(broker) as client:
        watching, publishing = await client.channel(), await client.channel()
        await watching.watch(await watching.temporary_queue(("amq.topic", "#")), seen.put_nowait)
        await asyncio.gather(*(publishing.publish("amq.topic", f"k{n}", Basic.Properties(), b"1") for n in range(20)))
        keys = [(await within(seen.get(), "a message")).routing_key for _ in range(20)]
        assert keys == [f"k{n}" for n in range(20)]


@asynchronous
async def test_a_closed_channel_costs_that_channel_only() -> None:
    async with EmbeddedBroker() as broker, connected(broker) as client:
        channel, other = await client.channel(), await client.channel()
        with pytest.raises(ChannelClosed, match="404 NOT_FOUND") as caught:
            await channel.ask(Queue.Declare(queue="nothing", passive=True))
        assert caught.value.code == 404
        with pytest.raises(ChannelClosed, match="404"):
            await channel.get("nothing")
        assert await other.temporary_queue()


@asynchronous
async def test_a_refused_login_says_what_to_do() -> None:
    async with EmbeddedBroker() as broker:
        with pytest.raises(PermissionError, match="the broker refuses the user 'guest' or its password; check them"):
            await Client.connect(broker.url.replace("guest:guest@", "guest:wrong@"))
        with pytest.raises(PermissionError, match="vhost not found: 'nowhere'"):
            await Client.connect(f"{broker.url}nowhere")


@asynchronous
async def test_a_broker_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(
        ConnectionError, match=r"cannot connect to amqp://guest:\*\*\*@127\.0\.0\.1:\d+/: .*Connect call failed"
    ):
        await Client.connect(f"amqp://guest:secret@127.0.0.1:{free_port()}/")


@asynchronous
async def test_who_waits_hears_of_a_lost_connection() -> None:
    async with EmbeddedBroker() as broker:
        client = await Client.connect(broker.url)
        channel = await client.channel()
        await broker.cut()
        with pytest.raises(ConnectionError):
            await within(channel.temporary_queue(), "the answer")
        await client.close()


@asynchronous
async def test_what_is_no_broker_is_told() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match="this is no AMQP broker"):
            await Client.connect(f"amqp://127.0.0.1:{port}/")
