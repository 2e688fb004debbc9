"""The process of one worker: started, listened to, and ended. It does not decide whether another one follows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from eda_tools.running import records

#: Seconds that a worker may take to end beyond what its service takes, and when it is asked to end at once.
GRACE: Final = 10.0
#: Seconds for the rest of what a worker has written, once it has ended: processes that it leaves behind hold the pipe.
_REST: Final = 1.0
_WINDOWS: Final = os.name == "nt"
#: What asks a worker to end.
_STOP: Final = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)


class Process:
    """A worker that runs.

    Args:
        process: with pipes for all three streams. It ends when the first one is closed.
        say: is awaited with what it writes: fields of an entry of the log, without time and names.
        killed: is called with a text when it had to be killed.

    Attributes:
        made: its service was made.
        fault: why its service could not be made, and the status.
        asked: how often it was asked to end.
        ran: for how long it has run, seconds; 0.0 as long as it runs.
        was_killed: it was killed, because it did not end.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        say: Callable[[dict[str, Any]], Awaitable[None]],
        killed: Callable[[str], None],
    ) -> None:
        self._process = process
        self._say = say
        self._killed = killed
        self._begun = time.monotonic()
        self._stop_within = 0.0
        self._kill_timer: asyncio.TimerHandle | None = None
        self.service: str | None = None
        self.made: bool = False
        self.fault: tuple[str, int] | None = None
        self.asked: int = 0
        self.ran: float = 0.0
        self.was_killed: bool = False

    @classmethod
    async def start(
        cls,
        *arguments: str,
        environment: Mapping[str, str],
        say: Callable[[dict[str, Any]], Awaitable[None]],
        killed: Callable[[str], None],
    ) -> Process:
        """Start a worker with these arguments (:mod:`eda_tools.running.worker`)."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "eda_tools.running.worker",
            *arguments,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            # Ctrl-C and the end of the terminal are for the supervisor, which then stops the workers in order.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        return cls(process, say, killed)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end; the second time at once; kill it the third time, or when it does not do so in time."""
        if self._process.returncode is not None:
            return
        self.asked += 1
        if self.asked > 2:
            self._kill()
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(_STOP)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        seconds = GRACE + (self._stop_within if self.asked == 1 else 0.0)
        self._kill_timer = asyncio.get_running_loop().call_later(seconds, self._too_late, seconds)

    def _too_late(self, seconds: float) -> None:
        self._killed(f"has not ended within {seconds:g} s, and is killed; unfinished messages are delivered again")
        self._kill()

    def _kill(self) -> None:
        self.was_killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if _WINDOWS:
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads its group

    async def ended(self) -> int:
        """Listen to it until it has ended. Returns its exit status, negative for a signal."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        reading = [
            asyncio.create_task(self._read(self._process.stdout, "stdout")),
            asyncio.create_task(self._read(self._process.stderr, "stderr")),
        ]
        try:
            status = await self._process.wait()
            self.ran = time.monotonic() - self._begun
            await asyncio.wait(reading, timeout=_REST)
        finally:
            for each in reading:
                each.cancel()
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            if self._process.returncode is None:  # the supervisor fails
                self._kill()
            if self._process.stdin is not None:
                self._process.stdin.close()
        return status

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        lines = records.Lines()
        while data := await stream.read(1 << 16):
            for line in lines.add(data):
                await self._take(line, name)
        for line in lines.end():
            await self._take(line, name)

    async def _take(self, line: str, stream: str) -> None:
        record = records.read(line) if stream == "stderr" else None
        if record is None:
            await self._say({"stream": stream, "message": line})
            return
        kind, fields = record
        if kind == records.LOG:
            await self._say(fields)
        elif kind == records.MADE:
            self.made, self.service, self._stop_within = True, fields["service"], fields["stop_within"]
        else:
            self.fault = fields["message"], fields["status"]
            if fields["traceback"]:
                await self._say({"level": "ERROR", "message": fields["traceback"]})
