"""Publishing: outside and inside handlers, confirms, refusals, tickets, and what identifies a message."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.criticality import WARNING
from eda_core.errors import BufferFull, StateError
from eda_core.machine import link
from eda_core.machine.effects import Ack, BufferAvailable, Close, Publish, PublishDone, Report
from eda_core.machine.identifiers import DeliveryId, Epoch, delivery_id
from eda_core.machine.outcomes import DEFERRED, Failed
from eda_core.messages.codec import CBOR, JSON, Limits, decode
from eda_core.messages.values import SUCCESS, AnyMessage, Command, Configuration, Event, Result
from tests.core.kit import Bench, kinds, of, only, opened, snapshot
from tests.core.machine.states import REACH, every_state

EVENT = Event("Told", {"n": 1}, "c-1")
COMMAND = Command("other.Do", {"n": 1}, "c-1", "svc.DoReturn", "k")
RESULT = Result("other.DoReturn", {"n": 1}, "c-1", SUCCESS, "k")
CONFIGURATION = Configuration("Settings", {"n": 1}, "")

each_kind = pytest.mark.parametrize(
    "message", [EVENT, COMMAND, RESULT, CONFIGURATION], ids=lambda each: type(each).__name__
)


# On the wire


@each_kind
@pytest.mark.parametrize("content_type", [CBOR, JSON])
def test_each_kind_goes_to_its_exchange_with_its_envelope(message: AnyMessage, content_type: str) -> None:
    sent = opened(content_type=content_type).send(message)
    expected = {
        Event: ("events", None, None, {"conversation_id": "c-1"}),
        Command: ("commands", "svc.DoReturn", "k", {"conversation_id": "c-1"}),
        Result: ("commands", None, "k", {"conversation_id": "c-1", "status": "success"}),
        Configuration: ("configurations", None, None, {"conversation_id": ""}),
    }[type(message)]
    properties = sent.properties
    assert (sent.exchange, properties.reply_to, properties.correlation_id, properties.headers) == expected
    assert (sent.routing_key, properties.delivery_mode, properties.content_type) == (message.name, 2, content_type)
    assert decode(sent.body, content_type) == {"n": 1}


@each_kind
@pytest.mark.parametrize("mandatory", [None, True, False])
def test_commands_and_results_are_mandatory_unless_told_otherwise(message: AnyMessage, mandatory: bool | None) -> None:
    expected = type(message) in (Command, Result) if mandatory is None else mandatory
    assert opened().send(message, mandatory=mandatory).mandatory is expected


def test_each_publish_has_a_message_id_of_its_own_across_links() -> None:
    bench = opened()
    sent = [bench.send(), bench.send()]
    bench.lose()
    sent += of(Publish, bench.open())
    sent.append(bench.send())
    assert [publish.properties.message_id for publish in sent] == ["tok-1", "tok-2", "tok-1", "tok-2", "tok-3"]
    assert [publish.pid for publish in sent] == [1, 2, 1, 2, 3]


def test_the_application_is_the_service_unless_the_message_says_otherwise() -> None:
    bench = opened()
    assert bench.send().properties.app_id == "svc"
    assert bench.send(Event("Told", None, "c-1", {"app_id": "other"})).properties.app_id == "other"


def test_what_a_handler_publishes_names_its_cause() -> None:
    bench = opened()
    delivery = bench.take(message_id="cause")
    bench.publish(within=delivery)
    progress = bench.send(within=delivery, immediate=True)
    held = only(Publish, bench.handled(delivery))
    for publish in (progress, held):
        assert publish.properties.headers is not None
        assert publish.properties.headers["causation_id"] == "cause"
    assert bench.send().properties.headers == {"conversation_id": "c-1"}


@pytest.mark.parametrize("message_id", [None, "", b"\xff"])
def test_what_was_caused_by_a_message_without_an_id_names_no_cause(message_id: object) -> None:
    bench = opened()
    progress = bench.send(within=bench.take(message_id=message_id), immediate=True)
    assert progress.properties.headers == {"conversation_id": "c-1"}


def test_the_message_of_the_caller_is_left_as_it_was() -> None:
    bench = opened()
    message = Event("Told", {"n": 1}, "c-1", {"priority": 3, "note": "mine"})
    before = snapshot(message)
    sent = bench.send(message, within=bench.take(), immediate=True)
    assert sent.properties.priority == 3
    assert snapshot(message) == before


# When it goes out


@pytest.mark.parametrize("state", [link.IDLE, link.CONNECTING, link.DECLARING, link.BINDING, link.BACKOFF])
def test_what_is_published_without_a_link_goes_out_with_the_next_one(state: str) -> None:
    bench = REACH[state]()
    assert bench.publish() == []
    while bench.state is not link.OPEN:
        if bench.state is link.CONNECTING or bench.state in (link.DECLARING, link.BINDING):
            bench.lose()
        else:
            bench.open()
    assert [publish.pid for publish in of(Publish, bench.seen)] == [1]


@pytest.mark.parametrize("state", [link.OPEN, link.DRAINING])
def test_what_is_published_with_a_link_goes_out_at_once(state: str) -> None:
    assert kinds(REACH[state]().publish()) == ["Publish"]


@pytest.mark.parametrize("state", [link.CLOSING, link.STOPPED])
def test_when_it_is_over_nothing_is_taken_any_more(state: str) -> None:
    bench = REACH[state]()
    before = snapshot(bench.machine)
    with pytest.raises(StateError, match=f"the service is {state}; publish before it stops"):
        bench.publish()
    assert snapshot(bench.machine) == before


def test_no_more_are_on_the_way_than_the_window_allows() -> None:
    bench = opened(window=2)
    first = bench.send()
    bench.send()
    assert bench.publish() == []
    assert [publish.pid for publish in of(Publish, bench.confirm(first))] == [3]


def test_a_full_buffer_is_an_error_at_once_and_room_is_announced_once() -> None:
    bench = opened(buffer=2)
    sent = [bench.send(), bench.send()]
    with pytest.raises(BufferFull) as full:
        bench.publish()
    assert full.value.temporary
    assert bench.confirm(sent[0]) == [BufferAvailable()]
    assert bench.confirm(sent[1]) == []


def test_a_handler_that_fills_the_buffer_with_what_is_held_is_not_told_to_wait() -> None:
    bench = opened(held=1)
    delivery = bench.take()
    bench.publish(within=delivery)
    with pytest.raises(BufferFull, match="the handler of Happened holds 1 publishes, which is the limit") as full:
        bench.publish(within=delivery)
    assert not full.value.temporary


def test_a_handler_sends_at_once_beyond_the_buffer_up_to_a_limit_of_its_own() -> None:
    bench = opened(buffer=1, held=2)
    delivery = bench.take()
    outside = bench.send()
    sent = bench.send(within=delivery, immediate=True)
    bench.send(within=delivery, immediate=True)
    with pytest.raises(BufferFull) as full:
        bench.publish(within=delivery, immediate=True)
    assert full.value.temporary
    bench.confirm(outside)
    bench.confirm(sent)
    assert kinds(bench.publish(within=delivery, immediate=True)) == ["Publish"]


def test_a_handler_that_is_over_has_no_space_of_its_own() -> None:
    bench = opened(buffer=1)
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery)
    with pytest.raises(BufferFull):
        bench.publish(within=delivery)


def test_one_that_acknowledges_by_hand_has() -> None:
    bench = opened(buffer=1)
    delivery = bench.take()
    bench.send()
    bench.handled(delivery, DEFERRED)
    assert kinds(bench.publish(within=delivery)) == ["Publish"]


def test_room_that_a_lost_link_makes_is_announced_at_once() -> None:
    bench = opened(buffer=1)
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery)
    with pytest.raises(BufferFull):
        bench.publish()
    assert of(BufferAvailable, bench.lose()) == [BufferAvailable()]


@pytest.mark.parametrize("held", [False, True], ids=["kept", "held by a handler"])
def test_what_the_caller_changes_after_publishing_is_sent_as_it_was(held: bool) -> None:
    bench = Bench()
    if held:
        bench.open()
    within = bench.take() if held else None
    payload: dict[str, Any] = {"n": [1]}
    meta: dict[str, Any] = {"own": [1], "app_id": "me"}
    bench.publish(Event("Told", payload, "c-1", meta), within=within)
    payload["n"].append(2)
    payload["more"] = [3]
    meta["own"].append(2)
    meta["app_id"] = "other"
    if within is None:
        bench.open()
    else:
        bench.handled(within)
    sent = only(Publish, bench.seen)
    assert decode(sent.body, CBOR, Limits()) == {"n": [1]}
    assert sent.properties.app_id == "me"
    assert sent.properties.headers == {"conversation_id": "c-1", "own": [1]} | (
        {"causation_id": "id-1-1", "deduplication_id": "id-1-1/svc/Told.1"} if held else {}
    )


# Within a delivery


@pytest.mark.parametrize("within", [DeliveryId(0), DeliveryId(-1), delivery_id(Epoch(1), 77), delivery_id(Epoch(9), 1)])
def test_within_a_delivery_that_never_was_is_outside(within: DeliveryId) -> None:
    sent = opened().send(within=within)
    assert sent.delivery is None
    assert sent.kept


def test_within_a_delivery_that_is_settled_is_outside() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery)
    assert bench.send(within=delivery).delivery is None


def test_within_a_delivery_that_waits_for_its_confirms_is_outside() -> None:
    """Its handler has ended, and later publishes must not delay its acknowledgement."""
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    held = only(Publish, bench.handled(delivery))
    assert bench.send(within=delivery).delivery is None
    assert bench.confirm(held) == [Ack(bench.epoch, 1, False)]


def test_what_was_published_outside_is_kept_over_a_lost_link_whatever_the_handler_does() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.send(within=delivery)
    bench.lose()
    assert [publish.pid for publish in of(Publish, bench.open())] == [1]


# Tickets


def test_a_ticket_comes_back_when_the_publish_is_confirmed() -> None:
    bench = opened()
    sent = bench.send(ticket=5)
    assert bench.confirm(sent) == [PublishDone(5)]
    assert bench.confirm(sent) == []


def test_a_publish_without_a_ticket_settles_silently() -> None:
    bench = opened()
    assert bench.confirm(bench.send()) == []


def test_tickets_come_back_before_the_acknowledgement_and_in_the_order_of_publishing() -> None:
    bench = opened()
    delivery = bench.take()
    bench.send(within=delivery, immediate=True, ticket=1)
    last = bench.send(within=delivery, immediate=True, ticket=2)
    bench.handled(delivery)
    assert bench.confirm(last, multiple=True) == [PublishDone(1), PublishDone(2), Ack(bench.epoch, 1, False)]


def test_the_ticket_of_a_held_publish_comes_back_at_once() -> None:
    """If a coroutine waited for the confirm, its own handler could never succeed."""
    bench = opened()
    assert bench.publish(within=bench.take(), ticket=5) == [PublishDone(5)]


def test_the_ticket_of_a_held_publish_comes_back_only_once() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery, ticket=5)
    bench.confirm(only(Publish, bench.handled(delivery)))
    assert of(PublishDone, bench.seen) == [PublishDone(5)]


def test_the_ticket_of_an_orphan_comes_back_at_once() -> None:
    bench = opened()
    delivery = bench.take()
    bench.lose()
    assert bench.publish(within=delivery, ticket=5) == [PublishDone(5)]


def test_a_ticket_survives_refusals_and_lost_links() -> None:
    bench = opened(retry_delay=5.0)
    bench.refuse(bench.send(ticket=5))
    again = only(Publish, bench.due())
    bench.lose()
    assert bench.confirm(again) == []
    assert bench.confirm(*of(Publish, bench.open())) == [PublishDone(5)]


# Refused


def test_a_refused_publish_is_sent_again_whole_and_its_source_acknowledged_afterwards() -> None:
    """eventail sends it again without correlation_id and status, and with the headers as reply_to."""
    bench = opened(retry_delay=15.0)
    delivery = bench.take(message_id="cause")
    bench.publish(RESULT, within=delivery)
    bench.publish(COMMAND, within=delivery)
    first, second = of(Publish, bench.handled(delivery))
    before = [snapshot(publish.properties) for publish in (first, second)]
    assert only(Report, bench.refuse(second, multiple=True)) == Report(
        WARNING, "the broker refused 2 publish(es), sending again in 15 s"
    )
    assert bench.machine.deadline() == pytest.approx(bench.now + 15.0)
    assert bench.wait(14.9) == []
    again = of(Publish, bench.due())
    assert [snapshot(publish.properties) for publish in again] == before
    for old, new in zip((first, second), again, strict=True):
        for name in ("pid", "exchange", "routing_key", "body", "mandatory", "delivery", "kept"):
            assert getattr(new, name) == getattr(old, name)
    assert again[0].properties.headers == {
        "conversation_id": "c-1",
        "status": "success",
        "causation_id": "cause",
        "deduplication_id": "cause/svc/other.DoReturn.1",
    }
    assert again[0].properties.correlation_id == "k"
    assert again[1].properties.reply_to == "svc.DoReturn"
    assert bench.confirm(again[1]) == []
    assert bench.confirm(again[0]) == [Ack(bench.epoch, 1, False)]


def test_a_refused_publish_is_sent_until_it_is_accepted() -> None:
    bench = opened(retry_delay=0.4)
    publish = bench.send(ticket=1)
    for _ in range(10):
        bench.refuse(publish)
        publish = only(Publish, bench.due())
    assert bench.confirm(publish) == [PublishDone(1)]


def test_a_refusal_of_nothing_known_is_not_worth_a_word() -> None:
    bench = opened()
    assert bench.machine.refused(bench.epoch, 9, bench.now) == []


def test_a_refusal_lets_the_next_in_line_go() -> None:
    bench = opened(window=1)
    first = bench.send()
    bench.publish()
    assert [publish.pid for publish in of(Publish, bench.refuse(first))] == [2]


def test_a_refused_publish_waits_for_the_alarm_to_clear_without_a_busy_loop() -> None:
    bench = opened(retry_delay=5.0)
    bench.refuse(bench.send())
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    assert bench.due() == []
    assert bench.machine.deadline() == pytest.approx(bench.now + bench.config.blocked_timeout - 5.0)
    assert of(Publish, bench.did(bench.machine.unblocked(bench.epoch, bench.now)))


# Lost links and late confirms


def test_confirms_of_a_lost_link_say_nothing_of_the_next() -> None:
    """Tags count from 1 on each link, so these would confirm the wrong publish."""
    bench = opened()
    bench.send(ticket=1)
    bench.lose()
    (again,) = of(Publish, bench.open())
    assert again.tag == 1
    assert bench.machine.confirmed(Epoch(1), 1, bench.now) == []
    assert bench.machine.refused(Epoch(1), 1, bench.now) == []
    assert bench.machine.stale == 2
    assert bench.confirm(again) == [PublishDone(1)]


def test_a_lost_link_keeps_the_order_of_acceptance() -> None:
    bench = opened(window=2)
    for number in range(4):
        bench.publish(Event("Told", number, "c-1"))
    bench.refuse(of(Publish, bench.seen)[0])
    bench.lose()
    again = of(Publish, bench.open())
    again += of(Publish, bench.confirm(*again))
    assert [publish.pid for publish in again] == [1, 2, 3, 4]


def test_a_publish_that_is_not_confirmed_for_too_long_costs_the_link() -> None:
    bench = opened(confirm_timeout=50.0)
    bench.send()
    bench.now += 20.0
    bench.send()
    assert bench.machine.deadline() == pytest.approx(150.0)
    assert bench.wait(29.9) == []
    effects = bench.due()
    assert kinds(effects) == ["Close", "Report"]
    assert only(Close, effects).reason == "a publish was not confirmed within 50 s"
    assert [publish.pid for publish in of(Publish, bench.open())] == [1, 2]


def test_a_confirm_moves_the_deadline_to_the_next_oldest() -> None:
    bench = opened(confirm_timeout=50.0)
    first = bench.send()
    bench.now += 20.0
    bench.send()
    bench.confirm(first)
    assert bench.machine.deadline() == pytest.approx(170.0)


def test_the_deadline_for_confirms_does_not_pass_while_the_broker_is_blocked() -> None:
    bench = opened(confirm_timeout=50.0)
    bench.send()
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    assert bench.wait(1_000.0) == []
    assert bench.state is link.OPEN


def test_after_an_alarm_the_broker_gets_time_to_confirm() -> None:
    bench = opened(confirm_timeout=50.0)
    sent = bench.send(ticket=1)
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    bench.wait(1_000.0)
    bench.machine.unblocked(bench.epoch, bench.now)
    assert bench.wait(1.0) == []
    assert bench.confirm(sent) == [PublishDone(1)]


@every_state
def test_confirms_of_nothing_known_do_nothing(state: str) -> None:
    bench = REACH[state]()
    before = snapshot(bench.machine)
    for tag, multiple in ((0, True), (1, False), (5, True), (-1, True)):
        assert bench.machine.confirmed(bench.epoch, tag, bench.now, multiple=multiple) == []
        assert bench.machine.refused(bench.epoch, tag, bench.now, multiple=multiple) == []
    assert snapshot(bench.machine) == before


def test_a_failed_handler_does_not_touch_the_publishes_of_others() -> None:
    bench = opened()
    good, bad = bench.take(), bench.take()
    bench.publish(within=good)
    bench.publish(within=bad)
    bench.handled(bad, Failed("no"))
    assert [publish.pid for publish in of(Publish, bench.handled(good))] == [1]


def test_a_confirm_for_a_delivery_that_is_settled_or_runs_settles_nothing() -> None:
    bench = opened()
    failed, running = bench.take(), bench.take()
    sent = [bench.send(within=failed, immediate=True), bench.send(within=running, immediate=True)]
    bench.handled(failed, Failed("no"))
    assert bench.confirm(sent[-1], multiple=True) == []
    assert bench.handled(running) == [Ack(bench.epoch, 2, False)]


def test_properties_are_those_of_pamqp() -> None:
    """An embedder can marshal an effect as it is."""
    assert isinstance(opened().send().properties, Basic.Properties)


def test_the_representation_says_where_the_machine_stands_and_hides_the_urls() -> None:
    bench = opened()
    bench.take()
    bench.publish()
    assert repr(bench.machine) == "<Machine svc open, link 1, 1 in flight, 1 to publish>"


def test_what_was_published_is_counted() -> None:
    bench = opened()
    assert bench.machine.published == 0
    bench.publish()
    bench.publish(within=bench.take())
    assert bench.machine.published == 2
