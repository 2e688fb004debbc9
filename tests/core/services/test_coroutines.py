"""Services whose handlers are coroutines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.drivers.handling import handling
from eda_core.errors import CommandError, LocalError, NotReady, ServiceError, StateError
from eda_core.machine.effects import Ack, PublishLog, Replied
from eda_core.messages.codec import decode
from eda_core.messages.values import Result
from eda_core.services.batch import RawEvent
from eda_core.services.claims import ClaimCheck
from eda_core.services.coroutines import CoroutineBatch
from eda_core.urls import redact
from tests.core.drivers.traces import Traces, current
from tests.core.drivers.turning import Cancelled, Promise, Runs, Service, Task, made, running
from tests.core.kit import URLS, only
from tests.core.services.claiming import LARGE, OVER, SMALL, Memory, key_of, properties, put


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


# Waiting until it is ready


def begun(service: Service) -> tuple[Runs, Task]:
    """Its driver, without a link, and the task of its ``run``."""
    run = Task(service.run())
    run.step()
    driver = service.running_driver()
    assert isinstance(driver, Runs)
    driver.tasks.append(run)
    return driver, run


def open_link(driver: Runs) -> None:
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.turn()


def pass_time(driver: Runs, seconds: float) -> None:
    """Let a timer run, and then whoever waits for what it does."""
    driver.clock += seconds
    driver.tick()
    driver.turn()
    driver.turn()


def test_who_waits_is_told_when_the_service_receives_its_messages_and_later_at_once() -> None:
    driver, _ = begun(service := made())
    first, second = driver.begin(service.wait_until_ready()), driver.begin(service.wait_until_ready(5.0))
    driver.turn()
    assert not first.done
    open_link(driver)
    assert (first.result, second.result) == (None, None)
    assert driver.begin(service.wait_until_ready()).result is None
    pass_time(driver, 9.0)
    assert driver.told == [], "the timer is not left behind"


def test_a_link_that_is_lost_is_waited_for() -> None:
    driver, _ = running(service := made())
    driver.tell(driver.machine.link_down, driver.machine.epoch, "cut")
    waiting = driver.begin(service.wait_until_ready())
    assert not waiting.done
    driver.clock += 60.0
    driver.tick()
    open_link(driver)
    assert waiting.result is None


def test_run_may_be_a_task_that_has_not_begun() -> None:
    service = made()
    waiting = Task(service.wait_until_ready())
    waiting.step()
    driver, _ = begun(service)
    driver.tasks.append(waiting)
    driver.turn()
    assert not waiting.done
    open_link(driver)
    assert waiting.result is None


def test_a_service_that_nobody_runs_is_not_waited_for() -> None:
    waiting = Task(made().wait_until_ready())
    waiting.step()
    waiting.step()
    assert isinstance(waiting.error, StateError)
    assert str(waiting.error).startswith("the service does not run; run it first")


@pytest.mark.parametrize("before", [True, False], ids=["asked before", "asked after"])
def test_the_error_with_which_run_ends_is_raised_where_somebody_waits(before: bool) -> None:
    driver, run = begun(service := made())
    waiting = driver.begin(service.wait_until_ready()) if before else None
    driver.tell(driver.machine.link_down, driver.machine.epoch, "vhost not found", refused=True)
    driver.turn()
    waiting = waiting or driver.begin(service.wait_until_ready())
    assert type(waiting.error) is type(run.error) is ServiceError
    assert str(waiting.error) == str(run.error)


def test_a_service_that_cannot_run_is_not_waited_for() -> None:
    class Wrong(Service):
        async def on_Happened(self) -> None: ...

    service = Wrong(URLS[0], ["Happened"], [], "svc")
    waiting, run = Task(service.wait_until_ready()), Task(service.run())
    for task in (waiting, run, waiting):
        task.step()
    assert isinstance(run.error, LocalError)
    assert waiting.error is run.error


def test_a_service_that_is_stopped_before_it_is_ready_says_so() -> None:
    driver, run = begun(service := made())
    waiting = driver.begin(service.wait_until_ready())
    driver.begin(service.stop())
    driver.tell(driver.machine.link_down, driver.machine.epoch, "closed")
    driver.turn()
    assert (run.result, str(waiting.error)) == (None, "the service has stopped before it was ready")


def test_a_wait_has_an_end_and_says_what_is_missing() -> None:
    driver, _ = begun(service := made())
    waiting = driver.begin(service.wait_until_ready(5.0))
    pass_time(driver, 5.0)
    assert str(waiting.error) == "not ready within 5 s: there is no link yet"
    driver.tell(driver.machine.link_down, driver.machine.epoch, "ConnectionRefusedError: nobody there")
    waiting = driver.begin(service.wait_until_ready(0.01))
    pass_time(driver, 0.01)
    assert isinstance(waiting.error, NotReady)
    text = f"not ready within 0.01 s: no link to {redact(URLS[0])}: ConnectionRefusedError: nobody there; trying "
    assert str(waiting.error).startswith(text)


def test_a_service_that_waits_for_its_configuration_says_so() -> None:
    service = Service(URLS[0], [], [], "svc", ["Settings"])
    driver, _ = begun(service)
    open_link(driver)
    waiting = driver.begin(service.wait_until_ready(5.0))
    pass_time(driver, 5.0)
    assert str(waiting.error) == "not ready within 5 s: no handler of a configuration has returned True yet"


def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    driver, _ = begun(service := made())
    waiting = driver.begin(service.wait_until_ready(5.0))
    waiting.step(Cancelled())
    open_link(driver)
    assert isinstance(waiting.error, Cancelled)
    assert driver.machine.ready


def test_a_wait_that_is_over_may_be_told_once_more() -> None:
    """A task that is cancelled has not yet got so far as to say that it does not wait any more."""
    driver, _ = begun(service := made())
    promises, future = list[Promise](), driver.future

    def make() -> Promise:
        promises.append(future())
        return promises[-1]

    driver.future = make  # type: ignore[method-assign]
    waiting = driver.begin(service.wait_until_ready())
    promises[0].set_result(None)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.turn()
    assert waiting.result is None


def test_a_wait_that_is_not_awaited_is_told() -> None:
    driver, _ = running(service := made())
    reports: list[str] = []
    driver.report = lambda level, text, event: reports.append(text)  # type: ignore[method-assign]
    _ = service.wait_until_ready()
    del _
    assert reports[0].startswith("wait_until_ready() was not awaited in ")


@pytest.mark.parametrize("timeout", [0, -1.0, "soon"])
def test_a_time_to_wait_is_a_number_of_seconds(timeout: Any) -> None:
    driver, _ = running(service := made())
    assert isinstance(driver.begin(service.wait_until_ready(timeout)).error, LocalError)


def test_a_publish_that_is_not_awaited_is_a_mistake_of_the_handler_or_is_reported() -> None:
    service = made()
    forgotten = service.publish_event("Told", 1, "c-1")
    del forgotten  # before the run nobody can be told
    driver, _ = running(service)
    with handling(service) as run:
        forgotten = service.publish_event("Told", 1, "c-1")
        del forgotten
    (mistake,) = run.not_awaited
    assert "publish_event" in mistake
    forgotten = service.publish_event("Told", 1, "c-1")
    del forgotten
    assert any("publish_event" in text for text in driver.reports)


def test_what_waits_for_space_is_published_as_it_was() -> None:
    service = made(buffer=1)
    driver, _ = running(service)
    payload = {"n": 1}
    tasks = [driver.begin(service.publish_event("Told", payload, "c-1")) for _ in range(3)]
    payload["n"] = 2
    while not all(task.done for task in tasks):
        driver.confirm()
    assert len({each.body for each in driver.sent}) == 1
    assert len(driver.sent) == 3


# Traces


def traced(kind: type[Service] = Service, **settings: Any) -> tuple[Service, Runs, Traces]:
    service, traces = kind(URLS[0], ["Happened"], ["svc.Do"], "svc"), Traces()
    service._eda_config = replace(service._eda_config, **settings)
    service.trace_by(traces)
    driver, _ = running(service)
    traces.told.clear()
    return service, driver, traces


def test_the_trace_of_a_publish_lasts_until_the_confirm() -> None:
    service, driver, traces = traced()
    driver.begin(service.publish_event("Told", 1, "c-1"))
    assert traces.told == [("sending", "Told", "", ""), ("accepted", "tok-1")]
    driver.confirm()
    assert traces.told[2:] == [("sent", "NoneType")]


def test_a_publish_that_waits_for_space_belongs_to_the_trace_of_its_caller() -> None:
    """What runs when there is space is in another context."""
    service, driver, traces = traced(buffer=1)
    first = driver.begin(service.publish_event("Told", 1, "c-1"))
    token = current.set("caller")
    second = driver.begin(service.publish_event("ToldToo", 1, "c-1"))
    current.reset(token)
    token = current.set("another")
    driver.confirm()
    driver.confirm()
    current.reset(token)
    assert first.done
    assert second.done
    assert [(publish.properties.headers or {}).get("trace") for publish in driver.sent] == ["", "caller"]
    assert ("sending", "ToldToo", "", "caller") in traces.told
    assert traces.told.count(("accepted", "tok-2")) == 1
    assert traces.told.count(("sent", "NoneType")) == 2


def test_the_trace_of_a_call_lasts_until_its_result() -> None:
    service, driver, traces = traced()
    task = driver.begin(service.call("peer.Do", 1))
    assert traces.told == [("calling", "peer.Do", "", ""), ("accepted", "tok-1")]
    driver.feed([Replied(1, "peer.Do", Result("k", {"n": 2}, "c-1", "success", "id"))])
    driver.turn()
    assert task.result == {"n": 2}
    assert traces.told[2:] == [("sent", "NoneType")]


@pytest.mark.parametrize("conversation_id", ["", "c-2"])
def test_a_call_in_a_handler_has_its_conversation(conversation_id: str) -> None:
    class Caller(Service):
        async def on_Happened(self, *_: Any) -> None:
            await self.call("peer.Do", 1, conversation_id=conversation_id)

    _, driver, traces = traced(Caller)
    properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type="application/json")
    driver.tell(driver.machine.delivered, driver.machine.epoch, 1, False, "events", "Happened", properties, b"1")
    driver.turn()
    assert traces.told[1] == ("calling", "peer.Do", conversation_id or "c-1", "Happened")
    driver.feed([Replied(1, "peer.Do", Result("k", 2, "c-1", "success", "id"))])
    driver.turn()
    assert traces.told[-2:] == [("left", "Happened", "NoneType"), ("end", "Happened", "")]


def test_the_trace_of_a_batch_is_that_of_its_callback() -> None:
    class Collector(Service):
        async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
            await batch.push(payload, conversation_id, meta)
            return True

    async def hand_over(events: list[RawEvent]) -> None:
        await service.publish_event("Told", len(events), "c-1")

    service, driver, traces = traced(Collector)
    batch = CoroutineBatch(service, 2, 5.0, hand_over)
    for tag in (1, 2):
        properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type="application/json")
        driver.tell(driver.machine.delivered, driver.machine.epoch, tag, False, "events", "Happened", properties, b"1")
        driver.turn()
    assert traces.told[3:] == [
        ("handling", "Happened", 1),
        ("batch", 2),
        ("sending", "Told", "held", "batch"),
        ("accepted", "tok-1"),
        ("sent", "NoneType"),
        ("end", "batch", ""),
        ("left", "batch", "NoneType"),
        ("left", "Happened", "NoneType"),
        ("end", "Happened", ""),
    ]


# Payloads in a store


class Later(Memory):
    """Its methods are coroutine functions; they end in a later turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.free = Promise()

    async def put(self, key: str, body: bytes) -> None:  # type: ignore[override]  # a ClaimStore may
        await self.free
        super().put(key, body)

    async def get(self, key: str) -> bytes:  # type: ignore[override]  # a ClaimStore may
        await self.free
        return super().get(key)


