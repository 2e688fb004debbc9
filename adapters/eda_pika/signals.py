"""SIGINT, SIGTERM and SIGHUP as events of pika's loop, and the end of a handler that keeps the loop from them.

A thread takes note of signals and of the time that a stop has. When that is over and the main thread still runs user
code, it sends the main thread a signal whose handler raises ``Abandoned``: within user code, and nowhere else.
"""

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from eda_core.errors import Abandoned

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AGAIN = 1.0  # seconds: what does not look at signals, in C, may do so later


class Signals:
    """For the length of a run in the main thread; in other threads there are no signals.

    Args:
        call: what each signal calls, in the loop.
        patience: seconds that a stop has after the first signal.
    """

    def __init__(self, loop: Any, call: Callable[[], None], patience: float) -> None:
        self._loop, self._call, self._patience = loop, call, patience
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # may be put to in a signal's handler
        self._deadline: float | None = None
        self._due = self._ended = self._interruptible = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """In the block they are handled; behind it everything is as it was before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        thread = threading.Thread(target=self._listen, name="eda signals", daemon=True)
        thread.start()
        handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            self._ended = True
            self._news.put(lambda: None)
            thread.join()  # it sends no more of them, and signal() lets those that it sent be handled first
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def run(self, call: Callable[[], T], interruptible: bool) -> T:
        """In the thread of the run: call user code, which may be interrupted, or what of ours user code calls."""
        before, self._interruptible = self._interruptible, interruptible
        try:
            return call()
        finally:
            self._interruptible = before

    def hurry(self, seconds: float) -> None:
        """User code has so much time left, or less."""
        due = time.monotonic() + seconds
        self._news.put(lambda: self._end_at(due))

    def _end_at(self, due: float) -> None:
        self._deadline = due if self._deadline is None else min(due, self._deadline)

    def _listen(self) -> None:
        while not self._ended:
            try:
                left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
                self._news.get(timeout=left)()
            except queue.Empty:
                self._due, self._deadline = True, time.monotonic() + _AGAIN
                ours = [number for number in _SIGNALS if signal.getsignal(number) == self._handle]
                if self._interruptible and ours:  # the user may have taken others
                    signal.pthread_kill(threading.main_thread().ident or 0, ours[0])

    def _handle(self, *_signal: Any) -> None:
        if self._due and self._interruptible:
            self._interruptible = False  # at once: on the way out of user code nothing of ours is interrupted
            raise Abandoned("the time for the stop is over")
        self._news.put(self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        self._end_at(time.monotonic() + (self._patience if self._deadline is None else 0.0))
        self._loop.add_callback_threadsafe(self._call)
