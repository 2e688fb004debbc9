"""Batches of events, on each broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eda_aio import Batch
from eda_core import LocalError, RawEvent
from tests.support.services import BrokerUnderTest, Probe, asynchronous, conversation, peer, running, within

Meta = dict[str, Any]


class Collector(Probe):
    """Hands over three events at a time, and counts them in an event of its own."""

    TIMEOUT = 60.0
    fails = 0

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Counted"], name="collector")
        self.batch = Batch(self, 3, self.TIMEOUT, self.take)

    async def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> bool:
        await self.batch.push(payload, conversation_id, meta)
        return True

    async def take(self, events: list[RawEvent]) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("no disk")
        await self.publish_event("Summed", sum(event.payload for event in events), events[0].conversation_id)
        self.seen.add([event.payload for event in events])


async def send(service: Probe, *numbers: int) -> None:
    for number in numbers:
        await service.publish_event("Counted", number, conversation())


@asynchronous
async def test_a_full_batch_is_handed_over_and_acknowledged(broker: BrokerUnderTest) -> None:
    service = Collector(broker.url)
    async with running(service), peer(broker.url) as client:
        sums = await client.tap("events", "Summed")
        await send(service, 1, 2, 3, 4)
        assert (await sums.next()).body == b"\x06"
        assert service.seen.all == [[1, 2, 3]]
    async with peer(broker.url) as client:  # the stop has handed over what there was
        assert service.seen.all == [[1, 2, 3], [4]]
        assert await client.waiting_in("collector.events") == 0


@asynchronous
async def test_a_batch_is_handed_over_when_its_time_has_come(broker: BrokerUnderTest) -> None:
    class Soon(Collector):
        TIMEOUT = 0.05

    service = Soon(broker.url)
    async with running(service):
        await send(service, 1)
        assert await service.seen.next() == [1]
        await send(service, 2)
        assert await service.seen.next() == [2]


@asynchronous
async def test_a_batch_that_fails_is_tried_again_by_the_policy(broker: BrokerUnderTest) -> None:
    service = Collector(broker.url)
    service.fails = 1
    async with running(service):
        await send(service, 1, 2, 3)
        assert sorted(await service.seen.next()) == [1, 2, 3]


@asynchronous
async def test_a_lost_link_leaves_each_event_to_its_redelivery(broker: BrokerUnderTest) -> None:
    service = Collector(broker.url)
    async with running(service), peer(broker.url) as client:
        await send(service, 1, 2)
        while len(service.batch._events) < 2:
            await client.waiting_in("collector.events")
        await broker.cut()
        await service.ready.count(2)
        await send(service, 3)
        assert sorted(await service.seen.next()) == [1, 2, 3]


@asynchronous
async def test_a_cancelled_hand_over_fails_its_events(broker: BrokerUnderTest) -> None:
    class Waiting(Collector):
        async def take(self, events: list[RawEvent]) -> None:
            self.seen.add(sorted(event.payload for event in events))
            await asyncio.Event().wait()

    service = Waiting(broker.url)
    async with running(service), peer(broker.url) as client:
        dead = await broker.dead_letters(client)
        await send(service, 1)
        while len(service.batch._events) < 1:
            await client.waiting_in("collector.events")
        for _ in range(2):  # the second attempt is the last
            expiring = asyncio.create_task(service.batch.expire())
            await service.seen.next()
            expiring.cancel()
            with pytest.raises(asyncio.CancelledError):
                await expiring
            if not dead.all:
                while len(service.batch._events) < 1 and not dead.all:
                    await client.waiting_in("collector.events")
        assert (await within(dead.next(), "the dead letter")).body == b"\x01"


@asynchronous
async def test_handlers_that_return_nothing_as_eventails_do_lose_no_event_of_the_batch(broker: BrokerUnderTest) -> None:
    """A batch has more events than may be unacknowledged: each event is acknowledged when its handler ends."""

    class One(Collector):
        PREFETCH_COUNT = 1

        async def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> None:  # type: ignore[override]
            await self.batch.push(payload, conversation_id, meta)

    service = One(broker.url)
    async with running(service), peer(broker.url) as client:
        sums = await client.tap("events", "Summed")
        await send(service, 1, 2, 3, 4)
        assert (await sums.next()).body == b"\x06"
        while len(service.batch) < 1:
            await client.waiting_in("collector.events")
    async with peer(broker.url) as client:
        assert service.seen.all == [[1, 2, 3], [4]]
        assert await client.waiting_in("collector.events") == 0


@asynchronous
async def test_a_callback_may_acknowledge_its_batch_by_hand_as_with_eventail(broker: BrokerUnderTest) -> None:
    class ByHand(Collector):
        PREFETCH_COUNT = 3

        async def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> bool:
            self.seen.add(payload)
            return await super().on_Counted(payload, conversation_id, meta)

        async def take(self, events: list[RawEvent]) -> None:
            await self.manual_ack(events[-1].meta["delivery_tag"], multiple=True)
            self.seen.add([event.payload for event in events])

    service = ByHand(broker.url)
    async with running(service):
        await send(service, 1, 2, 3, 4)
        await service.seen.count(5)  # the broker has the acknowledgement: it delivers the fourth
        await broker.cut()
        await service.seen.count(6)
    assert service.seen.all == [1, 2, 3, [1, 2, 3], 4, 4, [4]]
    async with peer(broker.url) as client:
        assert await client.waiting_in("collector.events") == 0


class Slow(Collector):
    """Its handler pushes and goes on until ``handles`` is set, its callback until ``takes`` is."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.handles, self.takes = asyncio.Event(), asyncio.Event()

    async def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> None:  # type: ignore[override]
        await self.batch.push(payload, conversation_id, meta)
        self.seen.add("pushed")
        await self.handles.wait()
        self.seen.add("handled")

    async def take(self, events: list[RawEvent]) -> None:
        self.seen.add([event.payload for event in events])
        await self.takes.wait()
        self.seen.add("taken")


@asynchronous
async def test_a_stop_waits_for_the_callback_of_a_batch_whose_handler_ended_meanwhile(broker: BrokerUnderTest) -> None:
    service = Slow(broker.url)
    async with running(service) as (run,), peer(broker.url) as client:
        await send(service, 1)
        await service.seen.count(1)
        await service.stop()
        await service.seen.count(2)
        service.handles.set()
        await service.seen.count(3)
        done, _ = await asyncio.wait([run], timeout=0.2)
        assert not done, "it ended before the callback"
        service.takes.set()
        await within(asyncio.shield(run), "the end")
        assert service.seen.all == ["pushed", [1], "handled", "taken"]
        assert await client.waiting_in("collector.events") == 0


@asynchronous
async def test_an_event_whose_callback_does_not_end_in_time_is_left_to_others(broker: BrokerUnderTest) -> None:
    service = Slow(broker.url)
    async with running(service) as (run,), peer(broker.url) as client:
        await send(service, 1)
        await service.seen.count(1)
        await service.stop()
        await service.seen.count(2)
        service.handles.set()
        await service.seen.count(3)
        await service.stop(0)
        await within(asyncio.shield(run), "the end")
        assert service.seen.all == ["pushed", [1], "handled"]
        while await client.waiting_in("collector.events") != 1:
            pass


def test_a_batch_that_could_never_be_is_refused() -> None:
    service = Probe("amqp://127.0.0.1:1/")
    with pytest.raises(LocalError, match="max_entries is 0"):
        Batch(service, 0, 1.0, print)