def claiming(memory: Memory | None, kind: type[Service] = Service) -> tuple[Service, Runs]:
    service = type(kind.__name__, (kind,), {"CLAIM_CHECK": memory and ClaimCheck(memory, OVER)})(
        URLS[0], ["Happened"], ["svc.Do"], "svc"
    )
    driver, _ = running(service)
    return service, driver


def free(memory: Memory, driver: Runs) -> None:
    """Let the store answer."""
    if isinstance(memory, Later):
        memory.free.set_result(None)
    driver.turn()
    driver.turn()


STORES = pytest.mark.parametrize("store", [Memory, Later])


@STORES
def test_a_large_payload_is_stored_before_its_message_is_published(store: type[Memory]) -> None:
    service, driver = claiming(memory := store())
    task = driver.begin(service.publish_event("Told", LARGE, "c-1"))
    assert len(driver.sent) == (store is Memory)
    free(memory, driver)
    assert key_of(driver.sent[0]) == put(Memory(), LARGE)
    assert list(memory.bodies) == [key_of(driver.sent[0])]
    assert not task.done
    driver.confirm()
    assert (task.result, task.error) == (None, None)


def test_a_small_payload_travels_in_its_message() -> None:
    service, driver = claiming(memory := Later())
    driver.begin(service.publish_event("Told", SMALL, "c-1"))
    assert decode(driver.sent[0].body, driver.sent[0].properties.content_type) == SMALL
    assert (key_of(driver.sent[0]), memory.bodies) == (None, {})


