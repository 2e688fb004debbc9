"""The demo as in production: run by ``eda run``, scraped, traced, its contract checked, its dead letter mended.

It does what ``examples/conversations/README.rst`` says under "Seen from outside".
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import socket
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from eda_tools.broker import EmbeddedBroker
from examples.conversations.transcripts import SHIPPED
from tests.support.rabbitmq import RabbitNode
from tests.support.services import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    ROOT,
    Peer,
    asynchronous,
    operate_dead_letters,
    peer,
    program,
)

README: Final = (ROOT / "examples/conversations/README.rst").read_text("utf-8")
SERVICES: Final = re.findall(r"examples\.conversations\.\w+:\w+", README)[:3]
#: The file of the poisoned transcript.
POISONED: Final = "13-telecom-card-update-en.txt"
SCHEMA: Final = ROOT / "tests/tools/contracts/asyncapi/3.0.0.json.gz"


@asynccontextmanager
async def bus(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[tuple[str, Peer]]:
    """The URL of a broker with a queue for dead letters, and a client of it."""
    async with AsyncExitStack() as stack:
        if kind == "embedded":
            url = (await stack.enter_async_context(EmbeddedBroker())).url
            yield url, await stack.enter_async_context(peer(url))
            return
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        url = request.getfixturevalue("rabbit_url")
        client = await stack.enter_async_context(peer(url))
        await operate_dead_letters(node, request.getfixturevalue("rabbit_vhost"), client)
        yield url, client


@contextmanager
def free_ports(count: int) -> Iterator[int]:
    """The first of so many ports in a row that nobody uses."""
    for first in range(20_000, 60_000, count):
        sockets: list[socket.socket] = []
        try:
            for number in range(count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        yield first
        return
    pytest.fail("no free ports")


async def tool(url: str, name: str, *arguments: str, **settings: str) -> str:
    """The output of a tool. ``settings`` are more variables of its environment."""
    async with program("-m", "eda_tools", name, *arguments, url=url, settings=settings) as run:
        assert await run.end() == 0, run.errors
    return "\n".join(run.lines.all)


async def scraped(port: int) -> dict[str, Metric]:
    """The metrics of the worker at this port, as a client of Prometheus reads them."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    return {family.name: family for family in text_string_to_metric_families(await asyncio.to_thread(get))}


def total(workers: list[dict[str, Metric]], service: str, name: str) -> float:
    """A counter of a service, of all its workers."""
    return sum(
        sample.value
        for families in workers
        for sample in families[name].samples
        if sample.name == f"{name}_total" and sample.labels["service"] == service
    )


def spans_in(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The spans by the conversation to which they belong."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in file.read_text("utf-8").splitlines():
        span = json.loads(line)
        found[span["attributes"].get("messaging.message.conversation_id", "")].append(span)
    return found


@pytest.mark.parametrize("kind", ["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
@asynchronous
async def test_the_demo_is_seen_from_outside(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    settings = {"ARCHIVE_STATE": str(tmp_path / "state"), "DEAD_LETTER_EXCHANGE": DEAD_LETTER_EXCHANGE}
    spans = tmp_path / "spans.jsonl"
    async with bus(request, kind) as (url, client):
        archived = await client.tap("events", "ConversationArchived")
        dead = await client.tap(DEAD_LETTER_EXCHANGE, "#")
        with free_ports(9) as port:
            watched = ("--health-port", str(port), "--traces", str(spans), "--log-format", "json")
            command = ("-m", "eda_tools", "run", "--workers", "3", *watched, *SERVICES)
            async with program(*command, url=url, settings=settings) as run:
                await run.lines.until(lambda lines: sum('"ready: ' in line for line in lines) == 9, "nine workers")
                await send_all(url)
                await archived.count(12)
                await dead.count(1)
                workers = [await scraped(port + number) for number in range(9)]
                await mend(url)
                await archived.count(13)
                run.process.send_signal(signal.SIGTERM)
                assert await run.end() == 0
    judge_metrics(workers)
    judge_spans(spans)


async def send_all(url: str) -> None:
    async with program("-m", "examples.conversations.collector", str(SHIPPED), url=url) as sender:
        assert await sender.end() == 0


async def mend(url: str) -> None:
    """Find the poisoned transcript by its error, and send it again with another text."""
    groups = await tool(url, "inspect_queue", DEAD_LETTER_QUEUE, "--group-by", "error")
    assert re.search(r"^ValueError in anonymizer +1 ", groups, re.MULTILINE)
    letter = await tool(url, "inspect_queue", DEAD_LETTER_QUEUE, "--json")
    assert "month must be in 1..12" in letter
    done = await tool(
        *(url, "resurrect", DEAD_LETTER_QUEUE, "--where", 'headers.error_type == "ValueError"'),
        *("--set", "payload.text=The card expires 12/27.", "--json"),
    )
    assert json.loads(done.splitlines()[-1])["total"]["replayed"] == 1


def judge_metrics(workers: list[dict[str, Metric]]) -> None:
    assert total(workers, "archive", "eda_deliveries_dead_lettered") == 0
    assert total(workers, "anonymizer", "eda_deliveries_dead_lettered") == 1
    assert total(workers, "anonymizer", "eda_deliveries_retried") == 1
    # Each conversation: received, two results; and the poisoned one is received only.
    assert total(workers, "archive", "eda_deliveries_acknowledged") == 12 * 3 + 1


def judge_spans(file: Path) -> None:
    """Each conversation is one trace through three services; that of the poisoned one has the error."""
    conversations = spans_in(file)
    conversations.pop("", None)
    assert len(conversations) == 13
    failed = 0
    for spans in conversations.values():
        assert len({span["context"]["trace_id"] for span in spans}) == 1
        services = Counter(span["resource"]["attributes"]["service.name"] for span in spans)
        assert set(services) == {"archive", "anonymizer", "tagger"}
        errors = [span for span in spans if span["attributes"].get("error.type") == "ValueError"]
        failed += bool(errors)
        assert len(errors) in (0, 2)
    assert failed == 1


@asynchronous
async def test_the_contract_of_the_demo_is_valid_and_its_services_agree(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    document = json.loads(await tool("", "asyncapi", *SERVICES, ARCHIVE_STATE=state))
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    jsonschema.validate(document, schema)
    assert {"events.ConversationReceived", "events.ConversationArchived"} <= set(document["channels"])
    found = await tool("", "check", *SERVICES, ARCHIVE_STATE=state)
    assert "error" not in found
    assert "nobody hears the event ConversationArchived of archive" in found
