"""``await service.call(...)``, on each broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eda_core import CommandError, CommandTimeout, LocalError, PublishError, StateError
from eda_core.services import ClaimCheck
from tests.support.services import BrokerUnderTest, Probe, asynchronous, conversation, peer, reports, running, within

Meta = dict[str, Any]


class Peer(Probe):
    """Answers commands: at once, with an error, or when the test says so."""

    def __init__(self, url: str) -> None:
        super().__init__(url, [], ["peer.#"], "peer")
        self.gate = asyncio.Event()

    async def on_Double(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> None:
        self.seen.add(conversation_id)
        await self.return_success(reply_to, 2 * payload, conversation_id, correlation_id)

    async def on_Refuse(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> None:
        await self.return_error(reply_to, {"why": payload}, conversation_id, correlation_id)

    async def on_Wait(self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta) -> None:
        self.seen.add("waiting")
        await self.gate.wait()
        await self.return_success(reply_to, "at last", conversation_id, correlation_id)


@asynchronous
async def test_results_come_to_the_worker_that_asked(broker: BrokerUnderTest) -> None:
    first, second = (Probe(broker.url, [], ["asker.#"], "asker") for _ in range(2))
    async with running(Peer(broker.url), first, second):
        answers = await asyncio.gather(
            *(worker.call("peer.Double", number) for number in range(20) for worker in (first, second))
        )
    assert answers == [2 * number for number in range(20) for _ in range(2)]


@asynchronous
async def test_an_error_result_is_raised_with_its_payload(broker: BrokerUnderTest) -> None:
    asker = Probe(broker.url)
    async with running(Peer(broker.url), asker):
        with pytest.raises(CommandError) as caught:
            await asker.call("peer.Refuse", "no time")
    assert caught.value.payload == {"why": "no time"}


@asynchronous
async def test_a_command_that_nobody_serves(broker: BrokerUnderTest) -> None:
    asker = Probe(broker.url)
    async with running(asker):
        with pytest.raises(PublishError, match=r"nobody\.Do: no service is bound to it"):
            await asker.call("nobody.Do", 1, timeout=60)


@asynchronous
async def test_a_late_result_is_dropped_with_a_log(broker: BrokerUnderTest) -> None:
    asker, server = Probe(broker.url), Peer(broker.url)
    async with running(server, asker), peer(broker.url) as client:
        logs = await client.tap("logs", "probe.WARNING")
        with pytest.raises(CommandTimeout, match=r"peer\.Wait: no result came in time"):
            await asker.call("peer.Wait", 1, timeout=0.2)
        server.gate.set()
        assert b"a result that nobody waits for" in (await logs.next()).body
        assert await asker.call("peer.Double", 4) == 8, "what comes after it is not taken for it, nor it for that"


class Middle(Probe):
    """Makes a call in a handler."""

    async def on_Begun(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.call("peer.Double", number)) for number in payload]
        await self.publish_event("Ended", sum(task.result() for task in tasks), conversation_id)


@asynchronous
async def test_a_handler_calls_and_its_calls_are_of_its_conversation(broker: BrokerUnderTest) -> None:
    middle, server = Middle(broker.url, ["Begun"], name="middle"), Peer(broker.url)
    async with running(server, middle), peer(broker.url) as client:
        ended, conversation_id = await client.tap("events", "Ended"), conversation()
        await middle.publish_event("Begun", [1, 2, 3], conversation_id)
        assert (await ended.next()).headers["conversation_id"] == conversation_id
        assert server.seen.all == [conversation_id] * 3


@asynchronous
async def test_a_stop_lets_a_handler_have_its_result(broker: BrokerUnderTest) -> None:
    class Waiting(Probe):
        async def on_Begun(self, payload: Any, conversation_id: str, meta: Meta) -> None:
            self.seen.add(await self.call("peer.Wait", payload))

    asker, server = Waiting(broker.url, ["Begun"], name="waiting"), Peer(broker.url)
    async with running(server, asker) as tasks:
        await asker.publish_event("Begun", 1, conversation())
        await server.seen.count(1)
        await asker.stop()
        server.gate.set()
        await within(tasks[1], "the asker stops")
    assert asker.seen.all == ["at last"]


@asynchronous
async def test_calls_go_on_after_the_connection_was_cut(broker: BrokerUnderTest) -> None:
    asker, server = Probe(broker.url), Peer(broker.url)
    async with running(server, asker):
        assert await asker.call("peer.Double", 1) == 2
        waiting = asyncio.create_task(asker.call("peer.Wait", 1))
        await server.seen.until(lambda seen: "waiting" in seen, "the command arrives")
        await broker.cut()
        await asker.ready.count(2)
        server.gate.set()
        assert await within(waiting, "the command is redelivered and its result finds the new queue") == "at last"


@asynchronous
async def test_a_cancelled_call_is_forgotten(broker: BrokerUnderTest) -> None:
    asker, server = Probe(broker.url), Peer(broker.url)
    async with running(server, asker):
        with reports() as record:
            waiting = asyncio.create_task(asker.call("peer.Wait", 1))
            await server.seen.count(1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            server.gate.set()
            await record.until(lambda lines: any("nobody waits for" in line for line in lines), "the log of it")


@asynchronous
async def test_the_end_of_the_service_ends_a_call(broker: BrokerUnderTest) -> None:
    asker, server = Probe(broker.url), Peer(broker.url)
    with pytest.raises(StateError, match="the service does not run"):
        await asker.call("peer.Double", 1)
    async with running(server):
        async with running(asker):
            waiting = asyncio.create_task(asker.call("peer.Wait", 1))
            await server.seen.count(1)
        with pytest.raises(PublishError, match="the service stopped before its result came"):
            await waiting
        server.gate.set()


class SlowStore:
    """A store whose methods are coroutines."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    async def put(self, key: str, body: bytes) -> None:
        await asyncio.sleep(0)
        self.bodies[key] = body

    async def get(self, key: str) -> bytes:
        await asyncio.sleep(0)
        return self.bodies[key]


@asynchronous
async def test_large_commands_and_results_wait_in_a_store(broker: BrokerUnderTest) -> None:
    store = SlowStore()

    class Asker(Probe):
        CLAIM_CHECK = ClaimCheck(store, over=100)

    class Server(Peer):
        CLAIM_CHECK = ClaimCheck(store, over=100)

    asker = Asker(broker.url)
    async with running(Server(broker.url), asker):
        assert await asker.call("peer.Double", "x" * 1000) == "x" * 2000
        assert len(store.bodies) == 2
        with pytest.raises(CommandError) as caught:
            await asker.call("peer.Refuse", "y" * 1000)
        assert caught.value.payload == {"why": "y" * 1000}
        assert await asker.call("peer.Double", 2) == 4
        assert len(store.bodies) == 4


@asynchronous
async def test_who_has_no_store_cannot_read_a_large_result(broker: BrokerUnderTest) -> None:
    class Rich(Peer):
        CLAIM_CHECK = ClaimCheck(SlowStore(), over=10)

    asker = Probe(broker.url)
    async with running(Rich(broker.url), asker):
        with pytest.raises(LocalError, match="is in a store; give this service the same CLAIM_CHECK"):
            await asker.call("peer.Double", "xxxxxxxx")
