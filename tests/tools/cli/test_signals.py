"""Signals at any time: while a tool is loaded, while it works, again, while it cannot write, and when it has ended."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.bus.service import ToolService, running
from eda_tools.cli import signals as ending
from eda_tools.cli import status as cli
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from eda_tools.cli.output import Output
from eda_tools.cli.signals import Ending
from eda_tools.cli.tool import Tool
from eda_tools.messages.recording import read_recording
from tests.support.services import ROOT, BrokerUnderTest, asynchronous, environment, peer, program
from tests.support.signals import ENDING, inherited
from tests.support.tools import EVENTAILS, Ran, on_terminal, run_here, watching

Run = Callable[[argparse.Namespace, Output], Awaitable[int]]
#: The time that users know. The fixture ``patience`` sets another one while a test runs.
GRACE = ending.GRACE


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """For tests that send signals to this process, which may have inherited them as ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def probe(run: Run) -> Tool:
    return Tool("probe", "A tool for tests.", lambda parser: None, run)


def script(directory: Path, name: str, before: str = "") -> str:
    """Write the script that pip writes for a command. Returns its path."""
    path = directory / (name if name == "eda" else f"{name}.py")
    path.write_text(f"import sys\n{before}from eda_tools.cli.start import {name}\nsys.exit({name}())\n")
    return str(path)


def alone(*arguments: str, first_on_path: Path | None = None) -> Ran:
    """Run ``python ARGUMENTS`` to its end."""
    env = environment()
    if first_on_path is not None:
        env["PYTHONPATH"] = f"{first_on_path}{os.pathsep}{env['PYTHONPATH']}"
    ended = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=20)
    return Ran(ended.returncode, ended.stdout, ended.stderr)


# --- while it is loaded, and when it has ended ---


@pytest.mark.parametrize("name", ["", *TOOLS, *PROGRAMS])
def test_ctrl_c_while_it_is_loaded_shows_no_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ran = alone("-m", f"eda_tools.{name}" if name else "eda_tools", first_on_path=tmp_path)
    assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "", "")


@pytest.mark.parametrize("name", ["eda", *EVENTAILS])
def test_ctrl_c_while_a_command_is_loaded_shows_no_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ran = alone(script(tmp_path, name), first_on_path=tmp_path)
    assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "", "")


def test_ctrl_c_when_it_has_ended_changes_nothing(tmp_path: Path) -> None:
    late = "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    ran = alone(script(tmp_path, "eda", late), "--version")
    assert (ran.status, ran.out.split()[0], ran.err) == (cli.DONE, "eda-core", "")


def test_who_only_uses_the_package_keeps_its_ctrl_c() -> None:
    use = "import eda_tools.broker, eda_tools.monitor, signal; signal.raise_signal(signal.SIGINT)"
    assert alone("-c", use).err.endswith("KeyboardInterrupt\n")


def test_the_tools_load_where_there_is_no_sighup(tmp_path: Path) -> None:
    """As on Windows."""
    modules = ", ".join(f"eda_tools.{name}" for name in ("eda", *TOOLS, *PROGRAMS))
    code = f"import signal; del signal.SIGHUP; import {modules}; sys.exit(eda_tools.eda.main(['--version']))"
    ran = alone("-c", f"import sys; {code}")
    assert (ran.status, ran.err) == (cli.DONE, "")
    assert ran.out.startswith("eda-core ")


# --- while it works ---


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_it_cleanly(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            output.print("cleaned up")
        return cli.DONE

    before = [signal.getsignal(each) for each in ENDING]
    ran = run_here(probe(run), capsys)
    assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "cleaned up\n", "")
    assert [signal.getsignal(each) for each in ENDING] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_before_the_loop_runs_ends_it_too() -> None:
    async def work() -> int:
        await asyncio.Event().wait()
        return cli.DONE

    with Ending() as end:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(end.watched(work()))
    assert end.status == cli.INTERRUPTED


def test_a_second_signal_ends_it_at_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)

    async def run(args: argparse.Namespace, output: Output) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            while not ended:
                await asyncio.sleep(0)
        return cli.DONE

    assert run_here(probe(run), capsys).status == cli.INTERRUPTED
    assert ended == [cli.INTERRUPTED]


def test_in_another_thread_a_tool_hears_no_signals_but_knows_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        await asyncio.Event().wait()
        return cli.DONE

    tool = Tool("probe", "", lambda parser: parser.set_defaults(timeout=0.01), run)
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(tool.main([], prog="probe")))
    thread.start()
    thread.join(20)
    assert statuses == [cli.TIMED_OUT]
    assert capsys.readouterr().err == "probe: timed out after 0.01 s\n"


def test_the_service_of_a_tool_leaves_signals_to_the_tool(capsys: pytest.CaptureFixture[str]) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        handlers = [signal.getsignal(number) for number in ENDING]
        async with running(ToolService((broker.url,), "probe", output)):
            assert [signal.getsignal(number) for number in ENDING] == handlers
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        return cli.DONE

    with EmbeddedBrokerThread() as broker:
        ran = run_here(probe(run), capsys)
    assert (ran.status, ran.err) == (cli.INTERRUPTED, "")


IMPATIENT = """
import asyncio, os, signal
from eda_tools.cli.tool import Tool

async def run(args, output):
    with output.progress("bar", 10):
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

Tool("probe", "", lambda parser: None, run).main([])
"""


def test_a_second_signal_leaves_the_cursor_on_the_terminal() -> None:
    status, screen = on_terminal(sys.executable, "-c", IMPATIENT)
    assert status == cli.INTERRUPTED
    assert 0 <= screen.rfind("\x1b[?25l") < screen.rfind("\x1b[?25h")


