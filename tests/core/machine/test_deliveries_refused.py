"""Deliveries of which the broker does not take a publish, or the copy for a later retry."""

from __future__ import annotations

from eda_core.criticality import EMERGENCY
from eda_core.machine.effects import (
    Ack,
    Nack,
    Publish,
    PublishDone,
    Report,
)
from eda_core.machine.outcomes import DEFERRED, Failed
from eda_core.machine.policy import RetryPolicy
from tests.core.kit import REJECTED, kinds, of, only, opened
from tests.core.machine.channels import REFUSAL, closed, reopened, told


def test_a_publish_of_a_handler_makes_its_delivery_fail_and_the_policy_decides() -> None:
    bench = opened(retry=RetryPolicy(attempts=2))
    for attempt in (1, 2):
        delivery = bench.take("Happened", message_id="m", redelivered=attempt == 2)
        bench.publish(told(1), within=delivery)
        (publish,) = of(Publish, bench.handled(delivery))
        effects = closed(bench)
        assert only(Nack, effects) == Nack(bench.epoch, attempt, attempt == 1)
        assert f"Happened: the publish of Told (4 bytes) has failed: the broker does not take it: {REFUSAL}" in {
            report.text for report in of(Report, effects)
        }
        assert of(Publish, reopened(bench)) == []
        assert of(Ack, bench.confirm(publish)) == []
    assert bench.machine._outbox.kept == 0
    assert kinds(bench.stop()) == ["Report", *["Cancel"] * 2, "Close"]


def test_other_publishes_of_the_failed_delivery_are_not_sent_again() -> None:
    bench = opened(window=2)
    delivery = bench.take()
    for number in range(4):
        bench.publish(told(number), within=delivery)
    assert len(of(Publish, bench.handled(delivery))) == 2
    closed(bench)
    assert len(of(Publish, reopened(bench))) == 1
    effects = closed(bench)
    assert only(Nack, effects).requeue
    assert of(Publish, reopened(bench)) == []
    assert bench.machine._outbox.kept == 0


def test_an_immediate_publish_of_a_failed_delivery_is_still_sent() -> None:
    bench = opened()
    delivery = bench.take()
    bench.send(told(1), within=delivery, immediate=True)
    bench.publish(told(2), within=delivery)
    bench.handled(delivery)
    closed(bench)
    (first,) = of(Publish, reopened(bench))
    bench.confirm(first)
    assert only(Nack, closed(bench)).requeue


def test_while_its_handler_runs_the_delivery_fails_when_that_ends() -> None:
    bench = opened()
    delivery = bench.take()
    bench.send(within=delivery, immediate=True)
    assert of(Nack, closed(bench)) == []
    assert only(Nack, bench.handled(delivery)).requeue


def test_a_deferred_delivery_fails() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.send(within=delivery)
    assert only(Nack, closed(bench)).requeue


def test_a_rejected_delivery_stays_rejected() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(told(1), within=delivery)
    bench.nack(delivery)
    bench.handled(delivery)
    effects = closed(bench)
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert only(Report, effects).level == EMERGENCY


def test_a_copy_for_a_later_retry_that_the_broker_does_not_take_is_dead_lettered() -> None:
    bench = opened(retry=RetryPolicy(attempts=9, delays=(5.0,)))
    delivery = bench.take()
    (copy,) = of(Publish, bench.handled(delivery, Failed("no")))
    assert copy.exchange == ""
    effects = closed(bench)
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert only(Report, effects).level == EMERGENCY
    assert only(Report, effects).text.endswith(REJECTED)


def test_a_group_of_which_one_publish_fails_fails() -> None:
    bench = opened()
    deliveries = [bench.take() for _ in range(3)]
    for delivery in deliveries:
        bench.handled(delivery, DEFERRED)
    bench.send(within=deliveries[0])
    bench.did(bench.machine.ack_together(deliveries, bench.now))
    effects = closed(bench)
    assert {(nack.tag, nack.requeue) for nack in of(Nack, effects)} == {(1, True), (2, True), (3, True)}
    assert of(Ack, effects) == []
    assert bench.machine._outbox.kept == 0


def test_a_publish_of_a_delivery_that_is_over_is_the_logs_affair() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(told(1), within=delivery, immediate=True)
    bench.handled(delivery, Failed("no", permanent=True))
    effects = closed(bench)
    assert only(Report, effects).level == EMERGENCY


def test_a_publish_of_a_delivery_that_was_given_back_is_the_logs_affair() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(told(1), within=delivery, immediate=True)
    bench.nack(delivery, requeue=True)
    assert only(Nack, bench.handled(delivery)).requeue
    assert only(Report, closed(bench)).level == EMERGENCY


def test_a_publish_of_no_handler_waits_for_nothing() -> None:
    bench = opened()
    assert bench.machine._deliveries.of_handler(None) is None
    bench.send(ticket=1)
    assert only(PublishDone, closed(bench)).refused
