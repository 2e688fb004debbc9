"""What a handler publishes has the same deduplication_id each time the same message is handled."""

from __future__ import annotations

import pytest

from eda_core.errors import BufferFull
from eda_core.machine.effects import Publish
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.outcomes import DEFERRED, Failed
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.values import Command, Configuration, Event, Result
from tests.core.kit import Bench, calling, of, only, opened

TOLD = Event("Told", 1, "c-1")


def identifiers(bench: Bench) -> list[object]:
    """The header of each publish so far, ``None`` for those without."""
    return [(publish.properties.headers or {}).get("deduplication_id") for publish in of(Publish, bench.seen)]


def work(bench: Bench, delivery: DeliveryId) -> None:
    """Publish messages of each kind, held and at once."""
    bench.publish(TOLD, within=delivery)
    bench.publish(Event("Progress", 50, "c-1"), within=delivery, immediate=True)
    bench.publish(Command("peer.Do", 1, "c-1", "svc.DoReturn", "k"), within=delivery)
    bench.publish(TOLD, within=delivery)
    bench.publish(Result("caller.DoReturn", 1, "c-1", "success", "k"), within=delivery)
    bench.publish(Configuration("Settings", 1, ""), within=delivery)
    bench.handled(delivery)


#: In the order in which they are sent.
WORK = [
    "m/svc/Progress.1",
    "m/svc/Told.1",
    "m/svc/peer.Do.1",
    "m/svc/Told.2",
    "m/svc/caller.DoReturn.1",
    "m/svc/Settings.1",
]


def test_the_same_message_gives_the_same_identifiers_after_a_lost_link() -> None:
    bench = opened()
    work(bench, bench.take(message_id="m"))
    assert identifiers(bench) == WORK
    bench.lose()
    bench.open()
    bench.seen.clear()
    work(bench, bench.take(message_id="m", redelivered=True))
    assert identifiers(bench) == WORK


def test_another_worker_gives_them_too() -> None:
    for bench in (opened(), opened()):
        work(bench, bench.take(message_id="m"))
        assert identifiers(bench) == WORK


def test_a_second_attempt_gives_them_too() -> None:
    bench = opened()
    first = bench.take(message_id="m")
    bench.publish(TOLD, within=first)
    bench.handled(first, Failed("no"))
    work(bench, bench.take(message_id="m", redelivered=True))
    assert identifiers(bench) == WORK


def test_a_delayed_retry_gives_them_too() -> None:
    bench = opened(retry=RetryPolicy(2, (1.0,)))
    headers = {"conversation_id": "c-1", "deduplication_id": "m"}
    bench.handled(bench.take(headers=headers), Failed("no"))
    (copy,) = of(Publish, bench.seen)
    assert copy.properties.headers is not None
    assert copy.properties.headers["deduplication_id"] == "m", "the copy keeps the header of the message"
    bench.seen.clear()
    fields = {"message_id": copy.properties.message_id, "headers": copy.properties.headers}
    work(bench, bench.take("svc.events", exchange="", **fields))
    assert identifiers(bench) == WORK


def test_what_is_published_in_some_cases_only_does_not_change_the_others() -> None:
    bench = opened()
    for names in (["Told", "Progress", "Told"], ["Told", "Told"]):
        delivery = bench.take(message_id="m")
        for name in names:
            bench.publish(Event(name, 1, "c-1"), within=delivery)
        bench.handled(delivery)
    assert identifiers(bench) == ["m/svc/Told.1", "m/svc/Progress.1", "m/svc/Told.2", "m/svc/Told.1", "m/svc/Told.2"]


def test_a_duplicate_of_a_message_gives_the_identifiers_of_the_first() -> None:
    """A service without an inbox handles both. What comes of that is dropped by the next service that has one."""
    bench = opened()
    for message_id in ("first", "second"):
        headers = {"conversation_id": "c-1", "deduplication_id": "a/origin/Happened.1"}
        delivery = bench.take(message_id=message_id, headers=headers)
        bench.publish(TOLD, within=delivery)
        bench.handled(delivery)
    assert identifiers(bench) == ["a/origin/Happened.1/svc/Told.1"] * 2


