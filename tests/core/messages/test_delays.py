"""Delayed messages: what is declared for them, and that each arrives when its time is over, and not before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import commands

from eda_core.errors import LocalError
from eda_core.machine.config import Config
from eda_core.machine.topology import bindings as bindings_of
from eda_core.machine.topology import declarations as declarations_of
from eda_core.messages import CBOR, Command, Configuration, Event, open_envelope
from eda_core.messages.codec import DEFAULT_LIMITS
from eda_core.messages.delays import (
    DELAY,
    DELAY_EXCHANGES,
    DELAY_QUEUES,
    LONGEST_DELAY,
    STEPS,
    bindings,
    check_delay,
    declarations,
)
from eda_core.messages.options import options
from eda_core.testing.broker import Broker
from eda_core.testing.deaths import deaths, has_died, place_of_death, published
from tests.core.kit import seal
from tests.core.testing.broker.broker_client import Client, names

SECONDS = st.one_of(st.integers(1, 100), st.integers(1, LONGEST_DELAY))


def bus(version: str = "4.3") -> Client:
    """A client of a broker with the exchanges, and a queue for the events and the commands of a service."""
    client = Client(Broker(version=version), 1)
    declare(client, *declarations_of((), (), delayed=True), *bindings())
    for exchange in ("events", "commands"):
        client.declare(f"svc.{exchange}", durable=True)
        client.do(commands.Queue.Bind(queue=f"svc.{exchange}", exchange=exchange, routing_key="#"))
    return client


def declare(client: Client, *methods: Any) -> None:
    for method in methods:
        (answer,) = client.do(method)
        assert answer.method.name == f"{method.name}Ok"


def send(client: Client, message: Event | Command) -> None:
    sealed = seal(message, CBOR, DEFAULT_LIMITS)
    method = commands.Basic.Publish(exchange=sealed.exchange, routing_key=sealed.routing_key, mandatory=True)
    answers = client.do(method, properties=sealed.properties, body=sealed.body)
    assert names(answers) == [], answers


def event(payload: object, delay: float) -> Event:
    return Event("Remind", payload, "c", options(delay=delay, delays=True))


def let_time_pass(client: Client, until: float) -> dict[Any, float]:
    """When each message arrived in the queue of the service, by payload."""
    arrived: dict[Any, float] = {}
    while (due := client.broker.deadline()) is not None and due <= until:
        client.now = due
        client.broker.tick(now=due)
        for each in client.broker.messages("svc.events"):
            arrived.setdefault(each.body, due)
    return arrived


@given(SECONDS)
@example(1)
@example(2)
@example(LONGEST_DELAY)
@example(LONGEST_DELAY - 1)
def test_a_message_arrives_when_its_time_is_over_as_if_it_was_published_then(seconds: int) -> None:
    client = bus()
    send(client, event("late", seconds))
    assert client.broker.messages("svc.events") == []
    assert list(let_time_pass(client, LONGEST_DELAY + 10.0).values()) == [seconds]
    answer = client.get("svc.events", no_ack=True)
    assert isinstance(answer.method, commands.Basic.GetOk)
    assert (answer.method.exchange, answer.method.routing_key) == ("events", "Remind")
    assert answer.properties is not None
    assert answer.properties.delivery_mode == 2
    message = open_envelope("events", "Remind", answer.properties, answer.body, DEFAULT_LIMITS)
    assert (message.name, message.payload, message.conversation_id) == ("Remind", "late", "c")
    assert all(client.broker.messages(queue) == [] for queue in DELAY_QUEUES)


@given(st.lists(SECONDS, max_size=6))
def test_messages_do_not_delay_each_other(delays: list[int]) -> None:
    client = bus()
    for number, seconds in enumerate(delays):
        send(client, event(number, seconds))
    arrived = let_time_pass(client, LONGEST_DELAY + 10.0)
    assert sorted(arrived.values()) == sorted(delays)


def test_a_command_arrives_at_its_service() -> None:
    client = bus("3.10")
    send(client, Command("svc.Do", 1, "c", "me.DoReturn", "id", options(delay=3, delays=True)))
    let_time_pass(client, 10.0)
    (answer,) = client.do(commands.Basic.Get(queue="svc.commands", no_ack=True))
    assert isinstance(answer.method, commands.Basic.GetOk)
    assert answer.method.exchange == "commands"
    assert answer.properties is not None
    message = open_envelope("commands", "svc.Do", answer.properties, answer.body, DEFAULT_LIMITS)
    assert isinstance(message, Command)
    assert (message.reply_to, message.correlation_id) == ("me.DoReturn", "id")


def test_what_waits_survives_a_restart_of_the_broker() -> None:
    client = bus()
    send(client, event("late", 100))
    client.now = 70.0
    client.broker.tick(now=70.0)
    client.broker.restart(now=70.0)
    again = Client(client.broker, 1)
    assert list(let_time_pass(again, 200.0).values()) == [100]


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0), (0.0, 0), (0.2, 1), (1, 1), (1.001, 2), (90, 90)])
def test_parts_of_seconds_are_rounded_up(delay: float, seconds: int) -> None:
    assert check_delay(delay) == seconds


def test_without_a_delay_a_message_is_published_as_others_are() -> None:
    assert seal(event(1, 0), CBOR, DEFAULT_LIMITS).exchange == "events"
    assert set(seal(event(1, 0), CBOR, DEFAULT_LIMITS).properties.headers or {}) == {"conversation_id"}


@pytest.mark.parametrize("delay", [-1, LONGEST_DELAY + 1, float("inf"), float("nan"), "60", True, 1j])
def test_what_is_no_delay_is_refused(delay: Any) -> None:
    with pytest.raises(LocalError, match=r"delay is .*; give seconds, from 0 to 16777216"):
        options(delay=delay, delays=True)
    with pytest.raises(LocalError, match="delay is "):
        seal(Event("Remind", 1, "c", {DELAY: delay}), CBOR, DEFAULT_LIMITS)


def test_who_does_not_declare_the_queues_is_told_how() -> None:
    with pytest.raises(LocalError, match="delayed messages are not declared; set DELAYED_MESSAGES = True in the class"):
        options(delay=1)


def test_a_message_cannot_wait_and_expire() -> None:
    with pytest.raises(LocalError, match="Remind has a delay and an expiration; give one of them"):
        seal(Event("Remind", 1, "c", options(expiration=5, delay=1, delays=True)), CBOR, DEFAULT_LIMITS)


def test_a_configuration_cannot_wait() -> None:
    with pytest.raises(LocalError, match="the configuration Settings cannot be delayed; only the workers that run"):
        seal(Configuration("Settings", 1, "c", options(delay=1, delays=True)), CBOR, DEFAULT_LIMITS)


@pytest.mark.parametrize("name", [DELAY, "delay_step_3"])
def test_the_headers_are_the_toolkits_own(name: str) -> None:
    with pytest.raises(LocalError, match="the toolkit or the broker writes it"):
        options({name: 1})


def test_what_came_late_is_not_published_late_again() -> None:
    client = bus()
    send(client, event(1, 5))
    let_time_pass(client, 10.0)
    answer = client.get("svc.events", no_ack=True)
    assert answer.properties is not None
    received = open_envelope("events", "Remind", answer.properties, answer.body, DEFAULT_LIMITS)
    sealed = seal(Event("Told", 1, "c", received.meta), CBOR, DEFAULT_LIMITS)
    assert (sealed.exchange, set(sealed.properties.headers or {})) == ("events", {"conversation_id"})


def test_a_header_of_a_peer_is_not_taken_for_a_delay() -> None:
    properties = commands.Basic.Properties(
        headers={"conversation_id": "c", DELAY: 60}, content_type="application/json", delivery_mode=2
    )
    received = open_envelope("events", "Told", properties, b"1", DEFAULT_LIMITS)
    assert DELAY not in received.meta


def test_a_delay_is_no_death() -> None:
    client = bus()
    send(client, event(1, 5))
    let_time_pass(client, 10.0)
    headers = headers_of(client, "svc.events")
    assert "x-death" in headers
    assert deaths(headers) == []
    assert not has_died(headers)


@pytest.mark.parametrize("version", ["3.10", "4.3"])
def test_a_late_message_that_dies_tells_where(version: str) -> None:
    client = bus(version)
    declare(client, commands.Exchange.Declare(exchange="am-dlx", exchange_type="fanout"))
    client.declare("dead")
    client.do(commands.Queue.Bind(queue="dead", exchange="am-dlx", routing_key=""))
    client.declare("other.events", x_dead_letter_exchange="am-dlx")
    client.do(commands.Queue.Bind(queue="other.events", exchange="events", routing_key="#"))
    send(client, event(1, 7))
    let_time_pass(client, 10.0)
    client.do(commands.Basic.Reject(tag_of(client, "other.events"), requeue=False))
    headers = headers_of(client, "dead")
    assert has_died(headers)
    assert published(headers, "Remind") == ("events", "Remind")
    place = place_of_death(headers)
    assert place is not None
    assert (place.queue, place.reason) == ("other.events", "rejected")


def headers_of(client: Client, queue: str) -> dict[str, Any]:
    properties = client.get(queue, no_ack=True).properties
    assert properties is not None
    return dict(properties.headers or {})


def tag_of(client: Client, queue: str) -> int:
    method = client.get(queue).method
    assert isinstance(method, commands.Basic.GetOk)
    assert method.delivery_tag is not None
    return method.delivery_tag


def test_the_usual_policy_for_dead_letters_matches_none_of_the_queues() -> None:
    assert not [name for name in DELAY_QUEUES if ".events" in name or ".commands" in name]


def test_only_who_asks_for_it_declares_them() -> None:
    assert declarations_of((), ())[-1] not in declarations()
    assert len(declarations_of((), ())) == 4
    assert len(bindings_of((), {}, 10)) == 1
    assert len(bindings_of((), {}, 10, delayed=True)) == 1 + len(bindings())
    assert len(declarations()) == len(DELAY_EXCHANGES) + len(DELAY_QUEUES) == 2 * STEPS + 3


def test_the_setting_is_checked() -> None:
    with pytest.raises(LocalError, match="delayed_messages is 1; give a bool"):
        Config.make("amqp://one/", "svc", delayed_messages=1)
