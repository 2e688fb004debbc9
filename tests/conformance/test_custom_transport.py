"""What the custom transport does beyond the kit: hostile bytes, silent peers, and nothing is left at the end."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pamqp import frame, header
from pamqp.commands import Basic, Connection

from eda_core.testing.conformance import DEAD_LETTERS, Worker, accept
from eda_core.testing.conformance.running.brokers import BrokerUnderTest, Embedded, Rabbit
from eda_core.testing.conformance.running.coroutines import subjects_of
from eda_core.testing.conformance.running.runner import Cast, no_task_is_left
from eda_core.testing.live.client import Client
from eda_tools.broker import EmbeddedBroker
from examples.custom_service import Service
from tests.support.rabbitmq import RabbitNode
from tests.support.services import asynchronous, within
from tests.support.vhosts import Victim

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_it_is_short_and_needs_no_client_library() -> None:
    assert len((EXAMPLES / "custom_transport.py").read_text("utf-8").splitlines()) < 120
    probe = (
        "import examples.custom_service, sys; print(sorted({'aio_pika', 'aiormq', 'pika', 'kombu'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@asynccontextmanager
async def serving(broker: BrokerUnderTest) -> AsyncIterator[Cast]:
    """A service, which is ready. At the end of the block it ends, and has no connection left."""
    worker = Worker("service", events=["Happened"], handlers={"Happened": accept})
    cast = Cast(worker, subjects_of(Service), broker.urls(worker.urls))
    await cast.start()
    await within(cast.seen("ready", 1), "the service is ready")
    yield cast
    assert cast.end is not None
    if not cast.end.done():
        await cast.subject.stop(None)
    assert await within(cast.end, "the end of the service") is None
    await within(broker.proxy.quiet(), "the connections close")


@asynccontextmanager
async def embedded_broker() -> AsyncIterator[Embedded]:
    """An empty broker. At the end of the block no task is left."""
    async with EmbeddedBroker() as embedded, Embedded(embedded) as broker:
        yield broker
    await no_task_is_left()


def _frame(kind: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + end


HOSTILE = {
    "a frame without its end": _frame(1, b"\x00\x3c\x00\x50" + bytes(9), b"x"),
    "a frame of four gigabytes": b"\x01\x00\x01\xff\xff\xff\xff",
    "a frame of no kind": _frame(9, b"x"),
    "a method of no class": _frame(1, b"\x03\xe7\x00\x01"),
    "a method cut short": _frame(1, b"\x00\x3c\x00\x3c\x20x"),
    "a method that is not for clients": frame.marshal(Basic.Recover(True), 1),
    "a header without a method": frame.marshal(header.ContentHeader(0, 0, Basic.Properties()), 1),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "the broker's farewell": frame.marshal(Connection.Close(320, "CONNECTION_FORCED", 0, 0), 0),
}


@pytest.mark.parametrize("what", HOSTILE)
@asynchronous
async def test_hostile_bytes_cost_the_link_and_nothing_else(what: str) -> None:
    async with embedded_broker() as broker, serving(broker) as cast:
        broker.proxy.inject(HOSTILE[what])
        await within(cast.seen("ready", 2), "the service is ready again")


#: Headers whose one entry is a time beyond what Python's datetime can hold.
POISON = b"\x20\x00" + struct.pack(">I", 11) + b"\x01tT" + b"\x7f" + b"\xff" * 7


@pytest.mark.rabbitmq
def test_headers_that_crash_their_reader_are_dead_lettered(rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    """Other clients lose the connection over such a message, again and again (docs/design.rst, "Poison headers")."""
    rabbitmq.set_dlx_policy(rabbit_vhost)
    asyncio.run(_poison(Rabbit(Victim(rabbitmq, rabbit_vhost))))


async def _poison(rabbit: Rabbit) -> None:
    async with rabbit as broker, serving(broker) as cast:
        (url,) = broker.urls(["broker"])
        client = await Client.connect(url)
        channel = await client.channel()
        assert channel.number == 1
        publish = frame.marshal(Basic.Publish(0, "events", "Happened"), 1)
        client.write(publish + _frame(2, struct.pack(">HHQ", 60, 0, 1) + POISON) + _frame(3, b"1"))
        await within(broker.operator.count(DEAD_LETTERS, 1), "the dead letter")
        await client.close()
        assert [name for name, _ in cast.notes] == ["ready"]


@asynchronous
async def test_a_stop_does_not_wait_for_a_peer_that_is_frozen() -> None:
    """It is silent for longer than ``close_timeout``."""
    async with embedded_broker() as broker, serving(broker) as cast:
        service: Any = cast.subject
        machine = service.service.running_driver().machine
        machine.config = replace(machine.config, close_timeout=0.2)
        broker.proxy.freeze()
        await cast.subject.stop(None)
        assert cast.end is not None
        await within(asyncio.shield(cast.end), "the end", 2.0)


@asynchronous
async def test_a_publisher_that_waits_for_space_hears_of_the_end() -> None:
    async with embedded_broker() as broker:
        service = Service(broker.urls(["nobody"]), [], [], "service")
        service.BUFFER = 1  # type: ignore[misc]
        run = asyncio.create_task(service.run())
        await asyncio.sleep(0)
        calls = [asyncio.create_task(service.publish_event("Happened", n, "c")) for n in range(2)]
        await asyncio.sleep(0)
        await service.stop(0.0)
        await within(run, "the end")
        ended = await within(asyncio.gather(*calls, return_exceptions=True), "the publishers hear of it")
        assert [type(error).__name__ for error in ended] == ["PublishError", "StateError"]
