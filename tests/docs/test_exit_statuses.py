"""docs/exit-statuses.rst says what the tools, the other programs and services end with."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

import eda_core.journal.__main__ as journal
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.cli import status as cli
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from examples.conversations import demo
from tests.docs.blocks import ROOT
from tests.support.services import asynchronous, environment, program

PAGE: Final = (ROOT / "docs" / "exit-statuses.rst").read_text("utf-8")
STATUSES: Final = {name: value for name, value in vars(cli).items() if type(value) is int}
#: What each tool may end with, as the first table says.
COMMON: Final = {cli.DONE, cli.FAILED, cli.USAGE, cli.NO_CONNECTION, cli.TIMED_OUT, cli.INTERRUPTED}


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a part of the page. An empty first cell stands for the one above it."""
    first = ""
    for row in re.findall(r"^   \* -(.*\n(?:     .*\n)*)", text, re.MULTILINE):
        cells = [" ".join(cell.split()) for cell in re.split(r"^     - ", row, flags=re.MULTILINE)]
        first = cells[0] = cells[0] or first
        yield cells


_ABOUT_TOOLS, _, _REST = PAGE.partition("\nOther programs\n")
_ABOUT_ALL, _, _ABOUT_EACH = _ABOUT_TOOLS.partition("beside a lost connection")
_ABOUT_PROGRAMS, _, _ABOUT_SERVICES = _REST.partition("\nServices\n")

ALL: Final = {int(status): meaning for status, meaning in list(rows(_ABOUT_ALL))[1:]}
EACH: Final = {
    (name, int(status)): when
    for names, status, when in list(rows(_ABOUT_EACH))[1:]
    for name in re.findall(r"``(\w+)``", names)
}
ABOUT: Final = [(name, int(status)) for name, status, _ in list(rows(_ABOUT_PROGRAMS))[1:]]
SERVICES: Final = {what: (int(status), how) for what, status, how in list(rows(_ABOUT_SERVICES))[1:]}


# The tools


def test_the_page_has_the_statuses_of_the_tools() -> None:
    assert list(ALL) == sorted(STATUSES.values())
    assert [int(status) for status in re.findall(r"[:,] (\d+) ", cli.STATUSES)] == sorted(STATUSES.values())


def ends_with(module: str, seen: set[str]) -> Iterator[int]:
    """The statuses that a module names, and those in the other modules of the tools that it imports."""
    seen.add(module)
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == cli.__name__:
            yield from (STATUSES[alias.name] for alias in node.names if alias.name in STATUSES)
        elif isinstance(node, ast.ImportFrom) and re.match(r"eda_tools\.(?!cli\b)", node.module or ""):
            assert node.module is not None
            if node.module not in seen:
                yield from ends_with(node.module, seen)


@pytest.mark.parametrize("name", TOOLS)
def test_the_page_says_what_the_statuses_of_a_tool_mean(name: str) -> None:
    told = {status for tool, status in EACH if tool == name}
    possible = {*ends_with(f"eda_tools.{name}", set())}
    assert told <= possible | COMMON, "the tool does not end with that"
    assert possible - COMMON <= told, "give it a row in docs/exit-statuses.rst"
    assert {cli.FAILED, cli.TIMED_OUT} & told, "what is a failure for this tool?"


def test_the_page_is_about_tools_that_exist() -> None:
    assert {name for name, _ in EACH} == {*TOOLS}
    assert all(f"``eda {name}``" in PAGE for name in PROGRAMS)


# Other programs


def told_by(name: str) -> str:
    """What a program says itself of its exit statuses."""
    if name.startswith("``eda "):
        command = [sys.executable, "-m", f"eda_tools.{name[6:-2]}", "--help"]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    if "demo" in name:
        return str(demo.__doc__)
    assert name == "``python -m eda_core.journal``"
    return str(journal.main.__doc__) + " 2 for a usage error"


@pytest.mark.parametrize("name", sorted({name for name, _ in ABOUT}))
def test_the_page_has_the_statuses_that_a_program_tells(name: str) -> None:
    text = " ".join(told_by(name).split())
    told = re.search(r"(?:Exit status|Returns): (.*)", text)
    assert told is not None
    numbers = {int(number) for number in re.findall(r"(?<![\w:])(\d+)(?= |$)", told[1])}
    assert {status for each, status in ABOUT if each == name} == numbers


