"""Batches of events, without an adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from eda_core import DEFERRED, DONE, Ack, Event, Failed, LocalError, Nack, Publish, PublishLog, RawEvent
from eda_core.criticality import WARNING
from eda_core.drivers.handling import handling
from eda_core.drivers.tracing import Tracing
from eda_core.errors import Abandoned
from eda_core.machine.effects import Connect, Effect
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.outcomes import Outcome
from eda_core.messages.values import AnyMessage
from eda_core.services.batch import EventBatch
from tests.core.drivers.test_base import Carrier
from tests.core.drivers.traces import Traces
from tests.core.kit import URLS, Bench, of, only, opened
from tests.core.services.test_api import Service as Plain


class Runs:
    """The methods of a driver that a batch uses."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.machine = bench.machine
        self.tracing: Tracing | None = None
        self.at_stop: dict[object, Callable[[], Any]] = {}
        self.at_end: dict[DeliveryId | None, Callable[[Outcome, float], Outcome]] = {}
        self.reports: list[tuple[int, str, str]] = []

    def report(self, level: int, text: str, event: str) -> None:
        self.reports.append((level, text, event))

    def ends_service(self, error: BaseException) -> bool:
        return isinstance(error, (Abandoned, KeyboardInterrupt))

    def ask(self, call: Callable[[], Any]) -> Any:
        return call()

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        self.bench.did(method(*arguments, now=self.bench.now, **named))


class Service(Plain):
    """A service with timers that the test fires."""

    def __init__(self, bench: Bench) -> None:
        super().__init__([only(Connect, bench.seen).url], ["Happened"], ["svc.Do"], "svc")
        self.bench = bench
        self.runs = Runs(bench)
        self.timers: dict[int, tuple[float, Callable[[], Any]]] = {}

    def running_driver(self) -> Any:
        return self.runs

    def publish_message(
        self, message: AnyMessage, *, mandatory: bool, immediate: bool = False, timeout: float | None = None
    ) -> str:
        self.runs.tell(self.runs.machine.publish, message, within=self.handled_delivery())
        return "published"

    def call_later(self, delay: float, callback: Callable[[], Any]) -> int:
        number = len(self.timers)
        self.timers[number] = (delay, callback)
        return number

    def cancel_timer(self, timer: int) -> None:
        self.timers.pop(timer, None)


class Batch(EventBatch):
    def push(self, delivery: DeliveryId, payload: Any) -> None:
        if self._add(payload, "c-1", {"delivery_tag": delivery}):
            self.expire()

    def expire(self) -> None:
        with self._taken() as events:
            if events:
                self.callback(events)


def made(callback: Callable[[list[RawEvent]], Any], size: int = 2) -> tuple[Bench, Service, Batch]:
    bench = opened()
    service = Service(bench)
    return bench, service, Batch(service, size, 5.0, callback)


def push(bench: Bench, batch: Batch, payload: Any) -> None:
    delivery = bench.take()
    batch.push(delivery, payload)
    bench.handled(delivery, DEFERRED)


def test_a_full_batch_is_handed_over_and_acknowledged_together() -> None:
    got: list[Any] = []
    bench, service, batch = made(lambda events: got.extend(event.payload for event in events))
    push(bench, batch, 1)
    assert (len(batch), got, list(service.runs.at_stop)) == (1, [], [batch])
    push(bench, batch, 2)
    assert (len(batch), got) == (0, [1, 2])
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 2, True)]
    assert service.timers == {}, "nothing is left to run out"


def test_the_time_hands_over_what_there_is_and_begins_anew_with_the_next() -> None:
    got: list[int] = []
    bench, service, batch = made(lambda events: got.append(len(events)), 9)
    push(bench, batch, 1)
    ((delay, callback),) = service.timers.values()
    assert delay == 5.0
    callback()
    assert got == [1]
    batch.expire()
    assert got == [1], "an empty batch is not handed over"
    push(bench, batch, 2)
    assert len(service.timers) == 1


