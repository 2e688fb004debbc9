"""Receiving: dispatch, the outbox of each delivery, and when a delivery is acknowledged."""

from __future__ import annotations

import json

import pytest
from pamqp.commands import Basic

from eda_core.errors import BufferFull, LocalError
from eda_core.machine import deliveries as life
from eda_core.machine import link
from eda_core.machine.attempts import History
from eda_core.machine.effects import (
    Ack,
    BufferAvailable,
    Cancel,
    Consume,
    Dispatch,
    Effect,
    Nack,
    Publish,
    PublishDone,
    PublishLog,
    Ready,
    Report,
    Unconfigured,
)
from eda_core.machine.identifiers import Epoch, delivery_id
from eda_core.machine.outcomes import CONFIGURED, DEFERRED, DONE, Failed
from eda_core.messages.values import Command, Configuration, Event, LogRecord, Result
from tests.core.kit import Bench, kinds, of, only, opened, snapshot
from tests.core.machine.states import REACH

FAILED = Failed("ValueError: no")


# Dispatch


def test_each_kind_of_message_is_dispatched_as_what_it_is() -> None:
    bench = opened(configurations=["#"], logs=["#"])
    bench.deliver("Happened", {"n": 1})
    bench.deliver("svc.Do", 2, exchange="commands", reply_to="me.R", correlation_id="k")
    status = {"conversation_id": "c-1", "status": "error"}
    bench.deliver("svc.R", 3, exchange="commands", headers=status, correlation_id="k")
    bench.deliver("Settings", 4, exchange="configurations", headers={})
    bench.deliver("svc.INFO", exchange="logs", headers={}, body=b'{"_conversation_id": "c-2"}')
    messages = [dispatch.message for dispatch in of(Dispatch, bench.seen)]
    assert [type(message) for message in messages] == [Event, Command, Result, Configuration, LogRecord]
    assert [message.name for message in messages] == ["Happened", "svc.Do", "svc.R", "Settings", "svc.INFO"]
    assert [message.conversation_id for message in messages] == ["c-1", "c-1", "c-1", "", "c-2"]


def test_the_delivery_tag_in_meta_is_the_identifier_of_the_delivery() -> None:
    bench = opened()
    dispatch = only(Dispatch, bench.deliver())
    assert dispatch.message.meta["delivery_tag"] == dispatch.delivery
    assert bench.machine.in_flight(dispatch.delivery)


def test_identifiers_of_different_links_differ_though_the_brokers_tags_are_the_same() -> None:
    bench = opened()
    first = bench.take()
    bench.lose()
    bench.open()
    second = bench.take()
    assert first != second
    assert not bench.machine.in_flight(first)


def test_a_tag_that_was_used_before_is_ignored() -> None:
    bench = opened()
    bench.deliver(tag=3)
    for tag in (3, 2, 0):
        assert bench.deliver(tag=tag) == []
    assert bench.machine.stale == 3
    assert only(Ack, bench.handled(only(Dispatch, bench.seen).delivery)).tag == 3


@pytest.mark.parametrize("state", [state for state in link.STATES if state not in (link.OPEN, link.DRAINING)])
def test_a_delivery_without_a_link_to_settle_it_on_is_ignored(state: str) -> None:
    bench = REACH[state]()
    assert bench.deliver() == []
    assert bench.machine.stale == 1


# Acknowledging: invariant I1


def test_success_without_publishes_is_acknowledged_at_once() -> None:
    bench = opened()
    assert bench.handled(bench.take()) == [Ack(bench.epoch, 1, False)]


def test_success_is_acknowledged_after_all_that_was_published_is_confirmed() -> None:
    bench = opened()
    delivery = bench.take()
    for _ in range(3):
        bench.publish(within=delivery)
    first, second, third = of(Publish, bench.handled(delivery))
    assert bench.confirm(third) == []
    assert bench.confirm(first) == []
    assert bench.confirm(second) == [Ack(bench.epoch, 1, False)]
    assert bench.confirm(first, second, third) == []


def test_one_confirm_for_many_settles_all_their_deliveries_with_one_acknowledgement() -> None:
    bench = opened()
    publishes = []
    for _ in range(3):
        delivery = bench.take()
        bench.publish(within=delivery)
        publishes += of(Publish, bench.handled(delivery))
    assert bench.confirm(publishes[-1], multiple=True) == [Ack(bench.epoch, 3, True)]


