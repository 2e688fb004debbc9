"""SIGINT, SIGTERM and SIGHUP as events of pika's loop."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_signals(loop: Any, call: Callable[[], None]) -> Iterator[None]:
    """Call in ``loop``, not in a handler, which may come while a lock is held. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)

        def read(_descriptor: int, _events: int) -> None:
            for number in reader.recv(99):
                if number in _SIGNALS:
                    call()

        loop.add_handler(reader.fileno(), read, loop.READ)
        descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)  # Python writes their numbers
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
            signal.set_wakeup_fd(descriptor)
            loop.remove_handler(reader.fileno())