def test_what_the_callback_publishes_is_confirmed_before_the_acknowledgement() -> None:
    bench, service, batch = made(lambda events: service.publish_event("Told", len(events), "c-1"), 9)
    push(bench, batch, 1)
    push(bench, batch, 2)
    batch.expire()
    assert of(Ack, bench.seen) == []
    bench.confirm(only(Publish, bench.seen))
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 2, True)]


def fail(error: BaseException) -> Callable[[list[RawEvent]], None]:
    def callback(_events: list[RawEvent]) -> None:
        raise error

    return callback


def test_a_callback_that_fails_leaves_each_event_to_the_policy() -> None:
    bench, _, batch = made(fail(OSError("no disk")), 9)
    push(bench, batch, 1)
    batch.expire()
    assert of(Nack, bench.seen) == [Nack(bench.epoch, 1, True)]


def test_what_is_no_exception_comes_out_and_the_events_have_failed() -> None:
    """As when asyncio cancels what the callback awaits."""
    bench, _, batch = made(fail(BaseException("cancelled")), 9)
    push(bench, batch, 1)
    with pytest.raises(BaseException, match="cancelled"):
        batch.expire()
    assert of(Nack, bench.seen) == [Nack(bench.epoch, 1, True)]


def test_an_event_whose_handler_returns_nothing_is_acknowledged_by_itself_and_handed_over() -> None:
    got: list[Any] = []
    bench, service, batch = made(lambda events: got.extend(event.payload for event in events), 3)
    for payload in (1, 2):
        delivery = bench.take()
        batch.push(delivery, payload)
        service.runs.at_end.pop(delivery)(DONE, bench.now)
        bench.handled(delivery, DONE)
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 1, False), Ack(bench.epoch, 2, False)]
    batch.expire()
    assert got == [1, 2]


EARLY = (
    "{} has put its event into a batch and has not returned True: the event is acknowledged before its batch is "
    "handled, and is lost if the process dies; end the handler with 'return True'"
)


def test_a_handler_that_forgets_to_return_true_is_told_so_once() -> None:
    bench, service, batch = made(print, 9)
    for outcome in (DEFERRED, DONE, DONE):
        delivery = bench.take()
        with handling(service, delivery, Event("Happened", 1, "c-1", {})):
            batch.push(delivery, 1)
        service.runs.at_end.pop(delivery)(outcome, bench.now)
        bench.handled(delivery, outcome)
    text = EARLY.format("Service.handle")
    assert service.runs.reports == [(WARNING, text, "early-ack")]
    (record,) = [json.loads(each.body) for each in of(PublishLog, bench.seen)]
    assert (record["level"], record["short_message"], record["_conversation_id"]) == (WARNING, text, "c-1")


def test_who_pushes_outside_of_a_handler_is_told_so_too() -> None:
    bench, service, batch = made(print, 9)
    delivery = bench.take()
    batch.push(delivery, 1)
    service.runs.at_end.pop(delivery)(DONE, bench.now)
    assert service.runs.reports == [(WARNING, EARLY.format("a handler of Service"), "early-ack")]


@pytest.mark.parametrize("outcome", [DEFERRED, Failed("no")])
def test_a_handler_that_defers_or_fails_is_not_told_to_return_true(outcome: Outcome) -> None:
    bench, service, batch = made(print, 9)
    delivery = bench.take()
    batch.push(delivery, 1)
    service.runs.at_end.pop(delivery)(outcome, bench.now)
    assert service.runs.reports == []


def test_a_handler_whose_batch_is_full_need_not_return_true() -> None:
    bench, service, batch = made(print, 1)
    batch.push(bench.take(), 1)
    assert (service.runs.reports, service.runs.at_end) == ([], {})


# Acknowledged by hand as well


