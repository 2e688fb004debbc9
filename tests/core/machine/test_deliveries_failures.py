"""Failures: retries, dead letters (invariant I4), what is logged of them, and what does not count as one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from eda_core.criticality import ALERT, EMERGENCY, ERROR
from eda_core.errors import NoHandler, Reject
from eda_core.machine.effects import Ack, Declare, Dispatch, Effect, Nack, Publish, PublishLog, Report
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.outcomes import DEFERRED, DONE, Failed, failure
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.headers import DELIVERY_COUNT_HEADER
from eda_core.messages.values import Event
from tests.core.kit import REJECTED, WALL, Bench, kinds, of, only, opened

FAILED = Failed("ValueError: no", "Traceback …\nValueError: no")


def records(effects: list[Effect]) -> list[dict[str, Any]]:
    return [json.loads(log.body) for log in of(PublishLog, effects)]


def fail(bench: Bench, outcome: Failed = FAILED, **fields: Any) -> list[Effect]:
    return bench.handled(bench.take(**fields), outcome)


def cut_off(bench: Bench, *deliveries: DeliveryId) -> None:
    """Lose the link. The handlers end before there is a new one."""
    bench.lose()
    for delivery in deliveries:
        bench.handled(delivery)
    bench.open()


# The policy


def test_the_first_failure_sends_the_message_back_and_the_second_to_the_dead_letters() -> None:
    bench = opened()
    assert only(Nack, fail(bench, message_id="m")) == Nack(bench.epoch, 1, True)
    assert only(Nack, fail(bench, message_id="m", redelivered=True)) == Nack(bench.epoch, 2, False)


@pytest.mark.parametrize("count", [0, 1, 19])
def test_a_count_on_a_first_delivery_is_no_count_of_this_queue(count: int) -> None:
    """The message brought it along from another queue."""
    headers = {"conversation_id": "c", DELIVERY_COUNT_HEADER: count}
    assert only(Nack, fail(opened(), message_id="m", headers=headers)).requeue


def test_a_first_delivery_is_the_first_attempt_whatever_is_remembered() -> None:
    bench = opened()
    fail(bench, message_id="m")
    assert records(fail(bench, message_id="m"))[0]["_attempt"] == 1


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("identified", [True, False])
def test_poison_is_dead_lettered_after_exactly_the_attempts_of_the_policy(attempts: int, identified: bool) -> None:
    bench = opened(retry=RetryPolicy(attempts))
    message_id = "m" if identified else None
    requeued = [
        only(Nack, fail(bench, message_id=message_id, redelivered=attempt > 1)).requeue
        for attempt in range(1, attempts + 1)
    ]
    assert requeued == [True] * (attempts - 1) + [False]


@pytest.mark.parametrize("end", ["success", "dead letter"])
def test_what_is_settled_for_good_is_forgotten(end: str) -> None:
    """If the message comes again all the same, republished by a tool, this worker knows nothing of it."""
    bench = opened(retry=RetryPolicy(9))
    for attempt in (1, 2, 3):
        effects = fail(bench, message_id="m", redelivered=attempt > 1)
        assert records(effects)[0]["_attempt"] == attempt
    delivery = bench.take(message_id="m", redelivered=True)
    bench.handled(delivery, DONE if end == "success" else Failed("no", permanent=True))
    assert records(fail(bench, message_id="m", redelivered=True))[0]["_attempt"] == 1


def test_a_redelivery_that_this_worker_knows_nothing_of_was_lost_elsewhere_and_has_not_failed() -> None:
    """A worker was killed, or a link was lost before the worker had read what was on its way."""
    bench = opened()
    assert only(Nack, fail(bench, message_id="m", redelivered=True)).requeue
    assert not only(Nack, fail(bench, message_id="m", redelivered=True)).requeue


@pytest.mark.parametrize(
    ("headers", "gone"),
    [
        ({"x-delivery-count": 3, "x-acquired-count": 3}, False),
        ({"x-delivery-count": 4, "x-acquired-count": 4}, True),
        ({"x-delivery-count": 3, "x-acquired-count": 4}, False),  # one of them was a failure
        ({"x-delivery-count": 4}, False),  # one of them may have been a failure
        ({"x-delivery-count": 5}, True),
    ],
)
def test_a_message_that_is_lost_too_often_is_dead_lettered_without_an_attempt(
    headers: dict[str, Any], gone: bool
) -> None:
    """It may kill each of its workers."""
    bench = opened(retry=RetryPolicy(2, max_losses=3))
    effects = bench.deliver(headers={"conversation_id": "c-1", **headers}, redelivered=True)
    assert (of(Dispatch, effects) == []) is gone
    if gone:
        assert only(Nack, effects) == Nack(bench.epoch, 1, False)
        lost = headers["x-delivery-count"] - ("x-acquired-count" not in headers)
        reason = f"lost {lost} times with its connection or its worker, 3 are allowed"
        alert, emergency = records(effects)
        assert (alert["short_message"], alert["_outcome"]) == (f"Happened: {reason}", "dead-letter")
        assert emergency["short_message"].startswith("giving up on Happened after ")


def test_a_message_that_may_not_be_lost_at_all_is_dead_lettered_after_its_first_loss() -> None:
    bench = opened(retry=RetryPolicy(max_losses=0))
    headers = {"conversation_id": "c-1", "x-delivery-count": 1, "x-acquired-count": 1}
    effects = bench.deliver(headers=headers, redelivered=True)
    assert kinds(effects) == ["Report", "PublishLog", "Report", "PublishLog", "Nack"]
    assert (
        of(Report, effects)[1].text == f"giving up on Happened after 0 attempt(s): {REJECTED}; its message_id is id-1-1"
    )


def test_a_redelivery_after_a_lost_link_is_not_taken_for_a_failure() -> None:
    """eventail dead-letters at the first error after a dropped connection."""
    bench = opened()
    cut_off(bench, bench.take(message_id="m"))
    assert only(Nack, fail(bench, message_id="m", redelivered=True)).requeue
    assert not only(Nack, fail(bench, message_id="m", redelivered=True)).requeue


@pytest.mark.parametrize("redelivered", [True, False])
def test_what_is_remembered_counts_for_a_redelivery_only(redelivered: bool) -> None:
    """Otherwise a tool has republished it, after another worker had dead-lettered it."""
    bench = opened(retry=RetryPolicy.backoff(3))
    tried = {"attempt": 2, "origin_exchange": "events", "origin_routing_key": "Happened", "conversation_id": "c-1"}
    cut_off(bench, bench.take("svc.events", exchange="", message_id="m", headers=tried))
    effects = fail(bench, message_id="m", redelivered=redelivered)
    assert len(of(Nack, effects)) == redelivered
    assert [(publish.properties.headers or {})["attempt"] for publish in of(Publish, effects)] == [1][redelivered:]


def test_a_lost_link_is_no_failure_of_any_of_many_messages() -> None:
    bench = opened(prefetch=5000)
    cut_off(bench, *(bench.take(message_id=f"m-{number}") for number in range(5000)))
    assert only(Nack, fail(bench, message_id="m-0", redelivered=True)).requeue


def test_a_lost_link_keeps_the_failures_before_it() -> None:
    bench = opened()
    fail(bench, message_id="m")
    cut_off(bench, bench.take(message_id="m", redelivered=True))
    assert not only(Nack, fail(bench, message_id="m", redelivered=True)).requeue


@pytest.mark.parametrize(("count", "requeue"), [(0, True), (1, False), (7, False)])
def test_a_quorum_queue_counts_the_deliveries_itself(count: int, requeue: bool) -> None:
    bench = opened()
    headers = {"conversation_id": "c-1", "x-delivery-count": count}
    assert only(Nack, fail(bench, headers=headers, redelivered=count > 0)).requeue is requeue


def test_the_failures_of_one_conversation_are_not_those_of_another_that_says_the_same() -> None:
    """The messages of eventail have no message id."""
    bench = opened(retry=RetryPolicy(3))
    same: dict[str, Any] = {"message_id": None, "body": b"\xa0"}
    for name in ("c-1", "c-2"):
        assert only(Nack, fail(bench, headers={"conversation_id": name}, **same)).requeue
    for name in ("c-1", "c-2"):
        assert only(Nack, fail(bench, headers={"conversation_id": name}, redelivered=True, **same)).requeue


def test_a_lost_link_is_no_failure_on_a_quorum_queue_either() -> None:
    bench = opened()
    cut_off(bench, bench.take(message_id="m"))
    headers = {"conversation_id": "c-1", "x-delivery-count": 1}
    assert only(Nack, fail(bench, message_id="m", headers=headers, redelivered=True)).requeue


def test_a_message_sent_back_by_hand_has_been_tried() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.handled(delivery, DEFERRED)
    bench.nack(delivery, requeue=True)
    assert not only(Nack, fail(bench, message_id="m", redelivered=True)).requeue


# What is logged


def test_a_failure_is_an_alert_with_its_traceback_on_the_bus_and_in_the_local_log() -> None:
    bench = opened()
    effects = fail(bench)
    assert kinds(effects) == ["Report", "PublishLog", "Nack"]
    assert only(Report, effects) == Report(ALERT, f"Happened: ValueError: no\n{FAILED.detail}")
    log = only(PublishLog, effects)
    assert (log.routing_key, log.epoch) == ("svc.ALERT", bench.epoch)
    assert records(effects) == [
        {
            "version": "1.1",
            "host": "svc@box",
            "short_message": "Happened: ValueError: no",
            "full_message": FAILED.detail,
            "timestamp": WALL + bench.now,
            "level": ALERT,
            "_levelname": "ALERT",
            "_conversation_id": "c-1",
            "_logical_service": "svc",
            "_worker_pid": 7,
            "_outcome": "retry",
            "_routing_key": "Happened",
            "_attempt": 1,
        }
    ]


def test_giving_up_is_an_emergency() -> None:
    bench = opened()
    fail(bench, message_id="m")
    effects = fail(bench, message_id="m", redelivered=True)
    assert kinds(effects) == ["Report", "PublishLog", "Report", "PublishLog", "Nack"]
    text = f"giving up on Happened after 2 attempt(s): {REJECTED}; its message_id is m"
    assert of(Report, effects)[1] == Report(EMERGENCY, text)
    alert, emergency = records(effects)
    assert (alert["level"], alert["_outcome"], alert["_attempt"]) == (ALERT, "dead-letter", 2)
    assert [log.routing_key for log in of(PublishLog, effects)] == ["svc.ALERT", "svc.EMERGENCY"]
    assert (emergency["level"], emergency["short_message"]) == (EMERGENCY, text)
    assert alert["full_message"] == FAILED.detail
    assert emergency["full_message"] == FAILED.reason, "the traceback is in the record of the failure"
    assert (emergency["_outcome"], emergency["_routing_key"], emergency["_attempt"]) == ("dead-letter", "Happened", 2)
    assert emergency["_conversation_id"] == "c-1"


def test_a_message_without_a_handler_is_an_error_and_dead_lettered_at_once() -> None:
    bench = opened()
    effects = fail(bench, failure(NoHandler("unexpected event Happened: Svc has handlers for Other")))
    assert not only(Nack, effects).requeue
    assert of(Report, effects)[0] == Report(ERROR, "Happened: unexpected event Happened: Svc has handlers for Other")
    first, second = records(effects)
    assert (first["level"], first["_outcome"]) == (ERROR, "dead-letter")
    assert second["level"] == EMERGENCY


def test_a_rejected_message_is_dead_lettered_at_once() -> None:
    bench = opened(retry=RetryPolicy(5))
    effects = fail(bench, failure(Reject("no such customer")))
    assert not only(Nack, effects).requeue
    alert, emergency = records(effects)
    assert alert["short_message"] == "Happened: Reject: no such customer"
    assert (alert["level"], emergency["level"]) == (ALERT, EMERGENCY)


@pytest.mark.parametrize(
    ("fields", "reason", "conversation"),
    [
        ({"headers": {}}, "no conversation_id in the headers", ""),
        ({"body": b"\xff"}, "malformed CBOR", "c-1"),
        ({"exchange": "commands"}, "neither reply_to nor status", "c-1"),
        ({"exchange": "amq.topic"}, "exchange 'amq.topic' is not one of the architecture", "c-1"),
        ({"unreadable": "the property type is not UTF-8"}, "the property type is not UTF-8", "c-1"),
        ({"unreadable": "the property headers is malformed", "headers": {}}, "the property headers is malformed", ""),
        (
            {"unreadable": "the property headers is malformed", "headers": {"conversation_id": 7}},
            "the property headers is malformed",
            "",
        ),
    ],
)
def test_an_invalid_message_is_an_emergency_and_dead_lettered_unseen(
    fields: dict[str, Any], reason: str, conversation: str
) -> None:
    bench = opened()
    effects = bench.deliver(**fields)
    assert kinds(effects) == ["Report", "PublishLog", "Nack"]
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    report = only(Report, effects)
    assert report.level == EMERGENCY
    assert report.text.startswith(f"invalid message {fields.get('exchange', 'events')}/Happened: {reason}")
    assert report.text.endswith(f": {REJECTED}")
    (record,) = records(effects)
    assert (record["level"], record["short_message"]) == (EMERGENCY, report.text)
    assert (record["_outcome"], record["_routing_key"]) == ("dead-letter", "Happened")
    assert record["_conversation_id"] == conversation


def test_an_invalid_message_does_not_disturb_the_acknowledgements_around_it() -> None:
    bench = opened()
    first = bench.take()
    bench.deliver(headers={})
    third = bench.take()
    bench.publish(within=first)
    bench.publish(within=third)
    sent = [*of(Publish, bench.handled(first)), *of(Publish, bench.handled(third))]
    assert bench.confirm(sent[1], multiple=True) == [Ack(bench.epoch, 3, True)]


# Delayed retries


def test_a_delayed_retry_is_published_to_its_queue_and_then_acknowledged() -> None:
    bench = opened(retry=RetryPolicy(3, (1.0, 60.0)))
    effects = fail(bench, payload={"n": 1}, message_id="m", correlation_id="k")
    assert kinds(effects) == ["Report", "PublishLog", "Publish"]
    copy = only(Publish, effects)
    assert (copy.exchange, copy.routing_key, copy.mandatory) == ("", "svc.events.retry.1000", True)
    assert copy.properties.headers == {
        "conversation_id": "c-1",
        "attempt": 1,
        "origin_exchange": "events",
        "origin_routing_key": "Happened",
    }
    assert (copy.properties.message_id, copy.properties.correlation_id) == ("m", "k")
    assert records(effects)[0]["_outcome"] == "retry"
    assert of(Ack, bench.seen) == []
    assert bench.confirm(copy) == [Ack(bench.epoch, 1, False)]


def come_back(bench: Bench, copy: Publish) -> list[Effect]:
    """After the delay the broker puts the copy straight into the service's queue."""
    tag = 1 + max((dispatch.delivery for dispatch in of(Dispatch, bench.seen)), default=0) % 2**48
    queue = copy.routing_key.partition(".retry.")[0]
    return bench.did(bench.machine.delivered(bench.epoch, tag, False, "", queue, copy.properties, copy.body, bench.now))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Happened", {}),
        ("svc.Do", {"exchange": "commands", "reply_to": "me.R"}),
        ("svc.R", {"exchange": "commands", "headers": {"conversation_id": "c-1", "status": "success"}}),
    ],
)
def test_poison_with_delays_is_dead_lettered_after_exactly_the_attempts_of_the_policy(
    name: str, fields: dict[str, Any]
) -> None:
    bench = opened(retry=RetryPolicy(3, (1.0, 60.0)))
    original = only(Dispatch, bench.deliver(name, {"n": 1}, **fields))
    effects = bench.handled(original.delivery, FAILED)
    queues = []
    for _ in range(2):
        copy = only(Publish, effects)
        queues.append(copy.routing_key)
        bench.confirm(copy)
        dispatch = only(Dispatch, come_back(bench, copy))
        assert type(dispatch.message) is type(original.message)
        assert (dispatch.message.name, dispatch.message.payload) == (name, {"n": 1})
        effects = bench.handled(dispatch.delivery, FAILED)
    queue = f"svc.{fields.get('exchange', 'events')}"
    assert queues == [f"{queue}.retry.1000", f"{queue}.retry.60000"]
    assert not only(Nack, effects).requeue
    assert [record["_attempt"] for record in records(effects)] == [3, 3]


