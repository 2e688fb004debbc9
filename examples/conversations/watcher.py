"""The demo's ear on the bus: a service that subscribes to everything, by queues that vanish with it."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from eda_aio import Service
from eda_core import Command, Configuration, Event, LogRecord, Result, criticality
from eda_core.urls import redact
from examples.conversations.processes import DemoError
from examples.conversations.tally import Tally, seen


class Watcher(Service):
    PREFETCH_COUNT = 200

    def __init__(self, amqp_urls: Sequence[str], tally: Tally) -> None:
        super().__init__(amqp_urls, ["#"], ["#"], "demo-watcher", log_routing_keys=["#"])
        self.use_exclusive_queues()
        self.ready = asyncio.Event()
        #: Set whenever a message of this run has come.
        self.progress = asyncio.Event()
        self._tally = tally
        self._fence = ""
        self._fence_seen = asyncio.Event()

    async def on_ready(self) -> None:
        self.ready.set()

    async def handle(self, message: Event | Command | Result | Configuration | LogRecord) -> None:
        record = seen(message, datetime.datetime.now())
        if self._fence and record.conversation_id == self._fence:
            self._fence_seen.set()
        elif self._tally.see(record):
            self.progress.set()

    async def catch_up(self, timeout: float = 5.0) -> None:
        """Wait until the logs that were published before this call have come.

        They stand in one queue, so a record published now comes after all of them. Logs are not confirmed: if it gets
        lost, the wait ends after ``timeout`` seconds.
        """
        self._fence, self._fence_seen = str(uuid.uuid4()), asyncio.Event()
        await self.log(criticality.DEBUG, "end of the demo", conversation_id=self._fence)
        await asyncio.wait((asyncio.ensure_future(self._fence_seen.wait()),), timeout=timeout)


@asynccontextmanager
async def watching(url: str, tally: Tally, timeout: float) -> AsyncIterator[Watcher]:
    """A watcher that listens; stopped at the end of the block.

    A running service takes the signals of its process. So when it ends by itself inside the block, the demo was meant:
    the current task is cancelled.

    Raises:
        DemoError: it cannot be subscribed, or fails inside the block.
    """
    watcher, owner = Watcher([url], tally), asyncio.current_task()
    assert owner is not None
    running = asyncio.create_task(watcher.run())

    def ended(_: asyncio.Task[None]) -> None:
        owner.cancel()

    running.add_done_callback(ended)
    try:
        async with asyncio.timeout(timeout):
            await watcher.ready.wait()
        yield watcher
    except TimeoutError:
        raise DemoError(
            f"cannot listen to the broker at {redact(url)}: not subscribed within {timeout:.0f} s"
        ) from None
    except asyncio.CancelledError:
        problem = running.exception() if running.done() and not running.cancelled() else None
        if problem is None:
            raise
        raise DemoError(f"cannot listen to the broker at {redact(url)}: {redact(str(problem))}") from problem
    finally:
        running.remove_done_callback(ended)
        if not running.done():
            await watcher.stop()
            await asyncio.wait((running,), timeout=10)
        running.cancel()
