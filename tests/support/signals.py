"""What programs inherit for the signals that end them, whatever the test run itself has inherited."""

from __future__ import annotations

import signal
from collections.abc import Container, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def take_none_for_ignored() -> None:
    """Let the programs that this process starts from now on begin with the default actions, in whatever thread.

    A test run in a background job has SIGINT ignored, and one under ``nohup`` SIGHUP: programs would inherit that. Call
    this in the main thread.
    """
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)


@contextmanager
def inherited(ignored: Container[signal.Signals] = ()) -> Iterator[None]:
    """In the block, programs are started with these signals ignored and the others not."""
    changed = {}
    try:
        for number in ENDING:
            if (signal.getsignal(number) is signal.SIG_IGN) != (number in ignored):
                changed[number] = signal.signal(number, signal.SIG_IGN if number in ignored else _nothing)
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A program inherits no handler: it begins with the default action. The test run goes on ignoring the signal."""
