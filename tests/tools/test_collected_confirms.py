"""An embedded broker that confirms several publishes at once: client libraries and our services live with it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any

import aio_pika
import amqp
import pika
import pytest

import eda_aio
import eda_kombu
import eda_pika
from eda_core.testing.live import EmbeddedBrokerThread

kombu: Any = importlib.import_module("kombu")  # has no types
#: Publishes of a client, all of them before it waits.
MANY = 100


@pytest.fixture
def broker() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread(confirm_interval=0.02) as made:
        yield made


def count(broker: EmbeddedBrokerThread, queue: str) -> int:
    """How many messages are in a queue."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        declared = connection.channel().queue_declare(queue, passive=True)
        found: int = declared.method.message_count
        return found


def bound(broker: EmbeddedBrokerThread) -> None:
    """Declare the queue ``all``, which gets all events."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("events", "topic", durable=True)
        channel.queue_declare("all")
        channel.queue_bind("all", "events", "#")


def test_one_confirm_is_for_several_publishes(broker: EmbeddedBrokerThread) -> None:
    host, port = broker.url.rpartition("@")[2].strip("/").split(":")
    with amqp.Connection(f"{host}:{port}") as connection:
        channel = connection.channel()
        confirms: list[tuple[int, bool]] = []
        channel.confirm_select()
        channel.events["basic_ack"].add(lambda tag, multiple: confirms.append((tag, bool(multiple))))
        for _ in range(MANY):
            channel.basic_publish(amqp.Message(b"m"), routing_key="nowhere")
        while not confirms or confirms[-1][0] < MANY:
            connection.drain_events(timeout=60)
    assert len(confirms) < MANY / 4
    assert any(multiple for _, multiple in confirms)


def test_pika(broker: EmbeddedBrokerThread) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.confirm_delivery()
        for _ in range(5):
            channel.basic_publish("", "q", b"m", mandatory=True)
        assert channel.queue_declare("q", passive=True).method.message_count == 5


def test_aio_pika(broker: EmbeddedBrokerThread) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q")
            exchange = channel.default_exchange
            await asyncio.gather(*(exchange.publish(aio_pika.Message(b"m"), "q") for _ in range(MANY)))
            assert (await queue.purge()).message_count == MANY

    asyncio.run(scenario())


def test_kombu(broker: EmbeddedBrokerThread) -> None:
    with kombu.Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        kombu.Queue("q", channel=connection.default_channel).declare()
        producer = connection.Producer()
        for _ in range(5):
            producer.publish("m", exchange="", routing_key="q", mandatory=True)
        assert connection.default_channel.queue_purge("q") == 5


def test_services_of_eda_aio(broker: EmbeddedBrokerThread) -> None:
    class Many(eda_aio.Service):
        async def on_ready(self) -> None:
            await asyncio.gather(*(self.publish_event("Counted", number, "c") for number in range(MANY)))
            await self.stop()

    bound(broker)
    asyncio.run(Many(broker.url, [], [], "many").run())
    assert count(broker, "all") == MANY


def test_services_of_eda_pika(broker: EmbeddedBrokerThread) -> None:
    class Many(eda_pika.Service):
        def on_ready(self) -> None:
            for number in range(MANY):
                self.publish_event("Counted", number, "c")
            self.stop()

    bound(broker)
    Many([broker.url], [], [], "many").run()
    assert count(broker, "all") == MANY


def test_an_endpoint_of_eda_kombu(broker: EmbeddedBrokerThread) -> None:
    bound(broker)
    with eda_kombu.Endpoint(broker.url, "many") as endpoint:
        for number in range(5):
            endpoint.publish_event("Counted", number, "c")
    assert count(broker, "all") == 5
