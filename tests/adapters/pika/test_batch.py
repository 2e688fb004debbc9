"""Batches of events, with handlers in the loop's thread and in their own."""

from __future__ import annotations

import threading
from typing import Any

import cbor2
import pytest

from eda_core import LocalError, RawEvent, StateError
from eda_pika import Batch, Service
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import Broken, Probe, running
from tests.support.services import asynchronous, conversation, peer, within

pytestmark = pytest.mark.usefixtures("either_way")

Meta = dict[str, Any]
IN_THREADS = pytest.mark.parametrize("threads", [0, 3])


class Collector(Probe):
    """Hands over three events at a time, and counts them in an event of its own."""

    TIMEOUT = 60.0
    fails: tuple[BaseException, ...] = ()

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Counted"], name="collector")
        self.batch = Batch(self, 3, self.TIMEOUT, self.take)

    def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> bool:
        self.batch.push(payload, conversation_id, meta)
        return True

    def take(self, events: list[RawEvent]) -> None:
        if self.fails:
            failure, *rest = self.fails
            self.fails = tuple(rest)
            raise failure
        self.publish_event("Summed", sum(event.payload for event in events), events[0].conversation_id)
        self.note(sorted(event.payload for event in events))


def collector(url: str, threads: int, **attributes: Any) -> Collector:
    kind: Any = type("Collector", (Collector,), {"HANDLER_THREADS": threads, **attributes})
    made: Collector = kind(url)
    return made


async def send(service: Probe, *numbers: int) -> None:
    for number in numbers:
        await service.do(service.publish_event, "Counted", number, conversation())


@IN_THREADS
@asynchronous
async def test_a_full_batch_is_handed_over_and_acknowledged(threads: int) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = collector(broker.url, threads)
        async with running(service):
            sums = await client.tap("events", "Summed")
            await send(service, 1, 2, 3)
            assert cbor2.loads((await sums.next()).body) == 6
            await send(service, 4)
            while len(service.batch._events) < 1:
                await client.waiting_in("collector.events")
        assert service.seen.all == [[1, 2, 3], [4]], "the stop hands over what there is"
        assert await client.waiting_in("collector.events") == 0


@IN_THREADS
@asynchronous
async def test_a_batch_is_handed_over_when_its_time_has_come(threads: int) -> None:
    async with EmbeddedBroker() as broker:
        service = collector(broker.url, threads, TIMEOUT=0.05)
        async with running(service):
            await send(service, 1)
            assert await service.seen.next() == [1]
            await send(service, 2)
            assert await service.seen.next() == [2]


@IN_THREADS
@asynchronous
async def test_a_batch_that_fails_is_tried_again_by_the_policy(threads: int) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = collector(broker.url, threads)
        service.fails = (OSError("no disk"),)
        async with running(service):
            await send(service, 1, 2, 3)
            assert await service.seen.next() == [1, 2, 3]
        assert await client.waiting_in("collector.events") == 0


@IN_THREADS
@asynchronous
async def test_a_batch_that_exits_ends_the_service_and_leaves_its_events_to_others(threads: int) -> None:
    async with EmbeddedBroker() as broker:
        service = collector(broker.url, threads)
        service.fails = (SystemExit(3),)
        source = Probe(broker.url, name="source")
        service.in_thread()
        await service.ready.count(1)
        async with running(source):
            await send(source, 1, 2, 3)
            with pytest.raises(Broken, match="SystemExit"):
                await service.ended()
        heir = collector(broker.url, threads)
        async with running(heir):
            assert await within(heir.seen.next(), "the batch of the heir") == [1, 2, 3]


@asynchronous
async def test_a_lost_link_leaves_each_event_to_its_redelivery() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = collector(broker.url, 0)
        async with running(service):
            await send(service, 1, 2)
            while len(service.batch._events) < 2:
                await client.waiting_in("collector.events")
            await broker.cut()
            await service.ready.count(2)
            await send(service, 3)
            assert await service.seen.next() == [1, 2, 3]


@asynchronous
async def test_an_event_whose_callback_does_not_end_in_time_is_left_to_others() -> None:
    """Its handler ended while the callback ran, which must not acknowledge it."""
    handles, takes = threading.Event(), threading.Event()

    def collect(self: Collector, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.batch.push(payload, conversation_id, meta)
        self.note("pushed")
        handles.wait()
        self.note("handled")

    def take(self: Collector, events: list[RawEvent]) -> None:
        self.note([event.payload for event in events])
        takes.wait()

    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = collector(broker.url, 3, on_Counted=collect, take=take)
        async with running(service):
            await send(service, 1)
            await service.seen.count(1)
            service.stop()
            await service.seen.count(2)
            handles.set()
            await service.seen.count(3)
            service.stop(0)
            await service.ended()
        takes.set()
        assert service.seen.all == ["pushed", [1], "handled"]
        while await client.waiting_in("collector.events") != 1:
            pass


def test_a_batch_that_could_never_be_is_refused() -> None:
    service = Service("amqp://127.0.0.1:1/", [], [], "service")
    with pytest.raises(LocalError, match="max_entries is 0"):
        Batch(service, 0, 1.0, print)
    with pytest.raises(LocalError, match="timeout is 0"):
        Batch(service, 1, 0, print)
    with pytest.raises(StateError, match="does not run"):
        Batch(service, 1, 1.0, print).expire()


@IN_THREADS
@asynchronous
async def test_handlers_that_return_nothing_as_eventails_do_lose_no_event_of_the_batch(threads: int) -> None:
    """A batch has more events than may be unacknowledged: each event is acknowledged when its handler ends."""

    def collect(self: Collector, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.batch.push(payload, conversation_id, meta)

    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = collector(broker.url, threads, on_Counted=collect, PREFETCH_COUNT=1)
        async with running(service):
            sums = await client.tap("events", "Summed")
            await send(service, 1, 2, 3, 4)
            assert cbor2.loads((await sums.next()).body) == 6
            while len(service.batch) < 1:
                await client.waiting_in("collector.events")
        assert service.seen.all == [[1, 2, 3], [4]]
        assert await client.waiting_in("collector.events") == 0


@asynchronous
async def test_a_callback_may_acknowledge_its_batch_by_hand_as_with_eventail() -> None:
    def take(self: Collector, events: list[RawEvent]) -> None:
        self.manual_ack(events[-1].meta["delivery_tag"], multiple=True)
        self.note([event.payload for event in events])

    def collect(self: Collector, payload: Any, conversation_id: str, meta: Meta) -> bool:
        self.note(payload)
        self.batch.push(payload, conversation_id, meta)
        return True

    async with EmbeddedBroker() as broker:
        service = collector(broker.url, 0, take=take, on_Counted=collect, PREFETCH_COUNT=3)
        async with running(service):
            await send(service, 1, 2, 3, 4)
            await service.seen.count(5)  # the broker has the acknowledgement: it delivers the fourth
            await broker.cut()
            await service.seen.count(6)
        assert service.seen.all == [1, 2, 3, [1, 2, 3], 4, 4, [4]]
        async with peer(broker.url) as client:
            assert await client.waiting_in("collector.events") == 0
