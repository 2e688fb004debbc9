"""An event loop of the tests' own for drivers of coroutines: there is no asyncio in it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any

from eda_core.drivers.coroutines import CoroutineDriver
from eda_core.machine.effects import Connect, Declare, Effect, Publish
from eda_core.machine.machine import Machine
from eda_core.services.coroutines import CoroutineService
from tests.core.drivers.test_base import Link
from tests.core.kit import URLS, WALL, of, replies

OPEN = object()


class Cancelled(BaseException):
    """As of asyncio: no Exception."""


class Promise:
    """What a coroutine waits for; tasks look at it again when the loop turns."""

    def __init__(self) -> None:
        self.result: Any = OPEN
        self.error: Exception | None = None

    def done(self) -> bool:
        return self.result is not OPEN or self.error is not None

    def set_result(self, result: Any) -> None:
        assert not self.done()
        self.result = result

    def set_exception(self, error: Exception) -> None:
        assert not self.done()
        self.error = error

    def __await__(self) -> Generator[Any, None, Any]:
        while not self.done():
            try:
                yield
            except Cancelled:
                self.result = None  # as asyncio's, it is cancelled with who waits for it
                raise
        if self.error is not None:
            raise self.error
        return self.result


class Task:
    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self.work = work
        self.result: Any = OPEN
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.result is not OPEN or self.error is not None

    def step(self, error: BaseException | None = None) -> None:
        """Go on to the next ``await`` of something that is not done, or to the end."""
        if self.done:
            return
        try:
            self.work.send(None) if error is None else self.work.throw(error)
        except StopIteration as end:
            self.result = end.value
        except BaseException as raised:
            self.error = raised


class Runs(CoroutineDriver):
    """Attributes:
    tasks: as they were begun.
    told: outcomes of handlers, and what failed.
    reports: what it has told the local log.
    ended: whether it was torn down.
    """

    def __init__(self, service: Service) -> None:
        machine = Machine(service._eda_config, random=lambda: 0.5, token="tok", wall_offset=WALL)
        super().__init__(service, machine)
        self.clock = 100.0
        self.tasks: list[Task] = []
        self.told: list[tuple[Any, ...]] = []
        self.reports: list[str] = []
        self.link = Link(self._answer)
        self.ended = False

    def now(self) -> float:
        return self.clock

    def arm(self, deadline: float) -> Callable[[], object]:
        return lambda: None

    def open(self, effect: Connect) -> Link:
        return self.link

    def _answer(self, effect: Effect) -> None:
        if isinstance(effect, Declare):
            self.tell(self.machine.declared, effect.epoch, replies(effect))

    def report(self, level: int, text: str, event: str) -> None:
        self.reports.append(text)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(Task(work))

    def future(self) -> Promise:
        return Promise()

    async def tear_down(self) -> None:
        self.ended = True

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        if getattr(method, "__name__", "") in ("handled", "callback_failed", "forget_call"):
            self.told.append((method.__name__, *arguments))
        super().tell(method, *arguments, **named)

    def turn(self) -> None:
        """Let every task go on as far as it gets."""
        for task in self.tasks:
            task.step()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Task:
        """A task of the test's own."""
        task = Task(work)
        self.tasks.append(task)
        task.step()
        return task

    @property
    def sent(self) -> list[Publish]:
        return of(Publish, self.link.asked)

    def confirm(self) -> None:
        self.tell(self.machine.confirmed, self.machine.epoch, self.sent[-1].tag, multiple=True)
        self.turn()


class Service(CoroutineService):
    def worker_identity(self) -> tuple[str, int]:
        return "box", 7

    async def run(self) -> None:
        await self.begin_run(Runs).run()


def made(**settings: Any) -> Service:
    service = Service(URLS[0], ["Happened"], ["svc.Do"], "svc")
    service._eda_config = replace(service._eda_config, **settings)
    return service


def running(service: Service) -> tuple[Runs, Task]:
    """Its driver, with the link open, and the task of its ``run``."""
    run = Task(service.run())
    run.step()
    driver = service.running_driver()
    assert isinstance(driver, Runs)
    driver.tasks.append(run)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.turn()
    driver.told.clear()
    return driver, run
