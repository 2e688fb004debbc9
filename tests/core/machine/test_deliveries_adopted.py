"""Handlers that run longer than their link lasts: they go on for the next delivery of their message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eda_core.criticality import WARNING
from eda_core.errors import BufferFull, LocalError
from eda_core.machine.aggregator import Aggregator
from eda_core.machine.effects import PUBLISHING, Ack, Dispatch, Effect, Nack, Publish, PublishLog, Report
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.outcomes import DEFERRED, DONE, Failed, Outcome
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.values import Event
from tests.core.kit import Bench, kinds, of, only, opened

FAILED = Failed("no")


def told(name: str) -> Event:
    return Event(name, None, "c-1")


def sent(effects: list[Effect]) -> list[str]:
    return [publish.routing_key for publish in of(Publish, effects)]


def relink(bench: Bench) -> list[Effect]:
    bench.lose()
    return bench.open()


def adopted(**settings: Any) -> tuple[Bench, DeliveryId]:
    """Return a bench whose link was lost and opened again, and whose message came again while its handler runs."""
    bench = opened(**settings)
    delivery = bench.take(message_id="m")
    relink(bench)
    assert bench.deliver(message_id="m", redelivered=True) == []
    return bench, delivery


@pytest.mark.parametrize(
    ("outcome", "effect"), [(DONE, Ack(Epoch(2), 1, False)), (FAILED, Nack(Epoch(2), 1, True))], ids=["done", "failed"]
)
def test_a_handler_that_runs_goes_on_for_the_next_delivery_of_its_message(outcome: Outcome, effect: Effect) -> None:
    bench, delivery = adopted()
    assert bench.handled(delivery, outcome)[-1] == effect
    assert bench.handled(delivery, outcome) == [], "it has ended"


def test_all_that_its_handler_publishes_is_held_and_counts_for_the_next_delivery() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.publish(told("Before"), within=delivery)
    bench.lose()
    bench.publish(told("Meanwhile"), within=delivery)
    assert sent(bench.open()) == []
    bench.publish(told("Later"), within=delivery)
    bench.deliver(message_id="m", redelivered=True)
    bench.publish(told("Last"), within=delivery)
    published = of(Publish, bench.handled(delivery))
    assert [each.routing_key for each in published] == ["Before", "Meanwhile", "Later", "Last"]
    assert bench.confirm(*published[:3]) == []
    assert bench.confirm(published[3]) == [Ack(Epoch(2), 1, False)]


def test_what_was_published_at_once_and_not_confirmed_is_waited_for() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.send(told("Before"), within=delivery, immediate=True)
    bench.lose()
    bench.publish(told("Meanwhile"), within=delivery, immediate=True)
    before, meanwhile = of(Publish, bench.open())
    bench.deliver(message_id="m", redelivered=True)
    later = bench.send(told("Later"), within=delivery, immediate=True)
    assert bench.handled(delivery) == []
    assert bench.confirm(before, later) == []
    assert bench.confirm(meanwhile) == [Ack(Epoch(2), 1, False)]


def test_what_was_confirmed_before_the_message_came_again_is_not_waited_for() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.send(told("Before"), within=delivery, immediate=True)
    assert bench.confirm(only(Publish, relink(bench))) == []
    bench.deliver(message_id="m", redelivered=True)
    assert bench.handled(delivery) == [Ack(Epoch(2), 1, False)]


def test_what_a_handler_may_hold_is_bounded_while_its_link_is_lost_too() -> None:
    bench = opened(held=1)
    delivery = bench.take(message_id="m")
    bench.lose()
    bench.publish(within=delivery)
    with pytest.raises(BufferFull, match="holds 1 publishes"):
        bench.publish(within=delivery)


def test_a_message_of_the_handler_names_its_cause() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.lose()
    bench.publish(within=delivery)
    bench.open()
    bench.deliver(message_id="m", redelivered=True)
    headers = only(Publish, bench.handled(delivery)).properties.headers or {}
    assert headers["causation_id"] == "m"


@pytest.mark.parametrize("when", ["meanwhile", "after"])
def test_a_publish_that_the_broker_does_not_take_fails_the_next_delivery(when: str) -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.send(told("Before"), within=delivery, immediate=True)
    bench.lose()
    bench.open()
    if when == "after":
        bench.deliver(message_id="m", redelivered=True)
    closed = bench.machine.channel_closed(bench.epoch, "ACCESS_REFUSED", bench.now, channel=PUBLISHING)
    bench.did([*closed, *bench.machine.channel_opened(bench.epoch, bench.now)])
    if when == "meanwhile":
        bench.deliver(message_id="m", redelivered=True)
    assert only(Nack, bench.handled(delivery)) == Nack(Epoch(2), 1, True)


def test_a_call_of_the_handler_counts_for_the_next_delivery() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.lose()
    bench.call(within=delivery)
    command = only(Publish, bench.open())
    bench.deliver(message_id="m", redelivered=True)
    assert bench.handled(delivery) == []
    assert bench.confirm(command) == [Ack(Epoch(2), 1, False)]


def test_it_may_lose_any_number_of_links() -> None:
    bench, delivery = adopted()
    bench.publish(within=delivery)
    for _ in range(3):
        relink(bench)
        assert bench.deliver(message_id="m", redelivered=True) == []
    (publish,) = of(Publish, bench.handled(delivery))
    assert bench.confirm(publish) == [Ack(Epoch(5), 1, False)]


def test_it_goes_on_although_the_message_comes_some_links_later() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    relink(bench)
    relink(bench)
    assert bench.deliver(message_id="m", redelivered=True) == []
    assert bench.handled(delivery) == [Ack(Epoch(3), 1, False)]


def test_the_acknowledgements_of_others_do_not_reach_it() -> None:
    bench, delivery = adopted()
    other = bench.take(message_id="o")
    assert bench.handled(other) == [Ack(Epoch(2), 2, False)]
    assert bench.handled(delivery) == [Ack(Epoch(2), 1, False)]


BY_HAND: list[tuple[Callable[[Bench, DeliveryId], list[Effect]], Effect]] = [
    (lambda bench, delivery: bench.ack(delivery), Ack(Epoch(2), 1, False)),
    (lambda bench, delivery: bench.nack(delivery), Nack(Epoch(2), 1, False)),
    (lambda bench, delivery: bench.nack(delivery, requeue=True), Nack(Epoch(2), 1, True)),
    (lambda bench, delivery: bench.did(bench.machine.failed(delivery, FAILED, bench.now)), Nack(Epoch(2), 1, True)),
]


@pytest.mark.parametrize(("settle", "effect"), BY_HAND, ids=["ack", "reject", "requeue", "fail"])
@pytest.mark.parametrize("when", ["before", "meanwhile", "after", "deferred"])
def test_it_can_be_settled_by_hand_at_any_time(
    when: str, settle: Callable[[Bench, DeliveryId], list[Effect]], effect: Effect
) -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    steps: list[tuple[str, Callable[[], list[Effect]]]] = [
        ("before", bench.lose),
        ("meanwhile", bench.open),
        ("", lambda: bench.deliver(message_id="m", redelivered=True)),
        ("after", lambda: bench.handled(delivery, DEFERRED)),
        ("deferred", list),
    ]
    seen: list[Effect] = []
    for name, step in steps:
        if name == when:
            seen += settle(bench, delivery)
            if when != "deferred":
                with pytest.raises(LocalError, match="settled already"):
                    bench.ack(delivery)
        seen += step()
    assert [each for each in seen if isinstance(each, (Ack, Nack))] == [effect]


def test_it_can_be_acknowledged_with_those_before_it() -> None:
    bench, delivery = adopted()
    early, late = bench.take(), bench.take()
    for each in (delivery, early, late):
        bench.handled(each, DEFERRED)
    assert bench.ack(delivery, multiple=True) == [Ack(Epoch(2), 1, False)]
    assert bench.ack(late, multiple=True) == [Ack(Epoch(2), 3, True)]


def test_a_stop_waits_for_it() -> None:
    bench, delivery = adopted()
    assert "Close" not in kinds(bench.stop())
    assert kinds(bench.handled(delivery)) == ["Ack", "Close"]


def test_its_failures_go_on_counting() -> None:
    bench, delivery = adopted(retry=RetryPolicy(2))
    bench.handled(delivery, FAILED)
    again = bench.take(message_id="m", redelivered=True)
    relink(bench)
    assert bench.deliver(message_id="m", redelivered=True) == []
    assert not only(Nack, bench.handled(again, FAILED)).requeue


@pytest.mark.parametrize(
    "fields",
    [
        {"message_id": "m"},  # not redelivered: somebody has published it again
        {"message_id": "m", "redelivered": True, "payload": "another"},
        {"message_id": "m", "redelivered": True, "name": "Other"},
        {"message_id": "n", "redelivered": True},
    ],
)
def test_another_message_is_handled_by_itself(fields: dict[str, Any]) -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    relink(bench)
    other = bench.take(**fields)
    assert other != delivery
    assert bench.handled(delivery) == []
    assert bench.handled(other) == [Ack(Epoch(2), 1, False)]


@pytest.mark.parametrize("message_id", [None, ""])
def test_a_message_without_an_id_cannot_be_recognized(message_id: str | None) -> None:
    bench = opened()
    bench.take(message_id=message_id)
    relink(bench)
    assert of(Dispatch, bench.deliver(message_id=message_id, redelivered=True))


@pytest.mark.parametrize("end", [None, DEFERRED])
def test_messages_with_the_same_id_are_not_confused(end: Outcome | None) -> None:
    bench = opened()
    first, _ = bench.take(message_id="m"), bench.take(message_id="m")
    if end is not None:
        bench.handled(first, end)
    relink(bench)
    for _ in range(2):
        assert of(Dispatch, bench.deliver(message_id="m", redelivered=True))


def test_a_handler_that_has_ended_before_the_message_came_again_has_no_effect() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.publish(within=delivery)
    bench.lose()
    assert bench.handled(delivery) == []
    assert of(Publish, bench.open()) == []
    again = bench.take(message_id="m", redelivered=True)
    assert bench.handled(again) == [Ack(Epoch(2), 1, False)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_handler_whose_message_is_in_a_batch_does_not_go_on(when: str) -> None:
    """The other messages of the batch are lost, and what was published for all of them."""
    bench, batch = opened(), Aggregator[str](9, 60.0)
    delivery = bench.take(message_id="m")
    if when == "before":
        batch.add(bench.machine, delivery, "m", bench.now)
    bench.lose()
    if when == "after":
        batch.add(bench.machine, delivery, "m", bench.now)
    bench.publish(within=delivery)
    bench.open()
    again = bench.take(message_id="m", redelivered=True)
    assert bench.handled(delivery, DEFERRED) == []
    assert bench.handled(again) == [Ack(Epoch(2), 1, False)]


def test_what_is_settled_gets_into_no_batch() -> None:
    """The batch would drop it, and nobody would know."""
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery)
    with pytest.raises(LocalError, match="settled already; put an event into one batch"):
        bench.machine.collected(delivery, bench.now)
    with pytest.raises(LocalError, match="7 is not a delivery tag"):
        bench.machine.collected(DeliveryId(7), bench.now)


def test_what_the_broker_delivers_again_is_in_no_batch() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.lose()
    assert bench.machine.collected(delivery, bench.now) == []


def test_a_handler_that_goes_on_can_add_its_message_to_a_batch() -> None:
    bench, delivery = adopted()
    batch = Aggregator[str](9, 60.0)
    other = bench.take()
    for each in (delivery, other):
        batch.add(bench.machine, each, "x", bench.now)
        bench.handled(each, DEFERRED)
    taken = batch.take(bench.machine)
    assert [each for each, _ in taken] == [delivery, other]
    assert batch.settle(bench.machine, taken, bench.now) == [Ack(Epoch(2), 2, True)]


# Handlers that take too long


def time_out(bench: Bench, seconds: float) -> list[Effect]:
    """Let the broker close the channel after this time, because a message is not acknowledged."""
    bench.now += seconds
    effects = bench.did(bench.machine.channel_closed(bench.epoch, "delivery acknowledgement timed out", bench.now))
    bench.did(bench.machine.link_down(Epoch(bench.epoch - 1), "closed", bench.now))
    return effects


def test_a_handler_that_never_ends_costs_its_message_an_attempt_from_the_second_timeout_on() -> None:
    bench = opened(heartbeat=20)
    bench.take(message_id="m")
    texts: list[str] = []
    effects: list[Effect] = []
    for _ in range(3):
        texts += [report.text for report in of(Report, time_out(bench, 60.0))[1:]]
        bench.open()
        effects = bench.deliver(message_id="m", redelivered=True)
    assert texts == [
        "the handler of Happened took 60.0 s, and the link was lost",
        "the handler of Happened took 120.5 s, and the link was lost: 2 times now, which counts as a failure",
        "the handler of Happened took 181.0 s, and the link was lost: 3 times now, which counts as a failure",
    ]
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert of(Report, effects)[0].text == "Happened: its handler took longer than 20 s, and lost the link 3 times"
    assert of(Dispatch, effects) == []


def block(bench: Bench, outcome: Outcome = DONE, *, redelivered: bool = True) -> list[Effect]:
    """Handle a message for a minute, during which nobody hears the broker; the link was lost meanwhile."""
    effects = bench.deliver(message_id="m", redelivered=redelivered)
    if of(Dispatch, effects):
        began, bench.now = bench.now + 1.0, bench.now + 61.0
        delivery = only(Dispatch, effects).delivery
        bench.did(bench.machine.handled(delivery, outcome, bench.now, began=began))
        effects = bench.lose()
        bench.open()
    return effects


@pytest.mark.parametrize("outcome", [DONE, DEFERRED, FAILED], ids=["done", "deferred", "failed"])
def test_a_handler_that_keeps_the_process_from_its_heartbeats_comes_to_an_end(outcome: Outcome) -> None:
    """The broker never hears how the handler has ended, and delivers the message again."""
    bench = opened(heartbeat=20)
    runs = 0
    while not of(Nack, effects := block(bench, outcome, redelivered=runs > 0)):
        runs += 1
        assert "the handler of Happened took 60.0 s" in of(Report, effects)[-1].text
        assert runs <= 3
    assert runs == (2 if outcome is FAILED else 3)
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)


def test_what_a_handler_publishes_makes_no_difference_to_that() -> None:
    bench = opened(heartbeat=20)
    for runs in range(3):
        delivery = bench.take(message_id="m", redelivered=runs > 0)
        bench.publish(within=delivery)
        bench.now += 60.0
        bench.handled(delivery)
        relink(bench)
    assert only(Nack, bench.deliver(message_id="m", redelivered=True)) == Nack(bench.epoch, 1, False)


def test_a_success_after_all_clears_the_message() -> None:
    bench = opened(heartbeat=20)
    for _ in range(4):
        block(bench, redelivered=False)
        bench.handled(bench.take(message_id="m", redelivered=True))


@pytest.mark.parametrize(
    ("heartbeat", "seconds", "blamed"), [(20, 19.0, False), (20, 21.0, True), (0, 59.0, False), (0, 61.0, True)]
)
def test_a_handler_is_blamed_if_it_took_longer_than_the_heartbeat(heartbeat: int, seconds: float, blamed: bool) -> None:
    bench = opened(heartbeat=heartbeat)
    delivery = bench.take()
    bench.now += seconds
    bench.handled(delivery)
    assert len(of(Report, bench.lose())) == 1 + blamed


def test_a_handler_that_ended_long_ago_is_not_blamed() -> None:
    bench = opened(heartbeat=20)
    for seconds in (30.0, 21.0):
        delivery = bench.take()
        bench.now += seconds
        bench.handled(delivery)
    bench.now += 19.0
    assert "took 21.0 s" in of(Report, bench.lose())[-1].text


def test_a_network_that_fails_is_not_blamed_on_a_handler_that_goes_on() -> None:
    bench = opened(heartbeat=20)
    delivery = bench.take(message_id="m")
    for _ in range(5):
        bench.now += 60.0
        assert len(of(Report, bench.lose())) == 1
        bench.open()
        assert bench.deliver(message_id="m", redelivered=True) == []
    assert bench.handled(delivery) == [Ack(bench.epoch, 1, False)]


def test_without_an_id_a_message_is_run_again_and_blamed_for_every_lost_link() -> None:
    bench = opened(heartbeat=20)
    for runs in range(3):
        bench.take(message_id=None, redelivered=runs > 0)
        bench.now += 60.0
        assert len(of(Report, bench.lose())) == 2
        bench.open()
    assert only(Nack, bench.deliver(message_id=None, redelivered=True)) == Nack(bench.epoch, 1, False)


def test_the_log_on_the_bus_says_it_too() -> None:
    bench = opened(heartbeat=20)
    block(bench, redelivered=False)
    (log,) = [log for log in of(PublishLog, bench.seen) if log.routing_key == "svc.WARNING"]
    assert b"took 60.0 s" in log.body
    assert any(report.level == WARNING for report in of(Report, bench.seen))
