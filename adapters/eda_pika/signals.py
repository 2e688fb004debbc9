"""Stopping on SIGINT, SIGTERM and SIGHUP, as an event of pika's loop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopping_on_signals(loop: Any, stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` in ``loop`` on each signal; outside the main thread, where there are none, do nothing.

    A signal handler may interrupt anything, even what holds the lock of ``add_callback_threadsafe``. So none does
    anything here: Python writes the number of the signal to a socket, and the loop reads it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)

        def read(_descriptor: int, _events: int) -> None:
            for number in reader.recv(512):
                if number in _SIGNALS:
                    stop()

        loop.add_handler(reader.fileno(), read, loop.READ)
        descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(descriptor)
            loop.remove_handler(reader.fileno())
