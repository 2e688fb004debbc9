"""Services whose handlers are plain functions."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.drivers.handling import handling
from eda_core.errors import Abandoned
from eda_core.machine.effects import Ack, Nack, Publish
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import AnyMessage, Event
from eda_core.services.callbacks import CallbackBatch
from tests.core.drivers.jobs import Service, running
from tests.core.kit import of


async def _by_mistake(*_: Any) -> None: ...


@pytest.mark.parametrize("size", [2, 9])
def test_a_batch_is_handed_over_when_it_is_full_or_its_time_is_over(size: int) -> None:
    class Collector(Service):
        def on_Pushed(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
            batch.push(payload, conversation_id, meta)
            return True

    got: list[int] = []
    service, driver = running(Collector)
    batch = CallbackBatch(service, size, 5.0, lambda events: got.append(len(events)))
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
    batch = CallbackBatch(service, 1, 5.0, _by_mistake)
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
    batch = CallbackBatch(service, 2, 5.0, endless)
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
