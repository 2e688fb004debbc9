"""What ends a tool whose event loop no longer turns, because it writes to a standard output that nobody reads.

Such a loop hears of no signal and of no time-out. But Python runs a signal's handler within a write that waits, and a
thread of its own knows the time.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from eda_tools.cli.output import Output
from eda_tools.cli.status import INTERRUPTED, TIMED_OUT

#: Seconds in which the event loop has to hear of a signal, or of the time-out.
GRACE: Final = 3.0
#: Seconds for one call of select; there is a number that it takes for too large.
_LONGEST: Final = 86_400.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNAL: Final = b"s"
_HEARD: Final = b"h"


@contextmanager
def ending_when_stuck(output: Output, timeout: float | None) -> Iterator[Callable[[], None]]:
    """End the process at once on the second signal; on the first, and when ``timeout`` seconds are over, if the loop
    does not hear of it. Yields what is to be called when it does.

    To be used where the event loop has its signal handlers already. Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    reading, writing = os.pipe()
    signals = 0

    def end(status: int) -> None:
        output.abandon()
        os._exit(status)

    def on_signal(number: int, frame: FrameType | None) -> None:  # may take no lock: the code that it interrupts has it
        nonlocal signals
        signals += 1
        if signals > 1:
            end(INTERRUPTED)
        os.write(writing, _SIGNAL)

    def watch() -> None:
        deadline, status = math.inf if timeout is None else time.monotonic() + timeout + GRACE, TIMED_OUT
        while (left := deadline - time.monotonic()) > 0:
            if select.select([reading], [], [], min(left, _LONGEST))[0]:
                if os.read(reading, 1) == _HEARD:
                    return
                deadline, status = time.monotonic() + GRACE, INTERRUPTED
        end(status)

    def heard() -> None:
        os.write(writing, _HEARD)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    for number in _SIGNALS:
        signal.signal(number, on_signal)  # in the place of asyncio's, which does nothing: the loop is woken in any case
    try:
        yield heard
    finally:
        for number in _SIGNALS:  # the pipe is not theirs any more
            signal.signal(number, signal.SIG_IGN)
        heard()
        watching.join()
        os.close(reading)
        os.close(writing)
