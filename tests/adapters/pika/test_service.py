"""What services on pika do beyond the conformance kit: they publish from threads, and meet faults of the network."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pika.channel
import pytest

from eda_core import BufferFull, LocalError
from eda_core.messages import Properties
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import NOWHERE, Listener, Probe, publish, running, until
from tests.support.rabbitmq import RabbitNode
from tests.support.services import TIMEOUT, asynchronous, peer, within

pytestmark = pytest.mark.usefixtures("either_way")

Meta = dict[str, Any]


# --- publishing ---


class Strict(Listener):
    """Notes what its publishes raise, in the thread of the handler."""

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        for name, wrong in (("x" * 300, 1), ("Other", object())):
            try:
                self.publish_event(name, wrong, conversation_id)
            except LocalError as error:
                self.note((type(error).__name__, threading.current_thread().name))
        self.note(payload)


@pytest.mark.parametrize("threads", [0, 2])
@asynchronous
async def test_a_wrong_publish_raises_where_it_is_made(threads: int) -> None:
    kind = type("Strict", (Strict,), {"HANDLER_THREADS": threads})
    async with EmbeddedBroker() as broker:
        service = kind(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            *errors, payload = await service.seen.count(3)
    where = "eda handlers" if threads else "probe"
    assert [thread for _, thread in errors] == [where, where]
    assert payload == 1


@asynchronous
async def test_over_the_bound_of_the_buffer_a_publish_is_refused_at_once() -> None:
    service = Probe(NOWHERE)
    service.BUFFER = 2  # type: ignore[misc]
    async with running(service, ready=False):
        await publish(service, 1, 2)
        with pytest.raises(BufferFull):
            await publish(service, 3)
        service.stop(0.0)
        await service.ended()


@asynchronous
async def test_what_is_published_before_the_broker_comes_is_sent_in_order() -> None:
    async with EmbeddedBroker() as broker:
        listener = Listener(broker.url, ["Happened"], name="listener")
        source = Probe([NOWHERE, broker.url], name="source")
        async with running(listener), running(source, ready=False):
            await publish(source, *range(50))
            await listener.has_all(range(50))
    assert listener.seen.all == list(range(50))


# --- the network ---


class Sleeper(Listener):
    """Its handler blocks for longer than the broker waits for a heartbeat."""

    HEARTBEAT = 1
    HANDLER_THREADS = 1

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        if payload == "slow":
            time.sleep(2.5)
        self.publish_event("Other", payload, conversation_id)
        self.note(payload)


@asynchronous
async def test_with_threads_a_handler_may_block_for_longer_than_the_heartbeat() -> None:
    """The embedded broker closes a connection that is silent for two heartbeats."""
    async with EmbeddedBroker() as broker:
        service = Sleeper(broker.url, ["Happened"])
        async with running(service):
            await publish(service, "slow")
            await service.seen.count(1)
            await publish(service, "next")
            await service.seen.count(2)
        assert (service.seen.all, service.ready.all) == (["slow", "next"], [1]), "handled once, on the first link"


@asynchronous
async def test_reconnecting_leaks_no_descriptors() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with EmbeddedBroker() as broker:
        service = Probe(broker.url)
        before = descriptors()
        async with running(service):
            connected: list[int] = []
            for number in range(12):
                await service.ready.count(number + 1)
                connected.append(descriptors())
                await broker.cut()
            await service.ready.count(13)
            assert connected[-1] <= connected[2] + 2, connected  # a closing pair may still be there
        await within(until(lambda: descriptors() <= before), "its descriptors are closed")
        attempts = Probe([NOWHERE, broker.url.replace("guest@", "guest:wrong@")])
        async with running(attempts, ready=False):
            await asyncio.sleep(0.5)
            attempts.stop()
            await attempts.ended()
        await within(until(lambda: descriptors() <= before), "those of vain attempts are closed too")


@pytest.mark.rabbitmq
def test_operators_see_who_is_connected(rabbitmq: RabbitNode, rabbit_url: str, rabbit_vhost: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Probe(rabbit_url, name="known")
        async with running(service):
            seen = await asyncio.to_thread(rabbitmq.ctl, "list_connections", "vhost", "client_properties", "timeout")
        mine = [line for line in seen.splitlines() if line.startswith(rabbit_vhost)]
        assert len(mine) == 2
        name = f"known@{socket.gethostname()}:{os.getpid()}"
        assert all(f'{{"connection_name","{name}"}}' in line and line.endswith("\t20") for line in mine), mine

    scenario()


# --- peers that do not answer, and pika's own failures ---


class Hasty(Probe):
    CONNECT_TIMEOUT = 1.0


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
@asynchronous
async def test_a_peer_that_accepts_and_says_nothing_is_given_up(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """After ``connect_timeout``, in the middle of a handshake of AMQP or TLS, the next URL is tried."""
    accepted: list[asyncio.StreamWriter] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    async with EmbeddedBroker() as broker, await asyncio.start_server(accept, "127.0.0.1", 0) as mute:
        service = Hasty([f"{scheme}://127.0.0.1:{mute.sockets[0].getsockname()[1]}/", broker.url])
        async with running(service):
            pass
        assert accepted
        assert "pika failed" not in caplog.text
        for writer in accepted:
            writer.close()


@asynchronous
async def test_a_failure_inside_pika_costs_the_link_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            driver: Any = service.running_driver()
            driver.loop.add_callback_threadsafe(lambda: [][1])
            await service.ready.count(2)
            await publish(service, 1)
            await service.seen.count(1)
    assert "pika failed" in caplog.text


@asynchronous
async def test_a_link_that_cannot_even_begin_is_given_up() -> None:
    async with EmbeddedBroker() as broker:
        service = Probe(["amqps://127.0.0.1/?cafile=/nowhere/ca.pem", broker.url])
        async with running(service):
            pass


@asynchronous
async def test_an_effect_that_fails_costs_the_link_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []
    marshal: Callable[[Properties], bytes] = Properties.marshal

    def fail_once(self: Properties) -> bytes:
        if not times:
            times.append("failed")
            raise ValueError("as asked")
        return marshal(self)

    monkeypatch.setattr(Properties, "marshal", fail_once)
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            await service.ready.count(2)
            await service.has_all(range(1, 2))
    assert times == ["failed"]


class SlowStart(Listener):
    """Keeps the loop from reading the answer to its Basic.Consume for longer than that may take."""

    CLOSE_TIMEOUT = 0.1

    def on_ready(self) -> None:
        super().on_ready()
        time.sleep(0.3)


@asynchronous
async def test_an_answer_that_only_waits_for_a_handler_is_not_late() -> None:
    async with EmbeddedBroker() as broker:
        service = SlowStart(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            await service.has_all(range(1, 2))
        assert service.ready.all == [1]


class SoonClosed(Listener):
    CLOSE_TIMEOUT = 0.1


@asynchronous
async def test_a_consume_that_is_not_answered_costs_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """pika would wait for that for ever."""
    consume, times = pika.channel.Channel.basic_consume, []

    def unanswered(self: Any, *arguments: Any, **named: Any) -> None:
        times.append(1)
        if len(times) > 1:
            consume(self, *arguments, **named)

    monkeypatch.setattr(pika.channel.Channel, "basic_consume", unanswered)
    async with EmbeddedBroker() as broker:
        service = SoonClosed(broker.url, ["Happened"])
        async with running(service):
            await service.ready.count(2)
            await publish(service, 1)
            await service.has_all(range(1, 2))


class Slow(Listener):
    """The handler of the last message runs until the one before is known. Both wait for the first one."""

    heard = threading.Event()

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        time.sleep(0.2 if payload == 0 else 0.01)
        if payload == 2:
            assert self.heard.wait(TIMEOUT)
        self.publish_event("Other", payload, conversation_id)
        self.note(payload)


@asynchronous
async def test_what_a_handler_has_published_does_not_wait_for_the_next_one() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = Slow(broker.url, ["Happened"])
        async with running(service):
            others = await client.tap("events", "Other")
            await publish(service, 0, 1, 2)
            await others.count(2)
            service.heard.set()
            await service.has_all(range(3))
