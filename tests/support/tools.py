"""Running the command line tools: as processes, on a terminal, and in this process where only logic is in question."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eda_tools.cli.tool import Tool
from tests.support.services import TIMEOUT, Program, environment, program, within

#: The tools that eventail has, too: they are installed as scripts of these names, ``logger.py`` and so on.
EVENTAILS = (
    "logger",
    "monitor",
    "publish_event",
    "publish_configuration",
    "send_command",
    "inspect_queue",
    "resurrect",
)


@dataclass(frozen=True, slots=True)
class Ran:
    """A tool that has ended.

    Attributes:
        status: its exit status, negative for a signal.
        out: stdout.
        err: stderr.
    """

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """The lines of stdout, as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def line(self) -> str:
        """The one line that an error is told in: stderr has no other, and no traceback."""
        assert self.err.endswith("\n"), f"stderr is {self.err!r}"
        assert self.err.count("\n") == 1, f"stderr has more than one line: {self.err!r}"
        return self.err[:-1]


async def run_tool(
    name: str,
    *arguments: str,
    url: str | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run ``python -m eda_tools.NAME ARGUMENTS`` to its end.

    Args:
        url: for EDA_AMQP_URL.
        env: more environment variables.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"eda_tools.{name}",
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment(url), **(env or {})},
        cwd=cwd,
    )
    try:
        out, err = await within(process.communicate(stdin), f"the end of {name}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def run_here(tool: Tool, capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run a tool in this process: a twentieth of a second instead of half a one."""
    capsys.readouterr()
    status = tool.main(arguments, prog=tool.name)
    written = capsys.readouterr()
    return Ran(status, written.out, written.err)


@asynccontextmanager
async def watching(
    name: str,
    *arguments: str,
    url: str | None = None,
    cwd: Path | None = None,
    ignored: Container[signal.Signals] = (),
) -> AsyncIterator[Program]:
    """A tool that watches, subscribed; killed at the end of the block if it still runs.

    Args:
        ignored: signals that it inherits as ignored.
    """
    async with program(
        "-m", f"eda_tools.{name}", *arguments, url=url, cwd=cwd or Path.cwd(), ignored=ignored
    ) as started:
        await started.notes.until(lambda lines: any(" watching " in line for line in lines), f"{name} watches")
        yield started


async def interrupted(started: Program) -> Ran:
    """Ctrl-C, and what the tool comes to."""
    started.process.send_signal(signal.SIGINT)
    status = await started.end()
    return Ran(status, "".join(f"{line}\n" for line in started.lines.all), started.errors)


def on_terminal(*command: str, url: str | None = None, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a program on a terminal of its own, 100 columns wide; its status, and what the terminal was sent."""
    master, slave = pty.openpty()
    variables = {**environment(url), "TERM": "xterm-256color", "COLUMNS": "100", **(env or {})}
    for name in {"NO_COLOR", "FORCE_COLOR"} - set(env or {}):
        variables.pop(name, None)
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=variables, start_new_session=True)
    os.close(slave)
    sent, deadline = b"", time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.5)[0]:
                try:
                    piece = os.read(master, 65_536)
                except OSError:  # how Linux tells that nobody has the terminal open any more
                    break
                if not piece:
                    break
                sent += piece
        return process.wait(timeout=TIMEOUT), sent.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(master)
