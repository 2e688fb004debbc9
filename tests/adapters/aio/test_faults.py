"""Faults: connections cut, brokers gone and killed, queues and exchanges deleted. Nothing may be lost."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eda_aio.transport import Connection
from eda_core import PublishError, Reject
from eda_tools.broker import EmbeddedBroker
from tests.support.rabbitmq import free_port
from tests.support.services import (
    TIMEOUT,
    BrokerUnderTest,
    Probe,
    Program,
    asynchronous,
    conversation,
    peer,
    program,
    reports,
    running,
    within,
)
from tests.support.vhosts import Victim

Meta = dict[str, Any]
NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


class Listener(Probe):
    """Notes the numbers it gets."""

    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)

    async def has_all(self, numbers: range, seconds: float = TIMEOUT) -> None:
        def complete(seen: list[int]) -> bool:
            return len(seen) >= len(numbers) and set(seen) >= set(numbers)

        try:
            await self.seen.until(complete, f"all {len(numbers)} events", seconds)
        except pytest.fail.Exception as failed:
            missing = sorted(set(numbers) - set(self.seen.all))
            pytest.fail(f"{self.logical_service}: {failed}; {len(missing)} are missing: {missing[:20]}")


class Relay(Listener):
    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)
        await self.publish_event("Relayed", payload, conversation_id)


class Slow(Listener):
    """Its handlers note that they begin, and wait for the gate before they publish."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"], name="slow")
        self.gate = asyncio.Event()

    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add("begun")
        await self.gate.wait()
        await self.publish_event("Relayed", payload, conversation_id)
        self.seen.add("done")


async def publish_all(source: Probe, numbers: range, at_once: int = 50) -> None:
    """Publish ``Happened`` with each number, outside handlers, ``at_once`` at a time. Return when all are confirmed."""
    places = asyncio.Semaphore(at_once)

    async def publish(number: int) -> None:
        async with places:
            await source.publish_event("Happened", number, conversation())

    await asyncio.gather(*map(publish, numbers))


def three(url: str) -> tuple[Probe, Relay, Listener]:
    """A service that publishes, one that relays each event in its handler, and one that collects what was relayed."""
    relay = Relay(url, ["Happened"], name="relay")
    return Probe(url, name="source"), relay, Listener(url, ["Relayed"], name="collector")


async def all_again(*services: Probe) -> None:
    """Wait until each has had a second link: publishes and deliveries do not wait for ``on_ready``."""
    for service in services:
        await service.ready.count(2)


# --- the embedded broker ---


@asynchronous
async def test_nothing_is_lost_when_connections_are_cut() -> None:
    numbers = range(400)
    async with EmbeddedBroker() as broker:
        source, relay, collector = three(broker.url)
        async with running(source, relay, collector) as runs:
            publishing = asyncio.create_task(publish_all(source, numbers))
            for handled in (60, 120, 180):
                await relay.seen.count(handled)
                await broker.cut()
            await within(publishing, "the confirms of all publishes")
            await relay.has_all(numbers)
            await collector.has_all(numbers)
            assert not any(run.done() for run in runs)
            await all_again(source, relay, collector)


@pytest.mark.parametrize("how", ["stop", "kill"])
@asynchronous
async def test_services_wait_for_a_broker_that_is_gone_and_comes_back(how: str) -> None:
    numbers = range(300)
    broker = EmbeddedBroker()
    await broker.start()
    try:
        source, relay, collector = three(broker.url)
        with reports() as log:
            async with running(source, relay, collector) as runs:
                earlier = asyncio.create_task(publish_all(source, numbers[:200]))
                await relay.seen.count(100)
                if how == "kill":
                    await broker.kill()
                await broker.stop()
                log.all.clear()
                publishing = asyncio.gather(earlier, publish_all(source, numbers[200:]))
                refused = f"[Errno {errno.ECONNREFUSED}]"
                await log.until(lambda all: sum(refused in text for text in all) >= 6, "six attempts in vain")
                assert not publishing.done()
                assert not any(run.done() for run in runs)
                broker = EmbeddedBroker(port=broker.port, broker=broker.broker)  # what is durable is still there
                await broker.start()
                await within(publishing, "the confirms of all publishes")
                await collector.has_all(numbers)
    finally:
        await broker.stop()


@asynchronous
async def test_a_service_may_start_before_its_broker() -> None:
    port = free_port()
    service = Relay(f"amqp://127.0.0.1:{port}/", ["Happened"])
    with reports() as log:
        async with running(service, ready=False):
            publish = asyncio.create_task(service.publish_event("Happened", 1, "c"))
            await log.until(lambda all: any("no link to" in text for text in all), "an attempt in vain")
            async with EmbeddedBroker(port=port):
                await service.ready.next()
                await within(publish, "the confirm of what was published before")
                await service.has_all(range(1, 2))
                await service.stop()


