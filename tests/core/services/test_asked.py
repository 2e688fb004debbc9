"""Methods of services with coroutines that nobody awaits, and those that need not be awaited."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.machine.effects import Ack, Nack, Publish, PublishLog, Ready
from eda_core.services.asked import FINISHED, Asked
from eda_core.services.batch import RawEvent
from eda_core.services.coroutines import CoroutineBatch
from tests.core.drivers.turning import Runs, Service, running
from tests.core.kit import URLS, of, only


class Forgetful(Service):
    """Its handler does what the test says."""

    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        return await self.work(meta)

    async def on_Do(self, *arguments: Any) -> Any:
        return await self.work(arguments[-1])

    async def work(self, meta: dict[str, Any]) -> Any: ...


def started(kind: type[Forgetful]) -> tuple[Forgetful, Runs, list[tuple[int, str]]]:
    """A service that runs, its driver, and its reports."""
    service = kind(URLS[0], ["Happened"], ["svc.Do"], "svc")
    driver, _ = running(service)
    reports: list[tuple[int, str]] = []
    driver.report = lambda level, text, event: reports.append((level, text))  # type: ignore[method-assign]
    return service, driver, reports


def deliver(driver: Runs, exchange: str = "events", key: str = "Happened", **properties: Any) -> None:
    given = Basic.Properties(headers={"conversation_id": "c"}, content_type="application/json", **properties)
    driver.tell(driver.machine.delivered, driver.machine.epoch, 1, False, exchange, key, given, b"1")
    driver.turn()


# In handlers


def _publish_event(service: Service) -> Any:
    return service.publish_event("Told", 1, "c")


def _publish_configuration(service: Service) -> Any:
    return service.publish_configuration("Rates", 1)


def _send_command(service: Service) -> Any:
    return service.send_command("peer.Do", 1, "c", "svc.DoReturn", "k")


def _return_success(service: Service) -> Any:
    return service.return_success("asker.DoReturn", 1, "c", "k")


def _return_error(service: Service) -> Any:
    return service.return_error("asker.DoReturn", 1, "c", "k")


def _call(service: Service) -> Any:
    return service.call("peer.Do", 1)


METHODS = [_publish_event, _publish_configuration, _send_command, _return_success, _return_error, _call]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__[1:])
@pytest.mark.parametrize("kept", [False, True], ids=["dropped", "in a variable"])
def test_a_forgotten_await_fails_the_handler(method: Any, kept: bool) -> None:
    class Forgets(Forgetful):
        async def work(self, meta: dict[str, Any]) -> None:
            if kept:
                asked = method(self)
                assert asked is not None
            else:
                method(self)

    _, driver, _reports = started(Forgets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deliver(driver)
    assert [*of(Publish, driver.link.asked), *of(Ack, driver.link.asked)] == []
    assert only(Nack, driver.link.asked).requeue is False, "trying again would not help"
    ((_, _, failed),) = driver.told
    line = method.__code__.co_firstlineno + 1
    assert failed.reason == (
        f"NotBegun: {method.__name__[1:]}() was not awaited in {__file__}, line {line}, so that it did nothing; write "
        "await before it"
    )


def test_all_that_was_forgotten_is_told() -> None:
    class Forgets(Forgetful):
        async def work(self, meta: dict[str, Any]) -> None:
            _ = self.publish_event("Told", 1, "c")
            _ = self.publish_event("Told", 2, "c")

    _, driver, _reports = started(Forgets)
    deliver(driver)
    ((_, _, failed),) = driver.told
    assert failed.reason.count("publish_event() was not awaited in ") == 2


def test_a_forgotten_await_in_what_a_handler_awaits_fails_the_handler() -> None:
    class Forgets(Forgetful):
        async def work(self, meta: dict[str, Any]) -> None:
            await self.tell()

        async def tell(self) -> None:
            asyncio.wait_for(self.publish_event("Told", 1, "c"), 1.0)  # type: ignore[unused-coroutine]

    _, driver, _reports = started(Forgets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of wait_for
        deliver(driver)
    ((_, _, failed),) = driver.told
    assert "publish_event() was not awaited in " in failed.reason


def test_a_handler_that_returns_what_it_should_await_fails() -> None:
    class Forgets(Forgetful):
        async def work(self, meta: dict[str, Any]) -> Any:
            return self.publish_event("Told", 1, "c")

    _, driver, _reports = started(Forgets)
    deliver(driver)
    ((_, _, failed),) = driver.told
    assert failed.reason.startswith("NotBegun: the function was not run: its result is a value of type Asked; await it")
    assert of(Publish, driver.link.asked) == []


def test_a_plain_handler_may_return_what_is_to_be_awaited() -> None:
    class Plain(Forgetful):
        def on_Happened(self, *_: Any) -> Any:
            return self.publish_event("Told", 1, "c")

    _, driver, _reports = started(Plain)
    deliver(driver)
    assert only(Publish, driver.link.asked).routing_key == "Told"


def test_an_error_of_the_handler_comes_first() -> None:
    class Forgets(Forgetful):
        async def work(self, meta: dict[str, Any]) -> None:
            _ = self.publish_event("Told", 1, "c")
            raise LookupError("nothing there")

    _, driver, _reports = started(Forgets)
    deliver(driver)
    ((_, _, failed),) = driver.told
    assert failed.reason == "LookupError: nothing there"


# In batches, hooks and timers, and elsewhere


def test_a_forgotten_push_fails_the_handler() -> None:
    class Forgets(Forgetful):
        async def work(self, meta: dict[str, Any]) -> bool:
            batch.push(1, "c", meta)  # type: ignore[unused-coroutine]
            return True

    service, driver, _reports = started(Forgets)
    batch = CoroutineBatch(service, 1, 5.0, print)
    deliver(driver)
    ((_, _, failed),) = driver.told
    assert failed.reason.startswith(f"NotBegun: push() was not awaited in {__file__}, line ")


def test_a_forgotten_await_in_the_callback_of_a_batch_fails_its_events() -> None:
    async def callback(events: list[RawEvent]) -> None:
        service.publish_event("Told", len(events), "c")  # type: ignore[unused-coroutine]

    class Collects(Forgetful):
        async def work(self, meta: dict[str, Any]) -> bool:
            await batch.push(1, "c", meta)
            return True

    service, driver, reports = started(Collects)
    batch = CoroutineBatch(service, 1, 5.0, callback)
    deliver(driver)
    assert [*of(Publish, driver.link.asked), *of(Ack, driver.link.asked)] == []
    assert only(Nack, driver.link.asked).requeue is False
    assert any("publish_event() was not awaited in " in text for _, text in reports)


@pytest.mark.parametrize("effect", [Ready(), None], ids=["a hook", "a timer"])
def test_a_forgotten_await_in_a_hook_or_a_timer_is_its_failure(effect: Any) -> None:
    service, driver, _reports = started(Forgetful)

    async def forgets() -> None:
        service.publish_event("Told", 1, "c")  # type: ignore[unused-coroutine]

    driver.call(effect, forgets)
    driver.turn()
    ((what, of_effect, failed),) = driver.told
    assert (what, of_effect) == ("callback_failed", effect)
    assert failed.reason.startswith("NotBegun: publish_event() was not awaited in ")


def test_a_forgotten_await_elsewhere_is_an_error_in_the_local_log() -> None:
    service, _driver, reports = started(Forgetful)
    service.publish_event("Told", 1, "c")  # type: ignore[unused-coroutine]
    ((level, text),) = reports
    assert (level, text.partition(" in ")[0]) == (3, "publish_event() was not awaited")


def test_what_is_forgotten_after_the_handler_has_ended_is_an_error_in_the_local_log() -> None:
    class Keeps(Forgetful):
        async def work(self, meta: dict[str, Any]) -> None:
            kept.append(self.publish_event("Told", 1, "c"))

    kept: list[Any] = []
    _, driver, reports = started(Keeps)
    deliver(driver)
    assert only(Ack, driver.link.asked).tag == 1
    kept.clear()
    assert [level for level, _ in reports] == [3]


def test_what_a_service_is_asked_before_it_runs_is_dropped_in_silence() -> None:
    service = Forgetful(URLS[0], [], [], "svc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        service.publish_event("Told", 1, "c")  # type: ignore[unused-coroutine]
        gc.collect()


# What is begun otherwise


def test_what_a_task_has_begun_is_not_forgotten() -> None:
    class Spawns(Forgetful):
        async def work(self, meta: dict[str, Any]) -> None:
            driver.spawn(self.publish_event("Told", 1, "c"))

    _, driver, reports = started(Spawns)
    deliver(driver)
    driver.turn()
    assert [publish.routing_key for publish in of(Publish, driver.link.asked)] == ["Told"]
    assert reports == []


def test_what_is_closed_or_cancelled_is_not_forgotten() -> None:
    forgotten: list[str] = []

    async def work() -> None: ...

    Asked(work(), forgotten.append).close()
    thrown: Coroutine[Any, Any, None] = Asked(work(), forgotten.append)
    with pytest.raises(LookupError):
        thrown.throw(LookupError("cancelled"))
    del thrown
    assert forgotten == []


# What need not be awaited


def test_logs_settlements_and_stops_are_done_when_they_are_called() -> None:
    class Settles(Forgetful):
        async def work(self, meta: dict[str, Any]) -> bool:
            self.log(6, "short")  # type: ignore[unused-coroutine]
            self.manual_ack(meta["delivery_tag"])  # type: ignore[unused-coroutine]
            return True

    service, driver, _reports = started(Settles)
    deliver(driver)
    assert only(PublishLog, driver.link.asked).routing_key == "svc.INFO"
    assert only(Ack, driver.link.asked).tag == 1
    service.stop()  # type: ignore[unused-coroutine]
    assert driver.machine.stopping


@pytest.mark.parametrize("error", [LookupError, LookupError("nothing there")], ids=["its type", "an exception"])
def test_what_is_finished_behaves_as_a_coroutine(error: Any) -> None:
    async def awaits() -> None:
        await FINISHED
        await asyncio.create_task(FINISHED)
        await asyncio.gather(FINISHED, FINISHED)

    asyncio.run(awaits())
    with pytest.raises(LookupError):
        FINISHED.throw(error)
    FINISHED.close()