def test_with_delays_a_redelivery_is_no_attempt() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)))
    assert of(Publish, fail(bench, redelivered=True))


def test_a_delayed_retry_takes_the_place_of_what_the_handler_had_published() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)), buffer=2)
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.publish(within=delivery)
    copy = only(Publish, bench.handled(delivery, FAILED))
    assert "1 to publish" in repr(bench.machine)
    bench.confirm(copy)
    assert "0 to publish" in repr(bench.machine)


def test_a_delayed_retry_goes_out_though_the_buffer_is_full() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)), buffer=1)
    delivery = bench.take()
    bench.publish()
    assert only(Publish, bench.handled(delivery, FAILED)).exchange == ""


def test_a_delayed_retry_that_was_under_way_when_the_link_was_lost_is_made_by_the_redelivery() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)))
    fail(bench)
    bench.lose()
    assert of(Publish, bench.open()) == []


def test_a_lost_link_is_no_failure_of_a_copy_either() -> None:
    bench = opened(retry=RetryPolicy(4, (1.0,)))
    copy = only(Publish, fail(bench, message_id="m"))
    bench.confirm(copy)
    cut_off(bench, only(Dispatch, come_back(bench, copy)).delivery)
    again = bench.did(
        bench.machine.delivered(bench.epoch, 1, True, "", "svc.events", copy.properties, copy.body, bench.now)
    )
    effects = bench.handled(only(Dispatch, again).delivery, FAILED)
    assert records(effects)[0]["_attempt"] == 2


