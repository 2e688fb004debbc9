"""Stops services of an asyncio loop on signals.

This module decides how a signal reaches the loop. It does not know how a service stops.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from eda_core.drivers.signals import StopSignals


def _is_default(handler: Any) -> bool:
    """Whether ``asyncio.run`` has installed it, for SIGINT: it cancels the main task."""
    return isinstance(handler, partial) and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)


SIGNALS = StopSignals(signal, lambda: threading.current_thread() is threading.main_thread(), _is_default)
if hasattr(os, "register_at_fork"):  # not on Windows
    SIGNALS.guard_forks(os.register_at_fork)
#: The sockets that signals write to, one for each service.
_wakers: list[int] = []


@contextmanager
def stopping_on_signals(stop: Callable[[], None], numbers: tuple[int, ...]) -> Iterator[None]:
    """In the block each of these signals calls ``stop`` in the running loop."""
    if not numbers:
        yield
        return
    loop = asyncio.get_running_loop()

    def call(number: int) -> bool:
        with suppress(RuntimeError):  # the loop was closed before the block ended
            loop.call_soon_threadsafe(stop)
        return False

    with _waking(loop), SIGNALS.heard(numbers, call):
        yield


@contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Make signals wake the loop: Python does not run the handler of one that comes just before the loop waits."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before not in (-1, *_wakers):  # they wake the loop already: uvloop, Windows, loop.add_signal_handler
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            yield
            return
        _wakers.append(writer.fileno())
        loop.add_reader(reader, reader.recv, 4096)
        try:
            yield
        finally:
            loop.remove_reader(reader)
            _wakers.remove(writer.fileno())
            last = signal.set_wakeup_fd(_wakers[-1] if _wakers else -1)
            if last not in (writer.fileno(), *_wakers):  # the program has its own meanwhile
                signal.set_wakeup_fd(last)
