"""The health and the numbers of a service on asyncio, for its handlers and for other threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from eda_core import Health, NotAnswered
from tests.support.services import BrokerUnderTest, Probe, asynchronous, conversation, running, within

Meta = dict[str, Any]


class Looking(Probe):
    """Its handler notes how its service does, and waits until the test lets it go on."""

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(self.health())
        if payload:
            raise ValueError("on purpose")


@asynchronous
async def test_a_handler_and_another_thread_may_ask(broker: BrokerUnderTest) -> None:
    service = Looking(broker.url, ["Happened"])
    assert service.health().state == "idle"
    async with running(service):
        await service.publish_event("Happened", False, conversation())
        within_handler: Health = await service.seen.next()
        assert (within_handler.state, within_handler.ready) == ("open", True)
        assert (within_handler.in_flight, within_handler.running) == (1, 1)
        assert within_handler.oldest_name == "Happened"
        assert within_handler.queues == ("probe.events",)
        assert within_handler.last_error is None
        await service.publish_event("Happened", True, conversation())
        await service.seen.count(3)  # with the retry
        while service.metrics().dead_lettered < 1:
            await asyncio.sleep(0.01)
        outside = await within(asyncio.to_thread(service.health), "the answer")
        assert outside.last_error is not None
        assert outside.last_error.event == "giving-up"
        numbers = await within(asyncio.to_thread(service.metrics), "the answer")
        assert (numbers.received, numbers.acknowledged, numbers.retried, numbers.dead_lettered) == (3, 1, 1, 1)
        ((handlers),) = numbers.handlers
        assert (handlers.kind, handlers.name, handlers.succeeded, handlers.failed) == ("event", "Happened", 1, 2)
    stopped = await within(asyncio.to_thread(service.health), "the answer")
    assert (stopped.state, stopped.stopping, stopped.link.open) == ("stopped", True, False)


@asynchronous
async def test_a_thread_does_not_wait_for_ever_for_a_loop_that_is_busy(broker: BrokerUnderTest) -> None:
    service = Looking(broker.url, ["Happened"])
    async with running(service):
        found: list[BaseException] = []
        over = threading.Event()

        def ask() -> None:
            try:
                service.health(timeout=0.05)
            except NotAnswered as error:
                found.append(error)
            over.set()

        threading.Thread(target=ask, daemon=True).start()
        assert over.wait(20.0), "the loop is kept here"
    assert "has not answered within 0.05 s" in str(found[0])


def test_a_service_of_a_loop_that_is_closed_may_be_asked() -> None:
    service = Probe("amqp://guest:guest@127.0.0.1:1/")

    async def run() -> None:
        task = asyncio.ensure_future(service.run(signals=False))
        while service.health().state == "idle":
            await asyncio.sleep(0)
        await service.stop(0.0)
        await task

    asyncio.run(run())
    assert service.health().state == "stopped"


@pytest.mark.parametrize("method", ["health", "metrics"])
def test_a_class_of_the_user_may_have_a_method_of_this_name(method: str) -> None:
    kind = type("Mine", (Probe,), {method: lambda self: "mine"})
    assert getattr(kind("amqp://localhost/"), method)() == "mine"
