"""The counts of deliveries and of handlers: each delivery has one end, and each handler ends once."""

from __future__ import annotations

from eda_core.machine.effects import Dispatch, Publish
from eda_core.machine.outcomes import DEFERRED, DONE, Failed
from eda_core.machine.policy import RetryPolicy
from tests.core.kit import of, only, opened
from tests.core.machine.numbers import counts, metrics, of_handlers

FAILED = Failed("no")


def test_a_copy_for_a_delayed_retry_counts_once_it_is_safe() -> None:
    bench = opened(retry=RetryPolicy(3, (1.0,)))
    copy = only(Publish, bench.handled(bench.take(), FAILED))
    assert counts(bench) == {"received": 1, "failed": 1, "published": 1, "waiting": 1, "unconfirmed": 1}
    bench.confirm(copy)
    assert counts(bench) == {"received": 1, "failed": 1, "retried": 1, "published": 1, "confirmed": 1}


def test_a_copy_in_the_dead_letter_exchange_counts_once_it_is_safe() -> None:
    bench = opened(dead_letter_exchange="am-dlx", retry=RetryPolicy(1))
    copy = only(Publish, bench.handled(bench.take(), FAILED))
    assert metrics(bench).dead_lettered == 0
    bench.confirm(copy)
    assert counts(bench) == {"received": 1, "failed": 1, "dead_lettered": 1, "published": 1, "confirmed": 1}


def test_an_invalid_message_is_dead_lettered() -> None:
    bench = opened()
    bench.deliver(headers={})
    assert counts(bench) == {"received": 1, "dead_lettered": 1}
    bench = opened(dead_letter_exchange="am-dlx")
    bench.confirm(*of(Publish, bench.deliver(headers={})))
    assert counts(bench) == {"received": 1, "dead_lettered": 1, "published": 1, "confirmed": 1}
    assert metrics(bench).handlers == ()


def test_messages_that_are_settled_by_hand() -> None:
    bench = opened()
    first, second, third = (bench.take() for _ in range(3))
    for each in (first, second, third):
        bench.handled(each, DEFERRED)
    bench.ack(first)
    bench.nack(second)
    bench.nack(third, requeue=True)
    assert counts(bench) == {"received": 3, "acknowledged": 1, "dead_lettered": 1, "retried": 1}
    assert of_handlers(bench).succeeded == 3


def test_what_a_handler_holds_that_gives_its_message_back_is_dropped() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.nack(delivery, requeue=True)
    bench.handled(delivery)
    assert counts(bench) == {"received": 1, "retried": 1, "published": 1, "dropped": 1}


def test_a_lost_link() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.publish()
    bench.lose()
    lost = {"received": 1, "lost": 1, "published": 2, "held": 1, "waiting": 1, "links_lost": 1}
    assert counts(bench) == lost
    assert (metrics(bench).in_flight, metrics(bench).running, metrics(bench).link_open) == (0, 1, False)
    bench.now += 3.0
    bench.handled(delivery)
    ended = {"received": 1, "lost": 1, "published": 2, "dropped": 1, "waiting": 1, "links_lost": 1}
    assert counts(bench) == ended
    numbers = of_handlers(bench)
    assert (numbers.lost, numbers.failed, numbers.succeeded, numbers.count, numbers.seconds) == (1, 0, 0, 1, 3.0)
    assert metrics(bench).running == 0
    bench.open()
    assert (metrics(bench).links_opened, metrics(bench).links_lost, metrics(bench).connecting) == (2, 1, 2)


def test_a_handler_that_goes_on_for_the_next_delivery_ends_once() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.lose()
    bench.open()
    bench.deliver(redelivered=True, message_id="id-1-1")
    assert (metrics(bench).in_flight, metrics(bench).running, metrics(bench).held) == (1, 1, 1)
    bench.confirm(only(Publish, bench.handled(delivery)))
    assert counts(bench) == {
        "received": 2,
        "lost": 1,
        "acknowledged": 1,
        "published": 1,
        "confirmed": 1,
        "links_lost": 1,
    }
    assert (of_handlers(bench).succeeded, of_handlers(bench).lost) == (1, 0)


def test_the_age_of_the_oldest_delivery() -> None:
    bench = opened(buffer=1)
    first = bench.send()
    bench.deliver("Waits")
    bench.now += 5.0
    bench.deliver("Waits.too")
    bench.now += 1.0
    assert metrics(bench).oldest_delivery == 6.0
    assert [each.message.name for each in of(Dispatch, bench.confirm(first))] == ["Waits", "Waits.too"]
    bench.now += 1.0
    assert metrics(bench).oldest_delivery == 7.0, "the time for which it has waited counts"


def test_the_time_of_a_handler_counts_from_when_it_began() -> None:
    bench = opened()
    delivery = bench.take()
    bench.now += 10.0
    bench.did(bench.machine.handled(delivery, DONE, bench.now, began=bench.now - 0.02))
    numbers = of_handlers(bench)
    assert round(numbers.seconds, 6) == 0.02
    assert numbers.cumulative()[:4] == (0, 0, 0, 1)


def test_a_second_end_of_a_handler_does_not_count() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.handled(delivery)
    bench.ack(delivery)
    bench.handled(delivery)
    assert of_handlers(bench).count == 1


def test_names_do_not_mix() -> None:
    bench = opened()
    bench.handled(bench.take("Happened"))
    bench.handled(bench.take("Happened"), FAILED)
    bench.handled(bench.take("Other"))
    assert [(each.kind, each.name, each.count, each.failed) for each in metrics(bench).handlers] == [
        ("event", "Happened", 2, 1),
        ("event", "Other", 1, 0),
    ]


def test_a_handler_that_fails_after_its_publish_has_failed_counts_once() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery, immediate=True)
    bench.did(bench.machine.channel_closed(bench.epoch, "ACCESS_REFUSED", bench.now, channel="publishing"))
    bench.handled(delivery, FAILED)
    numbers = of_handlers(bench)
    assert (metrics(bench).failed, numbers.failed, numbers.count) == (1, 1, 1)
