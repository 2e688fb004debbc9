"""A driver of coroutines: callers wait for the end of a publish or a call."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.errors import BufferFull, CommandError, LocalError, PublishError, PublishTimeout, StateError
from eda_core.machine.effects import Effect, PublishDone, Replied, Stopped
from eda_core.machine.outcomes import Failed
from eda_core.messages.codec import CBOR, encode
from eda_core.messages.values import Event, Result
from tests.core.drivers.turning import Cancelled, Promise, Service, made, running
from tests.core.kit import URLS


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


def test_a_publish_waits_for_space() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    first, *waiting = [driver.begin(service.publish_event("Told", n, "c-1")) for n in range(3)]
    assert len(driver.sent) == 1
    assert driver.health().callers == 2
    waiting[0].step(Cancelled())
    assert len(driver._publishes_for_space) == 1, "who has gone is forgotten, however long the broker takes nothing"
    driver.confirm()
    assert first.done
    assert isinstance(waiting[0].error, Cancelled)
    driver.turn()
    driver.confirm()
    assert (waiting[1].result, len(driver.sent)) == (None, 2)


def test_each_caller_waits_once_and_all_publish_in_order() -> None:
    """A place that becomes free serves the caller that has waited longest, and does not wake the others."""
    number, space = 5_000, 10
    driver, _ = running(made(buffer=space))
    tried: list[int] = []
    futures = 0
    make_future = driver.future

    def future() -> Promise:
        nonlocal futures
        futures += 1
        return make_future()

    driver.future = future  # type: ignore[method-assign]

    def publishing(which: int) -> Any:
        def make(*, now: float, ticket: int) -> list[Effect]:
            tried.append(which)
            return driver.machine.publish(Event("Told", which, "c-1"), now, ticket=ticket)

        return make

    tasks = [driver.begin(driver.request(publishing(which))) for which in range(number)]
    assert len(tried) == number
    for tag in range(1, number + 1):
        driver.tell(driver.machine.confirmed, driver.machine.epoch, tag)
    driver.turn()
    assert all(task.done and task.error is None for task in tasks)
    assert [publish.body for publish in driver.sent] == [encode(which, CBOR) for which in range(number)]
    assert futures == number, "each caller waits for one thing"
    assert len(tried) < 3 * number, "a free place is tried by the caller that gets it and by the one behind it"


def test_a_payload_that_the_caller_changes_while_it_waits_is_published_as_it_was() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    driver.begin(service.publish_event("First", 0, "c-1"))
    payload = {"n": [1]}
    publish = driver.begin(service.publish_event("Second", payload, "c-1"))
    call = driver.begin(service.call("peer.Do", payload))
    payload["n"].append(2)
    for _ in range(3):
        driver.confirm()
    assert (publish.done, call.done) == (True, False)
    assert [each.body for each in driver.sent[1:]] == [encode({"n": [1]}, CBOR)] * len(driver.sent[1:])
    assert len(driver.sent) >= 2


def test_calls_that_wait_keep_no_publish_waiting() -> None:
    """There are as many calls as may be, all confirmed; only their results make space for more."""
    service = made(buffer=1)
    driver, _ = running(service)
    call = driver.begin(service.call("peer.Do", 1))
    driver.confirm()
    late = driver.begin(service.call("peer.Do", 2))
    first, second = (driver.begin(service.publish_event("Told", n, "c-1")) for n in range(2))
    driver.confirm()
    assert first.done
    driver.confirm()
    assert second.done
    assert not call.done
    driver.tell(driver.machine.forget_call, 1)
    assert [publish.routing_key for publish in driver.sent] == ["peer.Do", "Told", "Told", "peer.Do"]
    assert not late.done


def test_what_cannot_be_published_any_more_when_there_is_space_raises() -> None:
    driver, _ = running(made(buffer=1))
    failures: list[Exception] = [BufferFull("full"), LookupError("gone")]

    def make(**_: Any) -> list[Effect]:
        raise failures.pop(0)

    driver.begin(waits := driver.request(lambda **named: driver.machine.publish(Event("Told", 1, "c"), **named)))
    assert waits is not None
    task = driver.begin(driver.request(make))
    assert not task.done
    driver.confirm()
    driver.buffer_available()
    driver.turn()
    assert isinstance(task.error, LookupError)


def test_who_waits_for_space_hears_that_the_service_has_stopped() -> None:
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
        HELD = 2

        async def on_Happened(self, *_: Any) -> None:
            for number in range(3):
                await self.publish_event("Told", number, "c-1")

    service = Busy(URLS[0], ["Happened"], [], "svc")
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
    driver.feed(
        [PublishDone(0), Replied(1, "peer.Do", None, "late"), PublishDone(2), Replied(3, "peer.Do", None, "late")]
    )
    assert [each.result for each in gone] == ["cancelled"] * 2


def test_who_gives_up_waiting_for_space_as_there_is_some_is_not_told() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    for number in range(2):
        driver.begin(service.publish_event("Told", number, "c-1"))
    (ticket,) = driver._publishes_for_space
    driver._waiting[ticket].set_result("cancelled")
    driver.buffer_available()
    assert driver._publishes_for_space == {}
    assert len(driver.sent) == 1


def test_a_caller_waits_no_longer_than_it_says() -> None:
    """A message that was accepted is still sent. One that has found no space is not."""
    service = made(buffer=1)
    driver, _ = running(service)
    sent = driver.begin(service.publish_event("Told", 1, "c-1", timeout=5.0))
    never = driver.begin(service.publish_event("Told", 2, "c-1", timeout=5.0))
    driver.clock += 5.0
    driver.tick()
    for _ in range(2):
        driver.turn()
    assert isinstance(sent.error, PublishTimeout)
    assert isinstance(never.error, PublishTimeout)
    assert (sent.error.may_arrive, never.error.may_arrive) == (True, False)
    driver.confirm()
    assert len(driver.sent) == 1


def test_a_confirm_in_time_ends_the_wait_and_its_timer() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c-1", timeout=5.0))
    driver.confirm()
    assert (task.done, task.error) == (True, None)
    assert len(driver._timers) == 0


@pytest.mark.parametrize("timeout", [0, -1.0, "soon"])
def test_a_time_to_wait_is_a_number_of_seconds(timeout: Any) -> None:
    service = made()
    driver, _ = running(service)
    assert isinstance(driver.begin(service.publish_event("Told", 1, "c-1", timeout=timeout)).error, LocalError)


def test_a_timer_that_fires_as_the_confirm_comes_does_no_harm() -> None:
    service = made()
    driver, _ = running(service)
    driver.begin(service.publish_event("Told", 1, "c-1", timeout=5.0))
    ticket = next(iter(driver._waiting))
    driver._waiting[ticket].set_result(None)
    driver.clock += 5.0
    driver.tick()
    driver.turn()
    driver._expire(ticket, 5.0)
    assert driver._waiting == {}


def test_a_run_that_is_cancelled_as_the_service_stops_is_not_told_twice() -> None:
    driver, run = running(made())
    run.step(Cancelled())
    for waiting in driver._for_end:
        waiting.set_result(None)
    driver.feed([Stopped()])
    driver.turn()
    assert isinstance(run.error, Cancelled)
