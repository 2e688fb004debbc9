"""The embedded broker as the client libraries see it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import aio_pika
import aiormq
import amqp
import pika
import pika.exceptions
import pytest

from eda_tools import broker as tool
from eda_tools.broker import EmbeddedBroker, EmbeddedBrokerThread

kombu: Any = importlib.import_module("kombu")  # has no types
#: Of a kind of queue that the model does not have.
STREAM: Any = {"x-queue-type": "stream"}
MEGABYTE = bytes(range(256)) * 4096
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedBrokerThread() as broker:
        yield broker.url


@pytest.fixture
def name() -> str:
    return f"queue-{next(numbers)}"


def with_password(url: str, password: str) -> str:
    return url.replace("guest:guest@", f"guest:{password}@")


# --- pika ---


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    yield connection
    if connection.is_open:
        connection.close()


@pytest.fixture
def channel(connection: Any) -> Any:
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def test_pika_publish_get_ack_requeue(channel: Any, name: str) -> None:
    channel.exchange_declare(f"{name}-x", "topic", durable=True)
    assert channel.queue_declare(name, durable=True).method.message_count == 0
    channel.queue_bind(name, f"{name}-x", "order.*")
    properties = pika.BasicProperties(
        content_type="application/cbor", headers={"conversation_id": "c", "n": 1, "deep": {"list": [True, None]}}
    )
    channel.basic_publish(f"{name}-x", "order.paid", MEGABYTE, properties, mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(f"{name}-x", "elsewhere", b"", properties, mandatory=True)

    got, header, body = channel.basic_get(name)
    assert (body, got.redelivered, got.exchange, got.routing_key) == (MEGABYTE, False, f"{name}-x", "order.paid")
    assert header.headers == properties.headers
    channel.basic_nack(got.delivery_tag, requeue=True)
    got, _, _ = channel.basic_get(name)
    assert got.redelivered
    channel.basic_reject(got.delivery_tag, requeue=True)
    got, _, _ = channel.basic_get(name)
    channel.basic_ack(got.delivery_tag)
    assert channel.basic_get(name) == (None, None, None)


def test_pika_consume_purge_delete(channel: Any, name: str) -> None:
    channel.queue_declare(name)
    for number in range(20):
        channel.basic_publish("", name, b"%d" % number)
    channel.basic_qos(prefetch_count=5)
    bodies = []
    for got, _, body in channel.consume(name, inactivity_timeout=5):
        bodies.append(body)
        if len(bodies) % 5 == 0:
            channel.basic_ack(got.delivery_tag, multiple=True)
        if len(bodies) == 10:
            break
    assert bodies == [b"%d" % number for number in range(10)]
    channel.cancel()
    assert channel.queue_purge(name).method.message_count == 10
    channel.queue_delete(name)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_declare(name, passive=True)
    assert caught.value.reply_code == 404


def test_pika_dead_letters_by_policy(channel: Any, name: str) -> None:
    channel.queue_purge(tool.DEAD_LETTER_QUEUE)
    channel.queue_declare(f"{name}.events", durable=True)
    channel.basic_publish("", f"{name}.events", b"poison", pika.BasicProperties(headers={"conversation_id": "c"}))
    got, _, _ = channel.basic_get(f"{name}.events")
    channel.basic_reject(got.delivery_tag, requeue=False)
    _, properties, body = channel.basic_get(tool.DEAD_LETTER_QUEUE, auto_ack=True)
    assert body == b"poison"
    assert properties.headers["conversation_id"] == "c"
    death = properties.headers["x-death"][0]
    assert (death["queue"], death["reason"], death["count"]) == (f"{name}.events", "rejected", 1)


def test_pika_exclusive_queue_ends_with_its_connection(url: str, channel: Any) -> None:
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as other:
        queue = other.channel().queue_declare("", exclusive=True).method.queue
        assert queue.startswith("amq.gen-")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            channel.queue_declare(queue, passive=True)
        assert caught.value.reply_code == 405
    again = channel.connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        again.queue_declare(queue, passive=True)
    assert caught.value.reply_code == 404


def test_pika_channel_errors_leave_the_connection(connection: Any, name: str) -> None:
    connection.channel().queue_declare(name, durable=False)
    wrong: dict[int, Callable[[Any], object]] = {
        404: lambda channel: channel.basic_get("no such queue"),
        406: lambda channel: channel.queue_declare(name, durable=True),
    }
    for code, call in wrong.items():
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            call(connection.channel())
        assert caught.value.reply_code == code
    assert connection.channel().basic_get(name) == (None, None, None)


def test_pika_connection_errors(url: str, connection: Any) -> None:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(with_password(url, "wrong")))
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost nowhere not found"):
        pika.BlockingConnection(pika.URLParameters(url + "nowhere"))
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
        connection.channel().queue_declare("stream", durable=True, arguments=STREAM)
    assert caught.value.reply_code == 540


# --- aio-pika ---


async def aio_scenario(url: str, name: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.set_qos(prefetch_count=10)
        exchange = await channel.declare_exchange(f"{name}-x", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(f"{name}.events", durable=True)
        await queue.bind(exchange, "#")
        message = aio_pika.Message(MEGABYTE, headers={"conversation_id": "é"}, correlation_id="1")
        await exchange.publish(message, "any.key", mandatory=True)
        with pytest.raises(aio_pika.exceptions.PublishError):
            await channel.default_exchange.publish(aio_pika.Message(b""), "nowhere", mandatory=True)

        arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        tag = await queue.consume(arrived.put)
        first = await arrived.get()
        assert (first.body, first.redelivered, dict(first.headers)) == (MEGABYTE, False, {"conversation_id": "é"})
        await first.nack(requeue=True)
        second = await arrived.get()
        assert second.redelivered
        await second.reject(requeue=False)
        await queue.cancel(tag)
        dead = await channel.declare_queue(tool.DEAD_LETTER_QUEUE, passive=True)
        while (letter := await dead.get(no_ack=True)).correlation_id != "1":
            pass
        assert "x-death" in letter.headers

        await channel.default_exchange.publish(aio_pika.Message(b"left"), queue.name)
        assert (await queue.purge()).message_count == 1
        await queue.delete()
        own = await channel.declare_queue(exclusive=True)
        assert own.name.startswith("amq.gen-")
        assert await own.get(fail=False) is None
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue(queue.name, passive=True)
        again = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
            await again.declare_exchange(f"{name}-x", aio_pika.ExchangeType.FANOUT, durable=True)
        await (await connection.channel()).exchange_delete(f"{name}-x")


def test_aio_pika(url: str, name: str) -> None:
    asyncio.run(aio_scenario(url, name))


def test_aio_pika_connection_errors(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(aiormq.exceptions.ProbableAuthenticationError):
            await aio_pika.connect(with_password(url, "wrong"))
        async with await aiormq.connect(url) as connection:
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.AMQPError, match="NOT_IMPLEMENTED"):
                await channel.queue_declare("stream", durable=True, arguments=STREAM)

    asyncio.run(scenario())


def test_embedded_in_an_event_loop(name: str) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(port=0, users={"me": "secret"}, dead_letters=False) as broker:
            connection = await aio_pika.connect(broker.url.replace("//", "//me:secret@"))
            channel = await connection.channel()
            await channel.declare_queue(name, durable=True)
            lost = asyncio.Event()
            connection.close_callbacks.add(lambda *_: lost.set())
            await broker.cut()
            await lost.wait()
            async with await aio_pika.connect(broker.url.replace("//", "//me:secret@")) as again:
                await (await again.channel()).declare_queue(name, durable=True, passive=True)

    asyncio.run(scenario())


# --- kombu ---


def test_kombu(url: str, name: str) -> None:
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        exchange = kombu.Exchange(f"{name}-x", "topic", durable=True, channel=channel)
        queue = kombu.Queue(f"{name}.commands", exchange, "#", durable=True, channel=channel)
        queue.declare()
        returned: list[Any] = []
        producer = connection.Producer(channel, on_return=lambda *args: returned.append(args))
        producer.publish(MEGABYTE, exchange=exchange, routing_key="k", headers={"conversation_id": "c"}, mandatory=True)
        assert not returned
        producer.publish(b"", exchange="", routing_key="nowhere", mandatory=True)
        assert returned[0][0].reply_code == 312

        messages: list[Any] = []
        with connection.Consumer([queue], on_message=messages.append, channel=channel, prefetch_count=10):
            connection.drain_events(timeout=5)
            assert (messages[0].body, messages[0].headers) == (MEGABYTE, {"conversation_id": "c"})
            messages[0].requeue()
            connection.drain_events(timeout=5)
            assert messages[1].delivery_info["redelivered"]
            messages[1].reject()
        letters = kombu.Queue(tool.DEAD_LETTER_QUEUE, channel=channel)
        while (letter := letters.get(no_ack=True)).delivery_info["routing_key"] != "k":
            pass
        assert letter.headers["x-death"][0]["queue"] == f"{name}.commands"

        producer.publish(b"left", exchange="", routing_key=queue.name)
        assert queue.purge() == 1
        queue.delete()
        with pytest.raises(amqp.exceptions.NotFound):
            connection.channel().queue_declare(queue.name, passive=True)
        with pytest.raises(amqp.exceptions.PreconditionFailed):
            connection.channel().exchange_declare(f"{name}-x", "fanout", durable=True)
        own = connection.channel().queue_declare("", exclusive=True).queue
        assert own.startswith("amq.gen-")
        connection.channel().exchange_delete(f"{name}-x")


def test_kombu_connection_errors(url: str) -> None:
    with pytest.raises(amqp.exceptions.AccessRefused):
        kombu.Connection(with_password(url, "wrong")).connect()
    with kombu.Connection(url) as connection, pytest.raises(amqp.exceptions.AMQPNotImplementedError):
        connection.channel().queue_declare("stream", durable=True, auto_delete=False, arguments=STREAM)


# --- heartbeats ---


def test_heartbeats_keep_idle_connections_of_all_clients() -> None:
    seconds = 3  # three intervals; a client that sends nothing is dropped after one

    def idle_pika(url: str) -> None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            connection.process_data_events(time_limit=seconds)
            connection.channel()

    def idle_kombu(url: str) -> None:
        with kombu.Connection(url, heartbeat=1) as connection:
            connection.connect()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                connection.heartbeat_check()
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.4)
            connection.channel()

    async def idle_aio(url: str) -> None:
        async with await aio_pika.connect(url) as connection:
            await asyncio.sleep(seconds)
            await connection.channel()

    async def scenario() -> None:
        async with EmbeddedBroker(heartbeat=1) as broker:
            url = broker.url + "?heartbeat=1"
            await asyncio.gather(
                asyncio.to_thread(idle_pika, url.replace("/?", "/%2F?")),
                asyncio.to_thread(idle_kombu, broker.url),
                idle_aio(url),
            )

    asyncio.run(scenario())


# --- what clients are told ---


@pytest.mark.parametrize("version", ["3.10", "4.3"])
def test_clients_are_told_which_rabbitmq_it_behaves_like(version: str) -> None:
    """Those of kombu decide by it what a prefetch means."""
    with EmbeddedBrokerThread(version=version) as broker, kombu.Connection(broker.url) as connection:
        connection.connect()
        told = connection.connection.server_properties
        assert (told["product"], told["version"]) == ("RabbitMQ", f"{version}.0")
        assert connection.qos_semantics_matches_spec is (version == "4.3")
