"""Services whose handlers are plain functions."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from eda_core.drivers.handling import handling
from eda_core.drivers.readiness import Readiness, Tell
from eda_core.errors import Abandoned, LocalError, NotReady, ServiceError, StateError
from eda_core.machine.effects import Ack, Nack, Publish
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import AnyMessage, Event
from eda_core.services.callbacks import CallbackBatch
from eda_core.services.claims import ClaimCheck
from tests.core.drivers.jobs import Runs, Service, running
from tests.core.kit import URLS, of
from tests.core.services.claiming import LARGE, OVER, SMALL, Memory, key_of, properties, put


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


# Waiting until it is ready


class Watched(Readiness):
    """Says when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def wait(self, tell: Tell) -> None:
        super().wait(tell)
        self.asked.set()


def waiting(service: Service, timeout: float | None = None) -> Future[None]:
    """A thread that waits: it has asked when this returns. The result is that of ``wait_until_ready``."""
    service._eda_readiness = watched = Watched()
    pool = ThreadPoolExecutor(1)
    done = pool.submit(service.wait_until_ready, timeout)
    pool.shutdown(wait=False)
    assert watched.asked.wait(60.0)
    return done


def begun(service: Service) -> Runs:
    """Its driver, without a link."""
    driver = service.begin_run(Runs)
    driver.elsewhere = True
    driver.tell(driver.machine.start)
    return driver


def made(kind: type[Service] = Service, *configurations: str) -> Service:
    return kind(URLS[0], ["Happened"], [], "svc", configurations)


def test_who_waits_before_the_run_is_told_when_the_service_receives_its_messages() -> None:
    done = waiting(service := made())
    driver = begun(service)
    assert not done.done()
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    assert done.result(60.0) is None
    assert service.wait_until_ready(0.001) is None  # type: ignore[func-returns-value]


def test_the_error_with_which_run_ends_is_raised_where_somebody_waits() -> None:
    done = waiting(service := made())
    driver = begun(service)
    driver.tell(driver.machine.link_down, driver.machine.epoch, "vhost not found", refused=True)
    with pytest.raises(ServiceError, match="vhost not found"):
        done.result(60.0)
    with pytest.raises(ServiceError, match="vhost not found"):
        service.wait_until_ready()


def test_a_service_that_cannot_run_is_not_waited_for() -> None:
    class Wrong(Service):
        def on_Happened(self) -> None: ...

    done = waiting(service := made(Wrong))
    with pytest.raises(LocalError, match="Wrong cannot run"):
        begun(service)
    with pytest.raises(LocalError, match="Wrong cannot run"):
        done.result(60.0)


def test_a_run_that_ends_without_a_word_is_not_waited_for() -> None:
    """Something else than the service has raised, such as Ctrl-C where signals are not taken."""
    done = waiting(service := made())
    begun(service).end_reports()
    with pytest.raises(StateError, match="the service has stopped before it was ready"):
        done.result(60.0)


def test_a_wait_has_an_end_and_says_what_is_missing() -> None:
    service = made(Service, "Settings")
    with pytest.raises(NotReady, match=r"not ready within 0\.001 s: it was not run yet; call run\(\)"):
        service.wait_until_ready(0.001)
    driver = begun(service)
    with pytest.raises(NotReady, match=r"not ready within 0\.001 s: there is no link yet"):
        service.wait_until_ready(0.001)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    with pytest.raises(NotReady, match="no handler of a configuration has returned True yet"):
        service.wait_until_ready(0.001)
    with pytest.raises(LocalError, match="timeout is 0"):
        service.wait_until_ready(0)
    assert not service._eda_readiness._waiting


def test_a_service_that_stops_while_somebody_asks_tells_why_or_that_it_has_stopped() -> None:
    service, driver = running()

    def stopped(call: Any) -> None:
        raise StateError("the service has stopped")

    driver.ask = stopped  # type: ignore[method-assign]
    with pytest.raises(StateError, match=r"^the service has stopped$"):
        service.wait_until_ready()
    service._eda_readiness.end(ServiceError("vhost not found"))
    with pytest.raises(ServiceError, match="vhost not found"):
        service.wait_until_ready()


def test_the_thread_of_the_run_does_not_wait_for_itself() -> None:
    driver = begun(service := made())
    driver.elsewhere = False
    words = r"would keep the thread of run\(\) from its work for ever; call it in another thread"
    with pytest.raises(StateError, match=words):
        service.wait_until_ready()
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    service.wait_until_ready()


# Payloads in a store


def claiming(kind: type[Service], memory: Memory) -> tuple[Service, Runs]:
    kind.CLAIM_CHECK = ClaimCheck(memory, OVER)
    service = kind(URLS[0], ["Happened"], ["svc.#"], "svc")
    driver = service.begin_run(Runs)
    driver.tell(driver.machine.start)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.work()
    return service, driver


def handle(driver: Runs, exchange: str, name: str, key: str, body: bytes = b"null", **given: Any) -> None:
    """Deliver a message, and let its handler end."""
    epoch = driver.machine.epoch
    driver.tell(driver.machine.delivered, epoch, 1, False, exchange, name, properties(key, **given), body)
    driver.work()


@pytest.mark.parametrize("stored", [True, False])
def test_a_handler_gets_the_payload_that_is_in_the_store(stored: bool) -> None:
    got, memory = list[Any](), Memory()

    class Listener(Service):
        def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
            got.append((payload, "claim_check" in meta))

    _, driver = claiming(Listener, memory)
    handle(driver, "events", "Happened", put(memory, LARGE) if stored else "", b'"small"')
    assert got == [(LARGE if stored else SMALL, False)]
    assert len(of(Ack, driver.link.asked)) == 1


def test_a_payload_that_is_not_in_the_store_fails_the_handler() -> None:
    _, driver = claiming(type("Listener", (Service,), {}), Memory())
    handle(driver, "events", "Happened", "0" * 64)
    assert of(Nack, driver.link.asked) == [Nack(driver.machine.epoch, 1, True)]


def test_a_store_of_coroutines_is_a_mistake_in_a_service_of_functions() -> None:
    class Slow(Memory):
        async def get(self, key: str) -> bytes:  # type: ignore[override]  # that is the mistake
            raise AssertionError

    memory = Slow()
    _, driver = claiming(type("Listener", (Service,), {}), memory)
    handle(driver, "events", "Happened", put(memory, LARGE))
    assert of(Nack, driver.link.asked) == [Nack(driver.machine.epoch, 1, False)]


@pytest.mark.parametrize("returned", [LARGE, SMALL])
def test_a_large_result_is_stored_and_answers_the_command(returned: str) -> None:
    memory = Memory()

    class Server(Service):
        def on_Do(self, payload: Any, *_: Any) -> Any:
            return returned

    _, driver = claiming(Server, memory)
    handle(driver, "commands", "svc.Do", "", reply_to="peer.DoReturn", correlation_id="k")
    (result,) = of(Publish, driver.link.asked)
    assert (result.routing_key, result.properties.correlation_id) == ("peer.DoReturn", "k")
    assert (result.properties.headers or {})["status"] == "success"
    assert key_of(result) == (put(Memory(), LARGE) if returned is LARGE else None)
    assert list(memory.bodies) == ([key_of(result)] if returned is LARGE else [])
    driver.tell(driver.machine.confirmed, result.epoch, result.tag)
    assert len(of(Ack, driver.link.asked)) == 1
