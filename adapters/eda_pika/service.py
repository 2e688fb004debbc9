"""Services on pika's loop, around the core's machine."""

from __future__ import annotations

import contextvars
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

from eda_core import (
    AnyMessage,
    Connect,
    DeliveryId,
    Effect,
    Epoch,
    Handlers,
    LocalError,
    Machine,
    ServiceError,
    StateError,
    criticality,
    failure,
    outcome,
)
from eda_core.driver import Driver
from eda_core.service import ServiceApi
from eda_pika.signals import stopping_on_signals
from eda_pika.transport import Link

T = TypeVar("T")
LOGGER = logging.getLogger("eda_pika")

#: The delivery whose handler runs in this thread, and its service.
_within: contextvars.ContextVar[tuple[Handlers, DeliveryId] | None] = contextvars.ContextVar("eda", default=None)
#: Seconds that handlers may run one after another before the network has its turn.
_TURN = 0.01
#: Seconds that sockets have to close after the end.
_FAREWELL = 1.0


class Timer:
    """What ``call_later`` returns, for ``cancel_timer``."""

    def __init__(self, callback: Callable[[], Any]) -> None:
        self._callback: Callable[[], Any] | None = callback
        self._timeout: Any = None

    def _fire(self) -> None:
        if self._callback is not None:
            self._callback()