def test_only_the_deliverys_own_publishes_hold_its_acknowledgement() -> None:
    """eventail waits until no publish at all is unconfirmed, which may never be so under load."""
    bench = opened()
    bench.send()
    slow, quick = bench.take(), bench.take()
    bench.publish(within=slow)
    bench.handled(slow)
    assert bench.handled(quick) == [Ack(bench.epoch, 2, False)]


def test_a_slow_handler_does_not_hold_up_the_acknowledgements_of_others() -> None:
    bench = opened()
    slow = bench.take()
    for tag in (2, 3, 4):
        assert bench.handled(bench.take()) == [Ack(bench.epoch, tag, False)]
    assert bench.handled(slow) == [Ack(bench.epoch, 1, False)]


def test_an_immediate_publish_goes_out_at_once_and_holds_the_acknowledgement_too() -> None:
    bench = opened()
    delivery = bench.take()
    progress = bench.send(within=delivery, immediate=True)
    bench.publish(within=delivery)
    held = only(Publish, bench.handled(delivery))
    assert bench.confirm(held) == []
    assert bench.confirm(progress) == [Ack(bench.epoch, 1, False)]


def test_an_immediate_publish_confirmed_while_the_handler_runs_holds_nothing() -> None:
    bench = opened()
    delivery = bench.take()
    assert bench.confirm(bench.send(within=delivery, immediate=True)) == []
    assert bench.handled(delivery) == [Ack(bench.epoch, 1, False)]


def test_a_refused_publish_holds_the_acknowledgement_until_it_is_accepted() -> None:
    """eventail never acknowledges its source."""
    bench = opened(retry_delay=5.0)
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.refuse(only(Publish, bench.handled(delivery)))
    again = only(Publish, bench.due())
    assert of(Ack, bench.seen) == []
    assert bench.confirm(again) == [Ack(bench.epoch, 1, False)]


# The outbox of each delivery: rule R6


def test_what_a_handler_publishes_is_held_until_it_succeeds_and_keeps_its_order() -> None:
    bench = opened()
    one, two = bench.take(), bench.take()
    for number, delivery in enumerate((one, two, one)):
        assert bench.publish(Event("Told", number, "c-1"), within=delivery) == []
    assert [publish.pid for publish in of(Publish, bench.handled(two))] == [2]
    assert [publish.pid for publish in of(Publish, bench.handled(one))] == [1, 3]


def test_a_handler_that_fails_publishes_nothing() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery, FAILED)
    assert of(Publish, bench.seen) == []
    assert "0 to publish" in repr(bench.machine)


def test_a_handler_that_fails_has_made_its_immediate_publishes_all_the_same() -> None:
    bench = opened()
    delivery = bench.take()
    progress = bench.send(within=delivery, immediate=True)
    assert only(Nack, bench.handled(delivery, FAILED)).requeue
    assert bench.confirm(progress) == []


def test_what_a_handler_holds_takes_no_space_from_others() -> None:
    bench = opened(buffer=1, held=2)
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.publish(within=delivery)
    sent = bench.send()
    assert len(of(Publish, bench.handled(delivery))) == 2, "sent beyond the buffer: want of space fails no delivery"
    with pytest.raises(BufferFull) as full:
        bench.publish()
    assert full.value.temporary
    assert of(BufferAvailable, bench.confirm(sent)) == []


def test_a_handler_begins_only_when_there_is_space_for_what_it_may_publish() -> None:
    bench = opened(buffer=2)
    first, second = bench.send(), bench.send()
    assert bench.deliver(tag=1) == bench.deliver(tag=2) == []
    assert not bench.machine.in_flight(delivery_id(bench.epoch, 1)), "nobody has seen it yet"
    effects = bench.confirm(first)
    assert [dispatch.delivery for dispatch in of(Dispatch, effects)] == [
        delivery_id(bench.epoch, tag) for tag in (1, 2)
    ]
    bench.publish()
    assert bench.deliver(tag=3) == []
    assert of(Dispatch, bench.confirm(second))


def test_those_that_wait_for_space_keep_their_order() -> None:
    bench = opened(buffer=1)
    sent = bench.send()
    bench.deliver(tag=1)
    bench.deliver(tag=2)
    ((_, first), (_, second)) = ((each, each.delivery) for each in of(Dispatch, bench.confirm(sent)))
    assert (first, second) == (delivery_id(bench.epoch, 1), delivery_id(bench.epoch, 2))