def test_what_cannot_be_stored_is_not_published() -> None:
    class Full(Memory):
        def put(self, key: str, body: bytes) -> None:
            raise OSError("no space left")

    service, driver = claiming(Full())
    task = driver.begin(service.publish_event("Told", LARGE, "c-1"))
    assert isinstance(task.error, OSError)
    assert driver.sent == []


@STORES
def test_a_handler_gets_the_payload_that_is_in_the_store(store: type[Memory]) -> None:
    got, memory = list[Any](), store()

    class Listener(Service):
        async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
            got.append((payload, "claim_check" in meta))

    _, driver = claiming(memory, Listener)
    key = put(memory, LARGE)
    for tag, given, body in ((1, "", b'"small"'), (2, key, b"null")):
        driver.tell(
            driver.machine.delivered, driver.machine.epoch, tag, False, "events", "Happened", properties(given), body
        )
        driver.turn()
    free(memory, driver)
    assert got == [(SMALL, False), (LARGE, False)]
    assert sum(isinstance(each, Ack) for each in driver.link.asked) == 2


@STORES
@pytest.mark.parametrize("returned", [LARGE, SMALL])
@pytest.mark.parametrize("waits", [True, False], ids=["a coroutine function", "a function"])
def test_a_large_result_is_stored_and_answers_the_command(store: type[Memory], returned: str, waits: bool) -> None:
    class Server(Service):
        def on_Do(self, *_: Any) -> Any:
            return self._later() if waits else returned

        async def _later(self) -> Any:
            return returned

    _, driver = claiming(memory := store(), Server)
    given = properties("", reply_to="peer.DoReturn", correlation_id="k")
    driver.tell(driver.machine.delivered, driver.machine.epoch, 1, False, "commands", "svc.Do", given, b"null")
    driver.turn()
    free(memory, driver)
    (result,) = driver.sent
    assert (result.routing_key, result.properties.correlation_id) == ("peer.DoReturn", "k")
    assert (result.properties.headers or {})["status"] == "success"
    assert key_of(result) == (put(Memory(), LARGE) if returned is LARGE else None)
    assert list(memory.bodies) == ([key_of(result)] if returned is LARGE else [])
    driver.confirm()
    assert sum(isinstance(each, Ack) for each in driver.link.asked) == 1


