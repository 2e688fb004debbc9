"""Delayed retries: the queues, the copies, and the whole way on the broker model."""

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Exchange, Queue

from eda_core import (
    CBOR,
    DONE,
    Ack,
    Command,
    Config,
    Declare,
    Dispatch,
    Effect,
    Epoch,
    Event,
    Failed,
    Limits,
    LocalError,
    Machine,
    Nack,
    Publish,
    RetryPolicy,
)
from eda_core.machine.retry import again, attempts_behind, declaration, retry_queue
from eda_core.messages.envelope import open_envelope
from eda_core.messages.headers import ATTEMPT, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY
from eda_core.testing.wire import frames
from tests.core.kit import Sealed, seal

EPOCH = Epoch(1)
BOOM = Failed("boom")


def a_machine(policy: RetryPolicy, **settings: Any) -> Machine:
    config = Config.make("amqp://h/", "svc", ["Asked"], ["svc.Do"], retry=policy, **settings)
    machine = Machine(config, random=lambda: 0.0, token="t", wall_offset=0.0)
    machine.start(0.0)
    (declare,) = machine.link_up(EPOCH, 0.0)
    assert isinstance(declare, Declare)
    replies = [
        Queue.DeclareOk(command.queue or f"amq.gen-{number}", 0, 0)
        if isinstance(command, Queue.Declare)
        else Exchange.DeclareOk()
        for number, command in enumerate(declare.commands)
    ]
    machine.declared(EPOCH, replies, 0.0)
    machine.declared(EPOCH, [], 0.0)
    return machine


def sealed(message: Event | Command) -> Sealed:
    return seal(message, CBOR, Limits())


def deliver(machine: Machine, tag: int, message: Sealed) -> Dispatch:
    (dispatch,) = machine.delivered(
        EPOCH, tag, False, message.exchange, message.routing_key, message.properties, message.body, 1.0
    )
    assert isinstance(dispatch, Dispatch)
    return dispatch


def only_publish(effects: list[Effect]) -> Publish:
    (publish,) = [effect for effect in effects if isinstance(effect, Publish)]
    return publish


def returned_by_ttl(publish: Publish, queue: str) -> Sealed:
    """Return the copy as the broker delivers it: from the default exchange, with the queue as routing key."""
    assert publish.properties.headers is not None
    publish.properties.headers["x-death"] = [{"queue": publish.routing_key, "count": 1}]
    return Sealed("", queue, publish.properties, publish.body)


def test_the_queue_of_a_delay_gives_its_messages_back_to_the_services_queue() -> None:
    command = declaration("svc.events", 1.5)
    assert command.queue == retry_queue("svc.events", 1.5) == "svc.events.retry.1500"
    assert command.durable
    assert command.arguments == {
        "x-message-ttl": 1500,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "svc.events",
    }


def test_a_service_with_delays_declares_a_queue_for_each_of_its_queues_and_delays() -> None:
    config = Config.make("amqp://h/", "svc", ["A"], ["svc.B"], retry=RetryPolicy(4, (1.0, 5.0, 5.0)))
    machine = Machine(config, random=lambda: 0.0, token="t", wall_offset=0.0)
    machine.start(0.0)
    (declare,) = machine.link_up(EPOCH, 0.0)
    assert isinstance(declare, Declare)
    names = [command.queue for command in declare.commands if isinstance(command, Queue.Declare)]
    assert names == [
        "svc.events",
        "svc.commands",
        "svc.events.retry.1000",
        "svc.events.retry.5000",
        "svc.commands.retry.1000",
        "svc.commands.retry.5000",
    ]


def test_backoff_grows_to_its_cap() -> None:
    policy = RetryPolicy.backoff(6, base=1, factor=4, cap=30)
    assert policy == RetryPolicy(6, (1, 4, 16, 30, 30))
    assert [policy.delay(attempt) for attempt in range(1, 8)] == [1, 4, 16, 30, 30, 30, 30]
    assert [attempt for attempt in range(1, 9) if policy.gives_up(attempt)] == [6, 7, 8]


@pytest.mark.parametrize("delays", [(0.0,), (-1.0,), (1.0, 5e6), (float("nan"),)])
def test_impossible_delays_are_refused(delays: tuple[float, ...]) -> None:
    with pytest.raises(LocalError, match="delays"):
        RetryPolicy(3, delays)