@asynchronous
async def test_urls_are_tried_in_turn() -> None:
    async with EmbeddedBroker() as strict, EmbeddedBroker(users={"guest": "other"}) as foreign:
        service = Listener([NOWHERE, foreign.url, strict.url], ["Happened"])
        async with running(service):
            await service.publish_event("Happened", 1, "c")
            await service.has_all(range(1, 2))
            await strict.cut()
            await service.ready.count(2)
            await service.publish_event("Happened", 2, "c")
            await service.has_all(range(1, 3))


class OneByOne(Slow):
    PREFETCH_COUNT = 1

    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)
        await self.gate.wait()


@asynchronous
async def test_an_alarm_stops_publishing_and_not_consuming() -> None:
    """The broker reads nothing from connections that publish, so acknowledgements use another connection."""
    async with EmbeddedBroker() as broker:
        service = OneByOne(broker.url)
        with reports() as log:
            async with running(service):
                await publish_all(service, range(3))
                await service.seen.count(1)
                await broker.operate(lambda model, now: model.set_alarm(True, now=now))
                publish = asyncio.create_task(service.publish_event("Other", 1, "c"))
                service.gate.set()
                await service.has_all(range(3))  # each comes when the one before is acknowledged
                assert not publish.done()
                await broker.operate(lambda model, now: model.set_alarm(False, now=now))
                await within(publish, "the confirm after the alarm")
        lines = [text for text in log.all if "publish" in text]
        assert lines[:2] == ["the broker blocks publishing: low on memory", "the broker takes publishes again"]


class Rejecting(Slow):
    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)
        await self.gate.wait()
        raise Reject("as asked")


@asynchronous
async def test_logs_do_not_pile_up_while_the_broker_reads_nothing() -> None:
    """Logs may be dropped, and an alarm may last for hours."""
    async with EmbeddedBroker() as broker:
        service = Rejecting(broker.url)
        with reports() as log:
            async with running(service), peer(broker.url) as client:
                logs, dead = await client.tap("logs"), await client.consume("dead-letters")
                await service.publish_event("Happened", 1, "c")
                await service.seen.next()
                await broker.operate(lambda model, now: model.set_alarm(True, now=now))
                publish = asyncio.create_task(service.publish_event("Other", 2, "c"))
                await log.until(lambda all: any("blocks publishing" in text for text in all), "the alarm")
                for _ in range(300):  # 30 MB; the system's buffers hold some of it
                    await service.log(6, "x" * 100_000)
                service.gate.set()
                await dead.next()  # rejected on the other connection, after all that was to be logged
                await broker.operate(lambda model, now: model.set_alarm(False, now=now))
                await within(publish, "the confirm after the alarm, which comes after all that was sent before")
                await service.log(6, "the last")
                await logs.until(lambda all: b"the last" in all[-1].body if all else False, "the last log")
        assert 1 < len(logs.all) < 200


# --- either broker ---


@asynchronous
async def test_a_deleted_queue_is_declared_and_consumed_again(broker: BrokerUnderTest) -> None:
    service = Listener(broker.url, ["Happened"])
    async with running(service), peer(broker.url) as client:
        await service.publish_event("Happened", 1, "c")
        await service.seen.count(1)
        await client.channel.queue_delete("probe.events")
        await service.ready.count(2)
        await service.publish_event("Happened", 2, "c")
        await service.seen.count(2)


@asynchronous
async def test_a_publish_survives_the_loss_of_its_exchange(broker: BrokerUnderTest) -> None:
    """The broker closes the channel; the exchange is declared again and the message is sent again."""
    service = Listener(broker.url, ["Happened"])
    with reports() as log:
        async with running(service), peer(broker.url) as client:
            await client.channel.exchange_delete("events")
            await within(service.publish_event("Happened", 1, "c"), "the confirm on the new channel")
            await service.has_all(range(1, 2))
            assert len(await service.ready.count(2)) == 2
    assert any("no exchange 'events'" in text for text in log.all), "the log says why the connection was given up"


@asynchronous
async def test_a_closed_channel_is_noticed_where_nothing_is_confirmed(broker: BrokerUnderTest) -> None:
    """Logs have a channel of their own, which the broker closes when their exchange is gone."""
    service = Listener(broker.url, ["Happened"])
    async with running(service), peer(broker.url) as client:
        await client.channel.exchange_delete("logs")
        await service.log(6, "into the void")
        await service.ready.count(2)
        logs = await client.tap("logs")
        await service.log(6, "heard")
        assert b"heard" in (await logs.next()).body


@asynchronous
async def test_a_queue_with_other_arguments_is_told_and_waited_for(broker: BrokerUnderTest) -> None:
    """An operator's mistake: the service says so and serves as soon as it is corrected."""
    service = Listener(broker.url, ["Happened"])
    with reports() as log:
        async with peer(broker.url) as client:
            await client.channel.declare_queue("probe.events", durable=True, arguments={"x-max-length": 5})
            async with running(service, ready=False):
                await log.until(lambda all: any("PRECONDITION_FAILED" in text for text in all), "the broker's reason")
                await client.channel.queue_delete("probe.events")
                await service.ready.next()
                await service.publish_event("Happened", 1, "c")
                await service.seen.count(1)


