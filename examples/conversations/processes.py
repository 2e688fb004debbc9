"""The demo's subprocesses: started, listened to, and ended in all cases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from types import TracebackType

from eda_core.urls import redact
from examples.conversations.worker import URL_VARIABLE

#: Seconds that a process gets to end by itself before it is killed.
TIMEOUT = 15.0

_TAIL_BYTES = 2000


class DemoError(Exception):
    """The demo cannot go on; the message says why, on one line or more."""


class Child:
    """A Python module run as a process of its own."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._errors = b""
        self._reading = asyncio.create_task(self._read_errors())
        #: Done once the process has ended.
        self.exited = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, name: str, module: str, *arguments: str, url: str | None = None) -> Child:
        """Run ``module``, with the broker's URL in its environment: what stands in argv is for all to see."""
        # The children are to find what this process finds, however it came to.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONUTF8": "1",
        }
        if url is not None:
            environment[URL_VARIABLE] = url
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            # Ctrl-C is for the demo, which then ends its children in order.
            start_new_session=True,
        )
        return cls(name, process)

    async def line(self) -> str | None:
        """The next line of its output; None at the end."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return line.decode(errors="replace").rstrip("\r\n") if line else None

    async def line_starting(self, prefix: str) -> str:
        """Skip its output up to a line that starts with ``prefix``; return the rest of that line.

        Raises:
            DemoError: there is no such line.
        """
        while (line := await self.line()) is not None:
            if line.startswith(prefix):
                return line.removeprefix(prefix)
        raise DemoError(await self.obituary())

    async def obituary(self) -> str:
        """Why it ended, for people: its status and the tail of its stderr."""
        status = await self.ended()
        tail = redact(self._errors.decode(errors="replace")).strip()
        return f"{self.name} ended with status {status}" + (f"; the end of its stderr:\n{tail}" if tail else "")

    async def ended(self) -> int:
        """Wait for its end; it is killed when that takes too long. Returns its exit status."""
        await asyncio.wait((self.exited,), timeout=TIMEOUT)
        self.kill()
        status = await asyncio.shield(self.exited)
        await asyncio.wait((self._reading,), timeout=1)
        return status

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(65536):
            self._errors = (self._errors + chunk)[-_TAIL_BYTES:]


class Children:
    """A group of processes that ends with its ``async with`` block, the last one first."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            # Reached at once when the wait above is cancelled by a second Ctrl-C.
            for child in self._children:
                child.kill()

    async def start(self, name: str, module: str, *arguments: str, url: str | None = None) -> Child:
        child = await Child.start(name, module, *arguments, url=url)
        self._children.append(child)
        return child

    async def stop(self) -> dict[Child, int]:
        """Ask all to end, wait for it, and return their exit statuses."""
        for child in reversed(self._children):
            child.terminate()
        return {child: await child.ended() for child in reversed(self._children)}