def test_the_source_is_acknowledged_only_when_its_copy_is_confirmed() -> None:
    machine = a_machine(RetryPolicy.backoff(3, base=2))
    effects = machine.handled(deliver(machine, 1, sealed(Event("Asked", 1, "c"))).delivery, BOOM, 1.0)
    copy = only_publish(effects)
    assert (copy.exchange, copy.routing_key, copy.mandatory) == ("", "svc.events.retry.2000", True)
    assert not any(isinstance(effect, (Ack, Nack)) for effect in effects)
    assert machine.confirmed(EPOCH, copy.tag, 2.0) == [Ack(EPOCH, 1, False)]


def test_a_poison_message_dies_after_exactly_the_attempts_of_the_policy() -> None:
    machine = a_machine(RetryPolicy.backoff(4, base=1))
    message = sealed(Command("svc.Do", {"n": 1}, "c", "caller.DoReturn", "id"))
    seen = []
    effects: list[Effect] = []
    for tag in range(1, 5):
        dispatch = deliver(machine, tag, message)
        got = dispatch.message
        assert isinstance(got, Command)
        seen.append((got.name, got.payload, got.reply_to, got.correlation_id))
        effects = machine.handled(dispatch.delivery, BOOM, 1.0)
        if tag < 4:
            copy = only_publish(effects)
            machine.confirmed(EPOCH, copy.tag, 1.0)
            message = returned_by_ttl(copy, "svc.commands")
    assert seen == [("svc.Do", {"n": 1}, "caller.DoReturn", "id")] * 4
    assert Nack(EPOCH, 4, False) in effects


def test_what_the_failed_handler_held_is_not_published() -> None:
    machine = a_machine(RetryPolicy.backoff(3))
    dispatch = deliver(machine, 1, sealed(Event("Asked", 1, "c")))
    machine.publish(Event("Answered", 2, "c"), 1.0, within=dispatch.delivery)
    copy = only_publish(machine.handled(dispatch.delivery, BOOM, 1.0))
    assert copy.routing_key.startswith("svc.events.retry.")


def test_a_lost_link_forgets_the_copy_because_the_source_is_redelivered() -> None:
    machine = a_machine(RetryPolicy.backoff(3))
    machine.handled(deliver(machine, 1, sealed(Event("Asked", 1, "c"))).delivery, BOOM, 1.0)
    machine.link_down(EPOCH, "cut", 2.0)
    assert "0 to publish" in repr(machine)


def test_a_redelivered_message_is_not_a_failed_one_when_attempts_are_counted() -> None:
    machine = a_machine(RetryPolicy.backoff(2))
    message = sealed(Event("Asked", 1, "c"))
    (dispatch,) = machine.delivered(EPOCH, 1, True, "events", "Asked", message.properties, message.body, 1.0)
    assert isinstance(dispatch, Dispatch)
    only_publish(machine.handled(dispatch.delivery, BOOM, 1.0))


def test_a_missing_retry_queue_gives_up_the_link_and_never_acknowledges() -> None:
    machine = a_machine(RetryPolicy.backoff(3))
    copy = only_publish(machine.handled(deliver(machine, 1, sealed(Event("Asked", 1, "c"))).delivery, BOOM, 1.0))
    effects = machine.returned(EPOCH, "", copy.routing_key, copy.properties, copy.body, "NO_ROUTE", 2.0)
    assert "is gone" in repr(effects)
    assert machine.confirmed(EPOCH, copy.tag, 2.0) == []


def test_headers_that_the_copys_own_would_make_too_large_are_retried_at_once_instead() -> None:
    """RabbitMQ would close the connection, deliver the message again, and so on for ever."""
    machine = a_machine(RetryPolicy.backoff(2))
    message = sealed(Event("Asked", 1, "c"))
    assert message.properties.headers is not None
    message.properties.message_id = "m"
    message.properties.headers["filling"] = "x" * 131_000  # is delivered
    assert Nack(EPOCH, 1, True) in machine.handled(deliver(machine, 1, message).delivery, BOOM, 1.0)
    (again,) = machine.delivered(EPOCH, 2, True, "events", "Asked", message.properties, message.body, 1.0)
    assert isinstance(again, Dispatch)
    assert Nack(EPOCH, 2, False) in machine.handled(again.delivery, BOOM, 1.0)


