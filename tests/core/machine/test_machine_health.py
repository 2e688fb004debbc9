"""What a machine says of itself, from its start to its end."""

from __future__ import annotations

from typing import Any

from eda_core.machine.effects import Declare, Dispatch
from eda_core.machine.health import Health
from eda_core.machine.machine import unused
from eda_core.machine.outcomes import CONFIGURED
from tests.core.kit import SHOWN, URLS, Bench, calling, config, of, only, opened


def health(bench: Bench) -> Health:
    return bench.machine.health(bench.now)


def test_the_life_of_a_link() -> None:
    bench = Bench(urls=[*URLS])
    bench.connect()
    now = health(bench)
    assert (now.state, now.ready, now.link.open, now.link.seconds, now.link.url) == (
        *("connecting", False, False, None),
        SHOWN[0],
    )
    declare = only(Declare, bench.machine.link_up(bench.epoch, bench.now, broker="RabbitMQ 4.3"))
    bench.declared(only(Declare, bench.declared(declare)))
    bench.now += 5.0
    now = health(bench)
    assert (now.state, now.ready, now.configured, now.stopping) == ("open", True, True, False)
    assert (now.link.open, now.link.seconds, now.link.broker, now.link.number) == (True, 5.0, "RabbitMQ 4.3", 1)
    assert now.queues == ("svc.events", "svc.commands")
    bench.lose()
    bench.now += 0.25
    now = health(bench)
    assert (now.state, now.ready, now.configured, now.link.open, now.queues) == ("backoff", False, False, False, ())
    assert (now.link.url, now.link.seconds, now.link.number) == (SHOWN[1], 0.25, 2)
    assert (now.link.opened, now.link.lost) == (1, 1)


def test_a_service_that_stops_says_so() -> None:
    bench = opened()
    delivery = bench.take()
    bench.stop()
    assert (health(bench).state, health(bench).stopping, health(bench).ready) == ("draining", True, False)
    bench.handled(delivery)
    bench.lose()
    assert (health(bench).state, health(bench).stopping, health(bench).in_flight) == ("stopped", True, 0)


def test_a_service_that_is_not_configured_is_not_ready() -> None:
    bench = opened(configurations=["Settings"])
    assert (health(bench).configured, health(bench).ready) == (False, False)
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert (health(bench).configured, health(bench).ready) == (True, True)


def test_the_oldest_delivery_has_a_name() -> None:
    bench = opened()
    assert (health(bench).oldest_seconds, health(bench).oldest_name) == (None, "")
    bench.take("Happened")
    bench.now += 2.0
    bench.take("Later")
    bench.now += 1.0
    now = health(bench)
    assert (now.in_flight, now.running, now.oldest_seconds, now.oldest_name) == (2, 2, 3.0, "Happened")


def test_what_waits_is_told() -> None:
    bench = opened(buffer=1)
    delivery = bench.take()
    bench.publish(within=delivery)
    bench.publish()
    bench.deliver()
    bench.did(bench.machine.blocked(bench.epoch, "memory", bench.now))
    bench.now += 1.5
    now = health(bench)
    assert (now.held, now.waiting, now.paused, now.running) == (1, 1, 1, 1)
    assert now.link.blocked == 1.5
    assert health(calling()).calls == 1


def test_deliveries_that_wait_for_their_turn_are_paused() -> None:
    bench = opened(serialize_by="conversation_id")
    first = bench.take()
    bench.deliver()
    bench.now += 1.0
    assert (health(bench).running, health(bench).paused) == (1, 1)
    (second,) = of(Dispatch, bench.handled(first))
    bench.now += 1.0
    now: dict[str, Any] = health(bench).as_dict()
    assert (now["running"], now["paused"], now["oldest_seconds"]) == (1, 0, 2.0)
    bench.handled(second.delivery)


def test_a_machine_that_is_never_started_is_idle() -> None:
    machine = unused(config())
    assert (machine.health(0.0).state, machine.metrics(0.0).connecting) == ("idle", 0)