def test_a_message_that_waits_for_space_cannot_be_settled() -> None:
    bench = opened(buffer=1)
    bench.send()
    bench.deliver(tag=1)
    with pytest.raises(LocalError, match="is settled already"):
        bench.ack(delivery_id(bench.epoch, 1))
    assert bench.handled(delivery_id(bench.epoch, 1)) == []


def test_a_stop_gives_back_what_waits_for_space_and_that_counts_as_no_attempt() -> None:
    bench = opened(buffer=1)
    sent = bench.send()
    bench.deliver(tag=1, message_id="m")
    assert only(Nack, bench.stop()) == Nack(bench.epoch, 1, True)
    assert kinds(bench.confirm(sent)) == ["Close"]
    assert bench.machine._deliveries._memory.known["m"] == History(losses=1)


def test_a_lost_link_takes_along_what_waits_for_space() -> None:
    bench = opened(buffer=1)
    bench.send()
    bench.deliver(tag=1, message_id="m")
    bench.lose()
    again = only(Publish, bench.open())
    assert of(Dispatch, bench.confirm(again)) == []
    assert bench.machine._deliveries._memory.known["m"] == History(losses=1)


def test_a_second_outcome_of_the_same_handler_is_ignored() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery)
    assert bench.handled(delivery) == []
    assert bench.handled(delivery, FAILED) == []
    assert bench.machine.stale == 2


def test_a_deferred_acknowledgement_does_not_hold_the_publishes() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    assert kinds(bench.handled(delivery, DEFERRED)) == ["Publish"]


# Lost links


def test_a_lost_link_forgets_what_the_redelivery_makes_again_and_keeps_the_rest() -> None:
    bench = opened()
    held, waiting = bench.take(), bench.take()
    bench.publish(Event("Held", None, "c-1"), within=held)
    bench.publish(Event("Unconfirmed", None, "c-1"), within=waiting)
    bench.publish(Event("Progress", None, "c-1"), within=held, immediate=True)
    bench.publish(Event("Outside", None, "c-1"))
    bench.handled(waiting)
    bench.lose()
    again = of(Publish, bench.open())
    assert [publish.routing_key for publish in again] == ["Progress", "Outside"]
    assert [publish.delivery for publish in again] == [held, None], "the handler of the first one may go on"
    assert bench.confirm(*again) == []


def test_a_handler_that_ends_after_its_link_was_lost_settles_nothing() -> None:
    bench = opened()
    delivery = bench.take()
    bench.lose()
    bench.open()
    bench.take()
    assert bench.handled(delivery) == []
    assert bench.machine.stale == 1


def test_a_handler_publishes_nothing_after_its_link_was_lost_because_its_redelivery_will() -> None:
    bench = opened()
    delivery = bench.take()
    bench.lose()
    bench.open()
    assert bench.publish(within=delivery) == []
    assert "0 to publish" in repr(bench.machine)
    bench.handled(delivery)
    assert of(Publish, bench.publish(within=delivery))  # the handler is over: that is outside


def test_what_arrives_while_draining_goes_back_to_the_queue_unread() -> None:
    bench = opened()
    bench.take()
    bench.stop()
    assert bench.deliver() == [Nack(bench.epoch, 2, True)]
    assert bench.deliver(tag=2) == []


def test_what_was_never_confirmed_when_the_service_ends_is_reported() -> None:
    """The publishes of a handler are not reported: its message goes back to its queue."""
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery)
    bench.send(ticket=4)
    bench.send()
    bench.stop(0.0)
    effects = bench.wait(0.0)
    assert kinds(effects) == ["PublishDone", "Report", "Close"]
    settled = only(PublishDone, effects)
    assert (settled.ticket, settled.error) == (4, "the service stopped before the broker confirmed it")
    assert only(Report, effects).text == "2 publish(es) were never confirmed by the broker"


# Configurations


def test_an_unconfigured_service_consumes_its_configurations_only() -> None:
    bench = Bench(configurations=["Settings"], logs=["#"])
    effects = bench.open()
    assert kinds(effects) == ["Consume", "Unconfigured"]
    assert only(Consume, effects).consumer_tag == "configurations"
    assert only(Consume, effects).queue.startswith("amq.gen-")


def test_a_configuration_that_configures_starts_the_rest() -> None:
    bench = opened(configurations=["Settings"])
    delivery = bench.take("Settings", exchange="configurations")
    bench.publish(within=delivery)
    effects = bench.handled(delivery, CONFIGURED)
    assert [each.consumer_tag for each in of(Consume, effects)] == ["events", "commands"]
    assert kinds(effects) == ["Consume", "Consume", "Ready", "Publish"]


