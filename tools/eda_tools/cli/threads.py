"""Runs blocking calls beside the event loop, in threads that do not hold up the end of the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread and return its result. Raises what it raises.

    If the task is cancelled, the thread is left behind. (``asyncio.to_thread`` would wait for it at the end, so that
    Ctrl-C would have no effect until a server answers.)
    """
    result: concurrent.futures.Future[T] = concurrent.futures.Future()

    def call() -> None:
        try:
            value = function()
        except Exception as error:
            result.set_exception(error)
        else:
            result.set_result(value)

    result.set_running_or_notify_cancel()  # from now on, cancelling the task does not touch it
    threading.Thread(target=call, daemon=True).start()
    return await asyncio.wrap_future(result)
