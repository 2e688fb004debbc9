"""Task groups, timeouts and cancellation around what a service offers, on each broker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest

from eda_core import CommandTimeout, ReconnectPolicy
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import (
    BrokerUnderTest,
    Probe,
    asynchronous,
    conversation,
    peer,
    reports,
    running,
    within,
)

Meta = dict[str, Any]


class Grouping(Probe):
    """Publishes from the tasks of a group, one of which may fail while another waits for a result."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"], ["grouping.#"], "grouping")
        self.gate = asyncio.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(self.publish_event("Part", number, conversation_id))
            if payload == "poison":
                group.create_task(self.ask())
                group.create_task(self.fail())
            self.seen.add("published")
            await self.gate.wait()

    async def ask(self) -> None:
        try:
            await self.call("grouping.Never", 1, timeout=600)
        except asyncio.CancelledError:
            self.seen.add("cancelled")
            raise

    async def fail(self) -> None:
        await self.gate.wait()
        raise ValueError("a part is missing")

    async def on_Never(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> None:
        self.gate.set()


@asynchronous
async def test_what_a_group_in_a_handler_publishes_is_of_that_handler(broker: BrokerUnderTest) -> None:
    service = Grouping(broker.url)
    async with running(service), peer(broker.url) as client:
        wire = await client.tap("events")
        await service.publish_event("Happened", "fine", "c")
        assert await service.seen.next() == "published"
        await client.waiting_in("grouping.events")
        assert [message.routing_key for message in wire.all] == ["Happened"], "held until the handler is over"
        service.gate.set()
        source, *parts = await wire.count(4)
        assert {part.headers["causation_id"] for part in parts} == {source.message_id}
    async with peer(broker.url) as client:
        assert await client.waiting_in("grouping.events") == 0


@asynchronous
async def test_a_group_that_fails_publishes_nothing_and_its_calls_are_cancelled(broker: BrokerUnderTest) -> None:
    service = Grouping(broker.url)
    async with running(service), peer(broker.url) as client:
        dead, wire, logs = await broker.dead_letters(client), await client.tap("events"), await client.tap("logs")
        await service.publish_event("Happened", "poison", "c")
        assert b"poison" in (await dead.next()).body
        assert service.seen.all.count("cancelled") == 2, "once in each attempt"
        await logs.until(lambda all: any(b"a part is missing" in log.body for log in all), "the traceback of the part")
        await service.publish_event("Marker", 1, "c")
        await wire.until(lambda all: all[-1].routing_key == "Marker", "the marker")
        assert {message.routing_key for message in wire.all} == {"Happened", "Marker"}


@asynchronous
async def test_a_publish_whose_caller_was_cancelled_is_sent_all_the_same() -> None:
    """It was accepted, and nothing that was accepted is dropped."""
    with EmbeddedBrokerThread() as embedded:
        source = Probe(embedded.url)
        async with running(source), peer(embedded.url) as client:
            events = await client.tap("events")
            embedded.operate(lambda broker, now: broker.set_alarm(True, now=now))
            publish = asyncio.create_task(source.publish_event("Happened", 1, "c"))
            await client.waiting_in("dead-letters")
            assert not publish.done()
            publish.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publish
            embedded.operate(lambda broker, now: broker.set_alarm(False, now=now))
            assert (await events.next()).body == b"\x01"
            await within(source.publish_event("Happened", 2, "c"), "the service goes on")


@asynchronous
async def test_a_publish_cancelled_while_it_waits_for_space_is_not_sent() -> None:
    class Narrow(Probe):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            self.BUFFER = 2  # type: ignore[misc]

    with EmbeddedBrokerThread() as embedded:
        source = Narrow(embedded.url)
        async with running(source), peer(embedded.url) as client:
            events = await client.tap("events")
            embedded.operate(lambda broker, now: broker.set_alarm(True, now=now))
            publishes = [asyncio.create_task(source.publish_event("Happened", number, "c")) for number in range(4)]
            await client.waiting_in("dead-letters")
            assert not any(publish.done() for publish in publishes)
            publishes[2].cancel()
            embedded.operate(lambda broker, now: broker.set_alarm(False, now=now))
            ended = await within(asyncio.gather(*publishes, return_exceptions=True), "the end of all publishes")
            assert [type(end) for end in ended] == [type(None), type(None), asyncio.CancelledError, type(None)]
            await events.count(3)
            await client.waiting_in("dead-letters")
            assert [message.body for message in events.all] == [b"\x00", b"\x01", b"\x03"]


@asynchronous
async def test_a_timeout_of_asyncio_around_a_call_is_a_cancellation(broker: BrokerUnderTest) -> None:
    class Slow(Probe):
        def __init__(self, url: str) -> None:
            super().__init__(url, [], ["slow.#"], "slow")
            self.gate = asyncio.Event()

        async def on_Wait(
            self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
        ) -> None:
            await self.gate.wait()
            await self.return_success(reply_to, payload, conversation_id, correlation_id)

    slow, asker = Slow(broker.url), Probe(broker.url, name="asker")
    async with running(slow, asker):
        with reports() as record:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await asker.call("slow.Wait", 1, timeout=600)
            assert not isinstance(caught.value, CommandTimeout)
            slow.gate.set()
            await record.until(lambda lines: any("nobody waits for" in line for line in lines), "its result is dropped")
        assert await asker.call("slow.Wait", 2) == 2


class Fickle(Probe):
    """Its handler cancels itself the first time."""

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)
        await self.publish_event("Handled", payload, conversation_id)
        if len(self.seen.all) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)


