"""A service with many names starts fast: its declarations are sent together, in every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pamqp.commands import Channel, Queue

from eda_core.testing.conformance import MakeSubject, Worker, accept
from eda_core.testing.conformance.running.brokers import BrokerUnderTest, Embedded, Rabbit
from eda_core.testing.conformance.running.runner import BROKER_TIMEOUT, Cast
from eda_core.testing.live.proxy import DOWN, Direction, Link, Proxy
from eda_tools.broker import EmbeddedBroker
from tests.conformance.test_conformance import ADAPTERS
from tests.support.services import asynchronous, peer, within
from tests.support.vhosts import Victim

EACH = pytest.mark.parametrize("adapter", ADAPTERS)
MANY = [f"Happened.{number}" for number in range(1500)]


class Bindings:
    """Counts the bindings that go to a broker through a proxy, and on how many channels they go at a time.

    Attributes:
        bound: how many there were.
        most: on how many channels at a time, each counted until the broker has answered its close.
        closed: set as long as no such channel is open.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.bound = self.most = 0
        self.closed = asyncio.Event()
        self._open: set[tuple[Link, int]] = set()
        self._rest: dict[tuple[Link, Direction], bytes] = {}
        proxy.watch = self._watch

    def _watch(self, link: Link, direction: Direction, data: bytes) -> bytes:
        rest = self._rest.get((link, direction), b"") + data
        rest = rest[8:] if rest.startswith(b"AMQP") else rest
        while len(rest) > 7 and len(rest) >= (size := 8 + int.from_bytes(rest[3:7])):
            if rest[0] == 1:  # the frame of a method: type, channel, size, class and method
                self._note(direction, (link, int.from_bytes(rest[1:3])), int.from_bytes(rest[7:11]))
            rest = rest[size:]
        self._rest[link, direction] = rest
        return data

    def _note(self, direction: Direction, channel: tuple[Link, int], method: int) -> None:
        if method == Queue.Bind.index:
            self.bound += 1
            self._open.add(channel)
            self.most = max(self.most, len(self._open))
            self.closed.clear()
        elif method == Channel.CloseOk.index and direction == DOWN:
            self._open.discard(channel)
            if not self._open:
                self.closed.set()


async def bind_many(adapter: str, broker: BrokerUnderTest) -> None:
    """Check that a service with many names binds them on several channels, and closes these."""
    bindings = Bindings(broker.proxy)
    async with begun(ADAPTERS[adapter], broker, *MANY) as cast:
        await within(cast.seen("ready", 1), f"{len(MANY)} names are bound", BROKER_TIMEOUT)
        await within(bindings.closed.wait(), "the channels are closed")
        assert bindings.bound == len(MANY)
        assert bindings.most > 8


@asynccontextmanager
async def begun(make: MakeSubject, broker: BrokerUnderTest, *names: str) -> AsyncIterator[Cast]:
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
async def test_many_names_are_bound_on_several_channels_at_a_time(adapter: str) -> None:
    async with EmbeddedBroker() as embedded, Embedded(embedded) as broker:
        await bind_many(adapter, broker)
        assert len(embedded.broker.bindings()) >= len(MANY)


@EACH
@asynchronous
async def test_rabbitmq_waits_for_its_disk_once_for_several_bindings(adapter: str, rabbit_victim: Victim) -> None:
    """On one channel it does so after each binding: 10,000 names took 20 to 60 s."""
    async with Rabbit(rabbit_victim) as broker:
        await bind_many(adapter, broker)
    bound = rabbit_victim.node.ctl("list_bindings", "-p", rabbit_victim.vhost, "source_name", "routing_key", "-q")
    assert sum(line.startswith("events\tHappened.") for line in bound.splitlines()) == len(MANY)


@EACH
@asynchronous
async def test_one_channel_has_to_do_for_a_user_who_may_not_have_more(adapter: str, rabbit_victim: Victim) -> None:
    """The broker closes the connection for a channel too much, each time."""
    node, vhost, user = rabbit_victim.node, rabbit_victim.vhost, "narrow"
    node.ctl("add_user", user, "guest")
    node.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
    node.ctl("set_user_limits", user, '{"max-channels": 6}')
    try:
        async with Rabbit(rabbit_victim) as broker:
            broker.user = user
            bindings = Bindings(broker.proxy)
            async with begun(ADAPTERS[adapter], broker, *MANY) as cast:
                await within(cast.seen("ready", 1), f"{len(MANY)} names are bound", BROKER_TIMEOUT)
                assert bindings.bound >= len(MANY)
    finally:
        node.ctl("delete_user", user)


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
