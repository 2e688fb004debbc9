"""Acknowledging and rejecting by hand, in each stage of a delivery."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eda_core.errors import LocalError
from eda_core.machine.effects import Ack, Effect, Nack, Publish
from eda_core.machine.identifiers import DeliveryId, delivery_id
from eda_core.machine.outcomes import DEFERRED, Failed
from eda_core.machine.policy import RetryPolicy
from tests.core.kit import Bench, kinds, of, only, opened, snapshot

Call = Callable[[Bench, DeliveryId], list[object]]

CALLS: dict[str, Call] = {
    "ack": lambda bench, delivery: [*bench.ack(delivery)],
    "reject": lambda bench, delivery: [*bench.nack(delivery)],
    "requeue": lambda bench, delivery: [*bench.nack(delivery, requeue=True)],
    "ack all": lambda bench, delivery: [*bench.ack(delivery, multiple=True)],
    "reject all": lambda bench, delivery: [*bench.nack(delivery, multiple=True)],
    "failed": lambda bench, delivery: [*bench.machine.failed(delivery, Failed("no"), bench.now)],
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def deferred(bench: Bench, count: int = 1) -> list[DeliveryId]:
    """Deliveries whose handlers have succeeded, to be acknowledged by hand."""
    taken = [bench.take() for _ in range(count)]
    for delivery in taken:
        bench.handled(delivery, DEFERRED)
    return taken


# DEFERRED


def test_a_deferred_delivery_is_settled_when_it_is_said_so() -> None:
    bench = opened()
    first, second, third = deferred(bench, 3)
    assert not {"Ack", "Nack"} & {*kinds(bench.seen)}
    assert bench.ack(second) == [Ack(bench.epoch, 2, False)]
    assert bench.nack(first) == [Nack(bench.epoch, 1, False)]
    assert bench.nack(third, requeue=True) == [Nack(bench.epoch, 3, True)]


def test_multiple_settles_the_earlier_deferred_ones_too() -> None:
    bench = opened()
    deliveries = deferred(bench, 4)
    assert bench.ack(deliveries[2], multiple=True) == [Ack(bench.epoch, 3, True)]
    assert bench.ack(deliveries[3]) == [Ack(bench.epoch, 4, False)]


def test_multiple_leaves_out_those_that_run_or_are_settled() -> None:
    """Unlike the broker's multiple it does not include deliveries whose handlers still run."""
    bench = opened()
    running = bench.take()
    _, second = deferred(bench, 2)
    bench.ack(second)
    (third,) = deferred(bench)
    assert bench.ack(third, multiple=True) == [Ack(bench.epoch, 2, False), Ack(bench.epoch, 4, False)]
    assert bench.handled(running, DEFERRED) == [], "nobody has settled it yet"
    assert bench.ack(running) == [Ack(bench.epoch, 1, False)]


@pytest.mark.parametrize("requeue", [False, True])
def test_rejecting_several_rejects_each_singly(requeue: bool) -> None:
    bench = opened()
    deliveries = deferred(bench, 2)
    assert bench.nack(deliveries[1], requeue=requeue, multiple=True) == [
        Nack(bench.epoch, 1, requeue),
        Nack(bench.epoch, 2, requeue),
    ]


def test_multiple_leaves_out_later_ones() -> None:
    bench = opened()
    first, second = deferred(bench, 2)
    assert bench.ack(first, multiple=True) == [Ack(bench.epoch, 1, False)]
    assert bench.machine.in_flight(second)


@pytest.mark.parametrize("decision", ["ack", "reject"])
def test_an_acknowledgement_by_hand_waits_for_the_confirms_of_its_delivery(decision: str) -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    held = only(Publish, bench.handled(delivery, DEFERRED))
    later = bench.send(within=delivery)
    assert CALLS[decision](bench, delivery) == []
    assert bench.confirm(held) == []
    settled = bench.confirm(later)
    assert settled == [Ack(bench.epoch, 1, False) if decision == "ack" else Nack(bench.epoch, 1, False)]


# TOGETHER


def together(bench: Bench, *deliveries: DeliveryId) -> list[Effect]:
    return bench.did(bench.machine.ack_together(deliveries, bench.now))


