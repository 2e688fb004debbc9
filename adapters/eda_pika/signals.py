"""Signals as events of pika's loop, and the end of a handler that keeps the loop from them.

A thread takes note of signals and of the time that a stop has. When the time is over and the main thread still runs
user code, the thread sends the main thread a signal whose handler raises ``Abandoned``: within user code, and nowhere
else. This module does not know how a service stops.
"""

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from eda_core.drivers.signals import StopSignals
from eda_core.errors import Abandoned

T = TypeVar("T")
_LONGEST = 3600.0  # seconds for one wait; a socket refuses much longer ones
_AGAIN = 1.0  # seconds until the signal is sent again: one just before a system call, or in C code, has no effect
SIGNALS = StopSignals(signal, lambda: threading.current_thread() is threading.main_thread())
if hasattr(os, "register_at_fork"):  # not on Windows
    SIGNALS.guard_forks(os.register_at_fork)


class Signals:
    """The signals of one run.

    Args:
        call: what each signal calls, in the loop.
        woken: what :meth:`wake` calls, in the thread of the signals.
        grace: seconds that a stop has after the first signal.
        numbers: the signals; if there are any, the run is in the main thread.
    """

    def __init__(
        self, loop: Any, call: Callable[[], None], woken: Callable[[], None], grace: float, numbers: tuple[int, ...]
    ) -> None:
        self._loop, self._call, self._woken, self._grace, self._numbers = loop, call, woken, grace, numbers
        self._deadline: float | None = None
        self._due = self._ended = self._interruptible = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Handle the signals in the block. After the block their handlers are what they were before."""
        with self._reader, self._writer, ExitStack() as stack:
            thread = threading.Thread(target=self._listen, name="eda signals", daemon=True)
            if self._numbers:
                # Python writes the numbers of signals here, even while user code keeps it from calling their handlers.
                before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
                stack.callback(signal.set_wakeup_fd, before)
                stack.enter_context(SIGNALS.heard(self._numbers, self._handle))
            thread.start()
            stack.callback(self._end, thread)
            yield

    def _end(self, thread: threading.Thread) -> None:
        self._ended = True
        self.wake()
        thread.join()  # it sends no more signals; Python handles those that it has sent before the handlers change

    def run(self, call: Callable[[], T], interruptible: bool) -> T:
        """Call it in the thread of the run. User code is interruptible. Our code that user code calls is not."""
        before, self._interruptible = self._interruptible, interruptible
        try:
            return call()
        finally:
            self._interruptible = before

    def hurry(self, seconds: float) -> None:
        """End user code after so many seconds, or earlier if that was asked before. May be called in any thread."""
        due = time.monotonic() + seconds
        self._deadline = due if self._deadline is None else min(due, self._deadline)
        self.wake()

    def wake(self) -> None:
        """Wake the thread. This takes no lock, so it may be called in any thread, and in handlers of signals."""
        with suppress(OSError):  # it is full, so the thread wakes anyway; or it is closed
            self._writer.send(b"\0")

    def _listen(self) -> None:
        while not self._ended:
            left = None if self._deadline is None else min(self._deadline - time.monotonic(), _LONGEST)
            if left is not None and left <= 0:
                self._due, self._deadline, left = True, time.monotonic() + _AGAIN, _AGAIN
                self._break_in()
            self._reader.settimeout(left)
            with suppress(TimeoutError):
                written = self._reader.recv(99)
                self._woken()
                for number in written:
                    if number in self._numbers and not self._due:
                        self.hurry(self._grace if self._deadline is None else 0.0)
                        self._loop.add_callback_threadsafe(self._call)

    def _break_in(self) -> None:
        """Send the main thread a signal whose handler the user has not replaced."""
        held = SIGNALS.held(self._numbers)
        if self._interruptible and held:
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, held[0])
            else:  # Windows: this ends code in Python, not a system call that waits
                _thread.interrupt_main(signal.Signals(held[0]))

    def _handle(self, number: int) -> bool:
        if self._due and self._interruptible:
            self._interruptible = False  # now: on the way out of user code our own code must not be interrupted
            raise Abandoned("the time for the stop is over")
        return self._due  # then it may be our own signal, which is no news for the program
