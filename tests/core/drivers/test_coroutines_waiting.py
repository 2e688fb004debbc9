"""A driver of coroutines: callers wait for the end of a publish or a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pamqp.commands import Basic

from eda_core.errors import BufferFull, CommandError, LocalError, PublishError, StateError
from eda_core.machine.effects import PublishDone, Replied
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import Result
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
    waiting[0].step(Cancelled())
    assert len(driver._for_space) == 1, "who has gone is forgotten, however long the broker takes nothing"
    driver.confirm()
    assert first.done
    assert isinstance(waiting[0].error, Cancelled)
    driver.turn()
    driver.confirm()
    assert (waiting[1].result, len(driver.sent)) == (None, 2)


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
        async def on_Happened(self, *_: Any) -> None:
            for number in range(3):
                await self.publish_event("Told", number, "c-1")

    service = Busy(URLS[0], ["Happened"], [], "svc")
    service._eda_config = replace(service._eda_config, held=2)
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
    (gone,) = driver._for_space.values()
    gone.set_result("cancelled")
    driver.buffer_available()
    assert driver._for_space == {}