def test_none_is_acknowledged_before_all_publishes_of_all_are_confirmed() -> None:
    bench = opened()
    first, second, third = deferred(bench, 3)
    publishes = [bench.send(within=first), bench.send(within=first), bench.send(within=third)]
    assert together(bench, first, second, third) == []
    assert bench.confirm(publishes[2], publishes[0]) == []
    assert bench.confirm(publishes[1]) == [Ack(bench.epoch, 3, True)]


def test_one_that_is_named_twice_is_acknowledged_once() -> None:
    bench = opened()
    (first,) = deferred(bench)
    assert together(bench, first, first) == [Ack(bench.epoch, 1, False)]
    running = bench.take()
    assert together(bench, running, running) == []
    assert bench.handled(running) == [Ack(bench.epoch, 2, False)]


def test_one_whose_handler_still_runs_is_waited_for() -> None:
    bench = opened()
    first, running = *deferred(bench), bench.take()
    assert together(bench, first, running) == []
    assert bench.handled(running) == [Ack(bench.epoch, 2, True)]


@pytest.mark.parametrize("first_ready", [False, True])
def test_one_that_fails_is_not_waited_for(first_ready: bool) -> None:
    bench = opened()
    first, running = *deferred(bench), bench.take()
    publish = bench.send(within=first)
    assert together(bench, first, running) == []
    effects = bench.confirm(publish) if first_ready else []
    effects += bench.handled(running, Failed("no"))
    assert of(Nack, effects) == [Nack(bench.epoch, 2, True)]
    effects += [] if first_ready else bench.confirm(publish)
    assert of(Ack, effects) == [Ack(bench.epoch, 1, False)]


@pytest.mark.parametrize("how", ["again", "in vain", "later"])
def test_if_what_the_failing_one_published_is_dropped_all_fail(how: str) -> None:
    """The callback of a batch may have published it for all of them."""
    policy = {"again": RetryPolicy(2), "in vain": RetryPolicy(1), "later": RetryPolicy(2, (1.0,))}[how]
    bench = opened(retry=policy)
    (first, second), running = deferred(bench, 2), bench.take()
    sent = bench.send(within=second)
    bench.publish(within=running)
    assert together(bench, first, second, running) == []
    effects = bench.handled(running, Failed("no"))
    if how == "again":
        assert [nack.tag for nack in of(Nack, effects)] == [1, 2, 3]
        assert all(nack.requeue for nack in of(Nack, effects))
    elif how == "in vain":
        assert {nack.tag for nack in of(Nack, effects)} == {1, 3}, "what the second published is not safe yet"
        assert of(Nack, bench.confirm(sent)) == [Nack(bench.epoch, 2, False)]
    else:
        copies = of(Publish, effects)
        assert bench.confirm(copies[1]) == [], "what the second published is not safe yet"
        assert of(Ack, bench.confirm(sent, copies[0], copies[2])) == [Ack(bench.epoch, tag, False) for tag in (2, 1, 3)]
    assert not of(Ack, effects)


def test_all_fail_before_what_the_failing_one_published_at_once_is_safe() -> None:
    bench = opened()
    first, running = *deferred(bench), bench.take()
    publish = bench.send(within=running, immediate=True)
    assert together(bench, first, running) == []
    assert [nack.tag for nack in of(Nack, bench.handled(running, Failed("no")))] == [1, 2]
    assert bench.confirm(publish) == []


def test_those_that_still_run_fail_at_their_end() -> None:
    bench = opened()
    first, second = bench.take(), bench.take()
    bench.publish(within=second)
    assert together(bench, first, second) == []
    assert of(Nack, bench.handled(second, Failed("no"))) == [Nack(bench.epoch, 2, True)]
    assert bench.machine.in_flight(first) is False
    assert of(Nack, bench.handled(first, DEFERRED)) == [Nack(bench.epoch, 1, True)]