@asynchronous
async def test_a_handler_that_outlives_its_connection_goes_on_for_the_next_delivery(broker: BrokerUnderTest) -> None:
    """Its message is delivered again. No second handler begins beside it, and what it publishes is sent once."""
    slow, collector = Slow(broker.url), Listener(broker.url, ["Relayed"], name="collector")
    async with running(slow, collector):
        await slow.publish_event("Happened", 1, "c")
        await slow.seen.count(1)
        await broker.cut()
        await collector.ready.count(2)
        await slow.ready.count(2)
        await slow.publish_event("Happened", 2, "c")
        await slow.seen.count(2)  # it stands behind the first one, which has been delivered again by now
        slow.gate.set()
        await slow.seen.count(4)
        assert slow.seen.all == ["begun", "begun", "done", "done"], "each was handled once"
        await slow.publish_event("Relayed", 3, "c")
        await collector.has_all(range(1, 4))
    assert sorted(collector.seen.all) == [1, 2, 3]


# --- a broker that says nothing any more ---


class Alert(Listener):
    HEARTBEAT = 1


class Hasty(Listener):
    STOP_TIMEOUT = 0.5


@asynccontextmanager
async def with_a_broker_to_freeze(kind: type[Listener]) -> AsyncIterator[tuple[Listener, asyncio.Task[None], Program]]:
    """A service that consumes, its ``run()``, and its broker, the embedded one in a process of its own."""
    async with program("-m", "eda_tools.broker", "--port", "0") as process:
        service = kind((await process.lines.next()).removeprefix("listening on "), ["Happened"])
        async with running(service) as (run,):
            await service.publish_event("Happened", 0, "c")
            await service.seen.count(1)
            yield service, run, process


@asynchronous
async def test_a_silent_broker_is_waited_for_twice_the_heartbeat() -> None:
    """aiormq waits three times, which is a minute by default. It adds a second to the heartbeat."""
    link: Any = None
    connection = Connection("amqp://localhost/?heartbeat=20", None, link, {})
    assert vars(connection)["_Connection__heartbeat_grace_timeout"] == 42


@asynchronous
async def test_a_frozen_broker_is_noticed_by_its_silence() -> None:
    with reports() as log:
        async with with_a_broker_to_freeze(Alert) as (service, _, broker):
            broker.process.send_signal(signal.SIGSTOP)
            publish = asyncio.create_task(service.publish_event("Happened", 1, "c"))
            await log.until(lambda all: any("no link to" in text for text in all), "the loss of the connection")
            assert not publish.done()
            broker.process.send_signal(signal.SIGCONT)
            await within(publish, "the confirm on the next connection")
            await service.has_all(range(2))


@asynchronous
async def test_a_frozen_broker_does_not_keep_a_service_from_stopping() -> None:
    """It takes STOP_TIMEOUT, at most 5 s until the machine gives up closing, and at most 5 s for the link to close."""
    async with with_a_broker_to_freeze(Hasty) as (service, run, broker):
        broker.process.send_signal(signal.SIGSTOP)
        publish = asyncio.create_task(service.publish_event("Happened", 1, "c"))
        await asyncio.sleep(0)  # it has begun
        await service.stop()
        await within(run, "the end of run()", 0.5 + 5 + 5 + 1)
        with pytest.raises(PublishError, match="stopped before the broker confirmed it"):
            await publish


# --- RabbitMQ, killed ---


@pytest.mark.rabbitmq
def test_nothing_is_lost_when_rabbitmq_is_killed(rabbit_victim: Victim) -> None:
    """SIGKILL in the middle of 500 events, each relayed within its handler; then the node starts again."""
    numbers, node = range(500), rabbit_victim.node

    async def scenario() -> None:
        source, relay, collector = three(rabbit_victim.url)
        async with running(source, relay, collector) as runs:
            await asyncio.to_thread(node.sync)
            first = asyncio.create_task(publish_all(source, numbers[:300]))
            await relay.seen.count(150)
            publishing = asyncio.gather(first, publish_all(source, numbers[300:]))
            await asyncio.sleep(0)  # the last 200 are handed over, and no confirm of theirs can have been read
            node.kill()
            assert not publishing.done(), "killed too late to show anything"
            assert len(collector.seen.all) < len(numbers)
            await asyncio.to_thread(node.start)
            await within(publishing, "the confirms of all publishes", 40)
            await relay.has_all(numbers, 40)
            await collector.has_all(numbers, 40)
            assert not any(run.done() for run in runs)
            await all_again(source, relay, collector)

    asyncio.run(within(scenario(), "the whole test", 100))
