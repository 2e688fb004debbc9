"""The drivers of simulated workers. They run the machines and the user code of services of any adapter.

What user code runs in, and in which order, they take from the drivers of the core; here it happens in virtual time,
and faults strike: a worker is killed between two effects, a handler is slow or fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from typing import Any, Final, Protocol, TypeVar

from eda_core.drivers.base import Driver
from eda_core.drivers.callbacks import CallbackDriver
from eda_core.drivers.coroutines import CoroutineDriver, Input
from eda_core.drivers.handling import Run
from eda_core.errors import LocalError
from eda_core.machine.effects import Ack, Connect, Effect, Nack, Publish, Replied
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import AnyMessage, Command
from eda_core.services.api import ServiceApi
from eda_core.services.callbacks import CallbackService
from eda_core.services.coroutines import CoroutineService
from eda_core.testing.simulation.attempts import Attempts
from eda_core.testing.simulation.failures import InjectedFailure, Killed, SimulationFailed
from eda_core.testing.simulation.link import SimulatedLink
from eda_core.testing.simulation.loop import VirtualLoop
from eda_core.testing.simulation.plan import Fault
from eda_core.testing.simulation.story import Line, shown
from eda_core.testing.simulation.world import World

T = TypeVar("T")

#: How long a slow handler takes, seconds, by the number of a deviation; even ones before its work, odd ones after it.
SLOW: Final = (0.5, 0.5, 5.0, 5.0, 30.0, 30.0, 90.0, 90.0)
#: Beyond the time-out of a call, seconds.
_BEYOND: Final = 1.0
_RISKY: Final = (Publish, Ack, Nack)


class Owner(Protocol):
    """What a driver needs of its worker, see :class:`eda_core.testing.simulation.workers.Worker`."""

    world: World
    name: str
    loop: VirtualLoop
    reports: list[tuple[float, int, str]]

    @property
    def token(self) -> str: ...

    def kill(self, *, up_lost: bool) -> None: ...

    def has_ended(self, error: BaseException | None, reason: str | None) -> None: ...

    def timeout_of(self, command: Command) -> float: ...


class SimulatedDriver(Driver):
    """What the drivers for coroutines and for callbacks have in common.

    Attributes:
        worker: whose driver it is.
        dead: whether the worker was killed.
        handles: the messages whose handlers run, by delivery: what the story says of each.
    """

    def __init__(self, service: ServiceApi[Any], worker: Owner) -> None:
        self.worker: Owner = worker
        self.world: World = worker.world
        machine = service.make_machine(random=lambda: 0.5, token=worker.token, wall_offset=0.0)
        super().__init__(service, machine)
        self.dead: bool = False
        self.handles: dict[DeliveryId, tuple[AnyMessage, Line]] = {}
        self._attempts = Attempts(self.world, machine.config, worker.name)
        self._line: Line | None = None
        self._slow: dict[DeliveryId, float] = {}

    def now(self) -> float:
        return self.world.schedule.now

    def arm(self, deadline: float) -> Callable[[], object]:
        return self.world.schedule.at(deadline, self._fire).cancel

    def _fire(self) -> None:
        if not self.dead and (not len(self._timers) or self.survives()):
            self.tick()

    def open(self, effect: Connect) -> SimulatedLink:
        world = self.world
        return SimulatedLink(effect, self, world.bus, world.schedule, self.worker.name, world.fail)

    def report(self, level: int, text: str, event: str) -> None:
        self.worker.reports.append((self.now(), level, text))

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        if not self.dead:
            super().tell(method, *arguments, **named)

    def replied(self, effect: Replied) -> None:
        if effect.timed_out and not self.world.deviations.struck and (circle := self.world.circle(effect.command)):
            text = f"a call in a circle: the call {effect.command} of {self.worker.name} has timed out, and {circle}"
            self.world.fail(SimulationFailed(text))
        super().replied(effect)

    # Faults

    def survives(self) -> bool:
        """The worker could be killed here. Returns false if it is."""
        if self.dead:
            return False
        deviation = self.world.deviations.at(Fault.KILL)
        if deviation is None:
            return True
        self.worker.kill(up_lost=bool(deviation.how & 1))
        return False

    def check_alive(self) -> None:
        """User code could be killed here.

        Raises:
            Killed: it is.
        """
        if not self.survives():
            raise Killed

    def ask(self, call: Callable[[], T]) -> T:
        self.check_alive()
        return call()

    def _perform(self, effect: Effect) -> None:
        if self.dead or (type(effect) in _RISKY and not self.survives()):
            return
        self._attempts.performs(effect)
        if type(effect) is Publish:
            self._publishes(effect)
        super()._perform(effect)

    def _publishes(self, effect: Publish) -> None:
        """Tell it: in the line of the handler that has just ended, or in a line of its own."""
        name = effect.routing_key
        if self._line is not None and self.world.story.is_last(self._line):
            self._line.text += f", publishes {name}" if "publishes" not in self._line.text else f", {name}"
        else:
            self._line = None
            self.world.tell(self.worker.name, f"publishes {name}")

    def _slowness(self, message: AnyMessage) -> tuple[float, bool]:
        """Return how long a handler takes, seconds, and whether that is after its work."""
        deviation = self.world.deviations.at(Fault.SLOW)
        if deviation is not None:
            return SLOW[deviation.how], bool(deviation.how & 1)
        if isinstance(message, Command) and (timeout := self.worker.timeout_of(message)):
            deviation = self.world.deviations.at(Fault.TIMEOUT)
            if deviation is not None:
                return timeout + _BEYOND, bool(deviation.how & 1)
        return 0.0, False

    def _fails(self, message: AnyMessage) -> tuple[bool, bool]:
        """Return whether a fault lets a handler fail, and whether after its work."""
        name = str(message.meta.get("message_id") or "")
        if name in self.world.failed_once or self.machine.config.retry.attempts < 2:
            return False, False
        deviation = self.world.deviations.at(Fault.RAISE)
        if deviation is None:
            return False, False
        self.world.failed_once.add(name)
        return True, bool(deviation.how & 1)

    # Handlers, told in the story

    def _begin(self, delivery: DeliveryId, message: AnyMessage) -> None:
        again = " again" if self.world.ledger.begins(str(message.meta.get("message_id") or "")) else ""
        self._attempts.begins(delivery, message)
        line = self.world.tell(self.worker.name, f"handles {message.name}{again} {shown(message.payload)}")
        self.handles[delivery] = (message, line)

    def run_ended(self, run: Run, returned: object, began: float) -> None:
        if self.dead:
            return
        delivery = run.delivery
        assert delivery is not None
        message, line = self.handles.pop(delivery)
        identity = str(message.meta.get("message_id") or "")
        if identity:
            self.world.ledger.ended(identity, self.machine.config.service, failed=run.failure is not None)
        if run.failure is not None:
            self._attempts.raised(delivery, permanent=run.failure.permanent)
            if not run.failure.reason.startswith(InjectedFailure.__name__):
                self.world.traceback = run.failure.detail
            text = f"fails to handle {message.name}: {shown(run.failure.reason, 100)[1:-1]}"
            line = self.world.tell(self.worker.name, text)
        elif not self.world.story.is_last(line):
            line = self.world.tell(self.worker.name, f"has handled {message.name}")
        self._line = line
        try:
            super().run_ended(run, returned, began)
        finally:
            self._line = None


class SimulatedCoroutines(SimulatedDriver, CoroutineDriver):
    """Runs handlers as tasks of the worker's loop."""

    def __init__(self, service: ServiceApi[Any], worker: Owner) -> None:
        super().__init__(service, worker)
        self._context = copy_context()
        self._tasks: dict[asyncio.Task[None], None] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self.dead:
            work.close()
            return
        task = self.worker.loop.create_task(work, context=self._context.copy())
        self._tasks[task] = None
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Let the run fail if the core has raised an error: user code and its errors are within the task."""
        self._tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Killed):
            self.world.fail(error)

    def future(self) -> asyncio.Future[Any]:
        return self.worker.loop.create_future()

    async def tear_down(self) -> None:
        if self.dead:  # the loop is gone, so nothing can be awaited
            return
        for link in list(self.links.values()):
            if isinstance(link, SimulatedLink):
                link.abandon(up_lost=False)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        seconds, after = self._slowness(message)
        if seconds:
            when = "after" if after else "before"
            text = f"takes {seconds:g} s {when} its work on {message.name}"
            self.world.tell(self.worker.name, text, fault=True)
        if not seconds or after:
            self._slow[delivery] = seconds
            self.spawn(self._handle(delivery, message))
        else:
            self.world.schedule.after(seconds, lambda: self.spawn(self._handle(delivery, message)))

    async def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._begin(delivery, message)
        await super()._handle(delivery, message)

    def run_handler(self, message: AnyMessage) -> Any:
        delivery = next(reversed(self.handles))  # it has just begun
        seconds = self._slow.pop(delivery, 0.0)
        fails, after = self._fails(message)
        if fails and not after:
            raise InjectedFailure("a fault of the simulation, before the work")
        returned = super().run_handler(message)
        if not isawaitable(returned):
            if fails:
                raise InjectedFailure("a fault of the simulation, after the work")
            return returned
        return returned if not seconds and not fails else self._then(returned, seconds, fails)

    async def _then(self, work: Awaitable[Any], seconds: float, fails: bool) -> Any:
        returned = await work
        if seconds:
            await asyncio.sleep(seconds)
        if fails:
            raise InjectedFailure("a fault of the simulation, after the work")
        return returned

    async def request(self, make: Input, forget: Input | None = None, timeout: float | None = None) -> Any:
        self.check_alive()
        returned = await super().request(make, forget, timeout)
        if self.dead:
            raise Killed
        return returned


class SimulatedCallbacks(SimulatedDriver, CallbackDriver):
    """Runs handlers one at a time, whether in the thread of the network or in threads."""

    def __init__(self, service: ServiceApi[Any], worker: Owner) -> None:
        super().__init__(service, worker)
        self.threads: int = max(0, getattr(service, "HANDLER_THREADS", 0))
        self.in_loop: bool = not self.threads
        self._jobs: deque[tuple[float, Callable[[], None]]] = deque()
        self._busy = self._due = False

    def wake(self) -> None:
        self.world.schedule.after(0.0, self.do_posted)

    def write(self, level: int, text: str, event: str) -> None:
        """Never called: reports are not written."""

    def spawn(self, job: Callable[[], None]) -> None:
        self._jobs.append((0.0, job))
        self._work_soon()

    def _work_soon(self, seconds: float = 0.0) -> None:
        if self._jobs and not self._due and not self._busy:
            self._due = True
            self.world.schedule.after(seconds, self._work)

    def _work(self) -> None:
        """Run the first job; with threads, by a fault, another one of those that would run at the same time."""
        self._due = False
        if self.dead or self._busy or not self._jobs:
            return
        place = 0
        several = min(self.threads, len(self._jobs))
        if several > 1 and (deviation := self.world.deviations.at(Fault.DELAY)):
            place = deviation.how % several
        seconds, job = self._jobs[place]
        if seconds:
            self._jobs[place] = (0.0, job)
            self._work_soon(seconds)
            return
        del self._jobs[place]
        self._busy = True
        try:
            self.run_job(partial(_until_killed, job))
        finally:
            self._busy = False
        self._work_soon()

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        seconds, _ = self._slowness(message)
        if seconds:
            text = f"takes {seconds:g} s before its work on {message.name}"
            self.world.tell(self.worker.name, text, fault=True)
        job = partial(self._handle, delivery, message)
        if seconds and self.threads:  # another thread goes on
            self.world.schedule.after(seconds, partial(self.spawn, job))
        else:
            self._jobs.append((seconds, job))
            self._work_soon()

    def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._begin(delivery, message)
        super()._handle(delivery, message)

    def run_handler(self, message: AnyMessage) -> Any:
        fails, after = self._fails(message)
        if fails and not after:
            raise InjectedFailure("a fault of the simulation, before the work")
        returned = super().run_handler(message)
        if fails:
            raise InjectedFailure("a fault of the simulation, after the work")
        return returned

    def stopped(self, error: str | None) -> None:
        self.worker.has_ended(self.exit, error)

    def forget(self) -> None:
        """Drop the jobs that wait: the worker is killed."""
        self._jobs.clear()


def _until_killed(job: Callable[[], None]) -> None:
    with suppress(Killed):
        job()


def driver_for(service: ServiceApi[Any]) -> type[SimulatedCoroutines] | type[SimulatedCallbacks]:
    """Return the driver for a service, by the way in which it runs handlers.

    Raises:
        LocalError: it is no service of a known kind.
    """
    if isinstance(service, CoroutineService):
        return SimulatedCoroutines
    if isinstance(service, CallbackService):
        return SimulatedCallbacks
    raise LocalError(
        f"{type(service).__name__} is no service", hint="derive it from eda_aio.Service or eda_pika.Service"
    )