@pytest.mark.parametrize("outcome", [DONE, FAILED])
def test_a_configuration_that_does_not_configure_leaves_the_service_waiting(outcome: Failed) -> None:
    bench = opened(configurations=["Settings"])
    effects = bench.handled(bench.take("Settings", exchange="configurations"), outcome)
    assert of(Consume, effects) == []
    assert of(Ready, effects) == []


def test_a_second_configuration_starts_nothing_twice() -> None:
    bench = opened(configurations=["Settings"])
    for _ in range(2):
        bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert len(of(Ready, bench.seen)) == 1
    assert len(of(Consume, bench.seen)) == 3


def useless(bench: Bench, how: str) -> list[Effect]:
    """Send a configuration that does not configure the service."""
    if how == "invalid":
        return bench.deliver("Settings", exchange="configurations", body=b"\xff")
    delivery = bench.take("Settings", exchange="configurations")
    if how == "rejected":
        return [*bench.nack(delivery), *bench.handled(delivery)]
    return bench.handled(delivery, Failed("no", permanent=True))


@pytest.mark.parametrize("how", ["failed", "rejected", "invalid"])
def test_a_configuration_of_no_use_is_asked_for_again_after_delays_that_grow(how: str) -> None:
    bench = Bench(configurations=["Settings"])
    bench.open()
    waits = []
    for _ in range(5):
        assert "Unconfigured" not in kinds(useless(bench, how))
        due = bench.machine.deadline()
        assert due is not None
        waits.append(due - bench.now)
        assert "Unconfigured" not in kinds(bench.did(bench.machine.tick(due - 0.01)))
        bench.now = due
        assert kinds(bench.did(bench.machine.tick(due))) == ["Unconfigured"]
        assert kinds(bench.did(bench.machine.tick(due))) == []
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0], "half of each, by the random numbers of the bench"


def test_a_configuration_that_is_retried_is_not_asked_for() -> None:
    bench = Bench(configurations=["Settings"])
    bench.open()
    bench.handled(bench.take("Settings", exchange="configurations"), Failed("no"))
    assert bench.machine.deadline() == bench.now + 30.0, "only the warning is due"


def test_a_service_that_is_configured_meanwhile_or_later_does_not_ask() -> None:
    bench = Bench(configurations=["Settings"])
    bench.open()
    useless(bench, "failed")
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert bench.machine.deadline() is None
    useless(bench, "failed")
    assert bench.machine.deadline() is None


def test_a_lost_link_ends_the_asking_and_a_new_one_asks_anew() -> None:
    bench = Bench(configurations=["Settings"])
    bench.open()
    useless(bench, "failed")
    bench.lose()
    assert kinds(bench.open())[-1] == "Unconfigured"
    assert bench.machine.deadline() == bench.now + 30.0, "only the warning is due"


def waiting(bench: Bench) -> list[str]:
    """Go on until the next deadline, and return the warnings that the service is not configured."""
    due = bench.machine.deadline()
    assert due is not None
    bench.now = due
    effects = bench.did(bench.machine.tick(due))
    texts = [report.text for report in of(Report, effects) if report.event == "unconfigured"]
    assert texts == [json.loads(log.body)["short_message"] for log in of(PublishLog, effects)]
    return texts


def test_a_service_that_is_not_configured_for_long_says_so_less_and_less_often() -> None:
    bench = Bench(configurations=["Settings", "Rates"])
    bench.open()
    began, times = bench.now, []
    text = "still waiting for a configuration handler to return True, for {:.0f} s now; received: {}"
    assert waiting(bench) == [text.format(30, "nothing")]
    for name in ("Settings", "Settings", "Rates"):
        bench.handled(bench.take(name, exchange="configurations"))
    for _ in range(4):
        (said,) = waiting(bench)
        times.append(bench.now - began)
        assert said == text.format(times[-1], "Settings, Rates")
        assert bench.did(bench.machine.tick(bench.now)) == []
    assert times == [60.0, 120.0, 240.0, 480.0]


def test_such_a_warning_has_at_most_ten_names() -> None:
    bench = Bench(configurations=["#"])
    bench.open()
    for number in range(20):
        bench.handled(bench.take(f"N{number}", exchange="configurations"))
    (said,) = waiting(bench)
    assert said.endswith("received: N0, N1, N2, N3, N4, N5, N6, N7, N8, N9")