@STORES
def test_a_call_stores_its_payload_and_redeems_that_of_its_result(store: type[Memory]) -> None:
    service, driver = claiming(memory := store())
    task = driver.begin(service.call("peer.Do", LARGE, headers={"tenant": "a"}))
    free(memory, driver)
    (command,) = driver.sent
    assert key_of(command) == put(Memory(), LARGE)
    assert (command.properties.headers or {})["tenant"] == "a"
    key = put(memory, {"n": LARGE})
    driver.feed([Replied(1, "peer.Do", Result("k", None, "c-1", "success", "id", {"claim_check": key}))])
    driver.turn()
    assert task.result == {"n": LARGE}


def test_an_error_that_is_in_the_store_is_raised_with_its_payload() -> None:
    service, driver = claiming(memory := Memory())
    task = driver.begin(service.call("peer.Do", SMALL))
    result = Result("k", None, "c-1", "error", "id", {"claim_check": put(memory, {"reason": LARGE})})
    driver.feed([Replied(1, "peer.Do", result)])
    driver.turn()
    assert isinstance(task.error, CommandError)
    assert task.error.payload == {"reason": LARGE}


def test_a_result_in_a_store_is_an_error_where_the_service_has_none() -> None:
    service, driver = claiming(None)
    task = driver.begin(service.call("peer.Do", 1))
    driver.feed([Replied(1, "peer.Do", Result("k", None, "c-1", "success", "id", {"claim_check": "0" * 64}))])
    driver.turn()
    assert isinstance(task.error, LocalError)
    assert "in a store; give this service the same CLAIM_CHECK" in str(task.error)
