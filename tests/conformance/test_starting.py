"""A service with many names starts fast: its declarations are sent together, in every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eda_core.testing.conformance import MakeSubject, Worker, accept
from eda_tools.broker import EmbeddedBroker
from tests.conformance.brokers import Embedded
from tests.conformance.runner import Cast
from tests.conformance.test_conformance import ADAPTERS
from tests.support.services import asynchronous, peer, within

EACH = pytest.mark.parametrize("adapter", ADAPTERS)


@asynccontextmanager
async def begun(make: MakeSubject, broker: Embedded, *names: str) -> AsyncIterator[Cast]:
    """A worker that subscribes to these names. It need not be ready."""
    worker = Worker("service", events=list(names), handlers={"Happened": accept})
    cast = Cast(worker, make, broker.urls(worker.urls))
    await cast.start()
    try:
        yield cast
    finally:
        await cast.subject.stop(0.0)
        assert cast.end is not None
        await within(cast.end, "the end of the service")
        await within(broker.proxy.quiet(), "the connections close")


@EACH
@asynchronous
async def test_a_broker_far_away_is_not_asked_for_one_name_after_the_other(adapter: str) -> None:
    """350 round trips of 100 ms would take 35 s."""
    async with EmbeddedBroker() as embedded, Embedded(embedded) as broker:
        broker.proxy.delay = 0.05
        names = [f"Happened.{number}" for number in range(350)]
        async with begun(ADAPTERS[adapter], broker, *names) as cast:
            await within(cast.seen("ready", 1), "350 names are bound", 15.0)
            assert len(embedded.broker.bindings()) >= 350


@EACH
@asynchronous
async def test_a_refused_declaration_is_named(adapter: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is the first one without an answer: the broker answers in order, and its reason does not always say it."""
    async with EmbeddedBroker() as embedded, Embedded(embedded) as broker, peer(embedded.url) as client:
        await client.channel.declare_queue("service.events", durable=False)
        async with begun(ADAPTERS[adapter], broker, "Happened", "Other"):
            while "in answer to Queue.Declare(queue='service.events')" not in caplog.text:
                await client.waiting_in("service.events")
        assert "inequivalent arg 'durable'" in caplog.text