# --- while nobody reads what it writes ---

UNREAD = """
import sys
from eda_tools.cli import signals
from eda_tools.cli.arguments import common_options
from eda_tools.cli.tool import Tool

async def run(args, output):
    output.note("writing")
    {work}

signals.GRACE = {grace}
sys.exit(Tool("probe", "", common_options, run).main(sys.argv[1:]))
"""
#: Blocks the event loop.
ENDLESS = """while True:
        output.print("x" * 1000)"""
#: Lets the event loop run; what is written when it has ended fills the pipe.
LAST = """import asyncio
    sys.stdout = output._stdout = open(1, "w", buffering=10_000_000)
    output._stdout.write("x" * 1_000_000)
    {then}"""


@contextmanager
def unread(work: str, grace: float, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A tool that is at work and whose output nobody reads."""
    command = (sys.executable, "-c", UNREAD.format(work=work, grace=grace), *arguments)
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process,
    ):
        assert process.stderr is not None
        try:
            assert process.stderr.readline().endswith(b": writing\n")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("grace", "arguments", "signals", "status"),
    [
        (0.2, (), (signal.SIGTERM,), cli.INTERRUPTED),
        (60, (), (signal.SIGINT, signal.SIGTERM), cli.INTERRUPTED),
        (0.2, ("--timeout", "0.1"), (), cli.TIMED_OUT),
        (0.2, ("--timeout", "1e300"), (signal.SIGHUP,), cli.INTERRUPTED),
    ],
)
def test_it_ends_although_nobody_reads_what_it_writes(
    grace: float, arguments: tuple[str, ...], signals: tuple[signal.Signals, ...], status: int
) -> None:
    with unread(ENDLESS, grace, *arguments) as process:
        for number in signals:
            process.send_signal(number)
        assert process.wait(20) == status


def test_a_second_signal_is_heard_although_another_thread_gets_it() -> None:
    """The kernel may deliver a signal to any thread that does not block it. Python's handlers run in the main thread
    only, and nothing ends the write in which that waits here."""
    block = "import signal, threading; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})"
    with unread(
        f"{block}\n    {ENDLESS}", 60
    ) as process:  # the thread that reads signals was started before, and blocks none
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        assert process.wait(20) == cli.INTERRUPTED


@pytest.mark.parametrize(
    ("then", "arguments", "signals", "status"),
    [
        ("await asyncio.Event().wait()", ("--timeout", "0.1"), (), cli.TIMED_OUT),
        ("await asyncio.Event().wait()", (), (signal.SIGTERM,), cli.INTERRUPTED),
        ("return 0", (), (signal.SIGTERM,), cli.INTERRUPTED),
    ],
)
def test_it_ends_although_nobody_reads_the_last_that_it_writes(
    then: str, arguments: tuple[str, ...], signals: tuple[signal.Signals, ...], status: int
) -> None:
    with unread(LAST.format(then=then), 0.2, *arguments) as process:
        for number in signals:
            process.send_signal(number)
        assert process.wait(20) == status


# --- signals that are inherited as ignored ---


@asynchronous
async def test_nohup_keeps_a_recording_going(broker: BrokerUnderTest, tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with (
        peer(broker.url) as client,
        watching("monitor", "--json", "--record", str(record), broker.url, ignored=(signal.SIGHUP,)) as started,
    ):
        started.process.send_signal(signal.SIGHUP)
        for number in range(3):
            await client.publish("events", f"Done{number}", b"1", headers={"conversation_id": "c"})
            await started.lines.count(number + 1)
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == cli.INTERRUPTED
    assert [delivery.routing_key for delivery in read_recording(str(record))] == ["Done0", "Done1", "Done2"]


@asynchronous
async def test_a_background_job_is_not_ended_by_the_ctrl_c_of_another(broker: BrokerUnderTest) -> None:
    """Shells without job control start background jobs with SIGINT ignored."""
    async with (
        peer(broker.url) as client,
        watching("monitor", "--json", broker.url, ignored=(signal.SIGINT,)) as started,
    ):
        for number in range(2):  # the second would end it at once
            started.process.send_signal(signal.SIGINT)
            await client.publish("events", f"Done{number}", b"1", headers={"conversation_id": "c"})
            await started.lines.count(number + 1)
        started.process.send_signal(signal.SIGTERM)
        assert await started.end() == cli.INTERRUPTED


@asynchronous
async def test_an_embedded_broker_in_the_background_is_not_ended_either() -> None:
    async with program("-m", "eda_tools.broker", "--port", "0", ignored=(signal.SIGINT,)) as broker:
        await broker.lines.count(1)
        url = broker.lines.all[0].split()[-1]
        broker.process.send_signal(signal.SIGINT)
        async with peer(url):
            pass
        broker.process.send_signal(signal.SIGTERM)
        assert await broker.end() == cli.DONE


def test_what_is_ignored_stays_ignored_while_it_is_loaded_and_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text(
        "import importlib, os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\n"
        "sys.path.remove(os.path.dirname(__file__)); del sys.modules['argparse']; importlib.import_module('argparse')\n"
    )
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    late = "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    with inherited(ignored=(signal.SIGINT,)):
        command = [sys.executable, script(tmp_path, "eda", late), "--version"]
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stdout.split()[0], ended.stderr) == (cli.DONE, "eda-core", "")


def test_the_docs_say_how_long_it_takes() -> None:
    docs = " ".join((ROOT / "docs" / "tools.rst").read_text("utf-8").split())
    assert f"``--timeout`` and the first signal take up to {GRACE:g} s longer" in docs
