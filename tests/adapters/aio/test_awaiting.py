"""Handlers that forget an await, and those that begin their publishes in one of the ways of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eda_core import LocalError
from eda_tools.broker import EmbeddedBroker
from tests.support.services import Probe, asynchronous, peer, reports, running


async def _gather(service: Probe) -> None:
    await asyncio.gather(*(service.publish_event("Told", number, "c") for number in range(3)))


async def _group(service: Probe) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(service.publish_event("Told", number, "c"))


async def _tasks(service: Probe) -> None:
    tasks = [asyncio.create_task(service.publish_event("Told", number, "c")) for number in range(3)]
    await asyncio.wait(tasks)


async def _timeouts(service: Probe) -> None:
    for number in range(3):
        await asyncio.wait_for(service.publish_event("Told", number, "c"), 5.0)


async def _left_behind(service: Probe) -> None:
    for number in range(3):
        TASKS.append(asyncio.create_task(service.publish_event("Told", number, "c")))


#: Tasks that a handler does not wait for, so that nobody collects them.
TASKS: list[asyncio.Task[None]] = []


class Begins(Probe):
    """Its handler publishes in the way of the test."""

    begin: Callable[[Probe], Awaitable[None]]

    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await type(self).begin(self)
        self.seen.add(payload)


@pytest.mark.parametrize("begin", [_gather, _group, _tasks, _timeouts, _left_behind])
@asynchronous
async def test_publishes_may_be_begun_in_each_way_of_asyncio(begin: Any) -> None:
    kind = type("Begins", (Begins,), {"begin": begin})
    async with EmbeddedBroker() as broker:
        service = kind(broker.url, ["Happened"])
        with reports() as said:
            async with running(service), peer(broker.url) as client:
                wire = await client.tap("events", "Told")
                await service.publish_event("Happened", 1, "c")
                await service.seen.next()
                for _ in range(3):
                    await wire.next()
                await asyncio.gather(*TASKS)
                TASKS.clear()
    assert not [text for text in said.all if "awaited" in text]


class Forgets(Probe):
    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        _ = self.publish_event("Told", payload, conversation_id)


class Plain(Probe):
    """Its handler is a plain function, in which nothing can be awaited."""

    def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        _ = self.publish_event("Told", payload, conversation_id)


@pytest.mark.parametrize("kind", [Forgets, Plain])
@asynchronous
async def test_a_forgotten_await_is_told_with_its_line(kind: Any) -> None:
    async with EmbeddedBroker() as broker:
        service = kind(broker.url, ["Happened"])
        with reports() as said:
            async with running(service), peer(broker.url) as client:
                wire = await client.tap("events", "Told")
                await service.publish_event("Happened", 1, "c")
                await said.until(lambda texts: any("giving up" in text for text in texts), "the message is given up")
                assert wire.all == []
    (text,) = [text for text in said.all if text.startswith("Happened: ")]
    line = kind.on_Happened.__code__.co_firstlineno + 1
    assert text.splitlines()[0] == (
        f"Happened: NotBegun: publish_event() was not awaited in {__file__}, line {line}, so that it did nothing; "
        "write await before it"
    )


class Alone(Probe):
    def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.publish_event("Told", payload, conversation_id)  # type: ignore[unused-coroutine]


@asynchronous
async def test_a_publish_in_a_plain_function_stops_the_start() -> None:
    words = r"on_Happened\(\) calls self.publish_event\(…\) in line \d+ without await, so that it does nothing; "
    words += r"write async def on_Happened\(\), and await self\.publish_event\(…\)"
    with pytest.raises(LocalError, match=f"^Alone cannot run\n- {words}$"):
        await Alone("amqp://127.0.0.1:1/", ["Happened"]).run()
