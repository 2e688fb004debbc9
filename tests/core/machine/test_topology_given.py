"""Exchanges and queues that the operator has declared in another way, or that the service may not declare."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from eda_core.criticality import WARNING
from eda_core.errors import LocalError
from eda_core.machine.effects import Close, Declare, Effect, Report
from eda_core.machine.topology import NOTHING, Given, queue_arguments
from eda_core.messages.delays import DELAY_QUEUES
from tests.core.kit import Bench, config, of, only, opened

DIFFERS = (
    "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'svc.events' in vhost '/': received none but "
    "current is the value 'quorum' of type 'longstr'"
)
FORBIDDEN = "ACCESS_REFUSED - configure access to exchange 'events' in vhost '/' refused for user 'svc'"
GONE = "NOT_FOUND - no queue 'svc.events' in vhost '/'"


def refused(bench: Bench, declaration: Exchange.Declare | Queue.Declare, reason: str) -> list[Effect]:
    machine, now = bench.machine, bench.now
    return bench.did(machine.channel_closed(bench.epoch, reason, now, declaration=declaration))


def declaration(declare: Declare, name: str) -> Exchange.Declare | Queue.Declare:
    """Return the declaration of the exchange or queue with this name."""
    (found,) = (
        each
        for each in declare.commands
        if isinstance(each, (Exchange.Declare, Queue.Declare)) and name in (getattr(each, "queue", ""), _exchange(each))
    )
    return found


def _exchange(each: object) -> str:
    return str(getattr(each, "exchange", ""))


def connected(bench: Bench) -> Declare:
    bench.connect()
    return bench.link_up()


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({}, {}),
        ({"queue_type": "classic"}, {"x-queue-type": "classic"}),
        ({"queue_type": "quorum"}, {"x-queue-type": "quorum", "x-delivery-limit": 20}),
        ({"queue_type": "quorum", "delivery_limit": 7}, {"x-queue-type": "quorum", "x-delivery-limit": 7}),
    ],
)
def test_the_queues_for_events_and_commands_have_the_type_that_is_asked_for(
    settings: dict[str, Any], arguments: dict[str, object]
) -> None:
    assert queue_arguments(config(**settings)) == arguments
    declare = connected(Bench(configurations=["C"], **settings))
    queues = [each for each in declare.commands if isinstance(each, Queue.Declare)]
    assert [(each.queue, each.arguments or {}) for each in queues] == [
        ("svc.events", arguments),
        ("svc.commands", arguments),
        ("", {}),
    ]


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(LocalError, match="queue_type is 'fast'"):
        config(queue_type="fast")


def test_a_queue_that_differs_is_used_as_it_is_with_one_warning() -> None:
    bench = Bench(queue_type="quorum")
    asked = declaration(connected(bench), "svc.events")
    effects = refused(bench, asked, DIFFERS)
    text = f"the queue svc.events is used as it is, because the broker refuses to declare it: {DIFFERS}"
    assert of(Report, effects)[0] == Report(WARNING, text)
    assert len(of(Close, effects)) == 1
    for _ in range(2):
        declare = connected(bench)
        assert declaration(declare, "svc.events").passive
        assert not declaration(declare, "svc.commands").passive
        bench.lose()


def test_what_is_given_and_gone_is_declared_again() -> None:
    bench = Bench()
    refused(bench, declaration(connected(bench), "svc.events"), DIFFERS)
    effects = refused(bench, declaration(connected(bench), "svc.events"), GONE)
    assert len(of(Report, effects)) == 1, "the lost link alone"
    assert not declaration(connected(bench), "svc.events").passive


def test_who_may_not_declare_one_exchange_declares_none() -> None:
    bench = Bench()
    effects = refused(bench, declaration(connected(bench), "events"), FORBIDDEN)
    text = f"the exchanges are used as they are, because the broker refuses to declare one: {FORBIDDEN}"
    assert of(Report, effects)[0] == Report(WARNING, text)
    declare = connected(bench)
    assert all(each.passive for each in declare.commands if isinstance(each, Exchange.Declare))
    assert not declaration(declare, "svc.events").passive


def test_each_attempt_that_learns_something_is_followed_by_a_prompt_one() -> None:
    bench = Bench(commands=["svc.#"], jitter=1.0)
    waits = []
    for name, reason in (("events", FORBIDDEN), ("svc.events", FORBIDDEN), ("svc.commands", FORBIDDEN)):
        refused(bench, declaration(connected(bench), name), reason)
        deadline = bench.machine.deadline()
        assert deadline is not None
        waits.append(deadline - bench.now)
    assert len(set(waits)) == 1


def test_one_attempt_is_enough_to_learn() -> None:
    bench = Bench(reconnect=config().reconnect.__class__(initial_attempts=1))
    refused(bench, declaration(connected(bench), "svc.events"), DIFFERS)
    assert bench.state == "backoff"


@pytest.mark.parametrize("reason", ["RESOURCE_LOCKED - cannot obtain exclusive access", "INTERNAL_ERROR"])
def test_other_refusals_change_nothing(reason: str) -> None:
    given = Given()
    asked = Queue.Declare(queue="q", durable=True)
    assert given.learn(asked, reason) is None
    assert given.applied([asked]) == (asked,)


def test_an_exchange_of_another_type_is_not_used() -> None:
    given = Given()
    reason = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'events' in vhost '/': received 'topic'"
    asked = Exchange.Declare(exchange="events", exchange_type="topic", durable=True)
    assert given.learn(asked, reason) is None
    assert given.applied([asked]) == (asked,)


def test_a_binding_that_is_refused_changes_nothing() -> None:
    assert Given().learn(Queue.Bind(queue="q", exchange="events", routing_key="k"), FORBIDDEN) is None


def test_a_retry_queue_that_differs_is_used_as_it_is() -> None:
    given = Given()
    asked = Queue.Declare(queue="svc.events.retry.5000", durable=True, arguments={"x-message-ttl": 5000})
    assert given.learn(asked, DIFFERS) is not None
    (passive,) = given.applied([asked])
    assert (passive.passive, passive.queue) == (True, "svc.events.retry.5000")  # type: ignore[attr-defined]


def test_a_queue_that_is_added_may_be_given_too() -> None:
    bench = opened()
    effects = bench.did(bench.machine.call("peer.Do", 1, bench.now, ticket=1, timeout=9.0))
    assert all(not getattr(each, "passive", False) for each in only(Declare, effects).commands)


def test_no_arguments_are_not_to_be_changed() -> None:
    with pytest.raises(TypeError):
        NOTHING["x"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("named", "present", "dead_letters"),
    [
        ("x-dead-letter-exchange", "is the value 'am-dlx' of type 'longstr'", True),
        ("x-dead-letter-exchange", "is none", False),
        ("x-max-length", "is the value '7' of type 'signedint'", False),
    ],
)
def test_a_queue_with_a_dead_letter_exchange_of_the_operator_is_known(
    named: str, present: str, dead_letters: bool
) -> None:
    given = Given()
    words = f"PRECONDITION_FAILED - inequivalent arg '{named}' for queue 'svc.events' in vhost '/': received none but "
    assert given.learn(Queue.Declare(queue="svc.events", durable=True), f"{words}current {present}") is not None
    assert given.dead_lettering == ({"svc.events"} if dead_letters else set())


def test_who_may_not_declare_one_for_delayed_messages_takes_all_of_them_as_they_are() -> None:
    bench = Bench(delayed_messages=True)
    declare = connected(bench)
    assert not declaration(declare, "delay.to-events").passive
    both = [each for each in declare.commands if getattr(each, "exchange", getattr(each, "queue", "")) == "delay.7"]
    exchange, queue = both
    assert isinstance(exchange, Exchange.Declare)
    assert isinstance(queue, Queue.Declare)
    refused(bench, exchange, "ACCESS_REFUSED - configure access to exchange 'delay.7' refused")
    declare = connected(bench)
    assert all(each.passive for each in declare.commands if isinstance(each, Exchange.Declare))
    assert not any(each.passive for each in declare.commands if isinstance(each, Queue.Declare))
    refused(bench, queue, "ACCESS_REFUSED - configure access to queue 'delay.7' refused")
    declare = connected(bench)
    passive = [each.queue for each in declare.commands if isinstance(each, Queue.Declare) and each.passive]
    assert passive == list(DELAY_QUEUES)