def test_a_refused_delayed_retry_is_sent_again_and_its_source_waits() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)), retry_delay=5.0)
    bench.refuse(only(Publish, fail(bench)))
    again = only(Publish, bench.due())
    assert again.exchange == ""
    assert bench.confirm(again) == [Ack(bench.epoch, 1, False)]


def test_a_retry_queue_that_is_gone_leads_to_a_new_link_which_declares_it_again() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)))
    copy = only(Publish, fail(bench))
    effects = bench.machine.returned(
        bench.epoch, "", copy.routing_key, copy.properties, copy.body, "NO_ROUTE", bench.now
    )
    assert kinds(effects) == ["Close", "Report"]
    assert bench.machine.confirmed(Epoch(1), copy.tag, bench.now) == []  # the confirm that follows the return
    assert of(Ack, bench.seen) == []
    bench.open()
    declared = {
        command.queue: command.arguments
        for declare in of(Declare, bench.seen)
        for command in declare.commands
        if isinstance(command, Queue.Declare)
    }
    assert declared["svc.events.retry.1000"]["x-message-ttl"] == 1000


def test_headers_that_cannot_be_written_again_send_the_message_straight_back() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)))
    headers = {"conversation_id": "c-1", "odd": object()}
    assert only(Nack, fail(bench, headers=headers)).requeue


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"configurations": ["Settings"]}, {"name": "Settings", "exchange": "configurations"}),
        ({"exclusive_queues": True}, {}),
        ({}, {"headers": {"conversation_id": "c-1", "odd": object()}}),
    ],
)
def test_what_cannot_be_delayed_is_dead_lettered_after_its_attempts_too(
    settings: dict[str, Any], fields: dict[str, Any]
) -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)), **settings)
    assert only(Nack, fail(bench, message_id="m", **fields)).requeue
    assert not only(Nack, fail(bench, message_id="m", redelivered=True, **fields)).requeue


