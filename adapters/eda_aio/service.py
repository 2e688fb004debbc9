"""Services on an asyncio event loop, around the core's machine.

This module decides how tasks, timers and futures of the loop are made. It does not know how a link works.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast

from eda_aio.signals import SIGNALS, stopping_on_signals
from eda_core import Connect, LocalError, NotAnswered
from eda_core.criticality import WARNING
from eda_core.drivers.coroutines import CoroutineDriver
from eda_core.drivers.library import quieten, write_report
from eda_core.drivers.waiting_calls import WaitingCalls
from eda_core.machine.events import LEFT_UNFINISHED
from eda_core.services.eventail import EventailCoroutines

if TYPE_CHECKING:
    from ssl import SSLContext

T = TypeVar("T")

LOGGER = logging.getLogger("eda_aio")
quieten(
    map(logging.getLogger, ("aiormq.connection", "aiormq.connection.marshall", "aiormq.channel", "asyncio")), LOGGER
)


class Service(EventailCoroutines):
    """A service whose handlers are coroutines: ``async def on_<Name>``. Subclass it and await :meth:`run`.

    Up to ``PREFETCH_COUNT`` handlers run at the same time. The methods that publish are awaited: in a handler they
    return at once, elsewhere when the broker has confirmed the message.

    The arguments are those of :class:`eda_core.services.ServiceApi`, and ``transport``, which takes the place of the
    class attribute ``TRANSPORT`` for one object.

    Raises:
        LocalError: an argument or a class attribute is wrong. The text says which, and why.
        ModuleNotFoundError: :meth:`run` raises it if the transport needs a client library that is not installed. The
            text says how to install it.
    """

    #: What carries bytes to the broker: ``"aio-pika"`` (its lower layer, aiormq), or ``"native"``, the core's own AMQP,
    #: which needs no client library and takes less time.
    TRANSPORT: ClassVar[str] = "aio-pika"

    def __init__(
        self,
        amqp_urls: str | Sequence[str],
        event_routing_keys: Sequence[str],
        command_routing_keys: Sequence[str],
        logical_service: str,
        config_routing_keys: Sequence[str] = (),
        *,
        log_routing_keys: Sequence[str] = (),
        ssl: SSLContext | None = None,
        transport: str | None = None,
    ) -> None:
        self._eda_transport = self.TRANSPORT if transport is None else transport
        if self._eda_transport not in _LINKS:
            raise LocalError(f"there is no transport {self._eda_transport!r}", hint=f"give one of {list(_LINKS)}")
        super().__init__(
            amqp_urls,
            event_routing_keys,
            command_routing_keys,
            logical_service,
            config_routing_keys,
            log_routing_keys=log_routing_keys,
            ssl=ssl,
        )

    async def run(self, *, signals: bool | Iterable[int] | None = None) -> None:
        """Serve until :meth:`stop`, or until a signal asks the process to end. If it is cancelled, it stops first.

        The first signal stops the service as :meth:`stop` does. A second one stops it at once: unfinished messages are
        left to other workers. At the end the handlers of signals are what they were before. Signals that the process
        ignores (``nohup``, a job in the background) stay ignored. If user code raises ``SystemExit`` or
        ``KeyboardInterrupt``, the service stops at once, and this method raises it.

        Args:
            signals: ``None``: SIGINT, SIGTERM and SIGHUP stop the service, unless the program has its own handler for
                them. If the program has one for SIGTERM (as uvicorn has), no signal does: the program decides when it
                ends, and stops or cancels the service then. ``True``: they stop the service in any case, and the
                program's own handlers are called as well. Numbers, such as ``[signal.SIGTERM]``: the same with these
                signals. ``False``: no signal stops the service. Outside the main thread no signal can.

        Raises:
            LocalError: ``signals`` is wrong; it says why.
            ServiceError: the service ended without being asked to: every broker refuses its credentials, or
                ``on_ready`` failed.
            StateError: the service was run before.
        """
        numbers = SIGNALS.choose(signals)
        driver = self.begin_run(_Driver)
        with stopping_on_signals(driver.interrupt, numbers):
            await driver.run()

    def worker_identity(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()


class _Link(Protocol):
    """What the driver needs of a link."""

    task: asyncio.Task[None]

    def perform(self, effect: Any) -> None: ...

    def abandon(self) -> None: ...


def _native() -> Callable[..., _Link]:
    from eda_aio.native import NativeLink

    return NativeLink


def _aiormq() -> Callable[..., _Link]:
    try:
        from eda_aio.transport import AioLink
    except ModuleNotFoundError as error:
        if error.name != "aiormq":
            raise
        text = f'{error}; or set TRANSPORT = "native", which needs no client library'
        raise ModuleNotFoundError(text, name=error.name) from None
    return AioLink


#: The transports, and what loads them: a program that does not use aiormq need not have it.
_LINKS: Final = {"aio-pika": _aiormq, "native": _native}


class _Driver(CoroutineDriver):
    now = staticmethod(time.monotonic)  # what most loops call. It is called nine times for each message

    def __init__(self, service: Service) -> None:
        self._loop = asyncio.get_running_loop()
        if type(self._loop).time is not asyncio.BaseEventLoop.time:
            self.now = self._loop.time  # it has a clock of its own
        machine = service.make_machine(
            random=random.random, token=secrets.token_hex(6), wall_offset=lambda: time.time() - self.now()
        )
        super().__init__(service, machine)
        self._ssl = service.ssl_context
        self._make_link = _LINKS[service._eda_transport]()
        self._context, self._thread = copy_context(), threading.get_ident()
        self._asked = WaitingCalls(Future, self.hand_over, lambda: None)
        self._tasks: set[asyncio.Task[None]] = set()

    def soon(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call, context=self._context)

    def hand_over(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call, context=self._context)

    def inspect(self, call: Callable[[], T], timeout: float) -> T:
        if self.over or threading.get_ident() == self._thread:
            return call()
        if self._loop.is_closed():
            raise NotAnswered("the event loop of the service is closed", hint="it has ended without a stop")
        return self._asked.look(call, timeout)

    def arm(self, deadline: float) -> Callable[[], object]:
        return self._loop.call_at(deadline, self.tick, context=self._context).cancel

    def open(self, effect: Connect) -> _Link:
        link = self._make_link(effect, self, self._ssl)
        link.task.add_done_callback(lambda _: self.links.pop(effect.epoch, None))
        return link

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # In the context of run(), not in that of the handler that happens to run: its context variables are its own.
        self._tasks.add(self._loop.create_task(work, context=self._context.copy()))

    def ending(self) -> None:
        self._tasks.discard(asyncio.current_task(self._loop))

    if sys.version_info >= (3, 12):

        def spawn_handler(self, work: Coroutine[Any, Any, None]) -> None:
            """Begin at once: a handler that waits for nothing needs no turn of the loop."""
            if self._loop.get_task_factory() is not None:  # the program makes its own tasks
                self.spawn(work)
                return
            task = asyncio.Task(work, loop=self._loop, context=self._context.copy(), eager_start=True)
            if not task.done():
                self._tasks.add(task)

    def future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def report(self, level: int, text: str, event: str) -> None:
        write_report(LOGGER, level, text, event)

    async def tear_down(self) -> None:
        links = [cast(_Link, link) for link in self.links.values()]
        for link in links:
            link.abandon()
        for task in self._tasks:
            task.cancel()
        if ending := {*self._tasks, *(link.task for link in links)}:
            done, left = await asyncio.wait(ending, timeout=self.machine.config.close_timeout)
            await asyncio.gather(*done, return_exceptions=True)
            if left:
                text = f"{len(left)} handler(s) go on although they were cancelled; they are left behind"
                self.report(WARNING, text, LEFT_UNFINISHED)