def test_an_event_in_a_batch_is_not_acknowledged_by_hand() -> None:
    """It would be gone from its queue, and the batch would not hand it over."""
    got: list[Any] = []
    bench, service, batch = made(lambda events: got.extend(event.payload for event in events), 9)
    push(bench, batch, 1)
    delivery = bench.take()
    batch.push(delivery, 2)
    words = f"delivery {delivery} is in a batch, which acknowledges it; return True after push\\(\\), and do not call"
    with pytest.raises(LocalError, match=words):
        service.manual_ack(delivery)
    bench.handled(delivery, DEFERRED)
    with pytest.raises(LocalError, match=words):
        service.manual_ack(delivery)
    assert of(Ack, bench.seen) == []
    batch.expire()
    assert got == [1, 2]
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 2, True)]


def test_those_before_a_message_that_are_in_a_batch_are_not_acknowledged_with_it() -> None:
    bench, service, batch = made(print, 9)
    push(bench, batch, 1)
    other = bench.take()
    bench.handled(other, DEFERRED)
    with pytest.raises(LocalError, match=r"multiple=True\) would acknowledge 1 message\(s\) that are in a batch"):
        service.manual_ack(other, multiple=True)
    service.manual_ack(other)
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 2, False)]


def test_those_behind_a_message_and_those_of_a_lost_link_do_not_matter_to_it() -> None:
    bench, service, batch = made(print, 9)
    push(bench, batch, 1)
    bench.lose()
    bench.open()
    other = bench.take()
    push(bench, batch, 2)
    bench.handled(other, DEFERRED)
    service.manual_ack(other, multiple=True)
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 1, False)]


def test_a_callback_may_settle_an_event_by_itself() -> None:
    bench, service, batch = made(lambda events: service.manual_ack(events[0].meta["delivery_tag"]), 9)
    push(bench, batch, 1)
    push(bench, batch, 2)
    batch.expire()
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 1, False), Ack(bench.epoch, 2, False)]


@pytest.mark.parametrize("runs", [True, False])
def test_an_event_that_is_acknowledged_does_not_get_into_a_batch(runs: bool) -> None:
    bench, service, batch = made(print, 9)
    delivery = bench.take()
    service.manual_ack(delivery)
    if not runs:
        bench.handled(delivery, DEFERRED)
    with pytest.raises(
        LocalError, match=f"delivery {delivery} is settled already; put an event into one batch, and do"
    ):
        batch.push(delivery, 1)
    assert len(batch) == 0


def test_an_event_is_in_one_batch() -> None:
    bench, service, batch = made(print, 9)
    delivery = bench.take()
    batch.push(delivery, 1)
    batch.push(delivery, 2)
    with pytest.raises(LocalError, match=f"delivery {delivery} is in another batch; put each event into one batch"):
        Batch(service, 9, 5.0, print).push(delivery, 3)
    batch.expire()
    bench.handled(delivery, DEFERRED)
    assert of(Ack, bench.seen) == [Ack(bench.epoch, 1, False)]


@pytest.mark.parametrize("outcome", [DONE, Failed("no")])
def test_an_event_whose_handler_has_not_deferred_it_waits_in_no_batch(outcome: Outcome) -> None:
    bench, service, batch = made(print, 9)
    delivery = bench.take()
    batch.push(delivery, 1)
    assert service._eda_batched == {delivery: batch}
    service.runs.at_end.pop(delivery)(outcome, bench.now)
    assert service._eda_batched == {}


# The size and the prefetch


TOO_LARGE = (
    "a Batch of 11 events never gets full if its handlers return True, because PREFETCH_COUNT is 10; write "
    "PREFETCH_COUNT = 11 in the class"
)


def test_a_batch_that_is_larger_than_the_prefetch_is_told_at_the_start() -> None:
    service = Plain([URLS[0]], [], [], "svc")
    Batch(service, 11, 5.0, print)
    Batch(service, 10, 5.0, print)
    driver: Any = service.begin_run(lambda service: Carrier(service))
    (report,) = [rest for what, *rest in driver.done if what == "report"]
    assert report[1] == f"Service may not do what it should\n- {TOO_LARGE}"


