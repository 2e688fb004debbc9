"""Drivers and services of coroutines, in an event loop of the test's own: there is no asyncio in it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.batch import RawEvent
from eda_core.coroutines import Batch, CoroutineDriver, CoroutineService
from eda_core.effects import Connect, Declare, Dispatch, Effect, Publish, PublishLog, Ready, Replied, Settled, Stopped
from eda_core.errors import BufferFull, CommandError, LocalError, PublishError, ServiceError, StateError
from eda_core.machine import Machine
from eda_core.service import handling
from eda_core.values import DEFERRED, DONE, DeliveryId, Event, Failed, Result

from .kit import URLS, WALL, of, only, replies
from .test_driver import Link

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
    ended: whether it was torn down.
    """

    def __init__(self, service: Service) -> None:
        machine = Machine(service._eda_config, random=lambda: 0.5, token="tok", wall_offset=WALL)
        super().__init__(service, machine)
        self.clock = 100.0
        self.tasks: list[Task] = []
        self.told: list[tuple[Any, ...]] = []
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

    def report(self, level: int, text: str) -> None:
        pass

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
    def _eda_identity(self) -> tuple[str, int]:
        return "box", 7

    async def run(self) -> None:
        await self._eda_begin(Runs).run()


def made(**settings: Any) -> Service:
    service = Service(URLS[0], ["Happened"], ["svc.Do"], "svc")
    service._eda_config = replace(service._eda_config, **settings)
    return service


def running(service: Service) -> tuple[Runs, Task]:
    """Its driver, with the link open, and the task of its ``run``."""
    run = Task(service.run())
    run.step()
    driver = service._eda_driver()
    assert isinstance(driver, Runs)
    driver.tasks.append(run)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.turn()
    driver.told.clear()
    return driver, run


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
    driver, _ = running(Handling())
    deliver(driver, "Exits")
    assert isinstance(driver.tasks[-1].error, SystemExit)
    assert driver.told == []


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


@pytest.mark.parametrize("effect", [Ready(), None], ids=["a hook", "a timer"])
def test_a_hook_that_fails_is_an_input(effect: Effect | None) -> None:
    driver, _ = running(made())

    async def fail() -> None:
        raise LookupError("nothing there")

    driver.call(effect, fail)
    driver.turn()
    ((what, of_effect, failed),) = driver.told
    assert (what, of_effect, failed.reason) == ("callback_failed", effect, "LookupError: nothing there")


def test_a_hook_publishes_outside_whatever_handler_has_brought_it_about() -> None:
    """The timer that leads to it may have been armed in the context of a handler, which still runs on a lost link."""
    service = made()
    driver, _ = running(service)
    with handling(service, DeliveryId(5)):
        driver.call(None, lambda: seen.append(service._eda_delivery()))
        seen: list[Any] = []
        driver.turn()
        assert service._eda_delivery() == 5
    assert seen == [None]


def test_after_the_end_nothing_is_called_any_more() -> None:
    driver, _ = running(made())
    driver.feed([Stopped()])
    before = len(driver.tasks)
    driver.call(None, print)
    assert len(driver.tasks) == before


# Callers that wait


def test_a_publish_returns_when_it_is_confirmed() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c-1"))
    driver.turn()
    assert not task.done
    driver.confirm()
    assert (task.result, task.error) == (None, None)


def test_a_publish_that_the_machine_refuses_raises_at_once() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("", 1, "c-1"))
    assert isinstance(task.error, LocalError)
    assert driver.sent == []


def test_a_publish_waits_for_room() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    first, *waiting = [driver.begin(service.publish_event("Told", n, "c-1")) for n in range(3)]
    assert len(driver.sent) == 1
    waiting[0].step(Cancelled())
    driver.confirm()
    assert first.done
    assert isinstance(waiting[0].error, Cancelled)
    driver.turn()
    driver.confirm()
    assert (waiting[1].result, len(driver.sent)) == (None, 2)


