"""Each direction between what runs on eventail and what runs on eda-core."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import eda_kombu
from tests.support.services import Probe, Program, asynchronous, program, running

PROGRAMS = Path(__file__).parent / "programs"

pytestmark = pytest.mark.interop


@asynccontextmanager
async def theirs(*arguments: str) -> AsyncIterator[Program]:
    """A Python program in the environment where eventail is."""
    python, pipe = os.environ["EDA_EVENTAIL_PYTHON"], asyncio.subprocess.PIPE
    env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    process = await asyncio.create_subprocess_exec(python, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    started = Program(process)
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await started.end()


def tool(name: str) -> str:
    """The path of a tool of eventail's."""
    return str(Path(os.environ["EDA_EVENTAIL_PYTHON"]).parent / name)


@pytest.mark.parametrize("kind", ["pika", "aio"])
def test_their_ping_is_answered_by_our_pong(rabbit_url: str, kind: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with program("-m", f"examples.services.{kind}.pong", url=rabbit_url) as pong:
            await pong.says("pong: ready")
            async with theirs(str(PROGRAMS / "ping.py"), rabbit_url) as ping:
                await ping.says("success conversation correlation 1.5")

    scenario()


@pytest.mark.parametrize("as_json", [False, True], ids=["cbor", "json"])
def test_our_endpoint_reaches_their_service(rabbit_url: str, as_json: bool) -> None:
    def publish() -> None:
        with eda_kombu.Endpoint([rabbit_url], "ours") as endpoint:
            if as_json:
                endpoint.force_json()
            endpoint.publish_event("Happened", {"text": "en été"}, "c-1")

    @asynchronous
    async def scenario() -> None:
        async with theirs(str(PROGRAMS / "listener.py"), rabbit_url) as listener:
            await listener.says("listener: ready")
            await asyncio.to_thread(publish)
            await listener.says("en été c-1")

    scenario()


class Listener(Probe):
    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.seen.add((conversation_id, payload))


def test_their_endpoint_reaches_our_service(rabbit_url: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url, ["Happened"])
        async with running(service), theirs(str(PROGRAMS / "endpoint.py"), rabbit_url) as endpoint:
            assert sorted(await service.seen.count(2)) == [("cbor", {"text": "en été"}), ("json", {"text": "en été"})]
            assert await endpoint.end() == 0

    scenario()


def test_their_tools_publish_to_our_service_and_command_our_pong(rabbit_url: str, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps({"sent": 1.5}), encoding="utf-8")

    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url, ["Happened"])
        async with running(service), theirs(tool("publish_event.py"), rabbit_url, "Happened", str(payload)) as event:
            assert await event.end() == 0
            assert (await service.seen.next())[1] == {"sent": 1.5}
        async with program("-m", "examples.services.pika.pong", url=rabbit_url) as pong:
            await pong.says("pong: ready")
            async with theirs(tool("send_command.py"), rabbit_url, "pong.Ping", str(payload)) as command:
                await command.lines.until(lambda lines: any("1.5" in line for line in lines), "the result")

    scenario()


def test_their_tools_show_what_ours_send(rabbit_url: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url)
        async with running(service), theirs(tool("monitor.py"), rabbit_url, "--events", "Happened") as monitor:

            async def until_shown() -> None:
                while True:  # it does not say when it listens
                    await service.publish_event("Happened", {"text": "seen"}, "c-1")

            publishing = asyncio.create_task(until_shown())
            await monitor.lines.until(lambda lines: any("seen" in line for line in lines), "the event is shown")
            publishing.cancel()

    scenario()
