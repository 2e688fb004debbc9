"""A driver of plain functions, whose jobs the test runs."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from pamqp.commands import Basic

from eda_core.drivers.callbacks import CallbackDriver
from eda_core.errors import Abandoned, StateError
from eda_core.machine.effects import Connect, Declare, Dispatch, Effect
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.messages.values import Event
from eda_core.services.callbacks import CallbackService
from tests.core.drivers.test_base import Link
from tests.core.kit import URLS, WALL, replies


class Runs(CallbackDriver):
    """Attributes:
    jobs: not run yet.
    told: outcomes of handlers, and what failed.
    asked: how often it was asked to do something where the machine may be used.
    reports: to the local log.
    elsewhere: whether callers of ``ask`` stand for other threads.
    woken: how often it was to be woken.
    """

    def __init__(self, service: Service) -> None:
        machine = Machine(service._eda_config, random=lambda: 0.5, token="tok", wall_offset=WALL)
        super().__init__(service, machine)
        self.clock, self.asked, self.woken = 100.0, 0, 0
        self.jobs: list[Callable[[], None]] = []
        self.told: list[tuple[Any, ...]] = []
        self.reports: list[str] = []
        self.elsewhere = False
        self.link = Link(self._answer)

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

    def wake(self) -> None:
        self.woken += 1

    def write(self, level: int, text: str, event: str) -> None:
        self.reports.append(f"{level} {text}")
        if "fails" in text:
            raise OSError("no disk")

    def spawn(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def ask(self, call: Callable[[], Any]) -> Any:
        self.asked += 1
        if self.over:
            raise StateError("the service has stopped")
        return Context().run(super().ask, call) if self.elsewhere else super().ask(call)

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        if getattr(method, "__name__", "") in ("handled", "callback_failed"):
            self.told.append((method.__name__, *arguments))
        super().tell(method, *arguments, **named)

    def work(self) -> None:
        """Run the jobs that there are."""
        while self.jobs:
            self.run_job(self.jobs.pop(0))

    def take(self, name: str = "Happened") -> None:
        """Deliver a message as the broker would."""
        self.tags = getattr(self, "tags", 0) + 1
        properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type="application/json")
        epoch = self.machine.epoch
        self.tell(self.machine.delivered, epoch, self.tags, False, "events", name, properties, b"1")


class Service(CallbackService):
    def worker_identity(self) -> tuple[str, int]:
        return "box", 7

    def on_Happened(self, *_: Any) -> None: ...

    def on_Later(self, *_: Any) -> bool:
        return True

    def on_Fails(self, *_: Any) -> None:
        raise LookupError("nothing there")

    def on_Exits(self, *_: Any) -> None:
        raise SystemExit(3)

    def on_Endless(self, *_: Any) -> None:
        raise Abandoned("the time is over")


def running(kind: type[Service] = Service) -> tuple[Service, Runs]:
    """A service whose link is open."""
    service = kind(URLS[0], ["Happened"], [], "svc")
    driver = service.begin_run(Runs)
    driver.tell(driver.machine.start)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.work()
    driver.reports.clear()
    driver.asked = 0
    return service, driver


def deliver(driver: Runs, name: str) -> DeliveryId:
    driver.feed([Dispatch(DeliveryId(5), Event(name, "payload", "c-1", {}))])
    return DeliveryId(5)
