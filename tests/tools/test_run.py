"""The command ``eda run``: real processes, on the embedded broker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cbor2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from eda_tools import eda
from eda_tools import run as tool
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import (
    TIMEOUT,
    Peer,
    Program,
    asynchronous,
    conversation,
    environment,
    peer,
    program,
    within,
)
from tests.support.tools import on_terminal

#: Services of each kind. Their handlers wait until somebody writes to the pipe "gate".
SERVICES = """
import asyncio, os, sys, threading
import eda_aio, eda_pika

def wait_at_the_gate():
    gate = os.open("gate", os.O_RDONLY)
    os.read(gate, 1)
    os.close(gate)

class Aio(eda_aio.Service):
    KIND = "aio"
    def __init__(self, urls):
        super().__init__(urls, [f"{self.KIND}Job", f"{self.KIND}End"], [], self.KIND)

    async def on_ready(self):
        print(self.KIND, "is ready", flush=True)

    async def handle_event(self, event, payload, conversation_id, meta):
        print("begins", payload, flush=True)
        if event.endswith("End"):
            await self.stop()
            return
        if payload == "wait":
            await asyncio.to_thread(wait_at_the_gate)
        await self.publish_event("JobDone", payload, conversation_id)
        print("has done", payload, flush=True)

class Native(Aio):
    KIND, TRANSPORT = "native", "native"

class Pika(eda_pika.Service):
    KIND = "pika"
    def __init__(self, urls):
        super().__init__(urls, [f"{self.KIND}Job", f"{self.KIND}End"], [], self.KIND)

    def on_ready(self):
        print(self.KIND, "is ready", flush=True)

    def handle_event(self, event, payload, conversation_id, meta):
        print("begins", payload, flush=True)
        if event.endswith("End"):
            self.stop()
            return
        if payload == "wait":
            wait_at_the_gate()
        self.publish_event("JobDone", payload, conversation_id)
        print("has done", payload, flush=True)

class Threads(Pika):
    KIND, HANDLER_THREADS = "threads", 2
"""
KINDS = {"Aio": "aio", "Native": "native", "Pika": "pika", "Threads": "threads"}


@pytest.fixture
def url() -> Iterator[str]:
    with EmbeddedBrokerThread() as broker:
        yield broker.url


class Project(type(Path())):  # type: ignore[misc]
    """A directory with the services, and with their gate."""

    gate: int

    def open_gate(self) -> None:
        """Let one handler go on that waits at the gate, or will."""
        os.write(self.gate, b"!")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    (made / "services.py").write_text(SERVICES)
    os.mkfifo(made / "gate")
    made.gate = os.open(made / "gate", os.O_RDWR)  # so that nobody waits when it is opened
    yield made
    os.close(made.gate)


class Run(Program):
    """``eda run`` in a process of its own, with its log as JSON."""

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.all]

    async def logs(self, text: str, times: int = 1, **where: Any) -> dict[str, Any]:
        """Wait until it has logged a message, so often; return the last one."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.entries if text in each["message"] and where.items() <= each.items()]

        await self.lines.until(lambda _: len(found()) >= times, f"{text!r}, {times} times")
        return found()[-1]


@asynccontextmanager
async def run(
    project: Project, *arguments: str, url: str | None, ignored: Container[signal.Signals] = ()
) -> AsyncIterator[Run]:
    given = ("-m", "eda_tools", "run", *arguments, "--log-format", "json")
    async with program(*given, url=url, cwd=project, ignored=ignored) as started:
        started.__class__ = Run
        assert isinstance(started, Run)
        yield started


async def send(client: Peer, name: str, payload: Any) -> None:
    headers = {"conversation_id": conversation()}
    await client.publish("events", name, cbor2.dumps(payload), content_type="application/cbor", headers=headers)


