"""Each direction between what runs on eventail and what runs on eda-core."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import eda_kombu
from tests.support.services import Probe, Program, asynchronous, program, running

PROGRAMS = Path(__file__).parent / "programs"
FORMS = ["cbor", "json"]

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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["pika", "aio"])
def test_their_ping_is_answered_by_our_pong(rabbit_url: str, kind: str, form: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with program("-m", f"examples.services.{kind}.pong", url=rabbit_url) as pong:
            await pong.says("pong: ready")
            async with theirs(str(PROGRAMS / "ping.py"), rabbit_url, form) as ping:
                await ping.says("success conversation correlation 1.5")

    scenario()


@pytest.mark.parametrize("form", FORMS)
def test_our_command_is_answered_by_their_pong(rabbit_url: str, form: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Probe(rabbit_url)
        if form == "json":
            service.use_json()
        async with running(service), theirs(str(PROGRAMS / "pong.py"), rabbit_url, form) as pong:
            await pong.says("pong: ready")
            assert await service.call("pong.Ping", {"sent": "en été"}) == {"sent": "en été", "worker": "theirs"}

    scenario()


@pytest.mark.parametrize("as_json", [False, True], ids=["cbor", "json"])
def test_our_endpoint_reaches_their_service(rabbit_url: str, as_json: bool) -> None:
    def publish() -> None:
        with eda_kombu.Endpoint([rabbit_url], "ours") as endpoint:
            if as_json:
                endpoint.force_json()
            endpoint.publish_configuration("Chosen", {"text": "en été"})
            assert endpoint.publish_many([("Happened", {"text": "en été"}, f"c-{number}") for number in range(3)]) == 3
            endpoint.publish_event("Happened", {"text": "en été"}, "c-3")

    @asynchronous
    async def scenario() -> None:
        async with theirs(str(PROGRAMS / "listener.py"), rabbit_url, "Chosen") as listener:
            await listener.says("listener: unconfigured")
            await asyncio.to_thread(publish)
            await listener.says("listener: en été")
            for number in range(4):
                await listener.says(f"en été c-{number}")

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
