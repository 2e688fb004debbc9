"""Services on an asyncio event loop, around the core's machine."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from eda_aio.signals import stopping_on_signals
from eda_aio.transport import Link
from eda_core import (
    AnyMessage,
    BufferFull,
    Connect,
    DeliveryId,
    EdaError,
    Effect,
    Machine,
    PublishError,
    Replied,
    ServiceError,
    StateError,
    criticality,
    failure,
    outcome,
)
from eda_core.calls import answer
from eda_core.driver import Driver
from eda_core.eventail import time_to_stop
from eda_core.service import ServiceApi, handling

LOGGER = logging.getLogger("eda_aio")


class Service(ServiceApi[Coroutine[Any, Any, None]]):
    """A service whose handlers are coroutines: ``async def on_<Name>``. Subclass it and await :meth:`run`.

    Handlers run concurrently, up to the prefetch. The methods that publish are awaited: in a handler they return at
    once, elsewhere when the broker has confirmed the message.
    """

    _driver: _Driver | None = None

    async def run(self) -> None:
        """Serve until SIGINT, SIGTERM, SIGHUP or :meth:`stop`. Being cancelled, it stops gracefully first.

        A second signal stops at once, leaving unfinished messages to other workers.

        Raises:
            ServiceError: it ended otherwise: every broker refuses its credentials, or ``on_ready`` failed.
            StateError: it was run before.
        """
        if self._driver is not None:
            raise StateError("a service runs once", hint="make another one")
        self._driver = _Driver(self)
        await self._driver.run()

    async def stop(self, timeout: float | None = None, *, reconnect: bool = False) -> None:
        """Ask the service to stop, and return at once; :meth:`run` returns when it has.

        Args:
            timeout: seconds until what is unfinished is left to other workers, ``STOP_TIMEOUT`` by default.
            reconnect: eventail's, and false: :meth:`run` takes up a lost connection by itself.
        """
        driver = self._eda_driver()
        driver.stop(time_to_stop(timeout, reconnect))

    async def call(self, command: str, message: Any, timeout: float = 30.0, conversation_id: str = "") -> Any:
        """Send ``service.Command`` at once and wait for its result; returns the payload of that.

        The result comes to this worker only, and only while its link lasts: what must survive a lost link or a dead
        worker is sent with :meth:`send_command`.

        Args:
            timeout: seconds, in all.
            conversation_id: by default that of the message being handled, else a new one.

        Raises:
            CommandError: the result is an error; its payload is in it.
            CommandTimeout: no result came in time. If one comes later it is dropped, with a log.
            PublishError: no service is bound to the command, or this one stopped.
            LocalError: the command cannot be sent; it says why.
        """
        driver = self._eda_driver()
        make = functools.partial(
            driver.machine.call, command, message, timeout=timeout, conversation_id=conversation_id
        )
        return await driver.ask(functools.partial(make, within=self._eda_delivery()), driver.machine.forget_call)

    def call_later(self, delay: float, callback: Callable[[], Any]) -> asyncio.TimerHandle:
        """Call ``callback`` (a function or a coroutine function) after ``delay`` seconds, outside any handler."""
        driver = self._eda_driver()
        with handling(self, None):
            return driver.loop.call_later(delay, driver.call, None, callback)

    def cancel_timer(self, timer: asyncio.TimerHandle) -> None:
        """Do not call it any more."""
        timer.cancel()

    def _eda_driver(self) -> _Driver:
        """For the rest of this package: the driver."""
        if self._driver is None:
            raise StateError("the service does not run", hint="await run() first, and begin in on_ready")
        return self._driver

    def _eda_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()

    async def _eda_publish(self, message: AnyMessage, mandatory: bool, immediate: bool) -> None:
        driver, within = self._eda_driver(), self._eda_delivery()
        publish = driver.machine.publish
        await driver.ask(functools.partial(publish, message, within=within, mandatory=mandatory, immediate=immediate))

    async def _eda_input(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        self._eda_input_now(call)

    def _eda_input_now(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        driver = self._eda_driver()
        driver.feed(call(driver.machine, driver.now()))


class _Driver(Driver):
    def __init__(self, service: Service) -> None:
        self.loop = asyncio.get_running_loop()
        offset = time.time() - self.loop.time()
        machine = service.make_machine(random=random.random, token=secrets.token_hex(6), wall_offset=offset)
        super().__init__(service, machine)
        self._ssl = service._eda_ssl
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._room = asyncio.Event()
        self._over: asyncio.Future[str | None] = self.loop.create_future()
        self._signals = 0

    async def run(self) -> None:
        with stopping_on_signals(self._on_signal):
            try:
                self.tell(self.machine.start)
                error = await asyncio.shield(self._over)
            except asyncio.CancelledError:
                self.stop()
                await asyncio.wait([self._over])
                raise
            finally:
                await self._tear_down()
        if error is not None:
            raise ServiceError(error)

    def _on_signal(self) -> None:
        self._signals += 1
        self.stop(None if self._signals == 1 else 0.0)

    async def _tear_down(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        links = [link for link in self.links.values() if isinstance(link, Link)]
        for link in links:
            link.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(link.task for link in links), return_exceptions=True)

    # The driver's part

    def now(self) -> float:
        return self.loop.time()

    def arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(deadline, self.tick)

    def open(self, effect: Connect) -> Link:
        link = Link(effect, self, self.machine.config.close_timeout, self._ssl)
        link.task.add_done_callback(lambda _: self.links.pop(effect.epoch, None))
        return link

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._spawn(self._handle(delivery, message))

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        if not self._over.done():  # timers end with the service
            self._spawn(self._call(effect, function, arguments))

    def settled(self, ticket: int, error: str | None) -> None:
        waiting = self._waiting.pop(ticket, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None) if error is None else waiting.set_exception(PublishError(error))

    def replied(self, effect: Replied) -> None:
        waiting = self._waiting.pop(effect.ticket, None)
        if waiting is not None and not waiting.done():
            try:
                waiting.set_result(answer(effect))
            except EdaError as error:
                waiting.set_exception(error)

    def room(self) -> None:
        self._room.set()

    def report(self, level: int, text: str) -> None:
        LOGGER.log(criticality.LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        self._over.set_result(error)
        self._room.set()  # who waits for it hears that the service is over

    # User code, each run in a task of its own

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        try:
            with handling(self.service, delivery):
                returned = self.service.handle(message)
                if inspect.isawaitable(returned):
                    returned = await returned
            result = outcome(message, returned)
        except (Exception, asyncio.CancelledError) as error:
            if self._over.done():  # torn down: the message stays with the broker
                raise
            result = failure(error)
        self.handled(delivery, result)

    async def _call(self, effect: Effect | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            returned = function(*arguments)
            if inspect.isawaitable(returned):
                await returned
        except Exception as error:
            self.tell(self.machine.callback_failed, effect, failure(error))

    async def ask(self, make: Callable[..., list[Effect]], forget: Callable[..., list[Effect]] | None = None) -> Any:
        """Make an input with a ticket, once there is room for it, and wait for what comes of it.

        Args:
            forget: the input that says, with the ticket, that nobody waits any more.
        """
        ticket = next(self._tickets)
        while (effects := self._unless_full(make, ticket)) is None:
            self._room.clear()
            await self._room.wait()
        waiting = self._waiting[ticket] = self.loop.create_future()
        self.feed(effects)
        try:
            return await waiting
        except asyncio.CancelledError:
            if self._waiting.pop(ticket, None) is not None and forget is not None:
                self.tell(forget, ticket)
            raise

    def _unless_full(self, make: Callable[..., list[Effect]], ticket: int) -> list[Effect] | None:
        try:
            return make(now=self.now(), ticket=ticket)
        except BufferFull as full:
            if not full.temporary:
                raise
            return None