# Services

SERVICE: Final = """
import asyncio, importlib, logging, os, sys

logging.basicConfig(level=logging.INFO)
adapter, case = sys.argv[1:]
class Worker(importlib.import_module(adapter).Service):
    PREFETCH_COUNT = 0 if case == "wrong" else 1
    STOP_TIMEOUT = 0.5 if case == "late" else 600
    CASE = case

if adapter == "eda_aio":
    class Shop(Worker):
        async def on_ready(self):
            print("ready", flush=True)
            if self.CASE == "failing":
                raise ValueError("no")
            if self.CASE == "stopping":
                await self.stop()
            if self.CASE in ("leaving", "held", "late"):
                await self.publish_event("Sold", 1, "c")
        async def on_Sold(self, payload, conversation_id, meta):
            if self.CASE == "leaving":
                sys.exit(7)
            print("begun", flush=True)
            await asyncio.Event().wait()
else:
    class Shop(Worker):
        HANDLER_THREADS = 1
        def on_ready(self):
            print("ready", flush=True)
            if self.CASE == "failing":
                raise ValueError("no")
            if self.CASE == "stopping":
                self.stop()
            if self.CASE in ("leaving", "held", "late"):
                self.publish_event("Sold", 1, "c")
        def on_Sold(self, payload, conversation_id, meta):
            if self.CASE == "leaving":
                sys.exit(7)
            import threading
            print("begun", flush=True)
            threading.Event().wait()

running = Shop(os.environ["EDA_AMQP_URL"], ["Sold"], [], "shop").run()
if running is not None:
    asyncio.run(running)
"""

#: How each row of the table about services is brought about: what the service does, and the signals it is sent.
CASES: Final[dict[str, tuple[str, tuple[signal.Signals, ...]]]] = {
    "it is asked to stop": ("stopping", ()),
    "SIGINT": ("waiting", (signal.SIGINT,)),
    "SIGTERM": ("waiting", (signal.SIGTERM,)),
    "SIGHUP": ("waiting", (signal.SIGHUP,)),
    "a second signal": ("held", (signal.SIGTERM, signal.SIGTERM)),
    "the time of the stop": ("late", (signal.SIGTERM,)),
    "a setting is wrong": ("wrong", ()),
    "each URL refuses the credentials": ("refused", ()),
    "``on_ready`` fails": ("failing", ()),
    "a handler calls": ("leaving", ()),
    "it is killed": ("waiting", (signal.SIGKILL,)),
}


@pytest.fixture
def url() -> Iterator[str]:
    with EmbeddedBrokerThread() as broker:
        yield broker.url


@pytest.mark.parametrize("adapter", ["eda_aio", "eda_pika"])
@pytest.mark.parametrize("what", CASES)
@asynchronous
async def test_a_service_ends_as_the_page_says(url: str, tmp_path: Path, what: str, adapter: str) -> None:
    (row,) = (row for row in SERVICES if what in row)
    status, how = SERVICES[row]
    case, signals = CASES[what]
    (tmp_path / "worker.py").write_text(SERVICE)
    place = url.replace("guest:guest@", "guest:wrong@") if case == "refused" else url
    async with program(str(tmp_path / "worker.py"), adapter, case, url=place) as worker:
        if signals:
            await worker.says("begun" if case in ("held", "late") else "ready")
        for sent, number in enumerate(signals, 1):
            worker.process.send_signal(number)
            if sent < len(signals):
                await worker.notes.until(lambda lines: any("stopping" in line for line in lines), "it stops")
        ended = await worker.end()
        assert (128 - ended if ended < 0 else ended) == status, worker.errors
        names = re.findall(r"``(\w+)``", how)
        assert all(name == "SystemExit" or f"{name}: " in worker.errors for name in names), worker.errors
        assert names or "Traceback" not in worker.errors, worker.errors


def test_each_row_about_services_is_tried() -> None:
    assert {row for row in SERVICES for what in CASES if what in row} == {*SERVICES}