@asynchronous
async def test_services_of_several_adapters_run_with_several_workers_each(url: str, project: Project) -> None:
    services = [f"services:{name}" for name in KINDS]
    services[0] += "=1"
    async with run(project, *services, "--workers", "2", url=url) as started, peer(url) as client:
        for kind in KINDS.values():
            await started.logs("ready: receives events", times=1 if kind == "aio" else 2, service=kind)
        done = await client.tap("events", "JobDone")
        for kind in KINDS.values():
            await send(client, f"{kind}Job", kind)
        await done.count(4)
        assert {cbor2.loads(each.body) for each in done.all} == {*KINDS.values()}
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == 0
    assert started.errors == ""
    workers = {(each["program"], each["worker"]) for each in started.entries if "worker" in each}
    assert workers == {(f"services:{name}", number) for name in KINDS for number in (1, 2)} - {("services:Aio", 2)}
    assert sum(each["message"].startswith("stopped: ") for each in started.entries) == 7
    ready = next(each for each in started.entries if each["message"] == "pika is ready")
    assert ready.keys() == {"time", "program", "worker", "pid", "service", "stream", "message"}
    logged = next(each for each in started.entries if each["message"].startswith("started: pika"))
    assert (logged["level"], logged["logger"], logged["event"]) == ("INFO", "eda_pika", "started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("name", KINDS)
@asynchronous
async def test_a_worker_that_is_stopped_finishes_its_handler(
    url: str, project: Project, name: str, number: signal.Signals
) -> None:
    async with run(project, f"services:{name}", url=url) as started, peer(url) as client:
        await started.logs("is ready")
        done = await client.tap("events", "JobDone")
        await send(client, f"{KINDS[name]}Job", "wait")
        await started.logs("begins wait")
        started.process.send_signal(number)
        # A service without threads hears of it when its handler is done.
        await started.logs("stops; once more" if name == "Pika" else "stopping")
        project.open_gate()
        assert await started.end() == 0
        await done.count(1)
        assert await client.drain(f"{KINDS[name]}.events") == []
        assert [each["message"] for each in started.entries if "has done" in each["message"]] == ["has done wait"]


@pytest.mark.parametrize("name", ["Aio", "Pika"])
@asynchronous
async def test_a_second_signal_stops_at_once_and_the_message_is_kept(url: str, project: Project, name: str) -> None:
    async with run(project, f"services:{name}", url=url) as started, peer(url) as client:
        await started.logs("is ready")
        await send(client, f"{KINDS[name]}Job", "wait")
        await started.logs("begins wait")
        started.process.send_signal(signal.SIGINT)
        await started.logs("stops; once more" if name == "Pika" else "stopping")
        started.process.send_signal(signal.SIGINT)
        if name == "Aio":
            await started.logs("stopped: ")
            project.open_gate()  # Python waits for the thread
        assert await started.end() == 130
        assert len(await client.drain(f"{KINDS[name]}.events")) == 1


@asynchronous
async def test_a_worker_that_is_killed_is_replaced_and_its_message_handled(url: str, project: Project) -> None:
    async with run(project, "services:Aio", "--restart-delay", "0.05", url=url) as started, peer(url) as client:
        await started.logs("is ready")
        done = await client.tap("events", "JobDone")
        await send(client, "aioJob", "wait")
        first = await started.logs("begins wait")
        os.kill(first["pid"], signal.SIGKILL)
        told = await started.logs("Aio was ended by SIGKILL; starts again in 0.05 s")
        assert (told["level"], told["program"], told["worker"]) == ("ERROR", "services:Aio", 1)
        second = await started.logs("begins wait", times=2)
        assert second["pid"] != first["pid"]
        project.open_gate()
        project.open_gate()  # the next one may die before its acknowledgement is sent
        await done.count(1)
        os.kill(second["pid"], signal.SIGKILL)
        await started.logs("Aio was ended by SIGKILL; starts again in 0.1 s")
        await started.logs("is ready", times=3)
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == 0
    assert sum("starts again" in each["message"] for each in started.entries) == 2


@asynchronous
async def test_it_ends_when_all_services_have_ended_by_themselves(url: str, project: Project) -> None:
    async with run(project, "services:Aio", "services:Pika", url=url) as started, peer(url) as client:
        await started.logs("is ready", times=2)
        await send(client, "aioEnd", 1)
        await started.logs("Aio has ended")
        await send(client, "pikaJob", 2)
        await started.logs("has done 2")
        await send(client, "pikaEnd", 3)
        assert await started.end() == 0
    assert sum("ready: " in each["message"] for each in started.entries) == 2


@asynchronous
async def test_a_refused_password_is_told_by_the_service_and_tried_again(url: str, project: Project) -> None:
    wrong = url.replace("guest:guest@", "guest:wrong@")
    async with run(project, "services:Aio", "--restart-delay", "0.01", "--url", wrong, url=url) as started:
        await started.logs("starts again in 0.02 s")
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() in (0, 1)  # a worker may fail once more
    assert any("refuses the credentials" in each["message"] for each in started.entries)
    assert "wrong" not in "".join(started.lines.all)


@asynchronous
async def test_workers_stop_when_their_supervisor_is_killed(url: str, project: Project) -> None:
    (project / "alive.py").write_text("from services import *\nlife = open('life', 'w')\n")
    os.mkfifo(project / "life")
    with subprocess.Popen(["cat", "life"], cwd=project, stdout=subprocess.PIPE) as cat:  # ends with the last worker
        async with run(project, "alive:Aio", "alive:Pika", url=url) as started:
            await started.logs("is ready", times=2)
            started.process.kill()
            await started.end()
        await within(asyncio.to_thread(cat.wait, TIMEOUT), "the workers end")


@asynchronous
async def test_signals_that_are_ignored_stay_ignored(url: str, project: Project) -> None:
    async with run(project, "services:Aio", url=url, ignored=[signal.SIGHUP]) as started, peer(url) as client:
        await started.logs("is ready")
        started.process.send_signal(signal.SIGHUP)
        await send(client, "aioJob", 1)
        await started.logs("has done 1")
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == 0
    assert [each["message"] for each in started.entries if "program" not in each] == [
        "stops; once more, and it stops at once"
    ]


# Reloading


@asynchronous
async def test_a_change_starts_all_anew(url: str, project: Project) -> None:
    async with run(project, "services:Aio", "services:Pika", "--reload", url=url) as started, peer(url) as client:
        await started.logs("is ready", times=2)
        done = await client.tap("events", "JobDone")
        await send(client, "aioJob", "wait")
        await started.logs("begins wait")
        (project / "services.py").write_text(SERVICES.replace("is ready", "is new"))
        await started.logs("services.py changed; starts all anew")
        project.open_gate()
        await started.logs("is new", times=2)
        await done.count(1)
        (project / "services.py").write_text("class Broken(")
        await started.logs("services cannot be imported: SyntaxError: '(' was never closed")
        await started.logs("waits for a change", times=2)
        (project / "services.py").write_text(SERVICES)
        await started.logs("is ready", times=4)
        await send(client, "aioEnd", 1)
        await send(client, "pikaEnd", 1)
        await started.logs("all have ended; waits for a change")
        (project / "more.py").write_text("")
        await started.logs("more.py changed; starts all anew")
        await started.logs("is ready", times=6)
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == 0
    assert not any("starts again" in each["message"] for each in started.entries)


@asynchronous
async def test_what_cannot_be_loaded_at_first_waits_for_a_change(url: str, project: Project) -> None:
    (project / "source").mkdir()
    async with run(project, "services:Soon", "--reload", "--reload-dir", "source", url=url) as started:
        await started.logs(
            "services has no Soon; it defines wait_at_the_gate, Aio, Native, Pika, Threads; waits for a change"
        )
        (project / "services.py").write_text(f"{SERVICES}\nSoon = Aio\n")
        (project / "source" / "any.py").write_text("")
        await started.logs("is ready")
        started.process.send_signal(signal.SIGINT)
        assert await started.end() == 0


# What is wrong with the command line


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nowhere_at_all:Shop"], 2, "eda run: there is no module nowhere_at_all; begin in the directory"),
        (["services:Shop"], 2, "eda run: services has no Shop; it defines "),
        (["services:KINDS"], 2, "eda run: services has no KINDS"),
        (["services:os"], 2, "eda run: services:os is no service; name a class"),
        (["failing:Aio"], 1, "eda run: failing cannot be imported: ZeroDivisionError: division by zero"),
        (["services:Aio", "--url", "amqp://h:x/"], 2, "eda run: argument --url: "),
        (["services.py:Aio"], 2, "eda run: argument MODULE:NAME[=WORKERS]: 'services.py:Aio' is not MODULE:NAME"),
        (["services:Aio=0"], 2, "eda run: argument MODULE:NAME[=WORKERS]: '0' is not a whole number"),
        (["services:Aio", "--workers", "none"], 2, "eda run: argument --workers: "),
        (["services:Aio", "--traces", "nowhere/spans"], 2, "eda run: nowhere/spans cannot be written: No such file"),
        ([], 2, "eda run: the following arguments are required: MODULE:NAME[=WORKERS]"),
        (["services:Aio=1001"], 2, "eda run: there are more than 1,000 workers; give fewer"),
        (["services:Aio", "--workers", "9999999999"], 2, "eda run: there are more than 1,000 workers"),
        (["services:Aio", "--health-host", "::"], 2, "eda run: --health-host is of no use without --health-port"),
        (["services:Aio", "--reload-dir", "."], 2, "eda run: --reload-dir is of no use without --reload"),
        (["services:Aio", "--reload", "--reload-dir", "x"], 2, "eda run: --reload-dir x: there is no such directory"),
        (["leaving:Aio"], 1, "eda run: leaving cannot be imported: SystemExit: 3"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(project: Project, arguments: list[str], status: int, told: str) -> None:
    (project / "failing.py").write_text("1 / 0\n")
    (project / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    done = eda_run(project, *arguments, EDA_AMQP_URL="amqp://127.0.0.1:1/")
    assert done.returncode == status
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert ("Traceback" in done.stdout) == (status == 1)


@asynchronous
async def test_spans_of_all_workers_are_in_one_file(url: str, project: Project) -> None:
    """Without any code of the services. A file that is there is appended to."""
    (project / "relays.py").write_text(
        "import eda_aio, eda_pika\n"
        "class First(eda_aio.Service):\n"
        "    def __init__(self, urls):\n        super().__init__(urls, ['Begun'], [], 'first')\n"
        "    async def on_Begun(self, payload, conversation_id, meta):\n"
        "        await self.publish_event('GoneOn', payload, conversation_id)\n"
        "class Second(eda_pika.Service):\n"
        "    def __init__(self, urls):\n        super().__init__(urls, ['GoneOn'], [], 'second')\n"
        "    def on_GoneOn(self, payload, conversation_id, meta):\n"
        "        self.publish_event('Ended', payload, conversation_id)\n"
    )
    file = project / "spans.jsonl"
    file.write_text('{"name": "kept"}\n')
    async with run(project, "relays:First=2", "relays:Second", "--traces", "spans.jsonl", url=url) as ran:
        await ran.logs("ready: receives", times=3)
        async with peer(url) as client:
            ended = await client.tap("events", "Ended")
            for number in range(10):
                await send(client, "Begun", number)
            await ended.count(10)
        ran.process.send_signal(signal.SIGTERM)
        assert await ran.end() == 0, ran.errors
    first, *spans = [json.loads(line) for line in file.read_text().splitlines()]
    assert first == {"name": "kept"}
    assert len(spans) == 40
    assert len({span["context"]["trace_id"] for span in spans}) == 10
    named = {(each["service.name"], each["service.instance.id"]) for each in (_resource(span) for span in spans)}
    assert named == {("first", "First.1"), ("first", "First.2"), ("second", "Second")}


def _resource(span: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = span["resource"]["attributes"]
    return attributes


def test_without_the_library_for_traces_the_extra_is_named(project: Project) -> None:
    (project / "opentelemetry.py").write_text("")
    done = eda_run(project, "services:Aio", "--traces", "spans", PYTHONPATH=f"{project}:{environment()['PYTHONPATH']}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("eda run: eda_otel needs opentelemetry.trace")
    assert done.stderr.endswith(": pip install 'eda-core[otel]'\n")


def eda_run(project: Project, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eda_tools", "run", *arguments],
        capture_output=True,
        text=True,
        env={**environment(), **variables},
        cwd=project,
        timeout=TIMEOUT,
    )


def test_the_broker_comes_from_the_option_or_the_environment(project: Project) -> None:
    done = eda_run(project, "services:Aio")
    assert done.returncode == 2
    assert done.stderr.startswith("eda run: no broker: give --url, or set the environment variable EDA_AMQP_URL")
    done = eda_run(project, "services:Aio", EDA_AMQP_URL="nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("eda run: ")
    (project / "shown.py").write_text(
        "import os\nprint(os.environ['EDA_AMQP_URL'])\nfrom services import Aio\nclass Shown(Aio):\n"
        "    def __init__(self, urls):\n        print(urls)\n        os._exit(0)\n"
    )
    both = "amqp://a:p@one/,amqp://two/"
    done = eda_run(project, "shown:Shown", "--url", both, "--color", "never", EDA_AMQP_URL="amqp://three/")
    assert done.returncode == 0
    lines = [line.partition("| ")[2] for line in done.stdout.splitlines()]
    assert lines == [both, "['amqp://a:p@one/', 'amqp://two/']", "Shown has ended"]


def test_the_same_command_by_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(["run", "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: eda run [-h] ")
    assert "A second one stops them at once" in " ".join(told.split())
    assert tool.main(["--version"]) == 0


# The log


ENDING = """
import eda_aio
class Shop(eda_aio.Service):
    def __init__(self, urls):
        print("Café", flush=True)
        raise SystemExit
"""


@pytest.mark.parametrize(
    ("arguments", "variables", "coloured"),
    [([], {}, True), ([], {"NO_COLOR": "1"}, False), (["--color", "never"], {}, False)],
)
def test_on_a_terminal_each_service_has_its_colour(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(ENDING)
    (tmp_path / "mail.py").write_text(ENDING)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "eda_tools", "run", "shop:Shop", "mail:Shop", *arguments]
    status, sent = on_terminal(*command, url="amqp://127.0.0.1:1/", env=variables)
    assert status == 0
    assert ("\x1b[36mshop:Shop | " in sent) == coloured
    assert ("\x1b[32mmail:Shop | " in sent) == coloured
    plain = re.sub(r"\x1b\[[\d;]*m", "", sent)
    assert sorted(line[9:] for line in plain.splitlines()) == [
        "eda run   | mail:Shop has ended",
        "eda run   | shop:Shop has ended",
        "mail:Shop | Café",
        "shop:Shop | Café",
    ]


def held_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.parametrize("how", ["a signal", "the end of the reader"])
@asynchronous
async def test_a_reader_of_the_log_that_waits_or_ends_keeps_nothing_from_its_end(
    url: str, project: Project, how: str
) -> None:
    (project / "talking.py").write_text(
        f"{SERVICES}\nclass Talking(Aio):\n"
        "    async def on_ready(self):\n        os.write(os.open('gate', os.O_RDWR), b'!')\n"
        "        for _ in range(5000):\n            print('x' * 100, flush=True)\n            await asyncio.sleep(0)\n"
    )
    reading, writing = held_pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "eda_tools", "run", "talking:Talking"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(url),
        cwd=project,
    )
    os.close(writing)
    try:
        ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(project.gate, ready.set)
        await within(ready.wait(), "the service is ready")
        asyncio.get_running_loop().remove_reader(project.gate)
        if how == "a signal":
            process.send_signal(signal.SIGTERM)
        else:
            os.close(reading)
        _, errors = await within(asyncio.to_thread(process.communicate), "its end")
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        if how == "a signal":
            os.close(reading)
    assert (process.returncode, errors.count("Traceback")) == (0, 0)


def loaded(module: str, *names: str) -> list[str]:
    """Which of these modules are loaded with a module."""
    code = f"import sys, {module}; print(*[name for name in sys.modules if name in {names!r}])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=True).stdout.split()


def test_it_costs_nothing_that_is_not_used() -> None:
    """The other commands load nothing of it, and a worker loads nothing of the command line."""
    assert loaded("eda_tools.eda", "eda_tools.run", "eda_tools.running", "rich") == ["rich"]
    assert loaded("eda_tools.running.worker", "rich", "shtab", "argparse", "eda_tools.cli.arguments") == []


# --- health ---


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus finds at a worker: the values by name and labels. None comes twice."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as answer:
        text = answer.read().decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    for first in range(20_000 + os.getpid() % 10_000, 60_000, count):
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports are free")


@pytest.mark.parametrize("name", ["Native", "Pika"])
@asynchronous
async def test_each_worker_tells_how_it_does_at_a_port_of_its_own(url: str, project: Project, name: str) -> None:
    first = free_ports(3)
    ports, kind, count = range(first, first + 3), KINDS[name], 30
    arguments = (f"services:{name}", "--workers", "3", "--health-port", str(first))
    async with run(project, *arguments, url=url) as started, peer(url) as client:
        for worker, port in enumerate(ports, 1):
            await started.logs(f"is told at http://127.0.0.1:{port}/health", worker=worker)
        await started.logs("ready: receives events", times=3)
        done = await client.tap("events", "JobDone")
        for number in range(count):
            await send(client, f"{kind}Job", number)
        await done.count(count)
        labels = frozenset({"service": kind}.items())
        handled = frozenset({"service": kind, "kind": "event", "name": f"{kind}Job", "outcome": "success"}.items())
        found = [await asyncio.to_thread(scrape, port) for port in ports]
        while sum(each["eda_deliveries_acknowledged_total", labels] for each in found) < count:
            await asyncio.sleep(0.01)  # the last acknowledgements follow their publishes
            found = [await asyncio.to_thread(scrape, port) for port in ports]
        assert sum(each.get(("eda_handlers_total", handled), 0.0) for each in found) == count
        assert sum(each["eda_messages_confirmed_total", labels] for each in found) == count
        assert [each["eda_ready", labels] for each in found] == [1.0] * 3
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == 0


@asynchronous
async def test_a_port_that_is_taken_ends_all_with_the_reason(url: str, project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with run(project, "services:Aio", "--health-port", str(port), url=url) as started:
            assert await started.end() == 2
    assert f"services:Aio: its health cannot be told: cannot listen on port {port} of '127.0.0.1': " in started.errors


def test_each_worker_needs_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["services:Aio", "--workers", "2", "--health-port", "65535"]) == 2
    assert "--health-port 65535: the last of 2 worker(s) has no port" in capsys.readouterr().err