def test_who_waits_for_room_hears_that_the_service_has_stopped() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    first, second = (driver.begin(service.publish_event("Told", n, "c-1")) for n in range(2))
    driver.stop(0.0)
    driver.tick()
    driver.tell(driver.machine.link_down, driver.machine.epoch, "closed")
    driver.turn()
    assert isinstance(first.error, PublishError)
    assert isinstance(second.error, StateError)


def test_a_handler_whose_buffer_is_full_is_told_so() -> None:
    """Its messages are held until it ends; there is no waiting for that."""

    class Busy(Service):
        async def on_Happened(self, *_: Any) -> None:
            for number in range(3):
                await self.publish_event("Told", number, "c-1")

    service = Busy(URLS[0], ["Happened"], [], "svc")
    service._eda_config = replace(service._eda_config, buffer=2)
    driver, _ = running(service)
    properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type="application/json")
    epoch = driver.machine.epoch
    driver.tell(driver.machine.delivered, epoch, 1, False, "events", "Happened", properties, b"1")
    driver.turn()
    ((what, _, failed),) = driver.told
    assert (what, type(failed)) == ("handled", Failed)
    assert failed.reason.startswith(BufferFull.__name__)


def test_a_call_brings_the_payload_of_its_result() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.call("peer.Do", 1))
    driver.feed([Replied(1, "peer.Do", Result("k", {"n": 2}, "c-1", "success", "id"))])
    driver.turn()
    assert task.result == {"n": 2}


def test_a_call_raises_the_error_of_its_result() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.call("peer.Do", 1))
    driver.feed([Replied(1, "peer.Do", Result("k", "no", "c-1", "error", "id"))])
    driver.turn()
    assert isinstance(task.error, CommandError)


def test_a_call_that_is_cancelled_is_forgotten() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.call("peer.Do", 1))
    task.step(Cancelled())
    assert driver.told == [("forget_call", 1)]
    driver.feed([Replied(1, "peer.Do", None, "late")])


def test_a_publish_that_is_cancelled_is_published_all_the_same() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c-1"))
    task.step(Cancelled())
    driver.confirm()
    assert (len(driver.sent), driver.told) == (1, [])


def test_who_has_gone_at_the_same_time_is_not_told() -> None:
    driver, _ = running(made())
    gone = [Promise(), Promise()]
    driver._waiting.update(enumerate(gone))
    for each in gone:
        each.set_result("cancelled")
    driver.feed([Settled(0), Replied(1, "peer.Do", None, "late"), Settled(2), Replied(3, "peer.Do", None, "late")])
    assert [each.result for each in gone] == ["cancelled"] * 2


def test_logs_and_settlements_are_inputs_that_nobody_waits_for() -> None:
    service = made()
    driver, _ = running(service)
    assert driver.begin(service.log(6, "short")).result is None
    assert only(PublishLog, driver.link.asked).routing_key == "svc.INFO"


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
    run = Task(service._eda_begin(Refused).run())
    run.step()
    assert isinstance(run.error, ServiceError)


def test_a_service_whose_event_loop_is_gone_does_not_wait_for_anything() -> None:
    driver, run = running(made())
    run.work.close()
    assert driver.ended


# Batches


@pytest.mark.parametrize("waits", [False, True], ids=["a function", "a coroutine function"])
def test_a_batch_is_handed_over_when_it_is_full_or_its_time_is_over(waits: bool) -> None:
    got: list[int] = []

    async def later(events: list[RawEvent]) -> None:
        got.append(len(events))

    class Collector(Service):
        async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
            await batch.push(payload, conversation_id, meta)
            return True

    service = Collector(URLS[0], ["Happened"], [], "svc")
    driver, _ = running(service)
    batch = Batch(service, 2, 5.0, later if waits else lambda events: got.append(len(events)))
    properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type="application/json")
    for tag in (1, 2, 3):
        epoch = driver.machine.epoch
        driver.tell(driver.machine.delivered, epoch, tag, False, "events", "Happened", properties, b"1")
        driver.turn()
    assert got == [2]
    driver.clock = 105.0
    driver.tick()
    driver.turn()
    assert got == [2, 1]
    assert driver.begin(batch.expire()).done
    assert got == [2, 1], "an empty batch is not handed over"
