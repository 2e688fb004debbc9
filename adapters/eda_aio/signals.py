"""Stopping on SIGINT, SIGTERM and SIGHUP, for any number of services in one event loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Who wants to stop, in the order of starting; a loop has one handler per signal.
_stops: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on each signal. Outside the main thread, where there are no signals, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    stops = _stops.setdefault(loop, [])
    if not stops:
        _install(loop)
    stops.append(stop)
    try:
        yield
    finally:
        stops.remove(stop)
        if not stops:
            del _stops[loop]
            with suppress(NotImplementedError):
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)


def _install(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(NotImplementedError):  # a loop without signals, as on Windows
        for number in _SIGNALS:
            loop.add_signal_handler(number, _stop_all, loop)


def _stop_all(loop: asyncio.AbstractEventLoop) -> None:
    for stop in list(_stops.get(loop, ())):
        stop()
