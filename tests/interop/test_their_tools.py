"""Each of eventail's tools, against services and endpoints that run on eda-core."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

import eda_kombu
from eda_core import criticality
from tests.interop.test_directions import FORMS, theirs, tool
from tests.support.rabbitmq import RabbitNode
from tests.support.services import (
    DEAD_LETTER_QUEUE,
    Probe,
    Program,
    asynchronous,
    operate_dead_letters,
    peer,
    program,
    running,
)

pytestmark = pytest.mark.interop

PAYLOAD = {"sent": 1.5, "text": "en été"}


@pytest.fixture(params=FORMS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a payload, for the tools that send one. (Also those of JSON they send as CBOR.)"""
    path = tmp_path / f"payload.{request.param}"
    path.write_bytes(cbor2.dumps(PAYLOAD) if request.param == "cbor" else json.dumps(PAYLOAD).encode())
    return str(path)


class Listener(Probe):
    """Configured if it asks for that, and as good at its work as it is told."""

    failures = 0

    async def on_Chosen(self, payload: Any, meta: Any) -> bool:
        self.seen.add(("Chosen", payload))
        return True

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        self.seen.add((conversation_id, payload))

    async def on_PingReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: Any
    ) -> None:
        self.seen.add((correlation_id, status))


def shows(shown: Program, *texts: str) -> Any:
    """Wait until each text is in one of the lines."""
    return shown.lines.until(
        lambda lines: all(any(text in line for line in lines) for text in texts), f"{texts} are shown"
    )


def test_publish_event_and_publish_configuration(rabbit_url: str, file: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url, ["Happened"], configurations=["Chosen"])
        async with running(service, ready=False), peer(rabbit_url) as operator:
            while True:  # until it listens
                async with theirs(tool("publish_configuration.py"), rabbit_url, "Chosen", file) as configuration:
                    assert (await configuration.end(), configuration.errors) == (0, "")
                if service.seen.all:
                    break
            await service.ready.count(1)
            service.seen.all.clear()
            async with theirs(tool("publish_event.py"), rabbit_url, "Happened", file) as event:
                assert (await event.end(), event.lines.all) == (0, ["Message successfuly sent"])
            ((conversation_id, payload),) = await service.seen.count(1)
            assert payload == PAYLOAD
            assert conversation_id.startswith("debug")
            assert await operator.waiting_in("probe.events") == 0

    scenario()


@pytest.mark.parametrize("kind", ["pika", "aio"])
def test_send_command(rabbit_url: str, file: str, kind: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with program("-m", f"examples.services.{kind}.pong", url=rabbit_url) as pong:
            await pong.says("pong: ready")
            async with theirs(tool("send_command.py"), rabbit_url, "pong.Ping", file) as command:
                await shows(command, "Correlation ID is O.K.", "Conversation ID is O.K.", "Success!", "'sent': 1.5")

    scenario()


def test_logger(rabbit_url: str) -> None:
    def log() -> None:
        with eda_kombu.Endpoint(rabbit_url, "shop") as endpoint:
            endpoint.log(criticality.ERROR, "sold out", additional_fields={"article": "été"})

    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url)
        filters = ("--filter", "probe.NOTICE", "shop.#")
        async with running(service), theirs(tool("logger.py"), rabbit_url, *filters) as logger:
            await logger.says("connected!")
            await service.log(criticality.INFO, "not asked for")
            await service.log(criticality.NOTICE, "I'm fine!", conversation_id="c-1")
            await asyncio.to_thread(log)
            await shows(logger, "[probe.NOTICE]", "[shop.ERROR]")
            records = [json.loads(line.partition(" ")[2]) for line in logger.lines.all if line.startswith("[")]
        assert [record["short_message"] for record in records] == ["I'm fine!", "sold out"]
        assert (records[0]["_conversation_id"], records[1]["_article"]) == ("c-1", "été")

    scenario()


@pytest.mark.parametrize("form", FORMS)
def test_monitor(rabbit_url: str, form: str) -> None:
    watched = ("--events", "Happened", "--commands", "pong.*", "probe.*", "--configurations", "Chosen")

    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url, commands=["probe.PingReturn"])
        if form == "json":
            service.use_json()
        async with (
            program("-m", "examples.services.pika.pong", url=rabbit_url) as pong,
            running(service),
            theirs(tool("monitor.py"), rabbit_url, *watched) as monitor,
        ):
            await asyncio.gather(pong.says("pong: ready"), monitor.says("Started"))
            await service.publish_event("Happened", {"text": "en été"}, "c-1")
            await service.publish_configuration("Chosen", {"text": "un choix"})
            await service.send_command("pong.Ping", {"sent": 1.5}, "c-2", "probe.PingReturn", "k-1")
            assert await service.seen.next() == ("k-1", "success")
            await shows(monitor, "Got an Event Happened", "{'text': 'en été'}", "Conversation ID: c-1")
            await shows(monitor, "Got a configuration Chosen {'text': 'un choix'}")
            await shows(monitor, "Got a Command pong.Ping", "Return to probe.PingReturn", "Conversation ID: c-2")
            await shows(monitor, "Got a Result: probe.PingReturn", "Correlation ID: k-1", "Status success")
            assert monitor.errors == ""

    scenario()


def test_inspect_queue_and_resurrect(rabbit_url: str, rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url, ["Happened"])
        async with running(service), peer(rabbit_url) as operator:
            await operate_dead_letters(rabbitmq, rabbit_vhost, operator)
            service.failures = 2
            await service.publish_event("Happened", {"text": "en été"}, "c-1")
            while not await operator.waiting_in(DEAD_LETTER_QUEUE):
                await asyncio.sleep(0.05)
            async with theirs(tool("inspect_queue.py"), rabbit_url, DEAD_LETTER_QUEUE) as inspector:
                assert (await inspector.end(), inspector.errors) == (0, "")
                await shows(inspector, "[Happened]", "{'text': 'en été'}", "bye!")
            assert service.seen.all == []
            async with theirs(tool("resurrect.py"), rabbit_url, DEAD_LETTER_QUEUE) as resurrection:
                assert (await resurrection.end(), resurrection.lines.all[-1]) == (0, "Done!")
            assert await service.seen.next() == ("c-1", {"text": "en été"})
            assert await operator.waiting_in(DEAD_LETTER_QUEUE) == 0

    scenario()