def test_a_message_that_claims_an_origin_the_service_has_no_queue_for_does_not_raise() -> None:
    """A tool or an operator can put it straight into the queue of commands."""
    bench = opened(events=[], retry=RetryPolicy(2, (1.0,)))
    headers = {"conversation_id": "c-1", "origin_exchange": "events", "origin_routing_key": "Happened"}
    delivery = bench.take("svc.commands", exchange="", headers=headers)
    assert isinstance(of(Dispatch, bench.seen)[0].message, Event)
    bench.handled(delivery, FAILED)


# Counted retries


COUNTED = RetryPolicy(3, counted=True)


def test_a_failure_that_counts_is_published_to_the_end_of_its_own_queue_and_then_acknowledged() -> None:
    bench = opened(retry=COUNTED)
    effects = fail(bench, payload={"n": 1}, message_id="m", correlation_id="k")
    assert kinds(effects) == ["Report", "PublishLog", "Publish"]
    copy = only(Publish, effects)
    assert (copy.exchange, copy.routing_key, copy.mandatory) == ("", "svc.events", True)
    assert copy.properties.headers == {
        "conversation_id": "c-1",
        "attempt": 1,
        "origin_exchange": "events",
        "origin_routing_key": "Happened",
    }
    assert (copy.properties.message_id, copy.properties.correlation_id) == ("m", "k")
    assert bench.confirm(copy) == [Ack(bench.epoch, 1, False)]


