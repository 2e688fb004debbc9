"""Services on uvloop. Skipped where uvloop cannot be imported, as on Windows."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from eda_core import CommandError
from eda_core.testing.conformance.unreadable import UNREADABLE
from eda_tools.broker import EmbeddedBroker
from tests.support.octets import octet_publisher
from tests.support.services import (
    TEST_TIMEOUT,
    BrokerUnderTest,
    Probe,
    conversation,
    peer,
    program,
    running,
    within,
)

uvloop: Any = pytest.importorskip("uvloop")

Meta = dict[str, Any]


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Does what ``asynchronous`` does, in a loop of uvloop."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(within(test(*args, **named), "the whole test", TEST_TIMEOUT))

    return run


class Worker(Probe):
    """Relays events, answers commands, and waits for a gate."""

    def __init__(self, url: str, name: str = "worker") -> None:
        super().__init__(url, ["Happened"], [f"{name}.#"], name)
        self.gate = asyncio.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)
        await self.publish_event("Relayed", payload, conversation_id)

    async def on_Double(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> None:
        if isinstance(payload, int):
            await self.return_success(reply_to, 2 * payload, conversation_id, correlation_id)
        else:
            await self.return_error(reply_to, {"reason": "not a number"}, conversation_id, correlation_id)

    async def on_Wait(self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta) -> None:
        self.seen.add("waiting")
        await self.gate.wait()
        await self.publish_event("Waited", payload, conversation_id)


@on_uvloop
async def test_the_loop_is_uvloops() -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")


@on_uvloop
async def test_a_relay_and_calls(broker: BrokerUnderTest) -> None:
    worker, asker = Worker(broker.url), Probe(broker.url, name="asker")
    async with running(worker, asker), peer(broker.url) as client:
        relayed = await client.tap("events", "Relayed")
        await asyncio.gather(*(asker.publish_event("Happened", number, conversation()) for number in range(20)))
        await relayed.count(20)
        assert await asyncio.gather(*(asker.call("worker.Double", number) for number in range(20))) == [
            *range(0, 40, 2)
        ]
        with pytest.raises(CommandError, match="not a number"):
            await asker.call("worker.Double", "two")
    async with peer(broker.url) as client:
        assert await client.waiting_in("worker.events") == 0


@on_uvloop
async def test_a_stop_lets_handlers_finish(broker: BrokerUnderTest) -> None:
    worker = Worker(broker.url)
    async with running(worker) as (run,), peer(broker.url) as client:
        waited = await client.tap("events", "Waited")
        await worker.send_command("worker.Wait", 1, "c", "worker.WaitReturn", "k")
        await worker.seen.next()
        await worker.stop()
        worker.gate.set()
        await within(run, "run() ends")
        await waited.next()


@on_uvloop
async def test_nothing_is_lost_when_connections_are_cut(broker: BrokerUnderTest) -> None:
    worker, source = Worker(broker.url), Probe(broker.url, name="source")
    async with running(worker, source):
        for cut in range(3):
            numbers = range(100 * cut, 100 * cut + 100)
            sending = asyncio.gather(*(source.publish_event("Happened", number, conversation()) for number in numbers))
            await broker.cut()
            await within(sending, "the confirms")
        await worker.seen.until(lambda seen: {*range(300)} <= {*seen}, "all events")


@on_uvloop
async def test_messages_that_cannot_be_read_cost_no_link(broker: BrokerUnderTest) -> None:
    worker = Worker(broker.url)
    async with running(worker), peer(broker.url) as client, octet_publisher(broker.url) as publisher:
        await (await client.channel.get_queue("worker.events")).bind("events", "odd.#")
        for put, _ in UNREADABLE.values():
            await publisher.put(put)
        await worker.publish_event("Happened", "the last", "c")
        await worker.seen.next()
        assert await client.waiting_in("worker.events") == 0
    assert (worker.seen.all, worker.ready.all) == (["the last"], [1])


@on_uvloop
async def test_the_embedded_broker_and_its_end() -> None:
    async with EmbeddedBroker() as broker:
        worker = Worker(broker.url)
        async with running(worker):
            assert await worker.call("worker.Double", 4) == 8
            await broker.cut()
            await worker.ready.count(2)
            assert await worker.call("worker.Double", 5) == 10


@on_uvloop
async def test_sigterm_stops_a_service(broker: BrokerUnderTest) -> None:
    code = "import uvloop; from tests.adapters.aio.worker import main; uvloop.run(main())"
    async with program("-c", code, url=broker.url) as worker:
        await worker.says("ready")
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.end() == 0


@on_uvloop
async def test_a_service_runs_in_a_thread_of_its_own() -> None:
    class Brief(Probe):
        async def on_ready(self) -> None:
            await self.stop()

    async with EmbeddedBroker() as broker:

        async def serve() -> None:
            await Brief(broker.url).run()

        await within(asyncio.to_thread(uvloop.run, serve()), "the end of run()")
