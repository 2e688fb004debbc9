"""A driver of coroutines: handlers, hooks and timers are tasks; and the life of a service."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.drivers.handling import handling
from eda_core.errors import ServiceError
from eda_core.machine.effects import Connect, Dispatch, Effect, Ready, Stopped
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.link import CLOSING
from eda_core.machine.outcomes import DEFERRED, DONE, Failed
from eda_core.messages.values import Event
from tests.core.drivers.test_base import Link
from tests.core.drivers.traces import Traces
from tests.core.drivers.turning import Cancelled, Promise, Runs, Service, Task, made, running
from tests.core.kit import URLS


def deliver(driver: Runs, name: str = "Happened") -> DeliveryId:
    """A message whose handler has begun."""
    before = len(driver.tasks)
    driver.feed([Dispatch(tag := DeliveryId(before), Event(name, "payload", "c-1", {}))])
    assert len(driver.tasks) == before + 1
    driver.turn()
    return tag


# Handlers


class Handling(Service):
    """Handlers of each kind. ``gate`` is what some wait for."""

    def __init__(self) -> None:
        super().__init__(URLS[0], ["Happened"], [], "svc")
        self.gate = Promise()

    async def on_Waits(self, *_: Any) -> Any:
        return await self.gate

    def on_Plain(self, *_: Any) -> bool:
        return True

    async def on_Fails(self, *_: Any) -> None:
        raise LookupError("nothing there")

    async def on_Cancelled(self, *_: Any) -> None:
        raise Cancelled

    async def on_Exits(self, *_: Any) -> None:
        raise SystemExit(3)


@pytest.mark.parametrize(("answer", "result"), [(None, DONE), (True, DEFERRED)], ids=["done", "deferred"])
def test_a_handler_is_a_task_and_its_end_the_outcome(answer: Any, result: object) -> None:
    service = Handling()
    driver, _ = running(service)
    tag = deliver(driver, "Waits")
    assert driver.told == []
    service.gate.set_result(answer)
    driver.turn()
    assert driver.told == [("handled", tag, result)]


def test_a_handler_may_be_a_plain_function() -> None:
    driver, _ = running(Handling())
    tag = deliver(driver, "Plain")
    assert driver.told == [("handled", tag, DEFERRED)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Fails", "LookupError: nothing there"), ("Cancelled", "Cancelled: "), ("Unknown", "unexpected")],
)
def test_what_a_handler_raises_is_its_outcome(name: str, reason: str) -> None:
    driver, _ = running(Handling())
    tag = deliver(driver, name)
    ((what, handled, failed),) = driver.told
    assert (what, handled) == ("handled", tag)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)


def test_what_ends_a_program_is_no_outcome() -> None:
    """The task of the handler does not raise it either: an event loop would report that."""
    driver, _ = running(Handling())
    deliver(driver, "Exits")
    assert (driver.tasks[-1].done, driver.tasks[-1].error) == (True, None)
    assert driver.told == []
    assert driver.machine.state == CLOSING, "it does not wait for what runs"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_program_that_user_code_ends_raises_that_from_run(cancelled: bool) -> None:
    """Also if the program cancels ``run`` before the service has stopped."""
    driver, run = running(Handling())
    deliver(driver, "Exits")
    if cancelled:
        run.step(Cancelled())
    assert not run.done
    driver.feed([Stopped()])
    driver.turn()
    assert isinstance(run.error, SystemExit)
    assert driver.ended


@pytest.mark.parametrize(
    ("error", "ends"),
    [(SystemExit(3), True), (KeyboardInterrupt(), True), (GeneratorExit(), True), (Cancelled(), False)],
)
def test_which_exceptions_end_a_service(error: BaseException, ends: bool) -> None:
    driver, _ = running(Handling())
    assert driver.ends_service(error) is ends
    assert not driver.ends_service(ValueError())


def test_a_coroutine_that_is_thrown_away_has_no_outcome() -> None:
    """The loop is gone, and nobody is there to hear how the handler or the hook has ended."""
    service = Handling()
    driver, _ = running(service)
    deliver(driver, "Waits")
    driver.call(None, service.on_Waits)
    driver.turn()
    for task in driver.tasks[-2:]:
        task.work.close()
    assert driver.told == []
    driver.raise_end()


def test_a_handler_that_is_torn_down_leaves_its_message_with_the_broker() -> None:
    service = Handling()
    driver, _ = running(service)
    deliver(driver, "Waits")
    driver.feed([Stopped()])
    driver.tasks[-1].step(Cancelled())
    assert isinstance(driver.tasks[-1].error, Cancelled)
    assert driver.told == []


# Hooks and timers


def test_hooks_and_timers_may_be_functions_or_coroutine_functions() -> None:
    called: list[str] = []
    driver, _ = running(made())

    async def later() -> None:
        called.append("async")

    driver.call(None, later)
    driver.call(None, called.append, "plain")
    driver.turn()
    assert called == ["async", "plain"]
    assert driver.told == []


@pytest.mark.parametrize("error", [LookupError("nothing there"), Cancelled("nothing there")])
@pytest.mark.parametrize("effect", [Ready(), None], ids=["a hook", "a timer"])
def test_a_hook_that_fails_is_an_input(effect: Effect | None, error: BaseException) -> None:
    driver, _ = running(made())

    async def fail() -> None:
        raise error

    driver.call(effect, fail)
    driver.turn()
    ((what, of_effect, failed),) = driver.told
    assert (what, of_effect, failed.reason) == ("callback_failed", effect, f"{type(error).__name__}: nothing there")


@pytest.mark.parametrize("error", [Cancelled(), SystemExit(3)])
def test_a_hook_that_ends_with_its_program_has_not_failed(error: BaseException) -> None:
    service, gate = made(), Promise()
    driver, _ = running(service)

    async def wait() -> None:
        await gate

    driver.call(Ready(), wait)
    driver.turn()
    if not isinstance(error, SystemExit):
        driver.feed([Stopped()])
    driver.tasks[-1].step(error)
    assert driver.tasks[-1].done
    assert driver.tasks[-1].error is (None if isinstance(error, SystemExit) else error)
    assert driver.exit is (error if isinstance(error, SystemExit) else None)
    assert driver.told == []


def test_a_hook_that_fails_while_it_is_torn_down_is_told() -> None:
    driver, _ = running(made())

    async def wait() -> None:
        try:
            await Promise()
        finally:
            raise LookupError("nothing there")

    driver.call(None, wait)
    driver.turn()
    driver.feed([Stopped()])
    driver.tasks[-1].step(Cancelled())
    ((_, _, failed),) = driver.told
    assert failed.reason == "LookupError: nothing there"


def test_a_hook_publishes_outside_whatever_handler_has_brought_it_about() -> None:
    """The timer that leads to it may have been armed in the context of a handler, which still runs on a lost link."""
    service = made()
    driver, _ = running(service)
    with handling(service, DeliveryId(5)):
        driver.call(None, lambda: seen.append(service.handled_delivery()))
        seen: list[Any] = []
        driver.turn()
        assert service.handled_delivery() == 5
    assert seen == [None]


def test_after_the_end_nothing_is_called_any_more() -> None:
    driver, _ = running(made())
    driver.feed([Stopped()])
    before = len(driver.tasks)
    driver.call(None, print)
    assert len(driver.tasks) == before


# The life of a service


def end(driver: Runs) -> None:
    """The link closes."""
    driver.tell(driver.machine.link_down, driver.machine.epoch, "closed")
    driver.turn()


def test_a_service_runs_until_it_is_stopped() -> None:
    service = made()
    driver, run = running(service)
    assert not run.done
    stopping = driver.begin(service.stop(3.0))
    assert stopping.done
    driver.turn()
    assert not run.done
    end(driver)
    assert (run.result, run.error, driver.ended) == (None, None, True)


def test_a_service_that_ends_otherwise_raises_why() -> None:
    driver, run = running(made())
    driver.feed([Stopped("refused everywhere")])
    driver.turn()
    assert isinstance(run.error, ServiceError)
    assert "refused everywhere" in str(run.error)
    assert driver.ended


def test_a_service_that_is_cancelled_stops_gracefully_first() -> None:
    driver, run = running(made())
    run.step(Cancelled())
    assert not run.done
    assert driver.machine.state in ("draining", "closing")
    end(driver)
    assert isinstance(run.error, Cancelled)
    assert driver.ended


def test_a_service_that_is_cancelled_twice_is_torn_down() -> None:
    driver, run = running(made())
    run.step(Cancelled())
    run.step(Cancelled())
    assert isinstance(run.error, Cancelled)
    assert driver.ended


def test_a_service_may_be_over_before_it_has_begun_to_wait() -> None:
    class Refused(Runs):
        def open(self, effect: Connect) -> Link:
            self.feed([Stopped("refused")])
            return super().open(effect)

    service = made()
    run = Task(service.begin_run(Refused).run())
    run.step()
    assert isinstance(run.error, ServiceError)


def test_a_service_whose_event_loop_is_gone_does_not_wait_for_anything() -> None:
    driver, run = running(made())
    run.work.close()
    assert driver.ended


# Traces


def arrive(driver: Runs, name: str = "Happened", tag: int = 1) -> None:
    """A message comes from the broker, and its handler begins."""
    properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type="application/json")
    epoch = driver.machine.epoch
    driver.tell(driver.machine.delivered, epoch, tag, False, "events", name, properties, b"1")
    driver.turn()


@pytest.mark.parametrize(
    ("name", "left", "reason"),
    [
        ("Waits", "NoneType", ""),
        ("Plain", "NoneType", ""),
        ("Fails", "NoneType", "LookupError: nothing there"),
        ("Exits", "NoneType", "SystemExit: 3"),
    ],
)
def test_the_trace_of_a_handler_ends_with_it(name: str, left: str, reason: str) -> None:
    service, traces = Handling(), Traces()
    service.trace_by(traces)
    driver, _ = running(service)
    service.gate.set_result(None)
    traces.told.clear()
    arrive(driver, name)
    assert traces.told[0] == ("handling", name, 1)
    assert sorted(traces.told[1:]) == [("end", name, reason), ("left", name, left)]


def test_the_trace_of_a_handler_that_is_thrown_away_ends() -> None:
    service, traces = Handling(), Traces()
    service.trace_by(traces)
    driver, _ = running(service)
    traces.told.clear()
    arrive(driver, "Waits")
    driver.tasks[-1].work.close()
    assert traces.told[1:] == [("left", "Waits", "GeneratorExit"), ("end", "Waits", "")]
