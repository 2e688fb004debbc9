"""Ctrl-C and other signals, at any time: while a tool is loaded, while it works, again, and when it has ended. And a
tool that cannot be loaded."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eda_tools import eda
from eda_tools.cli import tool as cli
from eda_tools.cli.output import Output
from eda_tools.cli.tool import Tool
from tests.support.services import environment
from tests.support.tools import Ran, on_terminal, run_here

Run = Callable[[argparse.Namespace, Output], Awaitable[int]]


def probe(run: Run) -> Tool:
    return Tool("probe", "A tool for tests.", lambda parser: None, run)


def command(name: str) -> str:
    """What pip writes for a command of ours, by the name of its function."""
    return f"import sys\nfrom eda_tools.cli.commands import {name}\nsys.exit({name}())\n"


def alone(*arguments: str, first_on_path: Path | None = None) -> Ran:
    """``python ARGUMENTS``, to its end."""
    env = environment()
    if first_on_path is not None:
        env["PYTHONPATH"] = f"{first_on_path}{os.pathsep}{env['PYTHONPATH']}"
    ended = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=20)
    return Ran(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("name", ["", *eda.TOOLS, "broker"])
def test_ctrl_c_while_it_is_loaded_shows_no_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ran = alone("-m", f"eda_tools.{name}" if name else "eda_tools", first_on_path=tmp_path)
    assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "", "")
    if name != "broker":
        ran = alone("-c", command(name or "eda"), first_on_path=tmp_path)
        assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "", "")


@pytest.mark.parametrize("name", ["eda", "monitor"])
def test_what_was_installed_without_the_extra_says_so(name: str, tmp_path: Path) -> None:
    for module in ("rich", "shtab"):
        (tmp_path / f"{module}.py").write_text("raise ModuleNotFoundError('', name=__name__)")
    ran = alone("-c", command(name), first_on_path=tmp_path)
    assert (ran.status, ran.out) == (cli.FAILED, "")
    assert ran.line.startswith(f"{name}: ")
    assert ran.line.endswith(" is not installed; pip install 'eda-core[tools]' brings it along")


def test_ctrl_c_when_it_has_ended_changes_nothing() -> None:
    late = "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    ran = alone("-c", late + command("eda"), "--version")
    assert (ran.status, ran.out.split()[0], ran.err) == (cli.DONE, "eda-core", "")


def test_who_only_uses_the_package_keeps_its_ctrl_c() -> None:
    use = "import eda_tools.broker, eda_tools.monitor, signal; signal.raise_signal(signal.SIGINT)"
    assert alone("-c", use).err.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            output.print("cleaned up")
        return cli.DONE

    ran = run_here(probe(run), capsys)
    assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "cleaned up\n", "")


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


STUCK = """
import sys
from eda_tools.cli import watchdog
from eda_tools.cli.tool import Tool, common_options

async def run(args, output):
    output.note("writing")
    while True:
        output.print("x" * 1000)

watchdog.GRACE = {grace}
sys.exit(Tool("probe", "", common_options, run).main(sys.argv[1:]))
"""


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
    command = (sys.executable, "-c", STUCK.format(grace=grace), *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline().endswith(b": writing\n")
            for number in signals:
                process.send_signal(number)
            assert process.wait(20) == status
        finally:
            process.kill()


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