class Service(ServiceApi[None]):
    """A service whose handlers are plain methods, ``def on_<Name>``. Subclass it and call :meth:`run`.

    Handlers, hooks and timers run in the thread of :meth:`run`, one after another; while one runs nothing else does,
    heartbeats included, so none may take longer than ``HEARTBEAT`` seconds. With ``HANDLER_THREADS`` they may.

    The methods may be called from any thread once the service runs; from another one they wait for that of
    :meth:`run`, except :meth:`stop`. Those that publish return when the message is accepted; over the bound of the
    buffer they raise ``BufferFull``.
    """

    #: Run handlers, hooks and timers in so many threads of their own; 0 for the thread of ``run``.
    HANDLER_THREADS: ClassVar[int] = 0

    _driver: _Driver | None = None

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM, SIGHUP (in the main thread) or :meth:`stop`.

        A second signal stops at once, leaving unfinished messages to other workers. So does an exception that is no
        ``Exception``, such as ``SystemExit``, raised by a handler; it comes out of here.

        Raises:
            LocalError: ``HANDLER_THREADS`` is wrong.
            ServiceError: it ended otherwise: every broker refuses its credentials, or ``on_ready`` failed.
            StateError: it was run before.
        """
        if self._driver is not None:
            raise StateError("a service runs once", hint="make another one")
        if type(self.HANDLER_THREADS) is not int or self.HANDLER_THREADS < 0:
            raise LocalError(f"HANDLER_THREADS is {self.HANDLER_THREADS!r}", hint="give a whole number, 0 for none")
        self._driver = _Driver(self)
        self._driver.run()

    def stop(self, timeout: float | None = None) -> None:
        """Ask the service to stop, and return at once; :meth:`run` returns when it has.

        Args:
            timeout: seconds until what is unfinished is left to other workers, ``STOP_TIMEOUT`` by default.
        """
        driver = self._running()
        driver.post(driver.tell, driver.machine.stop, timeout=timeout)

    def call_later(self, delay: float, callback: Callable[[], Any]) -> Timer:
        """Call ``callback`` after ``delay`` seconds, outside any handler."""
        driver, timer = self._running(), Timer(callback)
        driver.ask(partial(driver.set_timer, timer, delay))
        return timer

    def cancel_timer(self, timer: Timer) -> None:
        """Do not call it any more."""
        driver = self._running()
        timer._callback = None
        driver.post(driver.loop.remove_timeout, timer._timeout)

    def _running(self) -> _Driver:
        if self._driver is None:
            raise StateError("the service does not run", hint="call run() first, and begin in on_ready")
        return self._driver

    def _identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()

    def _publish(self, message: AnyMessage, mandatory: bool, immediate: bool) -> None:
        within = _within.get()
        delivery = within[1] if within is not None and within[0] is self else None
        self._input(
            lambda machine, now: machine.publish(
                message, now, within=delivery, mandatory=mandatory, immediate=immediate
            )
        )

    def _input(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        driver = self._running()
        driver.ask(lambda: driver.feed(call(driver.machine, driver.now())))


class ReconnectingSupervisor:
    """Runs a service, as in eventail. There it reconnected; here the service does so by itself.

    Attributes:
        service: made of ``factory(*args, **kwargs)``; what that raises comes out.
    """

    def __init__(self, factory: Callable[..., Service], *args: Any, **kwargs: Any) -> None:
        self.service: Service = factory(*args, **kwargs)

    def run(self) -> None:
        """Run it; returns when it has stopped, also by KeyboardInterrupt. See :meth:`Service.run`."""
        with suppress(KeyboardInterrupt):
            self.service.run()


class _Driver(Driver):
    def __init__(self, service: Service) -> None:
        offset = time.time() - self.now()
        machine = service.make_machine(random=random.random, token=secrets.token_hex(6), wall_offset=offset)
        super().__init__(service, machine)
        self.loop = IOLoop()
        self._thread = threading.get_ident()
        self._ssl = service._ssl
        self._timer: Any = None
        self._threads = service.HANDLER_THREADS
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._working = False
        self._asked: set[Future[Any]] = set()
        self._over = self._ended = False
        self._error: str | None = None
        self._interrupt: BaseException | None = None
        self._signals = 0

    def run(self) -> None:
        for number in range(self._threads):
            # Daemons: a handler that does not end must not keep the process from it.
            threading.Thread(target=self._serve, name=f"eda handler {number}", daemon=True).start()
        try:
            with stopping_on_signals(self.loop, self._on_signal):
                self.tell(self.machine.start)
                while not self._ended:
                    self._turn()
        finally:
            self._over = self._ended = True
            self._release()
            self.loop.close()
        if self._interrupt is not None:
            raise self._interrupt
        if self._error is not None:
            raise ServiceError(self._error)

    def _turn(self) -> None:
        try:
            self.loop.start()
        except Exception as error:  # pika's own: nothing of ours raises in its callbacks
            LOGGER.exception("pika failed")
            for link in tuple(self.links.values()):
                if isinstance(link, Link):
                    link.lose(repr(error))

    def _on_signal(self) -> None:
        self._signals += 1
        self.tell(self.machine.stop, timeout=None if self._signals == 1 else 0.0)

    # Other threads

    def post(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Have it called in the loop's thread: now, if this is it."""
        if threading.get_ident() == self._thread:
            call(*arguments, **named)
        else:
            self.loop.add_callback_threadsafe(partial(call, *arguments, **named))

    def ask(self, call: Callable[[], T]) -> T:
        """Call it in the loop's thread, and return or raise what that does."""
        if threading.get_ident() == self._thread:
            return call()
        answer: Future[T] = Future()

        def work() -> None:
            self._asked.discard(answer)
            try:
                answer.set_result(call())
            except Exception as error:
                answer.set_exception(error)

        self._asked.add(answer)
        self.loop.add_callback_threadsafe(work)
        if self._ended:  # nobody may get to it any more
            answer.cancel()
        try:
            return answer.result()
        except CancelledError:
            raise StateError("the service has stopped", hint="publish before it stops") from None

    def _release(self) -> None:
        """Whoever waits in another thread hears that nothing is to come."""
        for _ in range(self._threads):
            self._jobs.put(None)
        while self._asked:
            self._asked.pop().cancel()

    # The driver's part

    def now(self) -> float:
        return time.monotonic()

    def arm(self, deadline: float) -> None:
        if self._timer is not None:
            self.loop.remove_timeout(self._timer)
        self._timer = self.loop.call_later(max(0.0, deadline - self.now()), self.tick)

    def open(self, effect: Connect) -> Link:
        return Link(effect, self, self._ssl, self.loop, partial(self._forget, effect.epoch))

    def _forget(self, epoch: Epoch) -> None:
        self.links.pop(epoch, None)
        if self._over and not self.links:
            self._end()

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._spawn(partial(self._handle, delivery, message))

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        self._spawn(partial(self._call, effect, function, arguments))

    def settled(self, ticket: int, error: str | None) -> None:
        """Nobody waits: publishes are made without tickets."""

    def room(self) -> None:
        """Nobody waits: who met BufferFull was told."""

    def report(self, level: int, text: str) -> None:
        LOGGER.log(criticality.LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        self._error, self._over = error, True
        for link in tuple(self.links.values()):
            if isinstance(link, Link):
                link.close(at_once=True)
        if self.links:
            self.loop.call_later(_FAREWELL, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self.loop.stop()

    def set_timer(self, timer: Timer, delay: float) -> None:
        timer._timeout = self.loop.call_later(max(0.0, delay), partial(self.call, None, timer._fire))

    # User code, never in the stack of a callback from pika's sockets

    def _spawn(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if not self._threads and not self._working:
            self._working = True
            self.loop.add_callback_threadsafe(self._work)

    def _work(self) -> None:
        """Run jobs in the loop's thread."""
        until = self.now() + _TURN
        while not self._jobs.empty() and self.now() < until:
            self._run_next()
        self._working = not self._jobs.empty()
        if self._working:
            self.loop.add_callback_threadsafe(self._work)

    def _serve(self) -> None:
        """Run jobs in a thread of their own."""
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        job = self._jobs.get()
        if job is not None and not self._over:  # timers and handlers end with the service
            try:
                job()
            except BaseException as error:
                self.post(self._break_off, error)
        return job is not None

    def _break_off(self, error: BaseException) -> None:
        self._interrupt = self._interrupt or error
        self.tell(self.machine.stop, timeout=0.0)

    def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        token = _within.set((self.service, delivery))
        try:
            result = outcome(message, self.service.handle(message))
        except Exception as error:
            result = failure(error)
        finally:
            _within.reset(token)
        self.post(self.tell, self.machine.handled, delivery, result)

    def _call(self, effect: Effect | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self.post(self.tell, self.machine.callback_failed, effect, failure(error))
