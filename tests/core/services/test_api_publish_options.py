"""Headers, expiration, priority and timeout on every method of a service that publishes."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.errors import LocalError, PublishTimeout
from eda_core.machine.effects import Publish
from eda_core.services import CallbackService
from tests.core.drivers.turning import Runs, made, running
from tests.core.kit import URLS, only
from tests.core.services.test_api import on_bench

METHODS: dict[str, tuple[Any, ...]] = {
    "publish_event": ("Happened", 1, "c"),
    "publish_configuration": ("Settings", 1),
    "send_command": ("peer.Do", 1, "c", "svc.DoReturn", "id"),
    "return_success": ("peer.DoReturn", 1, "c", "id"),
    "return_error": ("peer.DoReturn", 1, "c", "id"),
}
EACH = pytest.mark.parametrize("method", METHODS)
OPTIONS: dict[str, Any] = {"headers": {"tenant": "a"}, "expiration": 2, "priority": 3}


@EACH
def test_each_method_takes_them(method: str) -> None:
    service, _ = on_bench()
    getattr(service, method)(*METHODS[method], **OPTIONS)
    ((message, _, _),) = service.published
    assert message.meta == {"tenant": "a", "expiration": "2000", "priority": 3}


@EACH
def test_each_method_refuses_a_header_of_the_toolkit(method: str) -> None:
    service, _ = on_bench()
    with pytest.raises(LocalError, match="the header 'status' cannot be sent"):
        getattr(service, method)(*METHODS[method], headers={"status": "success"})


class Callbacks(CallbackService):
    def worker_identity(self) -> tuple[str, int]:
        return "box", 7


@EACH
def test_a_method_that_does_not_wait_refuses_a_timeout(method: str) -> None:
    with pytest.raises(LocalError) as raised:
        getattr(Callbacks(URLS[0], [], [], "svc"), method)(*METHODS[method], timeout=1.0)
    assert str(raised.value) == "timeout is given, but this method does not wait for the confirm; leave it out"


# Coroutines wait


def test_a_confirm_in_time_ends_the_wait_and_its_timer() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c", timeout=5.0, **OPTIONS))
    publish = sent(driver)
    assert (publish.properties.expiration, publish.properties.priority) == ("2000", 3)
    assert publish.properties.headers is not None
    assert publish.properties.headers["tenant"] == "a"
    driver.tell(driver.machine.confirmed, publish.epoch, publish.tag)
    driver.turn()
    assert (task.done, task.error) == (True, None)
    later(driver, 60.0)
    assert task.error is None


def test_without_a_confirm_in_time_the_caller_learns_that_it_may_arrive() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c", timeout=5.0))
    publish = sent(driver)
    assert not task.done
    later(driver, 5.0)
    assert isinstance(task.error, PublishTimeout)
    assert isinstance(task.error, TimeoutError)
    assert str(task.error) == "no confirm within 5 s; it is still being sent and may arrive"
    assert task.error.may_arrive
    driver.tell(driver.machine.confirmed, publish.epoch, publish.tag)  # nobody waits any more
    assert driver.machine._outbox.kept == 0


def test_a_message_that_found_no_space_in_time_is_not_sent() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    driver.begin(service.publish_event("Told", 1, "c"))
    publish = sent(driver)
    task = driver.begin(service.publish_event("Told", 2, "c", timeout=5.0))
    later(driver, 5.0)
    assert isinstance(task.error, PublishTimeout)
    assert not task.error.may_arrive
    assert str(task.error) == "no confirm within 5 s; it was not accepted: publish it again later"
    driver.tell(driver.machine.confirmed, publish.epoch, publish.tag)
    assert driver.machine.published == 1


@pytest.mark.parametrize("timeout", [0, -1.0, "5", True, float("inf")])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.publish_event("Told", 1, "c", timeout=timeout))
    assert isinstance(task.error, LocalError)
    assert str(task.error) == f"timeout is {timeout!r}; give seconds, more than 0"


def test_a_call_takes_all_but_the_timeout_of_the_confirm() -> None:
    service = made()
    driver, _ = running(service)
    task = driver.begin(service.call("peer.Do", 1, **OPTIONS))
    assert not task.done
    publish = sent(driver)
    assert (publish.routing_key, publish.properties.expiration, publish.properties.priority) == ("peer.Do", "2000", 3)
    assert publish.properties.headers is not None
    assert publish.properties.headers["tenant"] == "a"


# They are part of the message


def test_they_survive_a_lost_link_and_a_refusal() -> None:
    service, bench = on_bench()
    service.publish_event("Told", 1, "c", **OPTIONS)
    ((message, _, _),) = service.published
    first = bench.send(message)
    bench.lose()
    second = only(Publish, bench.open())
    bench.refuse(second)
    third = only(Publish, bench.due())
    for publish in (second, third):
        assert publish.properties is first.properties
        assert (publish.properties.expiration, publish.properties.priority) == ("2000", 3)


def test_they_survive_a_handler_that_holds_them() -> None:
    service, bench = on_bench()
    service.publish_event("Told", 1, "c", **OPTIONS)
    ((message, _, _),) = service.published
    delivery = bench.take()
    assert bench.publish(message, within=delivery) == []
    message.meta.clear()  # what is held is written
    publish = only(Publish, bench.handled(delivery))
    assert (publish.properties.expiration, publish.properties.priority) == ("2000", 3)


def sent(driver: Runs) -> Publish:
    """The last publish that the driver was asked for."""
    publishes = [each for each in driver.link.asked if isinstance(each, Publish)]
    return publishes[-1]


def later(driver: Runs, seconds: float) -> None:
    driver.clock += seconds
    driver.tick()
    driver.turn()  # the timer
    driver.turn()  # who waited for it