def test_two_services_that_handle_the_same_event_give_different_ones() -> None:
    found = []
    for service in ("one", "other"):
        bench = opened(service=service, commands=[])
        found.append(bench.send(TOLD, within=bench.take(message_id="m"), immediate=True).properties.headers)
    assert [headers and headers["deduplication_id"] for headers in found] == ["m/one/Told.1", "m/other/Told.1"]


def test_what_goes_on_after_the_handler_counts_on() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.publish(TOLD, within=delivery)
    bench.handled(delivery, DEFERRED)
    bench.publish(TOLD, within=delivery)
    assert identifiers(bench) == ["m/svc/Told.1", "m/svc/Told.2"]


def test_a_handler_that_goes_on_over_a_lost_link_counts_on() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.publish(TOLD, within=delivery)
    bench.lose()
    bench.publish(TOLD, within=delivery)
    bench.open()
    assert bench.deliver(message_id="m", redelivered=True) == []
    bench.publish(TOLD, within=delivery)
    bench.handled(delivery)
    assert identifiers(bench) == ["m/svc/Told.1", "m/svc/Told.2", "m/svc/Told.3"]


def test_calls_count_too() -> None:
    bench = calling()
    delivery = bench.take(message_id="m")
    bench.seen.clear()
    bench.call(2, within=delivery)
    bench.call(3, within=delivery)
    assert identifiers(bench) == ["m/svc/peer.Do.1", "m/svc/peer.Do.2"]


def test_what_is_refused_does_not_count() -> None:
    bench = opened(held=1)
    delivery = bench.take(message_id="m")
    bench.publish(TOLD, within=delivery)
    with pytest.raises(BufferFull):
        bench.publish(TOLD, within=delivery)
    bench.publish(TOLD, within=delivery, immediate=True)
    bench.handled(delivery)
    assert identifiers(bench) == ["m/svc/Told.2", "m/svc/Told.1"]


# Without


def test_what_is_published_outside_of_handlers_has_none() -> None:
    """Its message id is its own, and stays the same when it is sent again."""
    bench = opened()
    bench.publish(TOLD)
    assert identifiers(bench) == [None]


@pytest.mark.parametrize("message_id", [None, "", b"\xff"])
def test_what_a_message_without_an_id_causes_has_none(message_id: object) -> None:
    """Messages of eventail have none. Two of them with the same content may be two."""
    bench = opened()
    bench.publish(TOLD, within=bench.take(message_id=message_id), immediate=True)
    assert identifiers(bench) == [None]


def test_what_each_worker_does_for_a_configuration_has_none() -> None:
    bench = opened(configurations=["Settings"])
    bench.publish(TOLD, within=bench.take("Settings", exchange="configurations", message_id="m"), immediate=True)
    assert identifiers(bench) == [None]


def test_what_services_with_queues_of_their_own_publish_has_none() -> None:
    bench = opened(exclusive_queues=True)
    bench.publish(TOLD, within=bench.take(message_id="m"), immediate=True)
    assert identifiers(bench) == [None]


def test_what_is_published_for_a_batch_has_none() -> None:
    """When its messages come again, the batch may have others."""
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.publish(Event("Pushed", 1, "c-1"), within=delivery)
    bench.did(bench.machine.collected(delivery, bench.now))
    bench.handled(delivery, DEFERRED)
    bench.publish(TOLD, within=delivery)
    assert identifiers(bench) == ["m/svc/Pushed.1", None]


# By a key of the user's


def test_a_key_takes_the_place_of_the_identifiers_of_the_message() -> None:
    bench = opened()
    for message_id in ("m", None):
        delivery = bench.take(message_id=message_id)
        assert bench.machine.identify(delivery, "order 17", bench.now) == []
        bench.publish(TOLD, within=delivery)
        bench.handled(delivery)
    assert identifiers(bench) == ["order 17/svc/Told.1"] * 2


def test_a_key_for_a_delivery_that_has_ended_does_nothing() -> None:
    bench = opened()
    delivery = bench.take(message_id="m")
    bench.handled(delivery)
    assert bench.machine.identify(delivery, "order 17", bench.now) == []
    assert only(Publish, bench.publish(TOLD)).delivery is None
