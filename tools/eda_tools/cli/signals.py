"""Ends a tool when a signal arrives or its time is over. It knows nothing of what the tool does.

A thread decides, because the event loop does not run while a tool writes to a standard output that nobody reads. The
thread reads Python's wakeup descriptor. Handlers in Python would not be enough: they run in the main thread only, and
the kernel may deliver a signal to another thread, so that a write in the main thread goes on waiting.

:mod:`eda_tools.cli.start` handles Ctrl-C before this module is loaded and after the tool has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

from eda_tools.cli.status import INTERRUPTED, TIMED_OUT

#: Seconds for the event loop to hear that the tool has to end; and for the last output, once the loop has ended.
GRACE = 3.0
#: Seconds for one wait. A socket refuses much longer ones.
_LONGEST_WAIT: Final = 86_400.0
#: Windows has no SIGHUP.
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# What the thread reads besides the numbers of signals, which begin with 1.
_HEARD: Final = 0
_WORK_ENDED: Final = 254
_OVER: Final = 255


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing. Python writes a signal to the wakeup descriptor only if it has a handler."""


#: asyncio's loop for Windows takes the wakeup descriptor for itself, and its ``run`` cancels the work at Ctrl-C.
_HANDLER: Final = signal.default_int_handler if os.name == "nt" else _note


class Ending:
    """Ends the work of a tool in good order, or the process if that is not possible. A context manager.

    The first signal (SIGINT, SIGTERM, SIGHUP) and the end of the time cancel the work. The second signal ends the
    process at once. The process is also ended if the event loop does not hear of the cancelling within :data:`GRACE`
    seconds, or if the last output takes longer than that.

    A signal that the process inherited as ignored stays ignored: ``nohup`` and shells that start background jobs rely
    on that. Outside the main thread, where Python handles no signals, only the time is watched.

    Args:
        timeout: seconds for the work; ``None`` is no limit.
        abandon: called just before the process is ended; must not wait for any lock.

    Attributes:
        status: the exit status because of a signal or of the time; 0 while there was none.
    """

    def __init__(self, timeout: float | None = None, abandon: Callable[[], None] = lambda: None) -> None:
        self.status: int = 0
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._abandon = abandon
        self._work: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._cancel_sent = False
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="ending", daemon=True)
        self._before: dict[int, Any] = {}

    async def watched(self, work: Awaitable[int]) -> int:
        """Await ``work`` in the current task, which is what a signal cancels. Returns what ``work`` returns."""
        task = asyncio.current_task()
        assert task is not None
        self._work = asyncio.get_running_loop(), task
        if self.status:  # the signal came before the event loop
            self._cancel()
        return await work

    def work_ended(self) -> None:
        """Say that the event loop has ended and only output is left."""
        self._tell(_WORK_ENDED)

    def __enter__(self) -> Self:
        self._thread.start()
        if threading.current_thread() is threading.main_thread():
            self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, _HANDLER)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup)
        self._tell(_OVER)
        self._thread.join()
        self._reading.close()
        self._writing.close()

    def _tell(self, event: int) -> None:
        self._writing.send(bytes((event,)))

    # In the thread

    def _watch(self) -> None:
        signals = 0
        while (event := self._next()) != _OVER:
            signals += event in _SIGNALS
            if event is None or event in _SIGNALS:
                if not self.status:
                    self.status = TIMED_OUT if event is None else INTERRUPTED
                    self._deadline = time.monotonic() + GRACE
                    self._cancel()
                elif event is None or signals > 1:
                    self._abandon()
                    os._exit(self.status if event is None else INTERRUPTED)
            elif event == _HEARD:
                self._deadline = math.inf
            elif event == _WORK_ENDED and self.status:
                self._deadline = time.monotonic() + GRACE

    def _next(self) -> int | None:
        """The next event; ``None`` when the deadline has passed."""
        while (left := self._deadline - time.monotonic()) > 0:
            self._reading.settimeout(min(left, _LONGEST_WAIT))
            with contextlib.suppress(TimeoutError):
                return self._reading.recv(1)[0]
        return None

    def _cancel(self) -> None:
        if self._work is not None:
            loop, task = self._work
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                loop.call_soon_threadsafe(self._cancelled, task)

    def _cancelled(self, task: asyncio.Task[Any]) -> None:
        self._tell(_HEARD)
        if not self._cancel_sent:  # a second one would interrupt the cleaning up
            self._cancel_sent = True
            task.cancel()
