"""Inputs that the machine passes on: about earlier links, by hand, from a batch, and about what is due."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from eda_core.criticality import EMERGENCY, NOTICE, WARNING
from eda_core.errors import LocalError, StateError
from eda_core.machine import link
from eda_core.machine.effects import (
    CONSUMING,
    PUBLISHING,
    Ack,
    Close,
    Consume,
    Declare,
    Effect,
    Nack,
    Probe,
    Publish,
    PublishDone,
    Report,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import Epoch
from eda_core.machine.outcomes import CONFIGURED, DEFERRED, DONE, Failed
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.codec import CBOR, JSON
from tests.core.kit import URLS, Bench, kinds, of, only, opened, snapshot
from tests.core.machine.channels import closed

OLD = Epoch(1)
STALE: dict[str, Callable[[Bench], list[Effect]]] = {
    "link_up": lambda bench: bench.machine.link_up(OLD, bench.now),
    "declared": lambda bench: bench.machine.declared(OLD, [], bench.now),
    "link_down": lambda bench: bench.machine.link_down(OLD, "late", bench.now),
    "channel_closed": lambda bench: bench.machine.channel_closed(OLD, "late", bench.now),
    "channel_opened": lambda bench: bench.machine.channel_opened(OLD, bench.now),
    "alive": lambda bench: bench.machine.alive(OLD, bench.now, channel=CONSUMING),
    "consumer_cancelled": lambda bench: bench.machine.consumer_cancelled(OLD, "events", bench.now),
    "blocked": lambda bench: bench.machine.blocked(OLD, "late", bench.now),
    "unblocked": lambda bench: bench.machine.unblocked(OLD, bench.now),
    "delivered": lambda bench: bench.deliver(epoch=OLD, tag=9),
    "confirmed": lambda bench: bench.machine.confirmed(OLD, 1, bench.now),
    "refused": lambda bench: bench.machine.refused(OLD, 1, bench.now),
}


# The link


@pytest.mark.parametrize("name", STALE)
def test_what_is_about_an_earlier_link_is_counted_and_ignored(name: str) -> None:
    bench = opened()
    bench.lose()
    bench.open()
    bench.machine._stale = 0
    before = snapshot(bench.machine)
    assert STALE[name](bench) == []
    assert bench.machine.stale == 1
    bench.machine._stale = 0
    assert snapshot(bench.machine) == before


def test_a_lost_link_without_any_link_is_counted() -> None:
    bench = opened()
    bench.lose()
    assert bench.lose() == []
    assert (bench.machine.stale, bench.state) == (1, link.BACKOFF)


def test_the_url_of_the_link_is_the_first() -> None:
    bench = opened(urls=[*URLS])
    assert bench.machine.urls == URLS
    bench.lose()
    assert bench.machine.urls == (URLS[1], URLS[0])
    assert bench.connect().url == URLS[1]


def test_a_cancelled_consumer_costs_the_link() -> None:
    bench = opened()
    effects = bench.machine.consumer_cancelled(bench.epoch, "events", bench.now)
    assert only(Close, effects) == Close(OLD, "the broker cancelled the consumer of events")
    assert bench.state is link.BACKOFF


def test_a_link_that_is_closing_is_not_given_up() -> None:
    bench = opened()
    bench.stop()
    assert bench.machine.consumer_cancelled(bench.epoch, "events", bench.now) == []
    assert bench.state is link.CLOSING


def test_a_broker_that_blocks_gets_publishes_when_it_takes_them_again() -> None:
    bench = opened()
    assert bench.machine.blocked(bench.epoch, "low on memory", bench.now) == [
        Report(WARNING, "the broker blocks publishing: low on memory")
    ]
    assert bench.publish() == []
    report, publish = bench.machine.unblocked(bench.epoch, bench.now)
    assert report == Report(NOTICE, "the broker takes publishes again")
    assert isinstance(publish, Publish)
    assert bench.machine.unblocked(bench.epoch, bench.now) == []


def test_a_broker_blocks_nothing_without_a_link() -> None:
    bench = opened()
    bench.lose()
    before = snapshot(bench.machine)
    assert bench.machine.blocked(bench.epoch, "low on memory", bench.now) == []
    assert snapshot(bench.machine) == before


@pytest.mark.parametrize(("channel", "asked"), [(CONSUMING, PUBLISHING), (PUBLISHING, CONSUMING)])
def test_a_sign_of_life_counts_for_its_channel_only(channel: str, asked: str) -> None:
    bench = opened(probe_interval=4.0, probe_timeout=8.0)
    bench.now += 3.0
    assert bench.machine.alive(bench.epoch, bench.now, channel=channel) == []
    assert [(type(each).__name__, getattr(each, "channel", "")) for each in bench.wait(1.5)] == [("Probe", asked)]


# The service


@pytest.mark.parametrize("timeout", ["5", math.nan, True])
def test_a_stop_needs_a_number_of_seconds(timeout: Any) -> None:
    bench = opened()
    with pytest.raises(LocalError) as caught:
        bench.stop(timeout)
    assert str(caught.value) == f"the timeout of stop() is {timeout!r}; give seconds"
    assert not bench.machine.stopping


def test_a_stop_waits_for_each_hold() -> None:
    bench = opened()
    assert bench.machine.hold(bench.now) == bench.machine.hold(bench.now) == []
    assert of(Close, bench.stop()) == []
    assert bench.machine.release(bench.now) == []
    assert kinds(bench.machine.release(bench.now)) == ["Close"]
    with pytest.raises(StateError, match="there is nothing to release"):
        bench.machine.release(bench.now)


def test_a_release_without_a_stop_closes_nothing() -> None:
    bench = opened()
    bench.machine.hold(bench.now)
    assert bench.machine.release(bench.now) == []
    assert bench.state is link.OPEN


def test_payloads_are_json_from_now_on() -> None:
    bench = opened()
    assert bench.send().properties.content_type == CBOR
    assert bench.machine.use_json(bench.now) == []
    sent = bench.send()
    assert sent.properties.content_type == JSON
    assert json.loads(sent.body) == {"n": 1}


def test_a_service_that_stops_without_time_says_what_was_never_confirmed() -> None:
    bench = opened()
    bench.send(ticket=1)
    bench.send()
    bench.stop(0.0)
    effects = bench.wait(0.0)
    assert only(PublishDone, effects) == PublishDone(1, "the service stopped before the broker confirmed it")
    assert of(Report, effects)[0] == Report(EMERGENCY, "2 publish(es) were never confirmed by the broker")
    assert bench.lose() == [Stopped(None)]


# Configurations


def unconfigured(**settings: Any) -> Bench:
    return opened(configurations=["Settings"], **settings)


def test_a_service_asks_again_after_a_configuration_of_no_use() -> None:
    bench = unconfigured()
    asked = bench.now
    bench.handled(bench.take("Settings", exchange="configurations"), Failed("no", permanent=True))
    due = bench.machine.deadline()
    assert due is not None
    assert asked < due < asked + 30.0
    assert bench.wait(due - bench.now - 0.01) == []
    assert bench.due() == [Unconfigured()]
    assert bench.machine.deadline() == asked + 30.0, "it asks once"


def test_a_configuration_that_cannot_be_read_is_of_no_use_either() -> None:
    bench = unconfigured()
    assert "Nack" in kinds(bench.deliver("Settings", exchange="configurations", body=b"\xff"))
    assert bench.due() == [Unconfigured()]


def test_a_service_that_stops_does_not_ask_again() -> None:
    bench = unconfigured()
    running = bench.take("Settings", exchange="configurations")
    bench.handled(bench.take("Settings", exchange="configurations"), Failed("no", permanent=True))
    bench.stop(500.0)
    assert of(Unconfigured, bench.wait(29.0)) == []
    assert bench.wait(1.0) == [], "it does not warn either"
    assert bench.handled(running, CONFIGURED)[-1] == Close(bench.epoch, "the service stops")
    assert {each.consumer_tag for each in of(Consume, bench.seen)} == {"configurations"}, "it takes no new work"


def test_a_service_that_waits_for_its_configuration_warns_less_and_less() -> None:
    bench = unconfigured()
    since = bench.now
    warned: list[tuple[float, str]] = []
    for number in range(12):
        bench.handled(bench.take(f"Settings{number}", exchange="configurations"), DONE)
    for _ in range(3):
        warned += [(bench.now - since, each.text) for each in of(Report, bench.due())]
    names = ", ".join(f"Settings{number}" for number in range(10))
    text = "still waiting for a configuration handler to return True, for {} s now; received: " + names
    assert warned == [(seconds, text.format(int(seconds))) for seconds in (30.0, 60.0, 120.0)]


def test_a_service_that_has_received_no_configuration_says_so() -> None:
    (report,) = of(Report, unconfigured().wait(30.0))
    assert (report.level, report.event) == (WARNING, "unconfigured")
    assert report.text.endswith(" for 30 s now; received: nothing")


def test_a_configured_service_neither_asks_nor_warns() -> None:
    bench = unconfigured()
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert bench.machine.deadline() is None
    assert bench.wait(100.0) == []


# Deliveries by hand


def test_a_delivery_is_in_flight_until_it_is_settled() -> None:
    bench = opened()
    delivery = bench.take()
    assert (bench.machine.in_flight(delivery), bench.machine.deferred(delivery)) == (True, False)
    bench.handled(delivery, DEFERRED)
    assert (bench.machine.in_flight(delivery), bench.machine.deferred(delivery)) == (True, True)
    assert bench.ack(delivery) == [Ack(OLD, 1, False)]
    assert (bench.machine.in_flight(delivery), bench.machine.deferred(delivery)) == (False, False)


@pytest.mark.parametrize("requeue", [False, True])
def test_a_deferred_delivery_is_rejected_or_given_back(requeue: bool) -> None:
    bench = opened()
    first, second = bench.take(), bench.take()
    bench.handled(first, DEFERRED)
    bench.handled(second, DEFERRED)
    assert bench.nack(second, requeue=requeue, multiple=True) == [Nack(OLD, 1, requeue), Nack(OLD, 2, requeue)]


def test_a_deferred_delivery_can_fail() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    effects = bench.machine.failed(delivery, Failed("no", permanent=True), bench.now)
    assert only(Nack, effects) == Nack(OLD, 1, False)


def test_deliveries_are_acknowledged_together_when_all_is_confirmed() -> None:
    bench = opened()
    first, second = bench.take(), bench.take()
    bench.handled(first, DEFERRED)
    bench.handled(second, DEFERRED)
    sent = bench.send(within=first)
    assert bench.machine.ack_together([second, first], bench.now) == []
    assert bench.confirm(sent) == [Ack(OLD, 2, True)]


def test_a_delivery_in_a_batch_does_not_publish_after_its_link() -> None:
    """Its message leaves the batch, and its handler begins again when it is delivered again."""
    bench = opened()
    delivery = bench.take(message_id="m")
    assert bench.machine.collected(delivery, bench.now) == []
    bench.lose()
    assert bench.publish(within=delivery, ticket=5) == [PublishDone(5)]
    assert bench.machine.stale == 1
    bench.open()
    assert bench.take(message_id="m", redelivered=True) != delivery
    assert of(Publish, bench.seen) == []


def test_what_comes_during_a_stop_goes_to_another_worker() -> None:
    bench = opened()
    bench.take()
    bench.stop()
    assert bench.deliver() == [Nack(OLD, 2, True)]


def test_a_delivery_fails_with_the_publish_that_the_broker_does_not_take() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery)
    effects = closed(bench)
    assert only(Nack, effects) == Nack(OLD, 1, True)
    assert [each.event for each in of(Report, effects)] == ["handler-failed"], "the failure says it all"


def test_space_for_a_paused_handler_is_announced_to_nobody_else() -> None:
    bench = opened(buffer=1)
    sent = bench.send()
    assert bench.deliver() == []
    assert kinds(bench.confirm(sent)) == ["Dispatch"]


def test_a_link_that_opens_during_a_stop_publishes_and_consumes_nothing() -> None:
    bench = Bench()
    bench.publish(ticket=1)
    bench.connect()
    bench.stop()
    declared = bench.declared(only(Declare, bench.declared(bench.link_up())))
    assert kinds(declared) == ["Publish"]
    assert kinds(bench.confirm(only(Publish, declared))) == ["PublishDone", "Close"]


def test_a_broker_that_answers_but_confirms_nothing_is_left() -> None:
    bench = opened(probe_interval=4.0, probe_timeout=8.0)
    publish, effects = bench.send(), list[Effect]()
    for last in (False, True):
        while not of(Probe, bench.due()):
            pass
        assert bench.machine.alive(bench.epoch, bench.now, channel=CONSUMING, answered=True) == []
        effects = bench.did(bench.machine.alive(bench.epoch, bench.now, channel=PUBLISHING, answered=True))
        assert bool(effects) is last
    reason = "the broker answers, but has confirmed no publish for 8 s"
    assert only(Close, effects) == Close(Epoch(1), reason, unresponsive=True)
    assert only(Publish, bench.open()).pid == publish.pid


def test_a_message_that_is_given_up_when_it_comes_is_published_at_once() -> None:
    bench = opened(dead_letter_exchange="am-dlx", retry=RetryPolicy(max_losses=1))
    counts = {"x-delivery-count": 2, "x-acquired-count": 2}
    copy = only(Publish, bench.deliver(headers={"conversation_id": "c", **counts}, redelivered=True))
    assert copy.exchange == "am-dlx"
    assert bench.confirm(copy) == [Ack(bench.epoch, 1, False)]


def test_a_copy_that_comes_back_does_not_take_the_place_of_its_message() -> None:
    bench = opened(dead_letter_exchange="am-dlx")
    copy = only(Publish, bench.handled(bench.take(), Failed("no", permanent=True)))
    back = ("am-dlx", "Happened", copy.properties, copy.body, "NO_ROUTE")
    assert bench.machine.returned(bench.epoch, *back, bench.now) == []
    effects = bench.confirm(copy)
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert of(Ack, effects) == []
    assert "no queue is bound to am-dlx for Happened (NO_ROUTE)" in only(Report, effects).text


def test_a_key_of_the_handler_identifies_its_message() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    assert bench.machine.identify(delivery, "order 17", bench.now) == []
    bench.publish(within=delivery)
    headers = only(Publish, bench.handled(delivery)).properties.headers or {}
    assert headers["deduplication_id"] == "order 17/svc/Told.1"


def test_which_attempt_a_delivery_is() -> None:
    bench = opened()
    first = bench.take(message_id="m")
    assert bench.machine.attempt(first) == 1
    bench.handled(first, Failed("no"))
    again = bench.take(message_id="m", redelivered=True)
    assert (bench.machine.attempt(first), bench.machine.attempt(again)) == (0, 2)
    bench.lose()
    assert bench.machine.attempt(again) == 2, "its handler still runs"


def test_the_id_of_the_last_message_that_was_accepted() -> None:
    bench = opened()
    publish = bench.send()
    assert bench.machine.last_message_id == publish.properties.message_id
