"""Programs written for eventail do the same after the step of docs/from-eventail.rst that changes their imports."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.services import ROOT, asynchronous, program

PROGRAMS = Path(__file__).parent / "programs"
PAGE = (ROOT / "docs" / "from-eventail.rst").read_text(encoding="utf-8")

#: What ``everything.py`` says, on eventail as on eda_pika.
EVERYTHING = """\
unconfigured everything 0
Chosen {'greeting': 'hello'} ['app_id', 'delivery_tag', 'expiration', 'timestamp', 'user_id']
ready True True True
events commands configurations logs 1
First {'text': 'en été', 'tags': ['a', 'b']} c-1
both [(1, 'c-1'), (2, 'c-2')]
Do {} c-3 everything.DoReturn 2
everything.DoReturn {'reason': 'tired'} c-3 error 2 True
returned Unheard {} c-4
bye everything
""".splitlines()


def moved(source: Path, directory: Path) -> Path:
    """``source`` as a team would have it after that step, in ``directory``."""
    found = re.search(r"^ {4}(sed -i .*?service\.py)$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    service = directory / "service.py"
    service.write_bytes(source.read_bytes())
    subprocess.run(["sh", "-c", found[1]], cwd=directory, check=True)
    assert "eventail." not in service.read_text(encoding="utf-8")
    return service


@asynchronous
async def test_a_service_that_does_everything(tmp_path: Path) -> None:
    service = moved(PROGRAMS / "everything.py", tmp_path)
    async with EmbeddedBroker() as broker, program(str(service), broker.url) as everything:
        assert (await everything.end(), everything.lines.all) == (0, EVERYTHING)
        assert everything.errors.splitlines() == [
            "Everything may not do what it should",
            "- a Batch of 2 events never gets full if its handlers return True, because PREFETCH_COUNT is 1; write "
            "PREFETCH_COUNT = 2 in the class",
            "Everything.on_Collected has put its event into a batch and has not returned True: the event is "
            "acknowledged before its batch is handled, and is lost if the process dies; end the handler with "
            "'return True'",
            "events/Unheard came back: NO_ROUTE",
        ]


@asynchronous
async def test_ping_pong_a_listener_and_the_endpoint(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        directories = {name: tmp_path / name for name in ("pong", "ping", "listener", "endpoint")}
        for directory in directories.values():
            directory.mkdir()
        files = {name: str(moved(PROGRAMS / f"{name}.py", where)) for name, where in directories.items()}
        async with program(files["pong"], broker.url) as pong, program(files["listener"], broker.url) as listener:
            await asyncio.gather(pong.says("pong: ready"), listener.says("listener: ready"))
            async with program(files["ping"], broker.url) as ping, program(files["endpoint"], broker.url) as endpoint:
                await ping.says("success conversation correlation 1.5")
                assert (await endpoint.end(), endpoint.errors) == (0, "")
                await listener.says("en été cbor")
                await listener.says("en été json")


@pytest.mark.interop
def test_on_eventail_it_is_the_same(rabbit_url: str) -> None:
    python = os.environ["EDA_EVENTAIL_PYTHON"]
    env = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1"}
    command = [python, str(PROGRAMS / "everything.py"), rabbit_url]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines() == EVERYTHING
