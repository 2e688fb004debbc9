"""Runs the code blocks of a page as a reader would, in a directory of its own and on a broker of its own.

A Python block, or one of another language, that has a caption is a file. A ``console`` block has commands after ``$``
and what they print. Of that each line must come, in this order; ``…`` stands for any text, and lines that the page
leaves out may stand in between. The ports 5672 (the broker), 8000 (a web application) and 8080 (health) of the page are
ports of the test.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.docs.blocks import ROOT, Block, Page, read_page
from tests.support.rabbitmq import RabbitNode
from tests.support.services import Record, environment, within

#: Seconds for one command, on a machine that is busy with other things.
COMMAND_TIMEOUT = 60.0
PAGE_TIMEOUT = 300.0
#: How a program that was asked to stop may end: by itself, as the tools do, or by the signal itself, as uvicorn does.
STOPPED = (0, 130, 143, -signal.SIGTERM)

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EXPORT = re.compile(r"export (\w+)=(.*)")


class Process:
    """A command in a shell, and what it has printed on both streams.

    Attributes:
        command: the command, as the page has it.
        lines: what it has printed.
    """

    def __init__(self, command: str, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self.lines: Record[str] = Record(f"lines of {command!r}")
        self._process = process
        self._read = 0
        self._reading = asyncio.create_task(self._read_lines())

    async def _read_lines(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.add(_flat(line.decode("utf-8", "replace")))
        asyncio.get_running_loop().call_soon(self.lines.wake)  # once this task is done

    async def prints(self, expected: list[str], where: object) -> None:
        """Wait until it has printed these lines since the last call. Fails if it ends without."""

        def found(lines: list[str]) -> bool:
            return self._reading.done() or _after(expected, lines, self._read) is not None

        await self.lines.until(found, f"{where}: what {self.command!r} prints", COMMAND_TIMEOUT)
        after = _after(expected, self.lines.all, self._read)
        if after is None:
            pytest.fail(
                "\n    ".join(
                    [f"{where}: {self.command!r} should print", *expected, "and has printed", *self.lines.all]
                )
            )
        self._read = after

    async def end(self) -> int:
        """Wait for its end. Returns its status."""
        status = await within(self._process.wait(), f"the end of {self.command!r}", COMMAND_TIMEOUT)
        await self._reading
        return status

    async def stop(self) -> int:
        """Stop it and all its children by SIGTERM. Returns its status."""
        self._signal(signal.SIGTERM)
        return await self.end()

    async def kill(self) -> None:
        """Kill it and all its children, and wait for their end."""
        self._signal(signal.SIGKILL)
        await self.end()

    @property
    def runs(self) -> bool:
        return self._process.returncode is None

    def _signal(self, number: signal.Signals) -> None:
        if self.runs:
            os.killpg(self._process.pid, number)


def _flat(line: str) -> str:
    return " ".join(_ESCAPES.sub("", line).split())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _after(expected: list[str], lines: list[str], start: int) -> int | None:
    """Return the position after the expected lines, which come in this order; ``None`` if they do not."""
    for text in expected:
        pattern = re.compile(".*?".join(map(re.escape, _flat(text).split("…"))))
        start = next((number for number in range(start, len(lines)) if pattern.fullmatch(lines[number])), -1) + 1
        if not start:
            return None
    return start


def commands_of(block: Block) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif line.strip() and found:
            found[-1][1].append(line)
        elif line.strip():
            pytest.fail(f"{block}: a console block begins with a command after '$ '")
    return found


class Player:
    """Runs the blocks of one page in ``directory``."""

    def __init__(self, page: Page, directory: Path, port: int, consumers: Callable[[], int]) -> None:
        self.page = page
        self.directory = directory
        self.consumers = consumers
        self.ports = {"5672": str(port), "8000": str(_free_port()), "8080": str(_free_port())}
        self.running: list[Process] = []
        self.settings = {
            **environment(f"amqp://guest:guest@127.0.0.1:{port}/"),
            "NO_COLOR": "1",
            "COLUMNS": "100",
            "PYTHONUNBUFFERED": "1",
            "PYTEST_PLUGINS": "eda_pytest",  # whether or not it is installed
        }
        self.settings["PATH"] = f"{_programs(directory.parent)}{os.pathsep}{os.environ['PATH']}"

    async def play(self) -> None:
        for block in earlier_files(self.page):
            self.write(block)
        try:
            for block in self.page.blocks:
                if not block.not_run:
                    await self.run(block)
            while self.running:
                await self.stop(self.running[-1])
        except BaseException:
            for process in self.running:
                await process.kill()
                print(f"--- {process.command}", *process.lines.all, sep="\n")
            raise

    async def run(self, block: Block) -> None:
        if block.language != "console":
            if not block.file:
                pytest.fail(f"{block}: give the block a caption, if it is a file, or a comment '.. not run: REASON'")
            self.write(block)
            return
        for number, (command, expected) in enumerate(commands_of(block)):
            last = number == len(commands_of(block)) - 1
            orders = block.orders if last else ()
            if export := _EXPORT.fullmatch(command):
                self.settings[export[1]] = self.on_our_ports(export[2].strip("'\""))
            elif "output" in orders:
                await self.find(command, block).prints([self.on_our_ports(line) for line in expected], block)
            elif "stop" in orders:
                await self.stop(self.find(command, block))
            elif "background" in orders or "once more" in orders:
                await self.begin(command, expected, block, again="once more" in orders)
            else:
                status = next((int(order.removeprefix("status ")) for order in orders if "status" in order), 0)
                await self.command(command, expected, status, block)

    def write(self, block: Block) -> None:
        path = self.directory / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.on_our_ports(block.text) + "\n", encoding="utf-8")

    def on_our_ports(self, text: str) -> str:
        for port, ours in self.ports.items():
            text = text.replace(port, ours)
        return text

    async def begin(self, command: str, expected: list[str], block: Block, *, again: bool) -> None:
        if not again:
            for process in [process for process in self.running if process.command == command]:
                await self.stop(process)
        consumers = None if expected else self.consumers()
        process = await self.start(command)
        self.running.append(process)
        if consumers is None:
            await process.prints([self.on_our_ports(line) for line in expected], block)
        else:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                while self.consumers() <= consumers:
                    if not process.runs:
                        pytest.fail(f"{block}: {command!r} has ended:\n" + "\n".join(process.lines.all))
                    await asyncio.sleep(0.02)

    async def command(self, command: str, expected: list[str], status: int, block: Block) -> None:
        process = await self.start(command)
        try:
            ended = await process.end()
        except BaseException:
            await process.kill()
            raise
        printed = "\n    ".join(process.lines.all)
        assert ended == status, f"{block}: {command!r} ended with status {ended}, and has printed\n    {printed}"
        await process.prints([self.on_our_ports(line) for line in expected], block)

    async def start(self, command: str) -> Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            self.on_our_ports(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.directory,
            env=self.settings,
            start_new_session=True,
            limit=2**20,
        )
        return Process(command, process)

    def find(self, command: str, block: Block) -> Process:
        found = [process for process in self.running if process.command == command]
        if not found:
            pytest.fail(f"{block}: {command!r} does not run")
        return found[0]

    async def stop(self, process: Process) -> None:
        self.running.remove(process)
        runs = process.runs
        status = await process.stop()
        assert runs, f"{process.command!r} has ended with status {status} before it was stopped:\n" + "\n".join(
            process.lines.all
        )
        assert status in STOPPED, f"{process.command!r} was stopped and ended with status {status}:\n" + "\n".join(
            process.lines.all
        )


def earlier_files(page: Page) -> list[Block]:
    """Return the files of the pages before this one, the first page first."""
    if not page.after:
        return []
    before = read_page(ROOT / page.after)
    return earlier_files(before) + [block for block in before.blocks if block.file and not block.not_run]


def _programs(directory: Path) -> Path:
    """Make the commands that an environment with the toolkit has, whether or not it is installed in this one."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    for name, arguments in (
        ("python", ""),
        ("python3", ""),
        ("pytest", "-m pytest"),
        ("uvicorn", "-m uvicorn"),
        ("eda", "-m eda_tools"),
    ):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
        path.chmod(0o755)
    return programs


async def play(page: Page, directory: Path) -> None:
    """Run the blocks of a page on the embedded broker. A failure names the block."""
    async with EmbeddedBroker() as broker:
        model = broker.broker

        def consumers() -> int:
            return sum(len(model.consumers(queue)) for queue in model.queue_names())

        await _play(page, directory, broker.port, consumers)


async def play_on_rabbitmq(page: Page, directory: Path, node: RabbitNode) -> None:
    """Run the blocks of a page on a node of RabbitMQ. What goes on in the background has to print something."""

    def consumers() -> int:
        pytest.fail(f"{page.path}: let the page say what the command in the background prints when it is ready")

    (directory / "bin").mkdir()
    node.write_ctl(directory / "bin" / "rabbitmqctl")
    await _play(page, directory, node.port, consumers)


async def _play(page: Page, directory: Path, port: int, consumers: Callable[[], int]) -> None:
    (directory / "project").mkdir()
    player = Player(page, directory / "project", port, consumers)
    await within(player.play(), f"{page.path} as a whole", PAGE_TIMEOUT)
