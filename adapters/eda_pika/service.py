"""Services on pika's loop, around the core's machine."""

from __future__ import annotations

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
from typing import Any, ClassVar

from pika.adapters.select_connection import IOLoop

from eda_core import Connect, Epoch, LocalError, StateError
from eda_core.criticality import LOGGING_LEVELS
from eda_core.drivers.callbacks import CallbackDriver
from eda_core.services.callbacks import CallbackService
from eda_core.services.eventail import EventailService, time_to_stop
from eda_pika.signals import Signals, T
from eda_pika.transport import Link

LOGGER = logging.getLogger("eda_pika")
_TURN, _FAREWELL = 0.002, 1.0  # seconds: for handlers until the network has its turn; for sockets to close at the end


class Service(EventailService[None], CallbackService):
    """A service whose handlers are plain methods, ``def on_<Name>``. Subclass it and call :meth:`run`.

    Handlers, hooks and timers run in the thread of :meth:`run`, one after another, while everything else waits: none
    may take as long as ``HEARTBEAT``, or wait for a thread that calls a method, unless there are ``HANDLER_THREADS``.
    Methods may be called from any thread; they return when a message is accepted, and raise ``BufferFull`` when too
    many wait. In a forked process they raise ``StateError``.
    """

    #: Run handlers, hooks and timers in so many threads of their own; 0 for the thread of ``run``.
    HANDLER_THREADS: ClassVar[int] = 0

    def run(self) -> None:
        """Serve until :meth:`stop`, SIGINT, SIGTERM or SIGHUP (those in the main thread only).

        After ``STOP_TIMEOUT`` unfinished messages are left to other workers, and after a second signal at once. In the
        main thread, without ``HANDLER_THREADS``, a handler that goes on then is ended by
        :class:`eda_core.errors.Abandoned`, raised within it; unless it is in a call to C code that does not look at
        signals, catches that, or has the handlers of all three signals replaced. In another thread nothing but its end
        ends a handler.

        What is no ``Exception`` (SystemExit), raised in a handler, stops at once too, and comes out of here.

        Raises:
            LocalError: ``HANDLER_THREADS`` is no number of threads.
            ServiceError: every broker refuses the credentials, or ``on_ready`` failed.
            StateError: it was run before.
        """
        if type(self.HANDLER_THREADS) is not int or self.HANDLER_THREADS < 0:
            raise LocalError(f"HANDLER_THREADS is {self.HANDLER_THREADS!r}", hint="give a whole number, 0 for none")
        self.begin_run(_Driver).run()

    def stop(self, timeout: float | None = None, *, reconnect: bool = False) -> None:
        """Ask the service to stop within so many seconds (``STOP_TIMEOUT``), and return at once.

        Args:
            reconnect: eventail's, and false: :meth:`run` takes up a lost connection by itself.
        """
        driver: Any = self.running_driver()
        driver.request_stop(time_to_stop(timeout, reconnect))

    def worker_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()


class ReconnectingSupervisor:
    """As in eventail, where it reconnected; here ``service``, ``service_factory(*args, **kwargs)``, does so itself."""

    def __init__(self, service_factory: Callable[..., Service], *args: Any, **kwargs: Any) -> None:
        self.service: Service = service_factory(*args, **kwargs)

    def run(self) -> None:
        """Run the service: see :meth:`Service.run`. A KeyboardInterrupt only ends it."""
        with suppress(KeyboardInterrupt):
            self.service.run()


class _Driver(CallbackDriver):
    def __init__(self, service: Service) -> None:
        machine = service.make_machine(
            random=random.random, token=secrets.token_hex(6), wall_offset=time.time() - self.now()
        )
        super().__init__(service, machine)
        self.loop: Any = IOLoop()
        self._process, self._thread, self._context = os.getpid(), threading.get_ident(), service.ssl_context
        self._threads = service.HANDLER_THREADS
        self._signals = Signals(self.loop, self.interrupt, machine.config.stop_timeout)
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked: set[Future[Any]] = set()
        self._working = self._ended = False

    def run(self) -> None:
        for _ in range(self._threads):  # daemons: a handler without end must not keep the process from it
            threading.Thread(target=self._serve, name="eda handlers", daemon=True).start()
        try:
            with self._signals.heard():
                self.tell(self.machine.start)
                while not self._ended:
                    try:
                        self.loop.start()
                    except Exception as error:  # of pika's own making: nothing of ours raises in its loop
                        LOGGER.exception("pika failed")
                        for link in self._links():
                            link.lose(repr(error))
        finally:
            self.over = self._ended = True
            for _ in range(self._threads):
                self._jobs.put(None)
            while self._asked:
                self._asked.pop().cancel()
            if not self.forked():  # where a lock may be closed by a thread that is not there
                self.loop.close()
        self.raise_end()

    def _links(self) -> list[Link]:
        return [link for link in self.links.values() if isinstance(link, Link)]

    def forked(self) -> bool:
        return os.getpid() != self._process

    def ask(self, call: Callable[[], T]) -> T:
        """In the loop's thread."""
        self.check_process()
        if threading.get_ident() == self._thread and not self._ended:
            return self._signals.run(call, False)
        answer: Future[T] = Future()
        self._asked.add(answer)
        self.loop.add_callback_threadsafe(partial(self._answer, answer, call))
        if self._ended:  # perhaps before it could know of this
            answer.cancel()
        try:
            return answer.result()
        except CancelledError:
            raise StateError("the service has stopped", hint="call this before") from None

    def request_stop(self, timeout: float | None) -> None:
        """Soon, from any thread."""
        self.check_process()
        call = partial(self.loop.add_callback_threadsafe, partial(self.stop, timeout))
        if threading.get_ident() == self._thread:
            self._signals.run(call, False)
        else:
            self._signals.hurry(self.machine.config.stop_timeout if timeout is None else timeout)
            call()

    def _answer(self, answer: Future[T], call: Callable[[], T]) -> None:
        self._asked.discard(answer)
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(call())
            except Exception as error:
                answer.set_exception(error)

    def now(self) -> float:
        return time.monotonic()

    def arm(self, deadline: float) -> Callable[[], object]:
        timer = self.loop.call_later(max(0.0, deadline - self.now()), self.tick)
        return partial(self.loop.remove_timeout, timer)

    def open(self, effect: Connect) -> Link:
        return Link(effect, self, self._context, self.loop, partial(self._forget, effect.epoch))

    def _forget(self, epoch: Epoch) -> None:
        self.links.pop(epoch, None)
        if self.over and not self.links:
            self._end()

    def report(self, level: int, text: str) -> None:
        LOGGER.log(LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        for link in self._links():
            link.close(at_once=True)
        self.loop.call_later(_FAREWELL if self.links else 0.0, self._end)

    def _end(self) -> None:
        self._ended = True
        self.loop.stop()

    # User code, never in the stack of a callback from pika's sockets

    def user(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._signals.run(partial(function, *arguments), not self._threads)

    def spawn(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if not self._threads and not self._working:
            self._working = True
            self._work_soon()

    def _work_soon(self) -> None:
        """In the turn after the next: what there is to send goes first, since a handler may take long."""
        self.loop.call_later(0.0, partial(self.loop.call_later, 0.0, self._work))

    def _work(self) -> None:
        until = self.now() + _TURN
        self.run_job(self._jobs.get())
        while not self._jobs.empty() and self.now() < until:
            self.run_job(self._jobs.get())
        self._working = not self._jobs.empty()
        if self._working:
            self._work_soon()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self.run_job(job)
