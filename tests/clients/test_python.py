"""The everyday work of pika, aio-pika and kombu."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import aio_pika
import pika
import pytest

from eda_core.testing.live import EmbeddedBrokerThread
from tests.support.services import asynchronous

kombu: Any = importlib.import_module("kombu")  # has no types
pytestmark = pytest.mark.clients


def test_pika(eda_broker: EmbeddedBrokerThread) -> None:
    with pika.BlockingConnection(pika.URLParameters(eda_broker.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("orders", "topic", durable=True)
        channel.exchange_declare("dead", "fanout")
        channel.queue_declare("dead")
        channel.queue_bind("dead", "dead")
        channel.queue_declare("jobs", durable=True, arguments={"x-dead-letter-exchange": "dead"})
        channel.queue_bind("jobs", "orders", "order.*")
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.UnroutableError) as returned:
            channel.basic_publish("orders", "nobody", b"lost?", mandatory=True)
        assert [each.body for each in returned.value.messages] == [b"lost?"]
        for number in range(10):
            properties = pika.BasicProperties(delivery_mode=2, headers={"number": number})
            channel.basic_publish("orders", "order.placed", str(number).encode(), properties, mandatory=True)

        channel.basic_qos(prefetch_count=4)
        seen = []
        for method, properties, body in channel.consume("jobs"):
            assert properties.headers == {"number": int(body)}
            assert channel.get_waiting_message_count() < 4
            seen.append(int(body))
            if int(body) % 3:
                channel.basic_ack(method.delivery_tag)
            else:
                channel.basic_nack(method.delivery_tag, requeue=False)
            if len(seen) == 10:
                break
        channel.cancel()
        assert seen == list(range(10))
        dead = [channel.basic_get("dead", auto_ack=True) for _ in range(5)]
        assert [body for _, _, body in dead] == [b"0", b"3", b"6", b"9", None]
        (death,) = dead[0][1].headers["x-death"]
        assert (death["queue"], death["reason"], death["count"]) == ("jobs", "rejected", 1)
        assert channel.queue_delete("jobs").method.message_count == 0


def test_pika_asks_by_direct_reply_to(eda_broker: EmbeddedBrokerThread) -> None:
    """As pika's example does it: the server looks whether the client is still there, and publishes to its address."""
    name = "amq.rabbitmq.reply-to"
    with pika.BlockingConnection(pika.URLParameters(eda_broker.url)) as connection:
        client, server = connection.channel(), connection.channel()
        server.queue_declare("questions", exclusive=True)
        answers: list[Any] = []
        client.basic_consume(name, lambda *told: answers.append(told), auto_ack=True)
        client.basic_publish("", "questions", b"well", pika.BasicProperties(reply_to=name, correlation_id="7"))
        method, properties, body = next(server.consume("questions"))
        assert server.queue_declare(properties.reply_to, passive=True).method.consumer_count == 1
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        server.basic_publish("", properties.reply_to, body + b"!", reply)
        server.basic_ack(method.delivery_tag)
        while not answers:
            connection.process_data_events(time_limit=1)
        ((_, delivered, properties, body),) = answers
        assert (properties.correlation_id, body) == ("7", b"well!")
        client.close()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            server.queue_declare(delivered.routing_key, passive=True)


def test_pika_has_transactions(eda_broker: EmbeddedBrokerThread) -> None:
    with pika.BlockingConnection(pika.URLParameters(eda_broker.url)) as connection:
        channel, other = connection.channel(), connection.channel()
        channel.queue_declare("jobs")
        other.basic_publish("", "jobs", b"1")
        channel.tx_select()

        def work(body: bytes) -> None:
            method, _, taken = channel.basic_get("jobs")
            assert taken == body
            channel.basic_publish("", "jobs", body + b"!")
            channel.basic_ack(method.delivery_tag)

        work(b"1")
        assert other.queue_declare("jobs", passive=True).method.message_count == 0
        channel.tx_rollback()
        channel.basic_recover(requeue=True)
        work(b"1")
        channel.tx_commit()
        assert other.basic_get("jobs", auto_ack=True)[2] == b"1!"
        assert other.queue_declare("jobs", passive=True).method.message_count == 0


@asynchronous
async def test_aio_pika(eda_broker: EmbeddedBrokerThread) -> None:
    async with await aio_pika.connect_robust(eda_broker.url, reconnect_interval=0.1) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.set_qos(prefetch_count=4)
        orders = await channel.declare_exchange("orders", aio_pika.ExchangeType.TOPIC, durable=True)
        await channel.declare_exchange("dead", aio_pika.ExchangeType.FANOUT)
        dead = await channel.declare_queue("dead")
        await dead.bind("dead")
        jobs = await channel.declare_queue("jobs", durable=True, arguments={"x-dead-letter-exchange": "dead"})
        await jobs.bind(orders, "order.*")
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await orders.publish(aio_pika.Message(b"lost?"), "nobody", mandatory=True)

        seen: asyncio.Queue[int] = asyncio.Queue()

        async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            number = int(message.body)
            await (message.ack() if number % 3 else message.reject())
            await seen.put(number)

        await jobs.consume(handle)

        async def work(numbers: range) -> None:
            persistent = aio_pika.DeliveryMode.PERSISTENT
            for number in numbers:
                await orders.publish(aio_pika.Message(b"%d" % number, delivery_mode=persistent), "order.placed")
            assert [await seen.get() for _ in numbers] == [*numbers]

        await work(range(5))
        again = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_: again.set())
        await asyncio.to_thread(eda_broker.cut)
        await again.wait()
        await work(range(5, 10))
        letters = [await dead.get(no_ack=True) for _ in range(4)]
        assert [each.body for each in letters] == [b"0", b"3", b"6", b"9"]
        assert await dead.get(no_ack=True, fail=False) is None


def test_kombu(eda_broker: EmbeddedBrokerThread) -> None:
    with kombu.Connection(eda_broker.url, transport_options={"confirm_publish": True}) as connection:
        orders, dead = kombu.Exchange("orders", "topic"), kombu.Exchange("dead", "fanout")
        graveyard = kombu.Queue("dead", dead)
        jobs = kombu.Queue("jobs", orders, "order.*", queue_arguments={"x-dead-letter-exchange": "dead"})
        returned: list[Any] = []
        producer = kombu.Producer(connection, orders, on_return=lambda *told: returned.append(told[-1]))
        producer.publish({"number": 0}, routing_key="nobody", mandatory=True)
        assert [each.body for each in returned] == ['{"number": 0}']
        seen: list[int] = []

        def handle(body: Any, message: Any) -> None:
            seen.append(body["number"])
            if body["number"] % 3:
                message.ack()
            else:
                message.reject()

        graveyard(connection.default_channel).declare()
        with kombu.Consumer(connection, [jobs], callbacks=[handle], prefetch_count=4, accept=["json"]):
            for number in range(10):
                producer.publish({"number": number}, routing_key="order.placed", declare=[orders], retry=True)
            while len(seen) < 10:
                connection.drain_events(timeout=60)
        assert seen == list(range(10))
        letters = [graveyard(connection.default_channel).get() for _ in range(4)]
        assert [each.decode()["number"] for each in letters] == [0, 3, 6, 9]
        assert graveyard(connection.default_channel).get() is None