@pytest.mark.parametrize("how", ["configured", "lost", "stopped", "needs none"])
def test_a_service_that_does_not_wait_says_nothing(how: str) -> None:
    bench = Bench(configurations=[] if how == "needs none" else ["Settings"])
    bench.open()
    if how == "configured":
        bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    elif how == "lost":
        bench.lose()
    elif how == "stopped":
        bench.take("Settings", exchange="configurations")
        bench.stop(timeout=100.0)
    effects = bench.did(bench.machine.tick(bench.now + 31.0))
    assert [report for report in of(Report, effects) if report.event == "unconfigured"] == []


def test_a_service_that_stops_does_not_ask() -> None:
    bench = Bench(configurations=["Settings"])
    bench.open()
    delivery = bench.take("Settings", exchange="configurations")
    running = bench.take("Settings", exchange="configurations")
    bench.handled(delivery, Failed("no", permanent=True))
    bench.stop(timeout=100.0)
    assert "Unconfigured" not in kinds(bench.did(bench.machine.tick(bench.now + 50.0)))
    assert "Close" in kinds(bench.handled(running))


def test_after_each_reconnection_the_service_is_unconfigured_again() -> None:
    bench = Bench(configurations=["Settings"])
    for count in (1, 2, 3):
        bench.open()
        bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
        assert len(of(Unconfigured, bench.seen)) == len(of(Ready, bench.seen)) == count
        bench.lose()


def test_a_configuration_handled_while_stopping_starts_nothing() -> None:
    bench = opened(configurations=["Settings"])
    delivery = bench.take("Settings", exchange="configurations")
    bench.stop()
    assert kinds(bench.handled(delivery, CONFIGURED)) == ["Ack", "Close"]


def test_a_link_that_opens_to_flush_what_is_kept_consumes_no_configurations() -> None:
    bench = opened(configurations=["Settings"])
    bench.send()
    bench.stop()
    bench.lose()
    assert kinds(bench.open()) == ["Publish"]


def test_stopping_cancels_what_is_consumed_and_nothing_else() -> None:
    bench = opened(configurations=["Settings"])
    assert [effect.consumer_tag for effect in bench.stop() if isinstance(effect, Cancel)] == ["configurations"]


# I6, a few by name


@pytest.mark.parametrize(
    ("properties", "body"),
    [
        (Basic.Properties(), b""),
        (Basic.Properties(headers={"conversation_id": ["c"]}), b"{}"),
        (Basic.Properties(headers={"conversation_id": "c"}, content_type="application/cbor"), b"\xff\xff"),
        (Basic.Properties(headers={"conversation_id": "c"}, content_type="text/plain"), b"text"),
        (Basic.Properties(headers={"conversation_id": "c", "x-delivery-count": "many"}, message_id=""), b"[]"),
        (Basic.Properties(headers={"conversation_id": "c", "x-delivery-count": -5}), b"[]"),
    ],
)
@pytest.mark.parametrize("exchange", ["events", "commands", "configurations", "logs", "", "amq.topic"])
def test_whatever_arrives_is_dispatched_or_rejected(exchange: str, properties: Basic.Properties, body: bytes) -> None:
    bench = opened()
    effects = bench.machine.delivered(bench.epoch, 1, True, exchange, "k", properties, body, bench.now)
    assert len(of(Dispatch, effects)) + len(of(Nack, effects)) == 1
    for dispatch in of(Dispatch, effects):
        assert only(Nack, bench.handled(dispatch.delivery, FAILED)).tag == 1


def test_a_delivery_of_another_link_changes_nothing() -> None:
    bench = opened()
    before = snapshot(bench.machine._deliveries.in_flight)
    assert bench.deliver(epoch=Epoch(7), tag=1) == []
    assert snapshot(bench.machine._deliveries.in_flight) == before
    assert bench.state is link.OPEN


def test_a_handler_holds_no_more_than_its_limit() -> None:
    bench = opened(held=1)
    delivery = bench.take()
    bench.publish(within=delivery)
    with pytest.raises(BufferFull, match="the handler of Happened holds 1 publishes, which is the limit"):
        bench.publish(within=delivery)
    assert len(of(Publish, bench.handled(delivery))) == 1


def test_an_input_that_cannot_come_is_a_bug_of_ours() -> None:
    bench = opened()
    deliveries = bench.machine._deliveries
    found = deliveries.in_flight.by_id[bench.take()]
    with pytest.raises(AssertionError, match="'begin' cannot come while a delivery is running"):
        deliveries._step(found, life.BEGIN, bench.now, [])
