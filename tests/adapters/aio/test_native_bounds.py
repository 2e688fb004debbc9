"""What the native transport keeps in memory when one side is slower than the other, and that it reads on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from eda_core import criticality
from eda_core.drivers import CONSUMING, MAX_UNSENT, PUBLISHING
from eda_core.testing import Broker
from eda_core.testing.live.proxy import UP, Proxy
from eda_tools.broker import EmbeddedBroker
from tests.support.services import Probe, asynchronous, peer, running, within

KILOBYTE, MEGABYTE = 1000, 1_000_000


class Native(Probe):
    """A service that nothing but the test disconnects.

    Attributes:
        gate: handlers wait until it is set.
        now, most: how many handlers run, and how many have run at once.
    """

    TRANSPORT: ClassVar[str] = "native"
    HEARTBEAT = 0
    PROBE_INTERVAL = 0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.gate = asyncio.Event()
        self.now = self.most = 0

    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.seen.add(len(payload))
        await self.gate.wait()
        self.now -= 1

    @property
    def received(self) -> int:
        """How many bytes have come on the connection that consumes."""
        return self._traffic(CONSUMING)[0]

    def unsent(self, channel: str = PUBLISHING) -> int:
        """How many bytes wait to be sent on a connection."""
        return self._traffic(channel)[1]

    def _traffic(self, channel: str) -> tuple[int, int]:
        driver: Any = self.running_driver()
        (link,) = driver.links.values()
        traffic: tuple[int, int] = link.traffic(channel)
        return traffic


@asynccontextmanager
async def behind_a_proxy(model: Broker | None = None) -> AsyncIterator[tuple[str, Proxy, EmbeddedBroker]]:
    """The URL of a proxy in front of an embedded broker, and both."""
    async with EmbeddedBroker(broker=model) as broker, Proxy(broker.port) as proxy:
        yield broker.url.replace(f":{broker.port}", f":{proxy.port}"), proxy, broker


async def until(condition: Callable[[], bool], what: str) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await within(poll(), what)


@asynchronous
async def test_a_broker_that_does_not_read_gets_no_more_than_the_window() -> None:
    """What is beyond it waits as publishes, of which there are ``BUFFER`` at most. Logs are dropped."""
    number, size, window = 20, 2 * MEGABYTE, 8

    class Publisher(Native):
        WINDOW = window

    async with behind_a_proxy() as (url, proxy, _):
        service = Publisher(url)
        async with running(service):
            proxy.freeze(UP)
            text, most = "x" * size, 0
            publishes = [asyncio.create_task(service.publish_event("Told", text, "c")) for _ in range(number)]
            for _ in range(number):
                await asyncio.sleep(0)
                most = max(most, service.unsent())
            assert MAX_UNSENT < most <= window * (size + KILOBYTE)
            before = service.unsent()
            for _ in range(2_000):
                await service.log(criticality.INFO, "x" * KILOBYTE)
            await asyncio.sleep(0)
            assert service.unsent() <= before
            assert not any(publish.done() for publish in publishes)
            proxy.thaw()
            await within(asyncio.gather(*publishes), "the confirms")
            assert service.unsent() < KILOBYTE


@asynchronous
async def test_logs_that_a_broker_does_not_read_are_dropped() -> None:
    async with behind_a_proxy() as (url, proxy, _):
        service = Native(url)
        async with running(service):
            proxy.freeze(UP)
            for _ in range(20_000):
                await service.log(criticality.INFO, "x" * KILOBYTE)
            assert MAX_UNSENT <= service.unsent() < MAX_UNSENT + 3 * KILOBYTE
            proxy.thaw()
            await until(lambda: service.unsent() == 0, "what is not dropped is sent")


@asynchronous
async def test_acknowledgements_that_a_broker_does_not_read_are_as_many_as_the_prefetch() -> None:
    class Consumer(Native):
        PREFETCH_COUNT = 100

    model = Broker()
    async with behind_a_proxy(model) as (url, proxy, broker), peer(broker.url) as client:
        service = Consumer(url, ["Happened"])
        service.gate.set()
        async with running(service):
            await client.publish("events", "Happened", b'"x"', **PROPERTIES)
            await service.seen.count(1)
            await until(lambda: not model.unacked("probe.events"), "the broker has read an acknowledgement")
            proxy.freeze(UP)
            for _ in range(299):
                await client.publish("events", "Happened", b'"x"', **PROPERTIES)
            await service.seen.count(101)
            assert await client.waiting_in("probe.events") == 199
            assert len(service.seen.all) == 101
            assert service.unsent(CONSUMING) <= 100 * 21  # a frame with Basic.Ack
            proxy.thaw()
            await service.seen.count(300)


@asynchronous
async def test_handlers_that_are_slower_than_the_broker_get_no_more_than_the_prefetch() -> None:
    """The rest stays with the broker. The reader is not paused, so what else the broker sends is seen."""
    number, prefetch, size = 300, 100, 200 * KILOBYTE

    class Consumer(Native):
        PREFETCH_COUNT = prefetch
        HEARTBEAT = 1

    async with behind_a_proxy() as (url, _, broker), peer(broker.url) as client:
        service = Consumer(url, ["Happened"])
        async with running(service):
            body = b'"%s"' % (b"x" * size)
            for _ in range(number):
                await client.publish("events", "Happened", body, **PROPERTIES)
            await service.seen.count(prefetch)
            assert await client.waiting_in("probe.events") == number - prefetch
            received = service.received
            assert received < prefetch * size * 1.01 + 10 * KILOBYTE
            await until(lambda: service.received >= received + 3 * 8, "three heartbeats of the broker come")
            assert service.received < received + KILOBYTE
            service.gate.set()
            await service.seen.count(number)
            await until(lambda: service.now == 0, "all handlers end")
            assert (service.most, service.ready.all) == (prefetch, [1])


PROPERTIES: dict[str, Any] = {"content_type": "application/json", "headers": {"conversation_id": "c"}}
