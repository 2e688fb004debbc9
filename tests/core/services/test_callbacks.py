"""Drivers and services of plain functions, whose jobs the test runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.drivers.callbacks import CallbackDriver
from eda_core.drivers.handling import handling
from eda_core.errors import Abandoned, ServiceError, StateError
from eda_core.machine.effects import Ack, Connect, Declare, Dispatch, Effect, Nack, Publish, Ready, Stopped
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import DEFERRED, DONE, Failed
from eda_core.messages.values import AnyMessage, Event
from eda_core.services.callbacks import Batch, CallbackService
from tests.core.drivers.test_base import Link
from tests.core.kit import URLS, WALL, of, replies


class Runs(CallbackDriver):
    """Attributes:
    jobs: not run yet.
    told: outcomes of handlers, and what failed.
    asked: how often it was asked to do something where the machine may be used.
    reports: to the local log.
    """

    def __init__(self, service: Service) -> None:
        machine = Machine(service._eda_config, random=lambda: 0.5, token="tok", wall_offset=WALL)
        super().__init__(service, machine)
        self.clock, self.asked = 100.0, 0
        self.jobs: list[Callable[[], None]] = []
        self.told: list[tuple[Any, ...]] = []
        self.reports: list[str] = []
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

    def report(self, level: int, text: str) -> None:
        self.reports.append(text)

    def spawn(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def ask(self, call: Callable[[], Any]) -> Any:
        self.asked += 1
        if self.over:
            raise StateError("the service has stopped")
        return super().ask(call)

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
    driver.asked = 0
    return service, driver


def deliver(driver: Runs, name: str) -> DeliveryId:
    driver.feed([Dispatch(DeliveryId(5), Event(name, "payload", "c-1", {}))])
    return DeliveryId(5)


# Jobs


@pytest.mark.parametrize(("name", "result"), [("Happened", DONE), ("Later", DEFERRED)])
def test_a_handler_is_a_job_and_what_it_returns_the_outcome(name: str, result: object) -> None:
    _, driver = running()
    tag = deliver(driver, name)
    assert (len(driver.jobs), driver.told) == (1, [])
    driver.work()
    assert driver.told == [("handled", tag, result)]
    assert driver.asked == 1


@pytest.mark.parametrize(("name", "reason"), [("Fails", "LookupError: nothing there"), ("Unknown", "unexpected")])
def test_what_a_handler_raises_is_its_outcome(name: str, reason: str) -> None:
    _, driver = running()
    tag = deliver(driver, name)
    driver.work()
    ((what, handled, failed),) = driver.told
    assert (what, handled) == ("handled", tag)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)


def test_a_handler_publishes_within_its_delivery_and_a_timer_outside() -> None:
    class Relay(Service):
        def on_Happened(self, *_: Any) -> None:
            seen.append(self.handled_delivery())
            self.publish_event("Told", 1, "c-1")
            assert of(Publish, driver.link.asked) == []

    seen: list[Any] = []
    service, driver = running(Relay)
    driver.take()
    driver.work()
    driver.call(None, lambda: seen.append(service.handled_delivery()))
    driver.work()
    assert (seen[0] is None, seen[1]) == (False, None)
    assert len(of(Publish, driver.link.asked)) == 1


def test_hooks_and_timers_are_jobs() -> None:
    called: list[str] = []
    _, driver = running()
    driver.call(None, called.append, "called")
    assert called == []
    driver.work()
    assert (called, driver.told) == (["called"], [])


@pytest.mark.parametrize("effect", [Ready(), None], ids=["a hook", "a timer"])
def test_a_hook_that_fails_is_an_input(effect: Effect | None) -> None:
    _, driver = running()
    driver.call(effect, lambda: [][1])
    driver.work()
    ((what, of_effect, failed),) = driver.told
    assert (what, of_effect) == ("callback_failed", effect)
    assert failed.reason.startswith("IndexError")


async def _by_mistake(*_: Any) -> None: ...


def test_a_timer_that_is_a_coroutine_function_is_told_of() -> None:
    _, driver = running()
    driver.call(None, _by_mistake)
    driver.work()
    ((what, _effect, failed),) = driver.told
    assert (what, failed.reason.partition(":")[0]) == ("callback_failed", "NotBegun")


def test_an_adapter_may_stand_between_a_job_and_user_code() -> None:
    between: list[str] = []

    class Interrupting(Runs):
        def user(self, function: Callable[..., Any], *arguments: Any) -> Any:
            between.append(function.__name__)
            return super().user(function, *arguments)

    service = Service(URLS[0], ["Happened"], [], "svc")
    driver = service.begin_run(Interrupting)
    deliver(driver, "Later")
    driver.call(None, print)
    driver.work()
    assert between == ["handle", "print"]


# The end


def test_jobs_end_with_the_service() -> None:
    _, driver = running()
    deliver(driver, "Happened")
    driver.feed([Stopped()])
    driver.work()
    assert driver.told == []
    driver.raise_end()


def test_what_ended_the_service_is_raised() -> None:
    _, driver = running()
    driver.feed([Stopped("refused everywhere")])
    with pytest.raises(ServiceError, match="refused everywhere"):
        driver.raise_end()


def test_what_is_no_exception_ends_the_service_at_once() -> None:
    _, driver = running()
    deliver(driver, "Exits")
    deliver(driver, "Happened")
    driver.work()
    assert driver.told == [], "neither an outcome of its own nor of those behind it"
    assert driver.machine.state == "closing"
    driver.call(None, driver.reports.append, "called")
    driver.work()
    driver._break_off(KeyboardInterrupt())
    assert not [text for text in driver.reports if text == "called" or "unfinished" in text]
    with pytest.raises(SystemExit):
        driver.raise_end()


def test_a_handler_that_is_abandoned_leaves_its_message_with_the_broker() -> None:
    """It is told locally where that was, and is no error of the run."""
    _, driver = running()
    driver.take("Endless")
    driver.take()
    driver.work()
    assert driver.told == []
    assert of(Ack, driver.link.asked) == []
    (text,) = [text for text in driver.reports if "unfinished" in text]
    assert "in on_Endless" in text
    driver.tick()
    assert driver.machine.state == "closing"
    driver.raise_end()


def test_a_forked_process_ends_when_it_comes_out_of_a_job_and_may_ask_nothing() -> None:
    class Forking(Runs):
        child = False

        def forked(self) -> bool:
            return self.child

        def ask(self, call: Callable[[], Any]) -> Any:
            self.check_process()
            return super().ask(call)

    service = Service(URLS[0], ["Happened"], [], "svc")
    driver = service.begin_run(Forking)
    assert service.call_later(9.0, print) == 1
    driver.call(None, lambda: setattr(driver, "child", True))
    with pytest.raises(Abandoned, match="fork"):
        driver.work()
    with pytest.raises(StateError, match="fork"):
        service.call_later(0.0, print)


def test_what_ends_a_service_that_has_ended_is_too_late() -> None:
    _, driver = running()

    def end_and_exit() -> None:
        driver.feed([Stopped()])
        raise SystemExit(3)

    driver.call(None, end_and_exit)
    driver.work()
    assert driver.exit is None


# Batches


@pytest.mark.parametrize("size", [2, 9])
def test_a_batch_is_handed_over_when_it_is_full_or_its_time_is_over(size: int) -> None:
    class Collector(Service):
        def on_Pushed(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
            batch.push(payload, conversation_id, meta)
            return True

    got: list[int] = []
    service, driver = running(Collector)
    batch = Batch(service, size, 5.0, lambda events: got.append(len(events)))
    for _ in range(2):
        driver.take("Pushed")
        driver.work()
    assert got == [2] * (size == 2)
    driver.clock = 105.0
    driver.tick()
    driver.work()
    assert got == [2]
    assert of(Ack, driver.link.asked) == [Ack(driver.machine.epoch, 2, True)]
    batch.expire()
    assert got == [2], "an empty batch is not handed over"


def test_a_batch_whose_callback_is_a_coroutine_function_has_failed() -> None:
    class Collector(Service):
        def on_Pushed(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
            batch.push(payload, conversation_id, meta)
            return True

    service, driver = running(Collector)
    batch = Batch(service, 1, 5.0, _by_mistake)
    driver.take("Pushed")
    driver.work()
    assert of(Ack, driver.link.asked) == []
    assert of(Nack, driver.link.asked) == [Nack(driver.machine.epoch, 1, False)]


def test_a_batch_that_is_abandoned_leaves_its_events_with_the_broker() -> None:
    def endless(_events: Any) -> None:
        raise Abandoned("the time is over")

    class Collector(Service):
        def on_Pushed(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
            batch.push(payload, conversation_id, meta)
            return True

    service, driver = running(Collector)
    batch = Batch(service, 2, 5.0, endless)
    before = len(driver.link.asked)
    for _ in range(2):
        driver.take("Pushed")
        driver.work()
    assert len(batch) == 0
    assert {type(effect).__name__ for effect in driver.link.asked[before:]} <= {"Cancel"}


def test_messages_of_another_service_are_not_this_ones() -> None:
    service, _ = running()
    other, driver = running()
    message: AnyMessage = Event("Told", 1, "c-1")
    with handling(service, DeliveryId(5)):
        other.publish_message(message, mandatory=False)
    assert [each.routing_key for each in of(Publish, driver.link.asked)] == ["Told"]
