"""Services on the transport of ``custom_transport.py``: runs user code, and lets it wait.

Nothing here knows about AMQP. The authors of services see the core's ``CoroutineService``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from eda_core import Connect
from eda_core.drivers import CoroutineDriver, write_report
from eda_core.services import CoroutineService
from examples.custom_transport import CustomLink

LOGGER = logging.getLogger(__name__)


class Service(CoroutineService):
    """A service whose handlers are coroutines: subclass it and await :meth:`run`."""

    async def run(self) -> None:
        """Serve until :meth:`stop`. If it is cancelled, it stops in good order first.

        Raises:
            ServiceError: the service ended without being asked to.
            StateError: the service was run before.
        """
        await self.begin_run(AsyncioDriver).run()

    def worker_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()


class AsyncioDriver(CoroutineDriver):
    """The core's driver for coroutines, filled in: a clock, a timer, tasks and futures."""

    def __init__(self, service: Service) -> None:
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        token, offset = f"{random.getrandbits(48):x}", lambda: time.time() - self.loop.time()
        machine = service.make_machine(random=random.random, token=token, wall_offset=offset)
        super().__init__(service, machine)

    def now(self) -> float:
        return self.loop.time()

    def arm(self, deadline: float) -> Callable[[], object]:
        return self.loop.call_at(deadline, self.tick).cancel

    def open(self, effect: Connect) -> CustomLink:
        link = CustomLink(effect, self)
        link.task.add_done_callback(lambda _: self.links.pop(effect.epoch, None))
        return link

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def future(self) -> asyncio.Future[Any]:
        return self.loop.create_future()

    def report(self, level: int, text: str, event: str) -> None:
        write_report(LOGGER, level, text, event)

    async def tear_down(self) -> None:
        tasks: set[asyncio.Future[Any]] = {*self.tasks}
        tasks |= {link.task for link in self.links.values() if isinstance(link, CustomLink)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