def test_a_batch_that_is_made_later_is_told_when_it_is_made() -> None:
    service = Plain([URLS[0]], [], [], "svc")
    driver: Any = service.begin_run(lambda service: Carrier(service))
    Batch(service, 11, 5.0, print)
    (report,) = [rest for what, *rest in driver.done if what == "report"]
    assert report[1] == f"Service may not do what it should\n- {TOO_LARGE}"


def test_nothing_is_left_to_be_told_of_handlers_whose_events_are_handed_over() -> None:
    bench, service, batch = made(print, 9)
    push(bench, batch, 1)
    assert len(service.runs.at_end) == 1
    batch.expire()
    assert service.runs.at_end == {}


def test_a_handler_that_ends_while_the_callback_runs_is_told_to_defer() -> None:
    ends: list[Outcome] = []
    bench, service, batch = made(lambda events: ends.append(service.runs.at_end[delivery](DONE, bench.now)), 9)
    batch.push(delivery := bench.take(), 1)
    batch.expire()
    assert ends == [DEFERRED]


def test_an_event_that_comes_during_a_stop_is_handed_over_at_once() -> None:
    """Nobody hands it over later: the stop has handed over what there was."""
    got: list[Any] = []
    bench, _, batch = made(lambda events: got.extend(event.payload for event in events), 9)
    delivery = bench.take()
    bench.stop()
    batch.push(delivery, 1)
    assert (got, len(batch)) == ([1], 0)


@pytest.mark.parametrize("meta", [{}, {"delivery_tag": None}, {"delivery_tag": "1"}])
def test_an_event_of_ones_own_making_is_refused(meta: dict[str, Any]) -> None:
    _, _, batch = made(print)
    with pytest.raises(LocalError, match=r"delivery_tag .* pass the meta that the handler was given"):
        batch._add("payload", "c-1", meta)
    assert len(batch) == 0


def test_it_has_the_attributes_of_eventails() -> None:
    _, service, batch = made(print, 7)
    assert (batch.endpoint, batch.max_entries, batch.timeout, batch.callback) == (service, 7, 5.0, print)


def test_a_batch_that_could_never_be_is_refused() -> None:
    with pytest.raises(LocalError, match="max_entries is 0"):
        made(print, 0)


@pytest.mark.parametrize("end", [Abandoned("the time is over"), KeyboardInterrupt()])
def test_what_the_end_of_the_service_leaves_unfinished_stays_with_the_broker(end: BaseException) -> None:
    """It is neither acknowledged nor failed, so another worker gets it, and no attempt of the policy is spent."""
    bench, _, batch = made(fail(end), 9)
    push(bench, batch, 1)
    before = len(bench.seen)
    with pytest.raises(type(end)):
        batch.expire()
    assert bench.seen[before:] == []
    assert len(batch) == 0


def test_an_event_in_a_batch_is_short_to_show() -> None:
    event = RawEvent({"secret": "x" * 1000}, "c-1", {"delivery_tag": 7})
    assert repr(event) == "<RawEvent c-1>"
    assert (event.payload, event.conversation_id, event.meta) == ({"secret": "x" * 1000}, "c-1", {"delivery_tag": 7})


# Traces


@pytest.mark.parametrize("fails", [False, True])
def test_the_trace_of_a_callback_is_told_of_each_event_and_of_its_end(fails: bool) -> None:
    bench, service, batch = made(fail(LookupError()) if fails else lambda events: None)
    service.runs.tracing = traces = Traces()
    for _ in range(2):
        push(bench, batch, 1)
    assert traces.told[0] == ("batch", 2)
    assert sorted(traces.told[1:]) == [("end", "batch", ""), ("left", "batch", "LookupError" if fails else "NoneType")]