def test_those_settled_and_those_of_lost_links_are_left_out() -> None:
    bench = opened()
    first, second, third = deferred(bench, 3)
    bench.ack(first)
    publish = bench.send(within=second)
    assert bench.ack(second) == []
    assert not bench.machine.in_flight(second), "it is to be settled"
    assert together(bench, first, second, third) == [Ack(bench.epoch, 3, False)]
    assert bench.confirm(publish) == [Ack(bench.epoch, 2, False)]
    assert together(bench) == []
    bench.lose()
    assert together(bench, third) == []


def test_what_goes_back_to_the_queue_waits_for_nothing() -> None:
    """Its handler publishes again after the redelivery, so no confirm matters."""
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    sent = only(Publish, bench.handled(delivery, DEFERRED))
    assert bench.nack(delivery, requeue=True) == [Nack(bench.epoch, 1, True)]
    assert bench.confirm(sent) == []


def test_a_later_publish_of_a_deferred_delivery_goes_out_at_once() -> None:
    bench = opened()
    (delivery,) = deferred(bench)
    sent = bench.send(within=delivery)
    assert bench.ack(delivery) == []
    assert bench.confirm(sent) == [Ack(bench.epoch, 1, False)]


# RUNNING


@pytest.mark.parametrize(
    ("decision", "expected"),
    [("ack", ["Ack"]), ("reject", ["Nack"]), ("requeue", ["Nack"])],
)
@pytest.mark.parametrize("outcome", ["done", "deferred"])
def test_a_decision_by_hand_waits_for_the_end_of_its_handler(decision: str, expected: list[str], outcome: str) -> None:
    bench = opened()
    delivery = bench.take()
    assert CALLS[decision](bench, delivery) == []
    effects = bench.handled(delivery, DEFERRED) if outcome == "deferred" else bench.handled(delivery)
    assert kinds(effects) == expected
    assert [effect.requeue for effect in of(Nack, effects)] == [decision == "requeue"] * (expected == ["Nack"])


@pytest.mark.parametrize("decision", ["ack", "reject"])
def test_after_a_decision_by_hand_while_it_runs_its_publishes_go_out_before_it_is_settled(decision: str) -> None:
    bench = opened()
    delivery = bench.take()
    CALLS[decision](bench, delivery)
    bench.publish(within=delivery)
    sent = only(Publish, bench.handled(delivery))
    assert kinds(bench.confirm(sent)) == ["Ack" if decision == "ack" else "Nack"]


def test_what_is_requeued_while_it_runs_publishes_nothing() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.nack(delivery, requeue=True)
    assert kinds(bench.handled(delivery)) == ["Nack"]
    assert "0 to publish" in repr(bench.machine)


def test_multiple_on_a_running_one_settles_the_earlier_deferred_ones_at_once() -> None:
    bench = opened()
    deferred(bench)
    running = bench.take()
    assert bench.ack(running, multiple=True) == [Ack(bench.epoch, 1, False)]
    assert bench.handled(running) == [Ack(bench.epoch, 2, False)]


def test_a_handler_that_fails_after_its_decision_by_hand_has_failed() -> None:
    """What it published is not sent, so the message must not be acknowledged."""
    bench = opened()
    delivery = bench.take()
    bench.ack(delivery)
    assert only(Nack, bench.handled(delivery, Failed("no"))).requeue


# PublishDone, stale, nonsense


def settled_by_handler(bench: Bench) -> DeliveryId:
    delivery = bench.take()
    bench.handled(delivery)
    return delivery


def settled_by_hand(bench: Bench) -> DeliveryId:
    (delivery,) = deferred(bench)
    bench.ack(delivery)
    return delivery


def judged_while_running(bench: Bench) -> DeliveryId:
    delivery = bench.take()
    bench.ack(delivery)
    return delivery


def waiting_for_confirms(bench: Bench) -> DeliveryId:
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery)
    return delivery


def never_delivered(bench: Bench) -> DeliveryId:
    return delivery_id(bench.epoch, 99)


@each_call
@pytest.mark.parametrize(
    "make", [settled_by_handler, settled_by_hand, judged_while_running, waiting_for_confirms, never_delivered]
)
def test_to_settle_twice_is_an_error_and_changes_nothing(call: Call, make: Callable[[Bench], DeliveryId]) -> None:
    bench = opened()
    deferred(bench)
    delivery = make(bench)
    before = snapshot(bench.machine)
    with pytest.raises(LocalError, match="is settled already"):
        call(bench, delivery)
    assert snapshot(bench.machine) == before


