"""Services on an asyncio event loop, around the core's machine."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from eda_aio.signals import stopping_on_signals
from eda_aio.transport import Link
from eda_core import Connect
from eda_core.criticality import LOGGING_LEVELS, WARNING
from eda_core.drivers.coroutines import CoroutineDriver
from eda_core.services.eventail import EventailCoroutines

LOGGER = logging.getLogger("eda_aio")


class Service(EventailCoroutines):
    """A service whose handlers are coroutines: ``async def on_<Name>``. Subclass it and await :meth:`run`.

    Handlers run concurrently, up to the prefetch. The methods that publish are awaited: in a handler they return at
    once, elsewhere when the broker has confirmed the message.
    """

    async def run(self) -> None:
        """Serve until SIGINT, SIGTERM, SIGHUP or :meth:`stop`. Being cancelled, it stops gracefully first.

        A second signal stops at once, leaving unfinished messages to other workers.

        Raises:
            ServiceError: it ended otherwise: every broker refuses its credentials, or ``on_ready`` failed.
            StateError: it was run before.
        """
        driver = self.begin_run(_Driver)
        with stopping_on_signals(driver.interrupt):
            await driver.run()

    def worker_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()


class _Driver(CoroutineDriver):
    def __init__(self, service: Service) -> None:
        self._loop = asyncio.get_running_loop()
        machine = service.make_machine(
            random=random.random, token=secrets.token_hex(6), wall_offset=time.time() - self.now()
        )
        super().__init__(service, machine)
        self._ssl = service.ssl_context
        self._context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        return self._loop.time()

    def arm(self, deadline: float) -> Callable[[], object]:
        return self._loop.call_at(deadline, self.tick, context=self._context).cancel

    def open(self, effect: Connect) -> Link:
        link = Link(effect, self, self._ssl)
        link.task.add_done_callback(lambda _: self.links.pop(effect.epoch, None))
        return link

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # Not in that of whichever handler has brought this about, whose context variables are its own.
        task = self._loop.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def report(self, level: int, text: str) -> None:
        LOGGER.log(LOGGING_LEVELS[level], "%s", text)

    async def tear_down(self) -> None:
        links = [link for link in self.links.values() if isinstance(link, Link)]
        for link in links:
            link.abandon()
        for task in self._tasks:
            task.cancel()
        if ending := {*self._tasks, *(link.task for link in links)}:
            done, left = await asyncio.wait(ending, timeout=self.machine.config.close_timeout)
            await asyncio.gather(*done, return_exceptions=True)
            if left:
                self.report(
                    WARNING, f"{len(left)} handler(s) do not end though they are cancelled, and are left behind"
                )
