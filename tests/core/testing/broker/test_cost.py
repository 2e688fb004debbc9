"""What a message costs does not grow with what is there: with other queues, or with other messages in its queue.

The cost is counted in calls of functions, which do not depend on the machine.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from pamqp import commands

from eda_core.testing.broker import Broker
from tests.core.testing.broker.broker_client import Client


def calls(action: Callable[[], object]) -> int:
    """How many functions ``action`` calls."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def relay(client: Client) -> int:
    """The cost of one message, from its publish to its acknowledgement."""

    def play() -> None:
        client.publish("q", b"body")
        got = client.get("q").method
        assert isinstance(got, commands.Basic.GetOk)
        client.do(commands.Basic.Ack(got.delivery_tag or 0))

    return calls(play)


@pytest.mark.parametrize("arguments", [{}, {"x_expires": 60_000}, {"x_message_ttl": 60_000}], ids=str)
def test_other_queues_cost_nothing(arguments: dict[str, Any]) -> None:
    costs = []
    for others in (1, 300):
        client = Client(Broker(), 1)
        client.declare("q", **arguments)
        for number in range(others):
            client.declare(f"other {number}", **arguments)
            client.publish(f"other {number}", b"waits")
        costs.append(relay(client))
    assert costs[0] == costs[1]


def test_what_expires_costs_nothing_for_other_queues_with_times() -> None:
    costs = []
    for others in (1, 300):
        client = Client(Broker(), 1)
        client.declare("q", x_message_ttl=10)
        client.publish("q")
        for number in range(others):
            client.declare(f"other {number}", x_message_ttl=60_000 + number)
            client.publish(f"other {number}")
        costs.append(calls(lambda: client.broker.tick(now=0.01)))  # noqa: B023 - called at once
        assert client.broker.messages("q") == []
    assert costs[0] == costs[1]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"x_max_length": 10_000},
        {"x_max_length_bytes": 1_000_000},
        {"x_message_ttl": 60_000},
        {"x_single_active_consumer": True},
    ],
    ids=str,
)
def test_other_messages_cost_nothing(kind: str, limits: dict[str, Any]) -> None:
    costs = []
    for waiting in (1, 300):
        client = Client(Broker(), 1)
        client.declare("q", x_queue_type=kind, durable=True, **limits)
        for _ in range(waiting):
            client.publish("q", b"waits")
        costs.append(calls(lambda: client.publish("q", b"body")))  # noqa: B023 - called at once
    assert costs[0] == costs[1]


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.topic"])
@pytest.mark.parametrize("key", ["other.{}", "other.{}.#"])
def test_other_bindings_cost_nothing(exchange: str, key: str) -> None:
    costs = []
    for others in (1, 300):
        client = Client(Broker(), 1)
        client.declare("q")
        for bound in ("q", *(key.format(number) for number in range(others))):
            client.do(commands.Queue.Bind(queue="q", exchange=exchange, routing_key=bound))
        client.publish("q", exchange=exchange)
        costs.append(calls(lambda: client.publish("q", exchange=exchange)))  # noqa: B023 - called at once
    assert costs[0] == costs[1]


def test_a_queue_that_goes_costs_nothing_for_bindings_of_others() -> None:
    costs = []
    for others in (1, 300):
        client = Client(Broker(), 1)
        for number in range(others + 2):
            client.declare(f"q{number}")
            client.do(commands.Queue.Bind(queue=f"q{number}", exchange="amq.topic", routing_key="k"))
        client.do(commands.Queue.Delete(queue="q0"))
        costs.append(calls(lambda: client.do(commands.Queue.Delete(queue="q1"))))  # noqa: B023 - called at once
    assert costs[0] == costs[1]


def consumers_of_one_queue(count: int) -> Client:
    """A client with so many channels, each with a consumer of one queue, whose messages have used up its room."""
    client = Client(Broker(), *range(1, count + 1))
    client.declare("q")
    client.broker.give_room(client.id, 1, now=0.0)
    for channel in range(1, count + 1):
        client.consume("q", "c", channel=channel)
    for _ in range(count + 1):
        client.publish("q")
    return client


@pytest.mark.parametrize(
    "action",
    [
        lambda client: client.broker.give_room(client.id, 1, now=0.0),
        lambda client: client.broker.disconnect(client.id, now=0.0),
    ],
    ids=["room", "end"],
)
def test_consumers_of_one_queue_cost_the_same_each(action: Callable[[Client], object]) -> None:
    """Here the time of the processor counts, because lists are searched without a call of a function."""

    def seconds(count: int) -> float:
        client = consumers_of_one_queue(count)
        gc.collect()
        gc.disable()
        begin = time.process_time()
        action(client)
        took = time.process_time() - begin
        gc.enable()
        return took

    few, many = (min(seconds(count) for _ in range(3)) for count in (200, 2000))
    assert many < 40 * few, "ten times as many consumers"


@pytest.mark.parametrize(
    "arguments",
    [{"x_max_priority": 9}, {"x_max_priority": 255, "x_message_ttl": 60_000}, {"x_queue_type": "quorum"}],
    ids=str,
)
@pytest.mark.parametrize("waits", [0, 5, 9])
def test_messages_of_other_priorities_cost_nothing(arguments: dict[str, Any], waits: int) -> None:
    """Where a message is put depends on its priority, and not on how many there are."""
    costs = []
    for waiting in (1, 300):
        client = Client(Broker(), 1)
        client.declare("q", durable=True, **arguments)
        for _ in range(waiting):
            client.publish("q", b"waits", priority=waits)

        def play(client: Client = client) -> None:
            for priority in (9, 5, 0):
                client.publish("q", b"body", priority=priority)
            got = client.get("q").method
            assert isinstance(got, commands.Basic.GetOk)
            client.do(commands.Basic.Nack(got.delivery_tag or 0))

        costs.append(calls(play))
    assert costs[0] == costs[1]
