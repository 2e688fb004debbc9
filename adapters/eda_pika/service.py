"""Services on pika's loop, around the core's machine.

This module decides in which thread handlers run. It does not know how a link works.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar

import pika
from pika.adapters.select_connection import IOLoop

from eda_core import Connect, Epoch, LocalError
from eda_core.criticality import ERROR, WARNING
from eda_core.drivers.callbacks import CallbackDriver
from eda_core.drivers.jobs import Jobs
from eda_core.drivers.library import library_at_work, quieten, write_report
from eda_core.drivers.processes import Forks
from eda_core.drivers.waiting_calls import WaitingCalls
from eda_core.machine.events import LIBRARY_FAILED, LIBRARY_UNKNOWN
from eda_core.machine.outcomes import failure
from eda_core.services.callbacks import CallbackService
from eda_core.services.eventail import EventailService, time_to_stop
from eda_pika.fast import MISFIT
from eda_pika.signals import SIGNALS, Signals, T
from eda_pika.transport import PikaLink

LOGGER = logging.getLogger("eda_pika")
quieten([logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name[:4] == "pika"], LOGGER)
_FORKS = Forks(getattr(os, "register_at_fork", None))  # not on Windows
_SLOWER = (
    f"messages take more processor time: pika {pika.__version__} reads and writes them itself, because it is not as "
    f"eda_pika knows it: {MISFIT}; nothing else changes; with PIKA_ONLY = True the service does not tell this"
)
_FAREWELL = 1.0  # seconds for sockets to close, and for reports to be written, at the end


class Service(EventailService[None], CallbackService):
    """A service whose handlers are plain methods, ``def on_<Name>``. Subclass it and call :meth:`run`.

    Handlers, hooks and timers run in the thread of :meth:`run`, one after another, while everything else waits. So none
    may take as long as ``HEARTBEAT``, or wait for another thread that calls a method of the service. With
    ``HANDLER_THREADS`` they may. Methods may be called from any thread. They return when a message is accepted, and
    raise ``BufferFull`` when too many messages wait. In a forked process they raise ``StateError``. ``log`` returns at
    once, so handlers of signals and of Python's logging may call it, but not for the records of the logger ``pika``.
    """

    #: How many threads run handlers, hooks and timers. 0: the thread of ``run`` does.
    HANDLER_THREADS: ClassVar[int] = 0
    #: Whether pika also reads and writes the messages. By default the core does, which takes less time. With a version
    #: of pika that does not allow this, pika does it in any case, and a warning says so.
    PIKA_ONLY: ClassVar[bool] = False

    def run(self, *, signals: bool | Iterable[int] | None = None) -> None:
        """Serve until :meth:`stop`, or until a signal asks the process to end.

        The first signal stops the service as :meth:`stop` does. A second one stops it at once: unfinished messages are
        left to other workers. At the end the handlers of signals are what they were before. Signals that the process
        ignores (``nohup``, a job in the background) stay ignored.

        A handler that still runs when the time of a stop is over is ended: :class:`eda_core.errors.Abandoned` is raised
        within it. This is possible only if handlers run in the main thread (without ``HANDLER_THREADS``) and the
        service has taken at least one signal. It does not end a handler that catches ``Abandoned``, or that is in a
        call to C code that does not look at signals.

        If a handler raises something that is no ``Exception`` (``SystemExit``), the service stops at once, and this
        method raises it.

        Args:
            signals: ``None``: SIGINT, SIGTERM and SIGHUP stop the service, unless the program has its own handler for
                them. If the program has one for SIGTERM, no signal does: the program decides when it ends, and stops
                the service then. ``True``: they stop the service in any case, and the program's own handlers are called
                as well. Numbers, such as ``[signal.SIGTERM]``: the same with these signals. ``False``: no signal stops
                the service. Outside the main thread no signal can.

        Raises:
            LocalError: ``HANDLER_THREADS`` is no number of threads, or ``signals`` is wrong; it says why.
            ServiceError: every broker refuses the credentials, or ``on_ready`` failed.
            StateError: the service was run before.
        """
        self.begin_run(lambda service: _Driver(service, SIGNALS.choose(signals))).run()

    def stop(self, timeout: float | None = None, *, reconnect: bool = False) -> None:
        """Ask the service to stop, and return at once.

        Args:
            timeout: seconds for the stop, ``STOP_TIMEOUT`` by default.
            reconnect: a parameter of eventail, which must be false: :meth:`run` reconnects by itself.
        """
        driver: Any = self.running_driver()
        driver.request_stop(time_to_stop(timeout, reconnect))

    def worker_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()


class _Driver(CallbackDriver):
    def __init__(self, service: Service, signals: tuple[int, ...]) -> None:
        self._threads = service.HANDLER_THREADS
        if type(self._threads) is not int or self._threads < 0:
            raise LocalError(f"HANDLER_THREADS is {self._threads!r}", hint="give a whole number, 0 for none")
        machine = service.make_machine(
            random=random.random, token=secrets.token_hex(6), wall_offset=lambda: time.time() - self.now()
        )
        super().__init__(service, machine)
        with library_at_work():  # pika logs this
            self.loop: Any = IOLoop()
        self._pika_only = service.PIKA_ONLY
        self._forks, self._thread, self._context = _FORKS.count, threading.get_ident(), service.ssl_context
        self.in_loop = not self._threads
        self._signals = Signals(self.loop, self.interrupt, self._woken, machine.config.stop_timeout, signals)
        self._jobs = Jobs(self.run_job, self._soon, self.now, self._threads)
        self._asked = WaitingCalls(Future, self._in_loop, self.do_posted)
        self._ended = False

    def run(self) -> None:
        for _ in range(self._threads):  # daemons, so that a handler that never ends does not keep the process alive
            threading.Thread(target=self._jobs.serve, name="eda handlers", daemon=True).start()
        reporter = threading.Thread(target=self.write_reports, name="eda reports", daemon=True)
        reporter.start()
        try:
            with self._signals.heard(), library_at_work():
                if MISFIT and not self._pika_only:
                    self.report(WARNING, _SLOWER, LIBRARY_UNKNOWN)
                self.tell(self.machine.start)
                while not self._ended:
                    try:
                        self.loop.start()
                    except Exception as error:  # a mistake in pika: nothing of ours raises in its loop
                        self.report(ERROR, f"pika failed\n{failure(error).detail}", LIBRARY_FAILED)
                        for link in self._links():
                            link.lose(repr(error))
        finally:
            self.over = self._ended = True
            self._jobs.end()
            self._asked.end()
            self.end_reports()
            reporter.join(_FAREWELL)
            if not self.forked():  # in a fork, a thread that does not exist there may hold a lock of the loop
                self.loop.close()
        self.raise_end()

    def _links(self) -> list[PikaLink]:
        return [link for link in self.links.values() if isinstance(link, PikaLink)]

    def forked(self) -> bool:
        return _FORKS.count != self._forks

    def ask(self, call: Callable[[], T]) -> T:
        """Run ``call`` in the loop's thread, after what was posted, and return or raise what it does."""
        self.check_process()
        if threading.get_ident() == self._thread and not self._ended:
            if self._posted or self._waking:
                self._signals.run(self.do_posted, False)
            return self._signals.run(call, False)
        return self._asked.make(call)

    def inspect(self, call: Callable[[], T], timeout: float) -> T:
        self.check_process()
        return call() if self.over or threading.get_ident() == self._thread else self._asked.look(call, timeout)

    def wake(self) -> None:
        self._signals.wake()

    def _woken(self) -> None:
        """Go on in the loop. The thread of the signals calls this, because pika's way to wake its loop takes a lock."""
        if self._posted:
            self._in_loop(self.do_posted)

    def _in_loop(self, call: Callable[[], object]) -> None:
        with library_at_work():  # pika logs this; a handler of logging that logs to the bus would come back here
            self.loop.add_callback_threadsafe(call)

    def request_stop(self, timeout: float | None) -> None:
        """Stop soon. May be called in any thread."""
        self.check_process()
        call = partial(self._in_loop, partial(self.stop, timeout))
        if threading.get_ident() == self._thread:
            self._signals.run(call, False)
        else:
            self._signals.hurry(self.machine.config.stop_timeout if timeout is None else timeout)
            call()

    def now(self) -> float:
        return time.monotonic()

    def soon(self, call: Callable[[], None]) -> None:
        self.loop.call_later(0.0, call)

    def arm(self, deadline: float) -> Callable[[], object]:
        timer = self.loop.call_later(max(0.0, deadline - self.now()), self.tick)
        return partial(self.loop.remove_timeout, timer)

    def open(self, effect: Connect) -> PikaLink:
        direct = not (MISFIT or self._pika_only)
        return PikaLink(effect, self, self._context, self.loop, partial(self._forget, effect.epoch), direct)

    def _forget(self, epoch: Epoch) -> None:
        self.links.pop(epoch, None)
        if self.over and not self.links:
            self._end()

    def write(self, level: int, text: str, event: str) -> None:
        write_report(LOGGER, level, text, event)

    def stopped(self, error: str | None) -> None:
        for link in self._links():
            link.close(at_once=True)
        self.loop.call_later(_FAREWELL if self.links else 0.0, self._end)

    def _end(self) -> None:
        self._ended = True
        self.loop.stop()

    # User code never runs in the stack of a callback of pika's sockets

    def user(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with library_at_work(False):
            return self._signals.run(partial(function, *arguments), not self._threads)

    def spawn(self, job: Callable[[], None]) -> None:
        self._jobs.add(job)

    def _soon(self, call: Callable[[], None]) -> None:
        """Call it in the turn after the next, so that what waits is sent before: a handler may take long."""
        self.loop.call_later(0.0, partial(self.loop.call_later, 0.0, call))