@pytest.mark.parametrize("headers", [{}, {"x-delivery-count": 2}, {"x-acquired-count": 2, "x-delivery-count": 2}])
def test_failures_are_counted_over_workers_and_losses_are_none(headers: dict[str, Any]) -> None:
    """Each attempt is that of another worker, and in between the message is lost with a killed one."""
    first, second, third = (opened(retry=COUNTED) for _ in range(3))
    copy = only(Publish, fail(first, message_id="m"))
    for bench, last in ((second, False), (third, True)):
        sent = copy.properties
        properties = Basic.Properties(sent.content_type, headers={**(sent.headers or {}), **headers}, message_id="m")
        args = ("", "svc.events", properties, copy.body, bench.now)
        dispatch = only(Dispatch, bench.did(bench.machine.delivered(bench.epoch, 1, True, *args)))
        assert (dispatch.message.name, type(dispatch.message)) == ("Happened", Event)
        effects = bench.handled(dispatch.delivery, FAILED)
        assert len(of(Nack, effects)) == last
        assert records(effects)[0]["_attempt"] == 2 + last
        copy = (of(Publish, effects) or [copy])[0]


def test_a_message_that_cannot_be_counted_is_given_back() -> None:
    bench = opened(retry=COUNTED)
    headers = {"conversation_id": "c-1", "x-odd": object()}
    assert only(Nack, fail(bench, headers=headers, message_id="m")).requeue


def test_a_counted_copy_that_came_back_makes_a_new_link() -> None:
    bench = opened(retry=COUNTED)
    copy = only(Publish, fail(bench))
    effects = bench.machine.returned(bench.epoch, "", "svc.events", copy.properties, copy.body, "NO_ROUTE", bench.now)
    assert "the queue svc.events is gone" in of(Report, effects)[0].text
