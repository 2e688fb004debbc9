"""Faults outside deliveries: returned messages, effects and hooks that fail, logs, and wrong local calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.criticality import ALERT, EMERGENCY, INFO, WARNING
from eda_core.errors import BufferFull, LocalError
from eda_core.machine import link
from eda_core.machine.effects import (
    Ack,
    BufferAvailable,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Dispatch,
    Effect,
    Nack,
    Publish,
    PublishDone,
    PublishLog,
    Ready,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import Event, LogRecord, Result
from tests.core.kit import SHOWN, URLS, Bench, config, kinds, make_publish, of, only, opened, snapshot
from tests.core.machine.states import REACH, every_state

EPOCH = Epoch(1)


def records(effects: list[Effect]) -> list[dict[str, Any]]:
    return [json.loads(log.body) for log in of(PublishLog, effects)]


# Returned messages


def returned(bench: Bench, properties: Basic.Properties, body: bytes, **fields: Any) -> list[Effect]:
    epoch = fields.get("epoch", bench.epoch)
    return bench.machine.returned(epoch, "commands", "other.Do", properties, body, "312 NO_ROUTE", bench.now)


def test_a_message_that_came_back_is_decoded_for_the_service() -> None:
    bench = opened()
    properties = Basic.Properties(
        content_type="application/json", headers={"conversation_id": "c-1"}, reply_to="svc.R", correlation_id="k"
    )
    report, effect = returned(bench, properties, b'{"n": 1}')
    assert report == Report(WARNING, "commands/other.Do came back: 312 NO_ROUTE")
    envelope = {"conversation_id": "c-1", "reply_to": "svc.R", "correlation_id": "k"}
    assert effect == Returned("other.Do", {"n": 1}, envelope, "312 NO_ROUTE")


def test_a_message_that_came_back_and_cannot_be_read_is_reported_all_the_same() -> None:
    bench = opened()
    effect = only(Returned, returned(bench, Basic.Properties(content_type="application/cbor"), b"\xff"))
    assert (effect.name, effect.payload, effect.envelope) == ("other.Do", None, {})
    assert effect.reason.startswith("312 NO_ROUTE; malformed CBOR")


def test_a_message_that_came_back_is_confirmed_and_not_sent_again() -> None:
    bench = opened()
    sent = bench.send(Result("other.R", 1, "c-1", "success", "k"), ticket=1)
    returned(bench, sent.properties, sent.body)
    assert bench.confirm(sent) == [PublishDone(1, None, "312 NO_ROUTE")]
    bench.lose()
    assert of(Publish, bench.open()) == []


def test_a_caller_that_asks_for_it_is_told_of_a_return_and_nobody_else() -> None:
    bench = opened()
    sent = bench.send(Result("other.R", 1, "c-1", "success", "k"), ticket=1, asks_return=True)
    assert returned(bench, sent.properties, sent.body) == []
    assert bench.confirm(sent) == [PublishDone(1, None, "312 NO_ROUTE")]


def test_a_return_of_a_lost_link_is_ignored() -> None:
    bench = opened()
    bench.lose()
    bench.open()
    assert returned(bench, Basic.Properties(), b"", epoch=EPOCH) == []
    assert bench.machine.stale == 1


def test_a_retry_that_came_back_costs_the_link_because_its_queue_is_gone() -> None:
    bench = opened()
    effects = bench.machine.returned(bench.epoch, "", "q.retry.5", Basic.Properties(), b"", "NO_ROUTE", bench.now)
    assert only(Close, effects).reason == "the queue q.retry.5 is gone"


# Effects that failed


@pytest.mark.parametrize(
    "effect",
    [
        Declare(EPOCH, ()),
        Consume(EPOCH, "svc.events", "events"),
        Cancel(EPOCH, "events"),
        make_publish(1),
        Ack(EPOCH, 1, False),
        Nack(EPOCH, 1, True),
    ],
    ids=lambda effect: type(effect).__name__,
)
def test_what_failed_on_the_link_costs_the_link(effect: Effect) -> None:
    bench = opened()
    effects = bench.did(bench.machine.effect_failed(effect, f"{URLS[0]} is gone", bench.now))
    assert kinds(effects) == ["Close", "Report"]
    assert only(Close, effects).reason.endswith(f"failed: {SHOWN[0]} is gone")
    assert type(effect).__name__ in only(Close, effects).reason
    bench.open()
    assert bench.machine.effect_failed(effect, "once more", bench.now) == []
    assert bench.machine.stale == 1


def test_a_publish_that_failed_is_sent_again_on_the_next_link() -> None:
    bench = opened()
    sent = bench.send(ticket=1)
    bench.machine.effect_failed(sent, "no", bench.now)
    assert bench.confirm(*of(Publish, bench.open())) == [PublishDone(1)]


def test_a_dispatch_that_failed_is_a_failed_handler() -> None:
    bench = opened()
    dispatch = only(Dispatch, bench.deliver())
    effects = bench.machine.effect_failed(dispatch, "no thread", bench.now)
    assert kinds(effects) == ["Report", "PublishLog", "Nack"]
    assert records(effects)[0]["short_message"] == "Happened: no thread"
    assert bench.machine.effect_failed(dispatch, "no thread", bench.now) == []


def test_a_close_that_failed_is_a_closed_link() -> None:
    bench = REACH[link.CLOSING]()
    close = only(Close, bench.seen)
    assert kinds(bench.did(bench.machine.effect_failed(close, "no", bench.now))) == ["Stopped"]


@pytest.mark.parametrize(
    ("effect", "name"),
    [
        (Returned("k", None, {}, "no"), "handle_returned_message"),
        (PublishDone(1), "the effect PublishDone"),
        (BufferAvailable(), "the effect BufferAvailable"),
    ],
)
def test_other_effects_that_fail_are_an_alert(effect: Effect, name: str) -> None:
    bench = opened()
    effects = bench.machine.effect_failed(effect, "ValueError: no", bench.now)
    assert kinds(effects) == ["Report", "PublishLog"]
    assert only(Report, effects) == Report(ALERT, f"{name} failed: ValueError: no")
    assert records(effects)[0]["level"] == ALERT
    assert bench.state is link.OPEN


@pytest.mark.parametrize(
    "effect", [PublishLog(EPOCH, "logs", "svc.INFO", Basic.Properties(), b"{}"), Report(INFO, "text")]
)
def test_a_log_that_failed_is_not_answered_by_another_log(effect: Effect) -> None:
    """The next log record would fail as well, and so on for ever."""
    bench = opened()
    effects = bench.machine.effect_failed(effect, "no", bench.now)
    assert of(type(effect), effects) == []


def test_a_connect_that_failed_is_an_attempt_that_failed() -> None:
    bench = Bench()
    connect = bench.connect()
    bench.machine.effect_failed(connect, "no socket", bench.now)
    assert bench.state is link.BACKOFF


@pytest.mark.parametrize("effect", [Connect(EPOCH, "amqp://one/", "n", 20), Stopped("error")])
def test_whatever_failed_does_not_raise(effect: Effect) -> None:
    bench = opened()
    assert of(Report, bench.machine.effect_failed(effect, "no", bench.now))


# Hooks and timers that failed


def test_a_timer_that_failed_is_an_alert_with_its_traceback() -> None:
    bench = opened()
    effects = bench.machine.callback_failed(None, Failed("ValueError: no", "Traceback …"), bench.now)
    assert kinds(effects) == ["Report", "PublishLog"]
    assert only(Report, effects) == Report(ALERT, "a timer failed: ValueError: no\nTraceback …")
    (record,) = records(effects)
    assert (record["level"], record["full_message"]) == (ALERT, "Traceback …")
    assert bench.state is link.OPEN


@pytest.mark.parametrize("effect", [Ready(), Unconfigured()])
def test_a_service_that_cannot_get_ready_stops_and_says_why(effect: Effect) -> None:
    bench = opened()
    effects = bench.did(bench.machine.callback_failed(effect, Failed("KeyError: 'x'"), bench.now))
    assert kinds(effects)[:2] == ["Report", "PublishLog"]
    assert "Close" in kinds(effects)
    text = f"{'on_ready' if isinstance(effect, Ready) else 'on_unconfigured'} failed: KeyError: 'x'"
    assert records(effects)[0]["level"] == EMERGENCY
    assert of(Report, effects)[0] == Report(ALERT, text)
    assert bench.lose("closed") == [Stopped(text)]


def test_the_first_error_is_the_one_that_is_told() -> None:
    bench = opened()
    bench.take()
    bench.machine.callback_failed(Ready(), Failed("first"), bench.now)
    bench.machine.callback_failed(Ready(), Failed("second"), bench.now)
    bench.wait(bench.config.stop_timeout)
    assert only(Stopped, bench.lose()).error == "on_ready failed: first"


@pytest.mark.parametrize(("effect", "hook"), [(Ready(), "on_ready"), (Unconfigured(), "on_unconfigured")])
def test_a_hook_that_a_stop_breaks_off_is_no_error(effect: Effect, hook: str) -> None:
    """What it waited for, such as the confirm of a publish, does not come any more."""
    bench = opened()
    bench.stop()
    effects = bench.did(
        bench.machine.callback_failed(effect, Failed("PublishError: it stopped", "Traceback"), bench.now)
    )
    assert effects == [Report(WARNING, f"{hook} was broken off by the stop: PublishError: it stopped")]
    assert bench.lose("closed") == [Stopped(None)]


@every_state
def test_a_hook_may_fail_in_any_state(state: str) -> None:
    bench = REACH[state]()
    assert of(Report, bench.machine.callback_failed(Ready(), Failed("no"), bench.now))


# Logs


def log(bench: Bench, text: str) -> list[Effect]:
    return bench.did(bench.machine.log(INFO, text, bench.now, conversation_id="c-1", fields={"k": 1}))


def test_logs_go_out_before_during_and_after_a_link() -> None:
    bench = Bench()
    assert log(bench, "before") == []
    bench.open()
    log(bench, "during")
    bench.lose()
    assert log(bench, "between") == []
    bench.open()
    bench.stop()
    bench.lose()
    assert log(bench, "after") == []
    assert [record["short_message"] for record in records(bench.seen)] == ["before", "during", "between"]
    assert [each.epoch for each in of(PublishLog, bench.seen)] == [1, 1, 2]
    assert records(bench.seen)[0]["_conversation_id"] == "c-1"
    assert records(bench.seen)[0]["_k"] == 1


def test_logs_are_not_held_by_handlers_nor_by_alarms() -> None:
    bench = opened()
    bench.take()
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    assert kinds(log(bench, "text")) == ["PublishLog"]


def test_a_log_does_not_fail_because_of_what_it_reports() -> None:
    bench = opened()
    assert bench.machine.log(INFO, "text", bench.now, fields={"k": {(1, 2): 3}})


def test_the_time_stamps_of_logs_follow_a_clock_that_is_set() -> None:
    """Not what lies between two readings of the clocks: records stay in order."""
    offset = 1000.0
    machine = Machine(config(), random=lambda: 0.5, token="tok", wall_offset=lambda: offset)
    stamps: list[float] = []
    for step in (0.0, -0.05, 0.05, 3600.0, -0.05, -7200.0):
        offset += step
        machine.log(INFO, "text", 1.0)
        stamps.append(json.loads(machine._logs._kept[-1][1])["timestamp"])
    assert stamps == [1001.0, 1001.0, 1001.0, 4601.0, 4601.0, offset + 1.0]


# Rule R1


WRONG: dict[str, Callable[[Bench], object]] = {
    "a log level": lambda bench: bench.machine.log(9, "text", bench.now),
    "a field of a log": lambda bench: bench.machine.log(INFO, "text", bench.now, fields={"id": 1}),
    "a log to publish": lambda bench: bench.publish(LogRecord("svc.INFO", {}, "")),
    "no name": lambda bench: bench.publish(Event("", None, "c-1")),
    "a long name": lambda bench: bench.publish(Event("x" * 256, None, "c-1")),
    "no text": lambda bench: bench.publish(Event("Told", None, None)),  # type: ignore[arg-type]  # that is the test
    "a payload": lambda bench: bench.publish(Event("Told", object(), "c-1")),
    "a header": lambda bench: bench.publish(Event("Told", None, "c-1", {"k": object()})),
    "a status": lambda bench: bench.publish(Result("svc.R", None, "c-1", "fine", "k")),
    "within": lambda bench: bench.publish(Event("Told", object(), "c-1"), within=delivered(bench), ticket=1),
    "to acknowledge nonsense": lambda bench: bench.ack(DeliveryId(-1)),
    "to reject nonsense": lambda bench: bench.nack(DeliveryId(-1), multiple=True),
    "to fail nonsense": lambda bench: bench.machine.failed(DeliveryId(-1), Failed("no"), bench.now),
    "an outcome": lambda bench: bench.handled(delivered(bench), Failed("no", level=9)),
}


def delivered(bench: Bench) -> DeliveryId:
    return of(Dispatch, bench.seen)[-1].delivery


@every_state
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_local_call_leaves_the_machine_as_it_was(state: str, wrong: str) -> None:
    if wrong in ("within", "an outcome") and state not in (link.OPEN, link.DRAINING):
        state = link.OPEN
    bench = REACH[state]()
    if state is link.OPEN:
        bench.publish(within=bench.take())
        bench.send(ticket=1)
    before = snapshot(bench.machine)
    with pytest.raises(LocalError):
        WRONG[wrong](bench)
    assert snapshot(bench.machine) == before


def test_a_full_buffer_changes_nothing_but_that_somebody_waits() -> None:
    bench = opened(buffer=1)
    bench.send()
    before = snapshot(bench.machine)
    with pytest.raises(BufferFull):
        bench.publish()
    bench.machine._starved = bench.machine._outbox.wanted = False
    assert snapshot(bench.machine) == before


def test_a_snapshot_sees_every_change() -> None:
    """Otherwise the tests above would prove nothing."""
    bench = opened()
    before = snapshot(bench.machine)
    for change in (bench.take, bench.publish, lambda: bench.stop(9.0)):
        change()
        after = snapshot(bench.machine)
        assert after != before
        before = after
    assert snapshot(config()) != snapshot(config())  # told apart by identity: they never change
