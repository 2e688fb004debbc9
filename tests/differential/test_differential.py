"""The broker model agrees with RabbitMQ on everything that a client can observe.

What the explorer proves depends on that. ``docs/broker-model.rst`` lists the known differences. The default run takes
the same sequences each time, the deep run new ones. A failure prints the shortest sequence that was found, and a
decorator that makes the test run it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from eda_core.testing.broker import Queue, transactions
from eda_core.testing.broker import methods as broker_methods
from eda_core.testing.broker.addresses import NAME
from eda_core.testing.broker.call import Call as BrokerCall
from eda_core.testing.broker.engine import Engine
from eda_core.testing.broker.state import Channel
from eda_core.testing.broker.topology import Topology
from eda_core.testing.broker.versions import VERSIONS
from tests.differential.comparison import Comparison, DifferenceError, Rabbit
from tests.differential.operations import ADDRESS, CONSUME_REPLIES, Call, Leave, Operation, Place, Publish, Settle
from tests.differential.strategies import sequences

#: What a run must have done and seen, and how often at least in 200 sequences. A run that does nothing finds nothing.
OPERATIONS: Final = {
    "ack": 20,
    "ack multiple": 20,
    "bind": 100,
    "bind exchange": 10,
    "break the connection": 30,
    "cancel": 10,
    "close: channel": 5,
    "close: connection": 5,
    "close: hang up": 2,
    "confirm.select": 100,
    "consume": 100,
    "consume without acknowledgement": 50,
    "declare exchange": 300,
    "declare exchange passively": 5,
    "declare exclusive queue": 10,
    "declare queue": 500,
    "declare queue passively": 5,
    "declare reserved name": 1,
    "declare server-named queue": 5,
    "declare unknown exchange type": 1,
    "declare wrong queue": 1,
    "delete exchange": 5,
    "delete queue": 10,
    "delete a consumed queue": 5,
    "get": 100,
    "nack": 20,
    "nack multiple": 10,
    "nack multiple requeue": 10,
    "nack requeue": 20,
    "publish": 500,
    "publish mandatory": 100,
    "publish to a missing exchange": 5,
    "publish what is refused": 10,
    "purge": 10,
    "qos": 50,
    "qos of the channel": 5,
    "recover": 5,
    "redeclare queue": 10,
    "reject": 20,
    "reject requeue": 20,
    "use a foreign queue": 5,
    "unbind": 5,
    "unbind exchange": 5,
    "cancel direct replies": 5,
    "consume direct replies": 40,
    "consume direct replies again, or with acknowledgement": 5,
    "declare an address": 5,
    "publish a direct reply": 30,
    "publish a request": 50,
    "publish a request without a consumer": 5,
    "tx.commit": 50,
    "tx.rollback": 20,
    "tx.select": 50,
    "unknown tag (future)": 2,
    "unknown tag (huge)": 1,
    "unknown tag (past)": 2,
    "unknown tag (zero)": 1,
}
OUTCOMES: Final = {
    "a direct reply": 30,
    "a transaction with settlements committed": 20,
    "a transaction with settlements rolled back": 5,
    "channel closed 403": 20,
    "channel closed 404": 20,
    "channel closed 405": 5,
    "channel closed 406": 50,
    "connection closed 503": 2,
    "connection closed 504": 2,
    "connection closed 505": 1,
    "connection closed 530": 5,
    "connection closed 540": 2,
    "consumer cancelled by the server": 2,
    "delivered": 500,
    "redelivered": 100,
    "died: expired": 10,
    "died: maxlen": 10,
    "died: rejected": 20,
    "died more than once": 10,
    "got a message": 100,
    "got nothing": 20,
    "publish acked": 200,
    "publish nacked": 10,
    "returned before the confirm": 20,
    "returned unconfirmed": 50,
}
#: The same for sequences that are about something else, in 100 of each.
OTHER_OUTCOMES: Final = {
    "a quorum queue": {"delivered": 50, "redelivered": 20, "died: rejected": 5, "died: delivery_limit": 2},
    "priorities": {
        "delivered": 100,
        "redelivered": 20,
        "overtook an older message": 40,
        "died: expired": 20,
        "died: maxlen": 10,
    },
    "a single active consumer": {
        "delivered": 100,
        "redelivered": 20,
        "delivered while other consumers wait": 50,
        "delivered to the next active consumer": 10,
    },
}

pytestmark = pytest.mark.usefixtures("varied")


def compare(rabbit: Rabbit, number: int, about: str = "anything", *, fixed: bool = True) -> Comparison:
    """Compare so many sequences that are about something: a key of OPERATIONS in the strategies.

    Raises:
        DifferenceError: the model and RabbitMQ differ.
    """
    comparison = Comparison(rabbit)

    @settings(
        max_examples=number,
        deadline=None,
        derandomize=fixed,
        print_blob=True,
        # Each example is a session with two brokers. It is meant to be slow and large.
        suppress_health_check=list(HealthCheck),
    )
    @given(sequences(about))
    def model_and_rabbitmq_agree(sequence: Sequence[Operation]) -> None:
        comparison.run(sequence)

    model_and_rabbitmq_agree()
    return comparison


def demand(comparison: Comparison, operations: dict[str, int], outcomes: dict[str, int]) -> None:
    """Check that the run has done and seen enough, and that chance was rare."""
    statistics = comparison.statistics
    done = {name: statistics.operations[name] for name in operations}
    seen = {name: statistics.outcomes[name] for name in outcomes}
    assert not {name: count for name, count in {**done, **seen}.items() if count < {**operations, **outcomes}[name]}
    assert statistics.chance <= statistics.sequences // 50
    assert statistics.cut_short <= statistics.sequences // 5


def test_random_sequences(rabbit: Rabbit, counted: Callable[[object], None]) -> None:
    comparison = compare(rabbit, 240)
    counted(comparison.statistics)
    demand(comparison, OPERATIONS, OUTCOMES)
    assert comparison.statistics.sequences - comparison.statistics.cut_short >= 200


@pytest.mark.parametrize("about", OTHER_OUTCOMES)
def test_random_sequences_about(about: str, rabbit: Rabbit, counted: Callable[[object], None]) -> None:
    comparison = compare(rabbit, 100, about)
    counted(f"{about}: {comparison.statistics}")
    demand(comparison, {}, OTHER_OUTCOMES[about])


#: How many sequences the deep run compares, and how many of these it has to compare up to their end.
DEEP: Final = {
    "anything": (5_600, 5_000),
    "a quorum queue": (500, 400),
    "priorities": (500, 400),
    "a single active consumer": (500, 400),
}


@pytest.mark.deep
@pytest.mark.parametrize("about", DEEP)
def test_many_random_sequences(about: str, rabbit: Rabbit, counted: Callable[[object], None]) -> None:
    number, whole = DEEP[about]
    comparison = compare(rabbit, number, about, fixed=False)
    counted(f"{about}: {comparison.statistics}")
    assert comparison.statistics.sequences - comparison.statistics.cut_short >= whole
    if about == "anything":
        demand(comparison, OPERATIONS, OUTCOMES)
    else:
        demand(comparison, {}, OTHER_OUTCOMES[about])


@pytest.mark.parametrize("limits", [{"x-message-ttl": 0}, {"x-max-length": 0}, {"x-max-length-bytes": 0}])
def test_a_dead_letter_that_cannot_wait_for_a_shared_prefetch_is_left_to_chance(
    rabbit: Rabbit, limits: dict[str, int]
) -> None:
    """RabbitMQ delivers about every second one, if channels have such a prefetch."""
    at = Place(0, 1)
    arguments = {**limits, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q0"}
    consume = {"queue": "q0", "consumer_tag": "c", "no_ack": False, "exclusive": False}
    comparison = Comparison(rabbit)
    sequence: list[Operation] = [
        Call("declare queue", at, "Queue.Declare", {"queue": "q0", "arguments": arguments}),
        Call("qos of the channel", at, "Basic.Qos", {"prefetch_count": 1, "global_": True}),
        Call("consume", at, "Basic.Consume", consume),
        Publish("publish", at, "", "q0", 2, False, {}),
        Settle("nack", at, "Nack", 0, False, False),
    ]
    comparison.run(sequence)
    assert comparison.statistics.cut_short == VERSIONS[rabbit.version].shares_prefetch
    assert comparison.statistics.operations["publish"] == 1


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_a_lost_connection_gives_back_to_its_exclusive_queue_is_left_to_chance(
    rabbit: Rabbit, exclusive: bool
) -> None:
    """The queue has no room for it. RabbitMQ deletes the queue, or makes a dead letter before that."""
    at, other = Place(0, 1), Place(1, 1)
    arguments = {"x-max-length-bytes": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q0"}
    comparison = Comparison(rabbit)
    comparison.run(
        [
            Call("declare queue", other, "Queue.Declare", {"queue": "q0"}),
            Call("declare queue", at, "Queue.Declare", {"queue": "q1", "arguments": arguments, "exclusive": exclusive}),
            Call("consume", at, "Basic.Consume", {"queue": "q1", "consumer_tag": "c", "no_ack": False}),
            Publish("publish", at, "", "q1", 2, False, {}),
            Leave("close: hang up", at, "hang up"),
            Call("declare queue", other, "Queue.Declare", {"queue": "q2"}),
        ]
    )
    assert comparison.statistics.cut_short == exclusive
    assert comparison.statistics.operations["declare queue"] == (2 if exclusive else 3)


def test_direct_replies_of_a_channel_and_of_a_queue_come_in_any_order(rabbit: Rabbit) -> None:
    """A reply that is copied to a full queue pushes an older copy out, which is a dead letter for the same consumer."""
    at, other = Place(0, 1), Place(1, 2)
    arguments = {"x-max-length": 3, "x-dead-letter-exchange": ""}
    replies = Publish("publish a direct reply", other, "", ADDRESS, 3, False, {"headers": {"CC": ["q1"]}})
    comparison = Comparison(rabbit)
    comparison.run(
        [
            Call("declare queue", at, "Queue.Declare", {"queue": "q0"}),
            Call("declare queue", at, "Queue.Declare", {"queue": "q1", "arguments": arguments}),
            Call("consume", at, "Basic.Consume", {"queue": "q0", "consumer_tag": "c", "no_ack": True}),
            replace(CONSUME_REPLIES, at=at),
            Publish("publish a request", at, "", "q0", properties={"reply_to": NAME}),
            *[replies] * 20,
        ]
    )
    assert comparison.statistics.outcomes["a direct reply"] == 60 + 57
    assert comparison.statistics.outcomes["died: maxlen"] == 57


def test_consumers_of_a_quorum_queue_that_compete_are_left_out(rabbit: Rabbit) -> None:
    """One of them does not acknowledge. The channel of the other one is not open before it consumes."""
    at, other = Place(0, 1), Place(1, 2)
    arguments = {"queue": "q0", "durable": True, "arguments": {"x-queue-type": "quorum"}}
    consume = {"queue": "q0", "no_ack": False, "exclusive": False}
    comparison = Comparison(rabbit)
    comparison.run(
        [
            Call("declare quorum queue", at, "Queue.Declare", arguments),
            Call(
                "consume without acknowledgement",
                at,
                "Basic.Consume",
                {**consume, "consumer_tag": "c0", "no_ack": True},
            ),
            Call("consume", other, "Basic.Consume", {**consume, "consumer_tag": "c2"}),
        ]
    )
    assert comparison.statistics.operations == {"declare quorum queue": 1, "consume without acknowledgement": 1}


# -- the comparison finds what it has to -------------------------------------------------------------------------------


def requeue_at_the_end(queue: Queue, entries: list[Any]) -> None:
    queue.ready.extend(entry._replace(redelivered=True) for entry in entries)


def forget_redelivered(queue: Queue, entries: list[Any], original: Callable[..., None]) -> None:
    original(queue, entries)
    known = [entry._replace(redelivered=False) for entry in queue.ready]
    queue.ready.clear()
    queue.ready.extend(known)


PLANTED: Final[dict[str, tuple[Any, str, Callable[[Any], Any]]]] = {
    "requeued at the end": (Queue, "put_back", lambda original: requeue_at_the_end),
    "not marked as redelivered": (
        Queue,
        "put_back",
        lambda original: lambda queue, entries: forget_redelivered(queue, entries, original),
    ),
    "the prefetch does not count": (
        Engine,
        "_may_send",
        lambda original: lambda engine, queue, consumer: True,
    ),
    "a full queue takes what it should refuse": (Queue, "refuses", lambda original: lambda queue, message: False),
    "a full queue drops nothing": (Queue, "overflows", lambda original: lambda queue: False),
    "dead letters vanish": (Engine, "dead_letter", lambda original: lambda engine, queue, message, reason: None),
    "a rejected message is expired": (
        Engine,
        "dead_letter",
        lambda original: lambda engine, queue, message, reason: original(engine, queue, message, "expired"),
    ),
    "returned after the confirm": (BrokerCall, "send_back", lambda original: lambda call, message: None),
    "exclusive queues are not": (BrokerCall, "demand_access", lambda original: lambda call, queue: None),
    "a consumer is not told that its queue is gone": (
        Engine,
        "delete_queue",
        lambda original: lambda engine, queue: (original(engine, queue), engine.out.clear())[0],
    ),
    "a fanout exchange forgets one queue": (
        Topology,
        "route",
        lambda original: lambda topology, exchange, message: original(topology, exchange, message)[:1],
    ),
    "an unknown tag is ignored": (
        broker_methods,
        "_settled_tags",
        lambda original: (
            lambda call, tag, multiple: original(call, tag, multiple) if tag in call.channel.unacked else []
        ),
    ),
    "a transaction is not rolled back": (Channel, "roll_back", lambda original: lambda channel: None),
    "a transaction holds no publishes": (
        transactions,
        "hold_publish",
        lambda original: (
            lambda call, transaction, message, queues, *, mandatory: call.place(message, queues, mandatory=mandatory)
        ),
    ),
    "direct replies are lost": (Engine, "_reply", lambda original: lambda engine, channel, message: None),
    "a channel error keeps the channel": (Engine, "fail_channel", lambda original: lambda engine, channel: None),
}


@pytest.mark.deep
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_of_the_model_is_found(rabbit: Rabbit, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, mutate = PLANTED[name]
    monkeypatch.setattr(owner, attribute, mutate(getattr(owner, attribute)))
    comparison = Comparison(rabbit)

    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(sequences())
    def model_and_rabbitmq_agree(sequence: Sequence[Operation]) -> None:
        comparison.run(sequence)

    with pytest.raises(DifferenceError, match="the model and RabbitMQ differ"):
        model_and_rabbitmq_agree()
