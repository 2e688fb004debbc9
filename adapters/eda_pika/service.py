"""Services on pika's loop, around the core's machine."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, TypeVar

from pika.adapters.select_connection import IOLoop

from eda_core.criticality import LOGGING_LEVELS
from eda_core.driver import Driver
from eda_core.effects import Connect, Effect
from eda_core.errors import LocalError, ServiceError, StateError
from eda_core.eventail import time_to_stop
from eda_core.handlers import failure, outcome
from eda_core.machine import Machine
from eda_core.service import ServiceApi, handling
from eda_core.values import AnyMessage, DeliveryId, Epoch
from eda_pika.signals import on_signals
from eda_pika.transport import Link

T = TypeVar("T")
LOGGER = logging.getLogger("eda_pika")
_TURN, _FAREWELL = 0.002, 1.0  # seconds: for handlers until the network has its turn; for sockets to close at the end


class Service(ServiceApi[None]):
    """A service whose handlers are plain methods, ``def on_<Name>``. Subclass it and call :meth:`run`.

    Handlers, hooks and timers run in the thread of :meth:`run`, one after another, while everything else waits: none
    may take as long as ``HEARTBEAT``, unless there are ``HANDLER_THREADS``. Methods may be called from any thread; they
    return when a message is accepted, and raise ``BufferFull`` when too many wait.
    """

    #: Run handlers, hooks and timers in so many threads of their own; 0 for the thread of ``run``.
    HANDLER_THREADS: ClassVar[int] = 0

    _driver: _Driver | None = None

    def run(self) -> None:
        """Serve until :meth:`stop`, SIGINT, SIGTERM or SIGHUP (those in the main thread only).

        A second signal stops at once, leaving unfinished messages to other workers; so does what is no ``Exception``
        (SystemExit), raised in a handler, and comes out of here.

        Raises:
            LocalError: ``HANDLER_THREADS`` is no number of threads.
            ServiceError: every broker refuses the credentials, or ``on_ready`` failed.
            StateError: it was run before.
        """
        if self._driver is not None:
            raise StateError("a service runs once", hint="make another one")
        if type(self.HANDLER_THREADS) is not int or self.HANDLER_THREADS < 0:
            raise LocalError(f"HANDLER_THREADS is {self.HANDLER_THREADS!r}", hint="give a whole number, 0 for none")
        self._driver = _Driver(self)
        self._driver.run()

    def stop(self, timeout: float | None = None, *, reconnect: bool = False) -> None:
        """Ask the service to stop within so many seconds (``STOP_TIMEOUT``), and return at once.

        Args:
            reconnect: eventail's, and false: :meth:`run` takes up a lost connection by itself.
        """
        driver = self._eda_driver()
        driver.loop.add_callback_threadsafe(partial(driver.stop, time_to_stop(timeout, reconnect)))

    def call_later(self, delay: float, callback: Callable[[], Any]) -> int:
        """Call ``callback`` after ``delay`` seconds, outside any handler. Returns what :meth:`cancel_timer` takes."""
        driver = self._eda_driver()
        return driver.ask(partial(driver.call_later, delay, callback))

    def cancel_timer(self, timer: int) -> None:
        """Do not call it any more."""
        driver = self._eda_driver()
        with suppress(StateError):  # it has ended, and its timers with it
            driver.ask(partial(driver.cancel_timer, timer))

    def _eda_driver(self) -> _Driver:
        """For the rest of this package: the driver."""
        if self._driver is None:
            raise StateError("the service does not run", hint="call run() first, and begin in on_ready")
        return self._driver

    def _eda_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()

    def _eda_publish(self, message: AnyMessage, mandatory: bool, immediate: bool) -> None:
        within = self._eda_delivery()
        self._eda_input(
            lambda it, now: it.publish(message, now, within=within, mandatory=mandatory, immediate=immediate)
        )

    def _eda_input(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        driver = self._eda_driver()
        driver.ask(lambda: driver.feed(call(driver.machine, driver.now())))

    _eda_input_now = _eda_input


class ReconnectingSupervisor:
    """As in eventail, where it reconnected; here ``service``, ``service_factory(*args, **kwargs)``, does so itself."""

    def __init__(self, service_factory: Callable[..., Service], *args: Any, **kwargs: Any) -> None:
        self.service: Service = service_factory(*args, **kwargs)

    def run(self) -> None:
        """Run the service: see :meth:`Service.run`. A KeyboardInterrupt only ends it."""
        with suppress(KeyboardInterrupt):
            self.service.run()


class _Driver(Driver):
    def __init__(self, service: Service) -> None:
        offset = time.time() - self.now()
        super().__init__(
            service, service.make_machine(random=random.random, token=secrets.token_hex(6), wall_offset=offset)
        )
        self.loop: Any = IOLoop()
        self._thread, self._context = threading.get_ident(), service._eda_ssl
        self._timer: Any = None
        self._timers: dict[int, Any] = {}
        self._numbers, self._signals = itertools.count(1), itertools.count(1)
        self._threads = service.HANDLER_THREADS
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._asked: set[Future[Any]] = set()
        self._working = self._over = self._ended = False
        self._error: BaseException | None = None

    def run(self) -> None:
        for _ in range(self._threads):  # daemons: a handler without end must not keep the process from it
            threading.Thread(target=self._serve, name="eda handlers", daemon=True).start()
        try:
            with on_signals(self.loop, self._on_signal):
                self.tell(self.machine.start)
                while not self._ended:
                    try:
                        self.loop.start()
                    except Exception as error:  # of pika's own making: nothing of ours raises in its loop
                        LOGGER.exception("pika failed")
                        for link in self._links():
                            link.lose(repr(error))
        finally:
            self._over = self._ended = True
            for _ in range(self._threads):
                self._jobs.put(None)
            while self._asked:
                self._asked.pop().cancel()
            self.loop.close()
        if self._error is not None:
            raise self._error

    def _links(self) -> list[Link]:
        return [link for link in self.links.values() if isinstance(link, Link)]

    def _on_signal(self) -> None:
        self.stop(None if next(self._signals) == 1 else 0.0)

    def ask(self, call: Callable[[], T]) -> T:
        """Call it in the loop's thread, and return or raise what that does."""
        if threading.get_ident() == self._thread and not self._ended:
            return call()
        answer: Future[T] = Future()
        self._asked.add(answer)
        self.loop.add_callback_threadsafe(partial(self._answer, answer, call))
        if self._ended:  # perhaps before it could know of this
            answer.cancel()
        try:
            return answer.result()
        except CancelledError:
            raise StateError("the service has stopped", hint="call this before") from None

    def _answer(self, answer: Future[T], call: Callable[[], T]) -> None:
        self._asked.discard(answer)
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(call())
            except Exception as error:
                answer.set_exception(error)

    def call_later(self, delay: float, callback: Callable[[], Any]) -> int:
        number = next(self._numbers)

        def due() -> None:
            if self._timers.pop(number, None) is not None:  # not cancelled while it waited for its turn
                callback()

        self._timers[number] = self.loop.call_later(max(0.0, delay), partial(self.call, None, due))
        return number

    def cancel_timer(self, number: int) -> None:
        timer = self._timers.pop(number, None)
        if timer is not None:
            self.loop.remove_timeout(timer)

    def now(self) -> float:
        return time.monotonic()

    def arm(self, deadline: float) -> None:
        if self._timer is not None:
            self.loop.remove_timeout(self._timer)
        self._timer = self.loop.call_later(max(0.0, deadline - self.now()), self.tick)

    def open(self, effect: Connect) -> Link:
        return Link(effect, self, self._context, self.loop, partial(self._forget, effect.epoch))

    def _forget(self, epoch: Epoch) -> None:
        self.links.pop(epoch, None)
        if self._over and not self.links:
            self._end()

    def settled(self, ticket: int, error: str | None) -> None:
        """Nobody has a ticket."""

    def room(self) -> None:
        """Nobody waits for it."""

    def report(self, level: int, text: str) -> None:
        LOGGER.log(LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        self._over = True
        self._error = self._error or (ServiceError(error) if error is not None else None)
        for link in self._links():
            link.close(at_once=True)
        self.loop.call_later(_FAREWELL if self.links else 0.0, self._end)

    def _end(self) -> None:
        self._ended = True
        self.loop.stop()

    # User code, never in the stack of a callback from pika's sockets

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._spawn(partial(self._handle, delivery, message))

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        self._spawn(partial(self._call, effect, partial(function, *arguments)))

    def _spawn(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if not self._threads and not self._working:
            self._working = True
            self._work_soon()

    def _work_soon(self) -> None:
        """In the turn after the next: what there is to send goes first, since a handler may take long."""
        self.loop.add_callback_threadsafe(partial(self.loop.add_callback_threadsafe, self._work))

    def _work(self) -> None:
        until = self.now() + _TURN
        self._run_next()
        while not self._jobs.empty() and self.now() < until:
            self._run_next()
        self._working = not self._jobs.empty()
        if self._working:
            self._work_soon()

    def _serve(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        job = self._jobs.get()
        if job is not None and not self._over and self._error is None:  # handlers and timers end with the service
            try:
                job()
            except BaseException as error:
                with suppress(StateError):  # it has ended meanwhile
                    self.ask(partial(self._break_off, error))
        return job is not None

    def _break_off(self, error: BaseException) -> None:
        self._error = self._error or error
        self.stop(0.0)

    def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        try:
            with handling(self.service, delivery):
                result = outcome(message, self.service.handle(message))
        except Exception as error:
            result = failure(error)
        self.ask(partial(self.handled, delivery, result))

    def _call(self, effect: Effect | None, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as error:
            self.ask(partial(self.tell, self.machine.callback_failed, effect, failure(error)))
