"""A cluster that falls apart: a service does not stay with a node that cannot confirm what it publishes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pika
import pytest

from eda_core.testing.conformance import Worker
from eda_core.testing.conformance.running.runner import BROKER_TIMEOUT, Cast
from eda_core.testing.conformance.script import accept
from tests.conformance.test_conformance import ADAPTERS
from tests.support.rabbitmq import RabbitNode
from tests.support.rabbitmq_cluster import RabbitCluster, wait_until
from tests.support.services import asynchronous, within

QUEUE = "told"


@pytest.fixture
def apart(rabbit_cluster: RabbitCluster) -> Iterator[RabbitNode]:
    """A node that is to be cut off from the others, which join it again after the test."""
    node = rabbit_cluster.nodes[0]
    yield node
    rabbit_cluster.join(node)
    rabbit_cluster.start()


def told(node: RabbitNode, *, fresh: bool = False) -> list[bytes]:
    """Take what there is in a quorum queue for the events of the service; declare it if it is to be fresh."""
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        channel = connection.channel()
        if fresh:
            channel.exchange_declare("events", "topic", durable=True)
            channel.queue_delete(QUEUE)
            channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(QUEUE, "events", "Told")
        bodies = []
        while (body := channel.basic_get(QUEUE, auto_ack=True)[2]) is not None:
            bodies.append(body)
        return bodies


@pytest.mark.deep
@pytest.mark.parametrize("adapter", ADAPTERS)
@asynchronous
async def test_a_service_leaves_a_node_that_is_cut_off_from_most_others(
    adapter: str,
    rabbit_cluster: RabbitCluster,
    apart: RabbitNode,
    counted: Callable[[object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its connections are well, and the node answers, but no quorum queue can confirm there.

    Where Mnesia holds the definitions, the node ends its connections itself (``pause_minority``).
    """
    others = [node for node in rabbit_cluster.nodes if node is not apart]
    assert await asyncio.to_thread(told, others[0], fresh=True) == []
    cast = Cast(Worker("teller"), ADAPTERS[adapter], [node.url for node in (apart, *others)])
    await cast.start()
    try:
        await within(cast.seen("ready", 1), "the service is ready", BROKER_TIMEOUT)
        # The channel knows the queue then. The first publish to a queue would wait for its leader.
        await within(cast.subject.call("publish_event", ("Told", 0, "c-0"), {}), "the first publish")
        while not await asyncio.to_thread(told, others[0]):
            await asyncio.sleep(0.2)
        await asyncio.to_thread(rabbit_cluster.isolate, apart)
        await asyncio.to_thread(
            wait_until, lambda: all(rabbit_cluster.members(node) == 2 for node in others), "the others are two"
        )
        began = time.monotonic()
        publish = asyncio.create_task(cast.subject.call("publish_event", ("Told", 1, "c-1"), {}))
        await within(cast.seen("ready", 2), "the service has another link", BROKER_TIMEOUT)
        counted(f"{adapter}: {time.monotonic() - began:.1f} s until it has left the node")
        assert apart.version < (4, 1) or "the broker answers, but has confirmed no publish for" in caplog.text
        while not (bodies := await asyncio.to_thread(told, others[0])):
            await asyncio.sleep(0.2)
        assert len(bodies) == 1
        await within(publish, "the confirm")
    finally:
        await cast.subject.stop(0.0)
        assert cast.end is not None
        await within(cast.end, "the end of the service")


@pytest.mark.deep
@pytest.mark.parametrize("adapter", ADAPTERS)
@asynchronous
async def test_a_service_that_publishes_nothing_leaves_such_a_node_as_well(
    adapter: str,
    rabbit_cluster: RabbitCluster,
    apart: RabbitNode,
    counted: Callable[[object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing comes from the queue there, and the node says that there is a consumer and no message."""
    others = [node for node in rabbit_cluster.nodes if node is not apart]
    name = f"listener-{list(ADAPTERS).index(adapter)}"
    worker = Worker(name, events=["Asked"], handlers={"Asked": accept}, settings={"QUEUE_TYPE": "quorum"})
    cast = Cast(worker, ADAPTERS[adapter], [node.url for node in (apart, *others)])
    await cast.start()
    try:
        await within(cast.seen("ready", 1), "the service is ready", BROKER_TIMEOUT)
        await asyncio.to_thread(ask, others[0], 0)
        await within(cast.seen("Asked", 1), "the first message", BROKER_TIMEOUT)
        await asyncio.to_thread(rabbit_cluster.isolate, apart)
        await asyncio.to_thread(
            wait_until, lambda: all(rabbit_cluster.members(node) == 2 for node in others), "the others are two"
        )
        began = time.monotonic()
        await asyncio.to_thread(ask, others[0], 1)
        await within(cast.seen("Asked", 2), "the message that waits behind the other nodes", BROKER_TIMEOUT)
        counted(f"{adapter}: {time.monotonic() - began:.1f} s until the message came")
        assert apart.version < (4, 1) or "has not answered a declaration for" in caplog.text
    finally:
        await cast.subject.stop(0.0)
        assert cast.end is not None
        await within(cast.end, "the end of the service")


def ask(node: RabbitNode, number: int) -> None:
    """Publish an event, as soon as the queue behind has a leader again."""
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties("application/json", delivery_mode=2, headers={"conversation_id": "c"})
        channel.basic_publish("events", "Asked", str(number).encode(), properties)
