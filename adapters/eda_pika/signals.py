"""SIGINT, SIGTERM and SIGHUP as events of pika's loop, and the end of a handler that keeps the loop from them.

A thread takes note of signals and of the time that a stop has. When that is over and the main thread still runs user
code, it sends the main thread a signal whose handler raises ``Abandoned``: within user code, and nowhere else.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from eda_core.errors import Abandoned

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST = 3600.0  # seconds; a socket refuses to wait for much longer, so it is asked again
_AGAIN = 1.0  # seconds: one that comes just before a system call does not interrupt it, and C code may look later


class Signals:
    """For the length of a run in the main thread; in other threads there are no signals.

    Args:
        call: what each signal calls, in the loop.
        patience: seconds that a stop has after the first signal.
    """

    def __init__(self, loop: Any, call: Callable[[], None], patience: float) -> None:
        self._loop, self._call, self._patience = loop, call, patience
        self._deadline: float | None = None
        self._due = self._ended = self._interruptible = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """In the block they are handled; behind it everything is as it was before, and in processes forked within."""
        with self._reader, self._writer:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            thread = threading.Thread(target=self._listen, name="eda signals", daemon=True)
            thread.start()
            # Python writes their numbers, even when user code keeps it from calling their handlers.
            self._descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
            _heard.add(self)
            try:
                yield
            finally:
                _heard.remove(self)
                self._ended = True
                self._wake()
                thread.join()  # it sends no more of them, and signal() lets those that it sent be handled first
                self.give_back()

    def give_back(self) -> None:
        """Hear them no more, but for those that the user has taken: they are handled as before."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler or signal.SIG_DFL)
        signal.set_wakeup_fd(self._descriptor)

    def run(self, call: Callable[[], T], interruptible: bool) -> T:
        """In the thread of the run: call user code, which may be interrupted, or what of ours user code calls."""
        before, self._interruptible = self._interruptible, interruptible
        try:
            return call()
        finally:
            self._interruptible = before

    def hurry(self, seconds: float) -> None:
        """User code has so much time left, or less. May be called in any thread."""
        due = time.monotonic() + seconds
        self._deadline = due if self._deadline is None else min(due, self._deadline)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # full, and so awake; or closed
            self._writer.send(b"\0")

    def _listen(self) -> None:
        while not self._ended:
            left = None if self._deadline is None else min(self._deadline - time.monotonic(), _LONGEST)
            if left is not None and left <= 0:
                self._due, self._deadline, left = True, time.monotonic() + _AGAIN, _AGAIN
                self._break_in()
            self._reader.settimeout(left)
            with suppress(TimeoutError):
                for number in self._reader.recv(99):
                    if number in _SIGNALS and not self._due:
                        self.hurry(self._patience if self._deadline is None else 0.0)
                        self._loop.add_callback_threadsafe(self._call)

    def _break_in(self) -> None:
        """By a signal of which the user has not taken the handler."""
        ours = [number for number in _SIGNALS if signal.getsignal(number) == self._handle]
        if self._interruptible and ours:
            signal.pthread_kill(threading.main_thread().ident or 0, ours[0])

    def _handle(self, *_signal: Any) -> None:
        if self._due and self._interruptible:
            self._interruptible = False  # at once: on the way out of user code nothing of ours is interrupted
            raise Abandoned("the time for the stop is over")


#: Those that are heard, one at most.
_heard: set[Signals] = set()


def _forked() -> None:
    """Or a signal to a child would stop its parent, by the socket that they share, and not the child."""
    for signals in _heard:
        signals.give_back()


os.register_at_fork(after_in_child=_forked)
