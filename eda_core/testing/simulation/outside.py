"""Keeps a simulation to itself: nothing connects, no process starts, and the clock is virtual if that is asked for.

It replaces methods of Python's library while a simulation runs, and puts them back at the end.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from eda_core.testing.simulation.loop import OutsideError
from eda_core.testing.simulation.world import World

#: What reaches out of the process.
_REFUSED: Final[tuple[tuple[Any, str, str], ...]] = (
    (socket.socket, "connect", "a socket connects"),
    (socket.socket, "connect_ex", "a socket connects"),
    (socket.socket, "bind", "a socket is bound"),
    (subprocess.Popen, "__init__", "a process is started"),
)
#: The virtual time of day at the start of a run: 2026-01-01 00:00:00 UTC.
EPOCH: Final = 1_767_225_600.0


@contextmanager
def inside(world: World, virtual_clock: bool) -> Iterator[None]:
    """In the block, let what reaches out raise :class:`OutsideError`, and make the clock virtual if that is asked."""
    with ExitStack() as stack:
        for owner, name, what in _REFUSED:
            stack.enter_context(_replaced(owner, name, _refusing(what, getattr(owner, name))))
        if virtual_clock:
            stack.enter_context(_replaced(time, "time", lambda: EPOCH + world.schedule.now))
            stack.enter_context(_replaced(time, "monotonic", lambda: world.schedule.now))
            stack.enter_context(_replaced(time, "sleep", world.wait))
        yield


def _refusing(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what refuses in this thread, and does in others what it always does."""
    thread = threading.get_ident()

    def refuse(*arguments: Any, **named: Any) -> Any:
        if threading.get_ident() == thread:
            raise OutsideError(what)
        return original(*arguments, **named)

    return refuse


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    is_own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