@each_call
@pytest.mark.parametrize("nonsense", [0, -1, -(1 << 50), 9 << 48 | 1])
def test_what_is_no_delivery_tag_is_an_error_and_changes_nothing(call: Call, nonsense: int) -> None:
    bench = opened()
    deferred(bench)
    before = snapshot(bench.machine)
    with pytest.raises(LocalError, match="is not a delivery tag"):
        call(bench, DeliveryId(nonsense))
    assert snapshot(bench.machine) == before


def test_the_brokers_own_tag_is_no_delivery_tag() -> None:
    bench = opened()
    deferred(bench)
    with pytest.raises(LocalError, match="is not a delivery tag"):
        bench.ack(DeliveryId(1))


@pytest.mark.parametrize("nonsense", ["1", None, 1.5])
def test_what_is_not_even_a_number_is_a_local_error(nonsense: DeliveryId) -> None:
    bench = opened()
    with pytest.raises(LocalError):
        bench.ack(nonsense)


@each_call
def test_a_delivery_of_a_lost_link_is_ignored_because_it_is_redelivered(call: Call) -> None:
    bench = opened()
    (delivery,) = deferred(bench)
    bench.lose()
    assert call(bench, delivery) == []
    bench.open()
    bench.take()
    assert call(bench, delivery) == []
    assert bench.machine.stale == 2


# Failing after all (what a batch does)


def test_a_deferred_delivery_can_fail_after_all() -> None:
    bench = opened()
    (delivery,) = deferred(bench)
    effects = bench.machine.failed(delivery, Failed("no"), bench.now)
    assert kinds(effects) == ["Report", "PublishLog", "Nack"]
    assert only(Nack, effects).requeue


def test_a_deferred_delivery_that_fails_may_be_tried_later() -> None:
    bench = opened(retry=RetryPolicy(2, (3.0,)))
    (delivery,) = deferred(bench)
    effects = bench.did(bench.machine.failed(delivery, Failed("no"), bench.now))
    assert only(Publish, effects).routing_key == "svc.events.retry.3000"
    assert bench.confirm(only(Publish, effects)) == [Ack(bench.epoch, 1, False)]


def test_what_a_delivery_had_published_before_it_failed_after_all_is_not_lost() -> None:
    """Invariant I3: its handler had succeeded, so nobody makes these publishes again."""
    bench = opened(retry=RetryPolicy(1))
    delivery = bench.take()
    bench.publish(within=delivery)
    sent = only(Publish, bench.handled(delivery, DEFERRED))
    effects = bench.did(bench.machine.failed(delivery, Failed("no"), bench.now))
    bench.lose()
    again = of(Publish, bench.open())
    redelivered = [nack.requeue for nack in of(Nack, effects)] in ([], [True])
    assert redelivered or [publish.pid for publish in again] == [sent.pid]


def test_a_delivery_failed_while_its_handler_runs_publishes_nothing() -> None:
    bench = opened()
    delivery = bench.take()
    bench.machine.failed(delivery, Failed("no"), bench.now)
    bench.publish(within=delivery)
    bench.handled(delivery)
    assert of(Publish, bench.seen) == []


def test_settled_while_the_link_was_away_and_back_it_is_told_apart() -> None:
    """Both links have the same tag: the identifier of the old link must settle nothing on the new one."""
    bench = opened()
    (old,) = deferred(bench)
    bench.lose()
    bench.open()
    (new,) = deferred(bench)
    assert bench.ack(old) == []
    assert bench.ack(new) == [Ack(bench.epoch, 1, False)]


def test_a_delivery_is_deferred_from_the_end_of_its_handler_until_it_is_settled() -> None:
    bench = opened()
    delivery = bench.take()
    assert not bench.machine.deferred(delivery)
    bench.handled(delivery, DEFERRED)
    assert bench.machine.deferred(delivery)
    bench.ack(delivery)
    assert not bench.machine.deferred(delivery)
