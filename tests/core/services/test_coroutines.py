"""Services whose handlers are coroutines."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.machine.effects import PublishLog, Replied
from eda_core.messages.values import Result
from eda_core.services.batch import RawEvent
from eda_core.services.coroutines import CoroutineBatch
from tests.core.drivers.turning import Service, made, running
from tests.core.kit import URLS, only


def test_a_publish_returns_when_it_is_confirmed() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c-1"))
    driver.turn()
    assert not task.done
    driver.confirm()
    assert (task.result, task.error) == (None, None)


def test_a_call_brings_the_payload_of_its_result() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.call("peer.Do", 1))
    driver.feed([Replied(1, "peer.Do", Result("k", {"n": 2}, "c-1", "success", "id"))])
    driver.turn()
    assert task.result == {"n": 2}


def test_a_service_runs_until_it_is_stopped() -> None:
    service = made()
    driver, run = running(service)
    assert driver.begin(service.stop(3.0)).done
    driver.tell(driver.machine.link_down, driver.machine.epoch, "closed")
    driver.turn()
    assert (run.result, run.error) == (None, None)


def test_logs_and_settlements_are_inputs_that_nobody_waits_for() -> None:
    service = made()
    driver, _ = running(service)
    assert driver.begin(service.log(6, "short")).result is None
    assert only(PublishLog, driver.link.asked).routing_key == "svc.INFO"


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
    batch = CoroutineBatch(service, 2, 5.0, later if waits else lambda events: got.append(len(events)))
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
