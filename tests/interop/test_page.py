"""Each program on docs/from-eventail.rst does what the page says."""

from __future__ import annotations

import re
import signal
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest

from eda_tools.broker import EmbeddedBroker
from tests.interop.test_moved import PAGE, moved
from tests.support.services import DEAD_LETTER_QUEUE, Peer, Program, asynchronous, peer, program

BLOCKS = [
    textwrap.dedent(block).strip() + "\n"
    for block in re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", PAGE, re.MULTILINE)
]
BEFORE, AFTER, THREADS, BY_HAND, BATCH, ENDPOINT, ASYNC = BLOCKS


@asynccontextmanager
async def serving(source: str, url: str, bus: Peer, queue: str) -> AsyncIterator[Program]:
    """Run a service until it is ready; it ends well at SIGTERM, and has acknowledged all it was given."""
    async with program("-c", source, url=url) as started:
        await consumed(bus, queue)
        yield started
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == 0
    assert await bus.waiting_in(queue) == 0


async def consumed(bus: Peer, queue: str) -> None:
    """Wait until a service has declared ``queue`` and takes from it."""
    while True:
        declared = await bus.channel.declare_queue(queue, durable=True)
        if declared.declaration_result.consumer_count:
            return


async def send(bus: Peer, name: str, payload: Any, exchange: str = "events", **properties: Any) -> None:
    await bus.channel.declare_exchange(exchange, "topic", durable=True)
    headers = {"conversation_id": "c-1"}
    await bus.publish(
        exchange, name, cbor2.dumps(payload), headers=headers, content_type="application/cbor", **properties
    )


def test_the_step_that_changes_the_imports_makes_the_one_from_the_other(tmp_path: Path) -> None:
    source = tmp_path / "before.py"
    source.write_text(BEFORE, encoding="utf-8")
    assert moved(source, tmp_path).read_text(encoding="utf-8") == AFTER


@pytest.mark.parametrize("source", [AFTER, ASYNC], ids=["callbacks", "coroutines"])
@asynchronous
async def test_the_greeter(source: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        results = await bus.tap("commands", "tester.Return")
        async with serving(source, broker.url, bus, "greeter.commands"):
            named = {"reply_to": "tester.Return", "correlation_id": "k"}
            await send(bus, "greeter.Greet", {"name": "Ada"}, "commands", **named)
            assert cbor2.loads((await results.next()).body) == {"greeting": "Hello, Ada!"}


@pytest.mark.parametrize("source", [THREADS, BY_HAND], ids=["threads", "by hand"])
@asynchronous
async def test_the_importers(source: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        imported = await bus.tap("events", "FileImported")
        async with serving(source, broker.url, bus, "importer.events"):
            for file in ("a", "b"):
                await send(bus, "FileReceived", {"file": file, "format": "wav"})
            files = sorted(cbor2.loads(message.body)["file"] for message in await imported.count(2))
            assert files == ["a", "b"]


@asynchronous
async def test_a_rejected_file_is_dead_lettered_at_once() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        dead = await bus.consume(DEAD_LETTER_QUEUE)
        async with serving(THREADS, broker.url, bus, "importer.events") as importer:
            await send(bus, "FileReceived", {"file": "a", "format": "txt"})
            assert cbor2.loads((await dead.next()).body)["format"] == "txt"
        assert "giving up on FileReceived after 1 attempt(s)" in importer.errors


@asynchronous
async def test_the_batch() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        counted = await bus.tap("events", "FilesCounted")
        async with serving(BATCH, broker.url, bus, "counter.events"):
            for number in range(60):
                await send(bus, "FileReceived", {"number": number})
            assert cbor2.loads((await counted.next()).body) == {"files": 60}


@asynchronous
async def test_the_endpoint() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        received = await bus.tap("events", "FileReceived")
        async with program("-c", ENDPOINT, url=broker.url) as endpoint:
            assert (await endpoint.end(), endpoint.errors, endpoint.lines.all) == (0, "", [])
        message = await received.next()
        assert (cbor2.loads(message.body), message.headers) == (
            {"file": "a.wav"},
            {"conversation_id": "conversation-1"},
        )
