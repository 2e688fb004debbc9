"""How often a message fails before it becomes a dead letter, on classic and on quorum queues of RabbitMQ."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aio_pika
import pytest

from eda_core import RetryPolicy
from tests.support.rabbitmq import RabbitNode
from tests.support.services import Peer, Probe, asynchronous, operate_dead_letters, peer, running

Meta = dict[str, Any]
ATTEMPTS = 5


class Failing(Probe):
    """Its handler notes each payload, and fails as often as the payload says."""

    RETRY_POLICY = RetryPolicy(ATTEMPTS, max_losses=3)
    PREFETCH_COUNT = 20

    def __init__(self, url: str, failures: Counter[str]) -> None:
        super().__init__(url, ["Happened"], name="failing")
        self.failures = failures

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        name, times = payload
        self.seen.add(name)
        if self.failures[name] < times:
            self.failures[name] += 1
            raise ValueError("on purpose")


class Counted(Failing):
    """It counts the failures of all workers on a queue of any kind."""

    RETRY_POLICY = RetryPolicy(ATTEMPTS, max_losses=3, counted=True)


class Broker:
    """A vhost of RabbitMQ, and a client.

    Attributes:
        counts_losses: whether its queues tell losses and failures apart.
    """

    def __init__(self, url: str, client: Peer, kind: str, version: tuple[int, ...]) -> None:
        self.url = url
        self.client = client
        self.quorum = kind == "quorum"
        self.counts_losses = self.quorum and version >= (4, 3)

    async def publish(self, name: str, times: int) -> None:
        """Publish an event whose handler is to fail so often. The service must have run before."""
        headers = {"conversation_id": "c"}
        body = f'["{name}", {times}]'.encode()
        properties = {"headers": headers, "content_type": "application/json", "message_id": name, "delivery_mode": 2}
        await self.client.publish("events", "Happened", body, **properties)

    async def lose(self, count: int, times: int = 1) -> None:
        """Do what a worker does that is killed with ``count`` messages in flight, so often."""
        for _ in range(times):
            async with await aio_pika.connect(self.url) as connection:
                channel = await connection.channel()
                await channel.set_qos(count)
                taken = asyncio.Semaphore(0)
                queue = await channel.get_queue("failing.events", ensure=False)

                async def take(_message: Any, taken: asyncio.Semaphore = taken) -> None:
                    taken.release()

                await queue.consume(take)
                for _ in range(count):
                    await asyncio.wait_for(taken.acquire(), 20)


@asynccontextmanager
async def prepared(node: RabbitNode, kind: str) -> AsyncIterator[Broker]:
    """Yield a vhost whose queues are of this kind, with the queue of the service and the dead letters."""
    vhost = f"counts-{kind}"
    await asyncio.to_thread(node.ctl, "add_vhost", vhost, "--default-queue-type", kind)
    await asyncio.to_thread(node.ctl, "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    url = node.vhost_url(vhost)
    try:
        async with peer(url) as client:
            await operate_dead_letters(node, vhost, client)
            async with running(Failing(url, Counter())):
                pass  # it has declared its queue
            yield Broker(url, client, kind, await version_of(url))
    finally:
        await asyncio.to_thread(node.ctl, "delete_vhost", vhost)


async def version_of(url: str) -> tuple[int, ...]:
    """Return the version of the broker."""
    async with await aio_pika.connect(url) as connection:
        transport: Any = connection.transport
        text = transport.connection.server_properties["version"]
        return tuple(map(int, text.split(".")[:2]))


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_poison_message_has_its_attempts_whatever_the_workers(kind: str, rabbitmq: RabbitNode) -> None:
    """On a quorum queue exactly. On a classic queue each of three workers knows only of its own failures."""

    @asynchronous
    async def test() -> None:
        async with prepared(rabbitmq, kind) as broker, AsyncExitStack() as stack:
            failures: Counter[str] = Counter()
            await stack.enter_async_context(running(*(Failing(broker.url, failures) for _ in range(3))))
            dead = await broker.client.consume("dead-letters")
            for number in range(8):
                await broker.publish(f"m{number}", times=99)
            await dead.count(8)
            most = ATTEMPTS if broker.quorum else 3 * (ATTEMPTS - 1) + 1
            assert len(failures) == 8
            assert all(ATTEMPTS <= times <= most for times in failures.values()), failures

    test()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_counted_attempts_are_exact_whatever_the_workers_and_the_queue(kind: str, rabbitmq: RabbitNode) -> None:
    """In the middle of it the messages are lost with a worker that is killed."""

    @asynchronous
    async def test() -> None:
        async with prepared(rabbitmq, kind) as broker, AsyncExitStack() as stack:
            for number in range(8):
                await broker.publish(f"m{number}", times=99)
            await broker.lose(8)
            failures: Counter[str] = Counter()
            await stack.enter_async_context(running(*(Counted(broker.url, failures) for _ in range(3))))
            dead = await broker.client.consume("dead-letters")
            await dead.count(8)
            assert failures == {f"m{number}": ATTEMPTS for number in range(8)}
            assert await broker.client.waiting_in("failing.events") == 0

    test()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_what_was_in_flight_when_a_worker_was_killed_has_not_failed(kind: str, rabbitmq: RabbitNode) -> None:
    """Each message fails once less than the policy allows, and succeeds then."""

    @asynchronous
    async def test() -> None:
        async with prepared(rabbitmq, kind) as broker:
            for number in range(50):
                await broker.publish(f"m{number}", times=ATTEMPTS - 1)
            await broker.lose(50)
            failures: Counter[str] = Counter()
            service = Failing(broker.url, failures)
            async with running(service):
                dead = await broker.client.consume("dead-letters")
                if broker.quorum and not broker.counts_losses:
                    await dead.count(50)  # RabbitMQ counts the loss as it counts a failure
                else:
                    await service.seen.count(50 * ATTEMPTS)
            assert set(Counter(service.seen.all).values()) == {ATTEMPTS - bool(dead.all)}
            assert await broker.client.waiting_in("failing.events") == 0
            assert len(dead.all) == (50 if broker.quorum and not broker.counts_losses else 0)

    test()


def test_a_message_that_kills_each_of_its_workers_comes_to_the_dead_letters(rabbitmq: RabbitNode) -> None:
    @asynchronous
    async def test() -> None:
        async with prepared(rabbitmq, "quorum") as broker:
            await broker.publish("m", times=0)
            allowed = Failing.RETRY_POLICY.max_losses
            if not broker.counts_losses:
                allowed += ATTEMPTS - 1  # so many of the losses may have been failures
            await broker.lose(1, allowed + 1)
            service = Failing(broker.url, Counter())
            async with running(service):
                dead = await broker.client.consume("dead-letters")
                (letter,) = await dead.count(1)
                assert letter.message_id == "m"
                assert service.seen.all == []

    test()