@asynchronous
async def test_a_handler_that_is_cancelled_has_failed_and_is_tried_again(broker: BrokerUnderTest) -> None:
    service = Fickle(broker.url, ["Happened"])
    async with running(service), peer(broker.url) as client:
        handled = await client.tap("events", "Handled")
        await service.publish_event("Happened", 1, conversation())
        await handled.next()
        assert service.seen.all == [1, 1]
        assert len(handled.all) == 1


class Stubborn(Probe):
    """Its handler goes on after it is cancelled, until the gate is open."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"])
        self.gate = asyncio.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add("begun")
        while not self.gate.is_set():
            with suppress(asyncio.CancelledError):
                await self.gate.wait()
        self.seen.add("done")


@asynchronous
async def test_a_handler_that_ignores_its_cancellation_is_left_behind(broker: BrokerUnderTest) -> None:
    service = Stubborn(broker.url)
    with reports() as record:
        async with running(service) as (run,), peer(broker.url) as client:
            await service.publish_event("Happened", 1, "c")
            await service.seen.next()
            machine = service.running_driver().machine
            machine.config = replace(machine.config, close_timeout=1.5)
            await service.stop(0.0)
            try:
                await within(asyncio.shield(run), "the end of run()", 10.0)
                assert service.seen.all == ["begun"]
            finally:
                service.gate.set()
            assert record.all[-1] == "1 handler(s) go on although they were cancelled; they are left behind"
            assert len(await client.drain("probe.events")) == 1, "its message goes to another worker"
            await service.seen.count(2)


_tenant: ContextVar[str] = ContextVar("tenant", default="none")


class Contextual(Probe):
    """Its first handler leaves something in its context, and a timer that is due while there is no broker."""

    RECONNECT_POLICY = ReconnectPolicy(base=0.6, cap=0.6)

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add((payload, _tenant.get()))
        if payload == 1:
            _tenant.set("of the first")
            self.call_later(0.1, lambda: self.seen.add(("timer", _tenant.get())))


@asynchronous
async def test_what_a_handler_leaves_in_its_context_is_not_seen_by_others() -> None:
    """Even if that timer reconnects: timers run in the context in which they were set."""
    with EmbeddedBrokerThread() as embedded:
        service = Contextual(embedded.url, ["Happened"])
        async with running(service):
            await service.publish_event("Happened", 1, "c")
            await service.seen.next()
            await asyncio.to_thread(embedded.cut)
            await service.ready.count(2)
            await service.publish_event("Happened", 2, "c")
            await service.seen.until(lambda seen: any(payload == 2 for payload, _ in seen), "the second event")
        assert {tenant for _, tenant in service.seen.all} == {"none"}