def test_exclusive_queues_and_unwritable_headers_are_retried_at_once_instead() -> None:
    machine = a_machine(RetryPolicy.backoff(3), exclusive_queues=True)
    effects = machine.handled(deliver(machine, 1, sealed(Event("Asked", 1, "c"))).delivery, BOOM, 1.0)
    assert Nack(EPOCH, 1, True) in effects
    machine = a_machine(RetryPolicy.backoff(3))
    message = sealed(Event("Asked", 1, "c"))
    assert message.properties.headers is not None
    message.properties.headers["n" * 256] = 1
    effects = machine.handled(deliver(machine, 1, message).delivery, BOOM, 1.0)
    assert Nack(EPOCH, 1, True) in effects


def test_a_header_whose_name_is_no_text_is_retried_at_once_too() -> None:
    """pika gives names that are not UTF-8 as bytes."""
    machine = a_machine(RetryPolicy.backoff(3))
    message = sealed(Event("Asked", 1, "c"))
    odd: Any = {b"\xff": 1}
    assert message.properties.headers is not None
    message.properties.headers |= odd
    assert Nack(EPOCH, 1, True) in machine.handled(deliver(machine, 1, message).delivery, BOOM, 1.0)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats()))
def test_a_strange_count_is_no_count(value: object) -> None:
    behind = attempts_behind({ATTEMPT: value})
    assert behind == (value if type(value) is int and value > 0 else 0)


def test_the_copy_keeps_every_property_but_the_brokers_own() -> None:
    original = Basic.Properties(
        content_type=CBOR,
        content_encoding="binary",
        headers={"conversation_id": "c", "mine": 1, "x-death": [], "x-first-death-queue": "q", "CC": ["elsewhere"]},
        delivery_mode=1,
        priority=3,
        correlation_id="id",
        reply_to="back",
        expiration="100",
        message_id="m",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        message_type="t",
        user_id="guest",
        app_id="app",
    )
    copy = again(original, "commands", "svc.Do", {"attempt": 2})
    assert copy is not None
    origin = {ATTEMPT: 2, ORIGIN_EXCHANGE: "commands", ORIGIN_ROUTING_KEY: "svc.Do"}
    assert copy.headers == {"conversation_id": "c", "mine": 1, **origin}
    same = ("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "timestamp")
    assert all(getattr(copy, name) == getattr(original, name) for name in (*same, "message_type", "app_id"))
    assert (copy.delivery_mode, copy.expiration, copy.user_id) == (2, None, None)


def test_the_copy_has_headers_as_they_were_to_the_last_bit() -> None:
    headers: dict[str, Any] = {"conversation_id": "c", "score": [0.1], "no UTF-8": b"\xff", "n" * 200: 1}
    copy = again(Basic.Properties(headers=dict(headers)), "events", "Ev", {"attempt": 1})
    assert copy is not None
    read = frames.decode_content_header(struct.pack(">HHQ", 60, 0, 0) + copy.marshal())[1]
    assert read.headers == {**headers, ATTEMPT: 1, ORIGIN_EXCHANGE: "events", ORIGIN_ROUTING_KEY: "Ev"}


def test_the_origin_counts_only_for_what_was_put_straight_into_the_queue() -> None:
    message = sealed(Event("Asked", 1, "c"))
    assert message.properties.headers is not None
    message.properties.headers |= {ORIGIN_EXCHANGE: "commands", ORIGIN_ROUTING_KEY: "svc.Do", ATTEMPT: 7}
    opened = open_envelope("events", "Asked", message.properties, message.body, Limits())
    assert (type(opened), opened.name) == (Event, "Asked")
    machine = a_machine(RetryPolicy())
    dispatch = deliver(machine, 1, message)
    assert Nack(EPOCH, 1, True) in machine.handled(dispatch.delivery, BOOM, 1.0)


def test_a_retry_that_succeeds_is_acknowledged() -> None:
    machine = a_machine(RetryPolicy.backoff(3))
    copy = only_publish(machine.handled(deliver(machine, 1, sealed(Event("Asked", 1, "c"))).delivery, BOOM, 1.0))
    machine.confirmed(EPOCH, copy.tag, 1.0)
    dispatch = deliver(machine, 2, returned_by_ttl(copy, "svc.events"))
    assert machine.handled(dispatch.delivery, DONE, 2.0) == [Ack(EPOCH, 2, False)]
