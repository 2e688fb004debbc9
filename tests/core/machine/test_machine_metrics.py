"""The numbers of a machine: what each count means, by the inputs that change it."""

from __future__ import annotations

from eda_core.machine.effects import Declare, Publish
from eda_core.machine.outcomes import Failed
from tests.core.kit import Bench, calling, of, only, opened
from tests.core.machine.numbers import counts, metrics, of_handlers

FAILED = Failed("no")


def test_a_new_service_has_no_numbers() -> None:
    bench = Bench()
    assert counts(bench) == {}
    assert metrics(bench).service == "svc"
    assert not metrics(bench).link_open
    assert metrics(bench).handlers == ()


def test_a_relay() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    assert counts(bench) == {"received": 1, "published": 1, "held": 1}
    assert (metrics(bench).in_flight, metrics(bench).running) == (1, 1)
    publish = only(Publish, bench.handled(delivery))
    assert counts(bench) == {"received": 1, "published": 1, "waiting": 1, "unconfirmed": 1}
    assert (metrics(bench).in_flight, metrics(bench).running) == (1, 0)
    bench.confirm(publish)
    assert counts(bench) == {"received": 1, "acknowledged": 1, "published": 1, "confirmed": 1}
    assert metrics(bench).in_flight == 0


def test_a_handler_that_fails_publishes_nothing_and_is_tried_again() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.handled(delivery, FAILED)
    assert counts(bench) == {"received": 1, "failed": 1, "retried": 1, "published": 1, "dropped": 1}
    bench.handled(bench.take(redelivered=True, message_id="id-1-1"), FAILED)
    expected = {"received": 2, "failed": 2, "retried": 1, "dead_lettered": 1, "published": 1, "dropped": 1}
    assert counts(bench) == expected
    assert (of_handlers(bench).count, of_handlers(bench).failed, of_handlers(bench).succeeded) == (2, 2, 0)


def test_a_stop_gives_back_what_no_handler_has_begun() -> None:
    bench = opened(buffer=1)
    bench.send()
    bench.deliver()
    assert counts(bench) == {"received": 1, "paused": 1, "published": 1, "waiting": 1, "unconfirmed": 1}
    bench.stop()
    bench.deliver()
    assert counts(bench) == {"received": 2, "given_back": 2, "published": 1, "waiting": 1, "unconfirmed": 1}


def test_a_link_that_a_stop_closes_is_not_lost() -> None:
    bench = opened()
    bench.stop()
    assert (metrics(bench).links_opened, metrics(bench).links_lost, metrics(bench).link_open) == (1, 0, False)
    bench.lose()
    assert metrics(bench).links_lost == 0


def test_an_attempt_that_fails_loses_no_link() -> None:
    bench = Bench()
    bench.connect()
    bench.lose()
    bench.connect()
    assert (metrics(bench).connecting, metrics(bench).links_opened, metrics(bench).links_lost) == (2, 0, 0)


def test_refused_and_returned_messages() -> None:
    bench = opened()
    publish = bench.send(mandatory=True)
    bench.refuse(publish)
    assert counts(bench) == {"published": 1, "refused": 1, "waiting": 1}
    again = only(Publish, bench.due())
    returned = again.exchange, again.routing_key, again.properties, again.body, "NO_ROUTE"
    bench.did(bench.machine.returned(bench.epoch, *returned, bench.now))
    bench.confirm(again)
    assert counts(bench) == {"published": 1, "refused": 1, "returned": 1, "confirmed": 1}


def test_a_message_that_the_broker_does_not_take() -> None:
    bench = opened()
    bench.send()
    bench.did(bench.machine.channel_closed(bench.epoch, "ACCESS_REFUSED", bench.now, channel="publishing"))
    assert counts(bench) == {"published": 1, "unsendable": 1}


def test_calls() -> None:
    bench = calling()
    assert (metrics(bench).calls, metrics(bench).published, metrics(bench).confirmed) == (1, 1, 1)
    bench.reply(1)
    assert counts(bench) == {"published": 1, "confirmed": 1, "received": 1, "acknowledged": 1}
    assert metrics(bench).handlers == (), "no handler gets the result of a call"


def test_the_command_of_a_call_that_ends_before_it_is_sent_is_dropped() -> None:
    bench = Bench()
    bench.connect()
    bench.call()
    assert counts(bench) == {"published": 1, "waiting": 1, "calls": 1}
    bench.did(bench.machine.forget_call(1, bench.now))
    assert counts(bench) == {"published": 1, "dropped": 1}


def test_what_a_stop_leaves_unsent_is_dropped() -> None:
    bench = Bench()
    bench.connect()
    bench.publish()
    bench.call()
    bench.stop(0.0)
    bench.wait(0.0)
    assert counts(bench) == {"published": 2, "dropped": 2}


def test_a_publish_that_nobody_wants_any_more_is_dropped_when_it_is_refused() -> None:
    bench = opened()
    only(Publish, bench.declared(only(Declare, bench.declared(only(Declare, bench.call())))))
    command = of(Publish, bench.seen)[-1]
    bench.did(bench.machine.forget_call(1, bench.now))
    bench.refuse(command)
    assert counts(bench) == {"published": 1, "refused": 1, "dropped": 1}


def test_to_look_at_the_numbers_changes_nothing() -> None:
    bench = opened()
    bench.publish(within=bench.take())
    assert metrics(bench) == metrics(bench)
    assert bench.machine.metrics(bench.now + 1.0).oldest_delivery == 1.0
    assert metrics(bench).oldest_delivery == 0.0
