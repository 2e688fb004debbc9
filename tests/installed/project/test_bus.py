"""The plugin without any service: nothing but the extra ``testing`` is needed."""

from __future__ import annotations

import asyncio

import pytest

from eda_core.testing.live import Bus, EmbeddedBrokerThread, NotArrived, RabbitVhost, ServiceRunner


def test_what_is_published_arrives(eda_broker: EmbeddedBrokerThread, eda_bus: Bus, eda_service: ServiceRunner) -> None:
    sent = eda_bus.publish_event("Started", {"n": 1})
    (arrived,) = eda_bus.arrivals()
    assert (arrived.message.payload, arrived.message.conversation_id) == ({"n": 1}, sent.conversation_id)
    assert eda_service.errors == []
    assert eda_broker.url.startswith("amqp://")


def test_what_does_not_arrive_is_told(eda_bus: Bus) -> None:
    eda_bus.publish_event("Started", {"n": 1}, "c1")
    with pytest.raises(NotArrived, match="no event Ended within 0 s"):
        eda_bus.expect_event("Ended", within=0)


def test_methods_are_awaited_in_a_coroutine(eda_bus: Bus) -> None:
    async def publish() -> int:
        await eda_bus.aio.publish_event("Started", {"n": 1})
        return len(await eda_bus.aio.arrivals())

    assert asyncio.run(publish()) == 1


def test_rabbitmq_runs_or_is_said_how_to_get(eda_rabbitmq: RabbitVhost, eda_bus: Bus) -> None:
    assert eda_rabbitmq.node.running
    eda_bus.publish_event("Started", {"n": 1})
    (arrived,) = eda_bus.arrivals()
    assert arrived.message.payload == {"n": 1}
