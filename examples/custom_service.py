"""Services on the transport of ``custom_transport.py``: how user code runs, and how it publishes.

Nothing here knows about AMQP. What an author of services sees is the core's ``ServiceApi``, in coroutines.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from eda_core import (
    AnyMessage,
    BufferFull,
    Connect,
    DeliveryId,
    Effect,
    Machine,
    PublishError,
    ServiceError,
    StateError,
    criticality,
    failure,
    outcome,
)
from eda_core.driver import Driver
from eda_core.service import ServiceApi, handling
from examples.custom_transport import Link

LOGGER = logging.getLogger(__name__)


class Service(ServiceApi[Coroutine[Any, Any, None]]):
    """A service whose handlers are coroutines: subclass it and await :meth:`run`."""

    _driver: AsyncioDriver | None = None

    async def run(self) -> None:
        """Serve until :meth:`stop`. Being cancelled, it stops gracefully first.

        Raises:
            ServiceError: it ended otherwise.
            StateError: it was run before.
        """
        if self._driver is not None:
            raise StateError("a service runs once", hint="make another one")
        self._driver = driver = AsyncioDriver(self)
        try:
            driver.tell(driver.machine.start)
            error = await asyncio.shield(driver.over)
        except asyncio.CancelledError:
            driver.stop()
            await asyncio.wait([driver.over])
            raise
        finally:
            await driver.tear_down()
        if error is not None:
            raise ServiceError(error)

    async def stop(self, timeout: float | None = None) -> None:
        """Ask the service to stop within ``timeout`` seconds (``STOP_TIMEOUT``); :meth:`run` returns when it has."""
        driver = self._running()
        driver.stop(timeout)

    def call_later(self, delay: float, callback: Callable[[], Any]) -> asyncio.TimerHandle:
        """Call ``callback`` (a function or a coroutine function) after ``delay`` seconds, outside any handler."""
        driver = self._running()
        with handling(self, None):
            return driver.loop.call_later(delay, driver.call, None, callback)

    def cancel_timer(self, timer: asyncio.TimerHandle) -> None:
        """Do not call it any more."""
        timer.cancel()

    # What ServiceApi asks for

    def _eda_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()

    async def _eda_publish(self, message: AnyMessage, mandatory: bool, immediate: bool) -> None:
        within = self._eda_delivery()
        await self._running().publish(message, within=within, mandatory=mandatory, immediate=immediate)

    async def _eda_input(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        self._eda_input_now(call)

    def _eda_input_now(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        driver = self._running()
        driver.feed(call(driver.machine, driver.now()))

    def _running(self) -> AsyncioDriver:
        if self._driver is None:
            raise StateError("the service does not run", hint="begin in on_ready")
        return self._driver


class AsyncioDriver(Driver):
    """The core's driver, filled in: a clock, a timer, a task for each call of user code, futures for confirms."""

    def __init__(self, service: Service) -> None:
        self.loop = asyncio.get_running_loop()
        offset, token = time.time() - self.loop.time(), f"{random.getrandbits(48):x}"
        machine = service.make_machine(random=random.random, token=token, wall_offset=offset)
        super().__init__(service, machine)
        self.over: asyncio.Future[str | None] = self.loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._room = asyncio.Event()

    # Time

    def now(self) -> float:
        return self.loop.time()

    def arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(deadline, self.tick)

    def open(self, effect: Connect) -> Link:
        link = Link(effect, self)
        link.task.add_done_callback(lambda _: self.links.pop(effect.epoch, None))
        return link

    # User code

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._spawn(self._handle(delivery, message))

    async def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        try:
            with handling(self.service, delivery):
                returned = self.service.handle(message)
                result = outcome(message, await returned if inspect.isawaitable(returned) else returned)
        except (Exception, asyncio.CancelledError) as error:
            if self.over.done():  # torn down: the message stays with the broker
                raise
            result = failure(error)
        self.handled(delivery, result)

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        self._spawn(self._call(effect, function, arguments))

    async def _call(self, effect: Effect | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            returned = function(*arguments)
            if inspect.isawaitable(returned):
                await returned
        except Exception as error:
            self.tell(self.machine.callback_failed, effect, failure(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Publishing

    async def publish(self, message: AnyMessage, **options: Any) -> None:
        """Returns when the message is confirmed, or held by the delivery within which it was published."""
        ticket, waiting = next(self._tickets), self.loop.create_future()
        while True:
            try:
                effects = self.machine.publish(message, self.now(), ticket=ticket, **options)
            except BufferFull as full:
                if not full.temporary:
                    raise
                self._room.clear()
                await self._room.wait()
            else:
                self._waiting[ticket] = waiting
                self.feed(effects)
                await waiting
                return

    def settled(self, ticket: int, error: str | None) -> None:
        waiting = self._waiting.pop(ticket, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None) if error is None else waiting.set_exception(PublishError(error))

    def room(self) -> None:
        self._room.set()

    # The local log, and the end

    def report(self, level: int, text: str) -> None:
        LOGGER.log(criticality.LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        self.over.set_result(error)
        self._room.set()  # whoever waits for room hears that there is none to come

    async def tear_down(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = {*self._tasks, *(link.task for link in self.links.values() if isinstance(link, Link))}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
