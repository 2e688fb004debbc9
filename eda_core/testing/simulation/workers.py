"""One simulated worker: it is started, killed and started anew. What it keeps in a store outlives it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from eda_core.drivers.signals import no_signals
from eda_core.errors import LocalError, ServiceError
from eda_core.machine.link import OPEN
from eda_core.messages.values import Command
from eda_core.services.api import ServiceApi
from eda_core.services.handlers import Handlers
from eda_core.testing.simulation.bus import DELAYS
from eda_core.testing.simulation.drivers import SimulatedCallbacks, SimulatedCoroutines, driver_for
from eda_core.testing.simulation.failures import Killed
from eda_core.testing.simulation.link import SimulatedLink
from eda_core.testing.simulation.loop import VirtualLoop, new_loop
from eda_core.testing.simulation.plan import Fault
from eda_core.testing.simulation.world import World

#: Seconds until a worker that was killed is started anew.
RESTART: Final = 0.5
_HOST: Final = "simulated"


def _overrides_run(kind: type[Any]) -> bool:
    """Whether a service has another ``run()`` than its adapter."""
    methods = [vars(each)["run"] for each in kind.__mro__ if "run" in vars(each)]
    return methods[0] is not methods[-1]


class Worker:
    """A worker of a service.

    Args:
        make: makes the service object, for each life anew.
        name: of the logical service, and the number of the worker.

    Attributes:
        service, driver: of the present life; ``None`` before it.
        lives: how often it was started.
        reports: what it has written to its local log: time, level, text.
        over: whether it has ended by itself.
    """

    def __init__(
        self, world: World, make: Callable[[], Any], number: int, find: Callable[[str], Worker | None]
    ) -> None:
        self.world: World = world
        self._make, self._number, self._find = make, number, find
        self.name: str = f"worker {number}"
        self.service: ServiceApi[Any] | None = None
        self.driver: SimulatedCoroutines | SimulatedCallbacks | None = None
        self.loop: VirtualLoop = self._new_loop()
        self.lives: int = 0
        self.reports: list[tuple[float, int, str]] = []
        self.over: bool = False

    @property
    def token(self) -> str:
        """What makes its ids unique."""
        return f"{self.name.replace(' ', '-')}-{self.lives}"

    def _new_loop(self) -> VirtualLoop:
        return new_loop(self.world.schedule, self._unhandled, self._woken)

    def _unhandled(self, error: BaseException) -> None:
        if not isinstance(error, Killed):
            self.world.fail(error)

    def _woken(self) -> float:
        """A timer of user code is due. By a fault the worker is killed, or what it waits for takes longer."""
        if self.driver is None or not self.driver.handles or not self.driver.survives():
            return 0.0
        deviation = self.world.deviations.at(Fault.DELAY)
        if deviation is None:
            return 0.0
        seconds = DELAYS[deviation.how]
        self.world.tell(self.name, f"waits {seconds:g} s longer than usual", fault=True)
        return seconds

    # Its life

    def start(self) -> None:
        """Begin a life."""
        self.lives += 1
        self.loop = self._new_loop()
        try:
            service = self.loop.run(self._make)
        except Exception as error:
            self.world.fail(error)
            return
        if not isinstance(service, ServiceApi):
            self.world.fail(LocalError(f"{service!r} is no service", hint="derive its class from eda_aio.Service"))
            return
        self.service = service
        self.name = f"{service.logical_service} {self._number}"
        service._eda_identity = (_HOST, self._number)
        service.PROBE_INTERVAL = 0  # type: ignore[misc] # a connection works until a fault breaks it
        if self.lives > 1:
            self.world.tell(self.name, "is started anew")
        try:
            kind, overridden = driver_for(service), _overrides_run(type(service))
            if kind is SimulatedCoroutines:
                with no_signals():
                    self.loop.run(lambda: self.loop.create_task(self._main(service, overridden)))
            elif overridden:
                raise LocalError(
                    f"{type(service).__name__} overrides run(), which a simulation cannot call for plain functions",
                    hint="open what it needs in its constructor, or let Deployed give it that; or simulate a subclass "
                    "that has the run() of its adapter: run = eda_pika.Service.run",
                )
            else:
                driver = service.begin_run(partial(SimulatedCallbacks, worker=self))
                self.driver = driver
                driver.tell(driver.machine.start)
        except Exception as error:
            self.world.fail(error)

    async def _main(self, service: Any, overridden: bool) -> None:
        error = None
        begin_run = service.begin_run

        def begin(_: object) -> SimulatedCoroutines:
            """Make our driver in the place of that of the adapter."""
            driver: SimulatedCoroutines = begin_run(partial(SimulatedCoroutines, worker=self))
            self.driver = driver
            return driver

        try:
            if overridden:
                service.begin_run = begin
                await service.run()
            else:
                await begin(None).run()
        except (GeneratorExit, Killed):
            raise
        except BaseException as failed:
            error = failed
        self.has_ended(error, None)

    def has_ended(self, error: BaseException | None, reason: str | None) -> None:
        """The service has stopped, by itself or because user code asked it to."""
        self.over = True
        if reason is not None:
            error = error or ServiceError(reason)
        self.world.tell(self.name, "stops" if error is None else f"ends with {error!r}")
        if error is not None:
            self.world.fail(error)

    def kill(self, *, up_lost: bool) -> None:
        """End at once, as a process does that is killed, and start anew soon."""
        driver = self.driver
        assert driver is not None
        doing = ", ".join(dict.fromkeys(message.name for message, _ in driver.handles.values()))
        lost = ", and what it has just sent is lost" if up_lost else ""
        self.world.tell(self.name, f"is killed{f' while it handles {doing}' if doing else ''}{lost}", fault=True)
        driver.dead = driver.over = True
        driver.handles.clear()
        for link in list(driver.links.values()):
            if isinstance(link, SimulatedLink):
                link.abandon(up_lost=up_lost)
        if isinstance(driver, SimulatedCallbacks):
            driver.forget()
        self.loop.close()
        self.world.schedule.after(RESTART, self.start)

    def close(self) -> None:
        """The run is over: throw away what is left."""
        if self.driver is not None:
            self.driver.dead = self.driver.over = True
        with suppress(Exception):
            self.loop.close()

    # What others ask

    @property
    def is_ready(self) -> bool:
        """Whether it serves, or has ended by itself."""
        return self.over or (self.driver is not None and self.driver.machine.state is OPEN)

    @property
    def handles_returns(self) -> bool:
        """Whether its class defines what becomes of messages that come back."""
        own = getattr(type(self.service), "handle_returned_message", None)
        return own is not Handlers.handle_returned_message

    def timeout_of(self, command: Command) -> float:
        """Return for how long a caller still waits for the result of a command, seconds; 0 if none does."""
        owner = self._find(command.correlation_id)
        if owner is None or owner.driver is None:
            return 0.0
        call = owner.driver.machine._calls._by_correlation.get(command.correlation_id)
        return 0.0 if call is None else max(0.0, call.due - self.world.schedule.now)
