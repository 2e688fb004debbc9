"""A service whose user may configure nothing: the permissions of docs/architecture.rst, "Permissions", suffice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eda_core.messages.routing import EXCHANGES
from tests.adapters.aio.conftest import broker
from tests.adapters.pika import support as on_pika
from tests.support import services as on_aio
from tests.support.services import BrokerUnderTest, asynchronous, peer

__all__ = ["broker"]

#: The embedded broker has no permissions.
on_rabbitmq = pytest.mark.parametrize("broker", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)], indirect=True)


async def prepared(broker: BrokerUnderTest, more: str = "") -> str:
    """The operator declares all, and gives a user the least permissions. Returns the URL of that user.

    Args:
        more: what else it may write and read, as a part of a regular expression.
    """
    node, user = broker.node, f"least-{broker.vhost}"
    assert node is not None

    def permit() -> None:
        node.ctl("add_user", user, "guest")
        write = f"^(events|commands|configurations|logs|amq\\.default|probe\\..*{more})$"
        read = f"^(events|commands|probe\\..*{more})$"
        node.ctl("set_permissions", "-p", broker.vhost, user, "^$", write, read)

    await asyncio.to_thread(permit)
    async with peer(broker.url) as client:
        for exchange in EXCHANGES:
            await client.channel.declare_exchange(exchange, "topic", durable=True)
        for queue in ("probe.events", "probe.commands"):
            await client.channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
    return broker.url.replace("guest:guest@", f"{user}:guest@")


class AioRelay(on_aio.Probe):
    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.seen.add(payload)
        await self.publish_event("Relayed", payload, conversation_id)


class PikaRelay(on_pika.Probe):
    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.note(payload)
        self.publish_event("Relayed", payload, conversation_id)


async def relay(running: Any, service: Any, broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """The service relays events, and has warned once about the exchanges and once about each queue."""
    async with running(service), peer(broker.url) as client:
        relayed = await client.tap("events", "Relayed")
        for number in range(3):
            body, headers = b"%d" % number, {"conversation_id": "c"}
            await client.publish("events", "Happened", body, content_type="application/json", headers=headers)
        assert sorted(await service.seen.count(3)) == [0, 1, 2]
        await relayed.count(3)
    told = [text for text in caplog.messages if "as it is" in text or "as they are" in text]
    assert len(told) == 3
    assert sum("the exchanges are used" in text for text in told) == 1
    assert sum("the queue probe." in text for text in told) == 2


@on_rabbitmq
@asynchronous
async def test_a_service_of_coroutines(broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    service = AioRelay(await prepared(broker), ["Happened"], ["probe.Do"])
    await relay(on_aio.running, service, broker, caplog)


@on_rabbitmq
@asynchronous
async def test_a_service_of_callbacks(broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    service = PikaRelay(await prepared(broker), ["Happened"], ["probe.Do"])
    await relay(on_pika.running, service, broker, caplog)


class Late(AioRelay):
    DELAYED_MESSAGES = True


@on_rabbitmq
@asynchronous
async def test_a_service_of_delayed_messages(broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    operator = Late(broker.url, [], [], "operator")
    async with on_aio.running(operator):
        pass
    service = Late(await prepared(broker, "|delay\\..*"), ["Happened"], ["probe.Do"])
    async with on_aio.running(service):
        await service.publish_event("Happened", 1, "c", delay=1)
        assert await service.seen.count(1) == [1]
    told = [text for text in caplog.messages if "as it is" in text or "as they are" in text]
    assert sum("the exchanges are used" in text for text in told) == 1
    assert sum("the queue delay." in text for text in told) == 1
