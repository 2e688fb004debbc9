"""Queues that order their messages by priority, and queues of which one consumer is active.

``tests/differential/test_priorities.py`` compares both with RabbitMQ.
"""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from eda_core.testing.broker import Broker
from eda_core.testing.broker.versions import VERSIONS
from tests.core.testing.broker.broker_client import Client, bodies, closed, names

RELEASES = list(VERSIONS)
CONFIRMED = commands.Basic.Ack


def fill(client: Client, *priorities: int | None, **properties: Any) -> None:
    """Messages for ``q``, whose bodies are their priorities."""
    for priority in priorities:
        client.publish("q", str(priority).encode(), priority=priority, **properties)


def waiting(client: Client, queue: str = "q") -> list[str]:
    return [message.body.decode() for message in client.broker.messages(queue)]


@pytest.mark.parametrize("version", RELEASES)
def test_the_highest_priority_is_first(version: str) -> None:
    client = Client(Broker(version=version), 1)
    client.declare("q", x_max_priority=5)
    fill(client, None, 3, 0, 255, 5, 3)
    assert waiting(client) == ["255", "5", "3", "3", "None", "0"]
    assert bodies(client.consume("q", "t"))[:2] == [b"255", b"5"]


def test_what_comes_back_is_in_its_place_among_those_of_its_priority() -> None:
    client = Client(Broker(), 1)
    client.declare("q", x_max_priority=5)
    fill(client, 1, 5, 1)
    for _ in range(3):
        client.get("q")
    client.publish("q", b"new", priority=1)
    client.do(commands.Basic.Nack(0, multiple=True))
    assert waiting(client) == ["5", "1", "1", "new"]


def test_a_full_queue_drops_the_highest_priority() -> None:
    client = Client(Broker(), 1)
    client.declare("dead")
    client.declare("q", x_max_priority=5, x_max_length=2, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    fill(client, 1, 3, 5, 0)
    assert (waiting(client), waiting(client, "dead")) == (["1", "0"], ["5", "3"])


def test_dead_letters_of_one_settlement_come_by_priority() -> None:
    client = Client(Broker(), 1)
    client.declare("dead")
    client.declare("q", x_max_priority=5, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    client.consume("q", "t")
    fill(client, 1, 5, 3)
    client.do(commands.Basic.Nack(0, multiple=True, requeue=False))
    assert waiting(client, "dead") == ["5", "3", "1"]


def test_a_message_that_overtakes_the_head_expires_unnoticed() -> None:
    """RabbitMQ looks at the head when a message leaves, comes back or is dropped, and not when one comes."""
    client = Client(Broker(), 1)
    client.declare("q", x_max_priority=5)
    fill(client, 0)
    fill(client, 5, 5, expiration="5")
    client.now = 1.0
    client.broker.tick(now=1.0)
    assert waiting(client) == ["5", "5", "0"]
    assert client.broker.deadline() is None
    assert client.get("q").body == b"5"
    assert waiting(client) == ["0"], "the queue has looked, and found the other one"


def test_the_head_of_an_ordered_queue_expires_in_time() -> None:
    client = Client(Broker(), 1)
    client.declare("q", x_max_priority=5, x_message_ttl=100)
    fill(client, 1)
    fill(client, 5)
    assert client.broker.deadline() == pytest.approx(0.1)
    client.broker.tick(now=0.1)
    assert waiting(client) == []


def test_an_ordered_queue_survives_a_restart() -> None:
    client = Client(Broker(), 1)
    client.declare("q", durable=True, x_max_priority=5)
    fill(client, 1, 5, 3, delivery_mode=2)
    fill(client, 4)
    client.broker.restart(now=1.0)
    assert waiting(client) == ["5", "3", "1"]


def test_a_clone_of_an_ordered_queue_is_equal_and_independent() -> None:
    client = Client(Broker(), 1)
    client.declare("q", x_max_priority=5)
    fill(client, 1, 5, expiration="5000")
    clone = client.broker.clone()
    assert clone.snapshot() == client.broker.snapshot()
    assert clone.deadline() == client.broker.deadline()
    fill(client, 3)
    assert clone.snapshot() != client.broker.snapshot()
    assert [message.body for message in clone.messages("q")] == [b"5", b"1"]


@pytest.mark.parametrize(
    "received", [{}, {"x_max_priority": 6}, {"x_max_priority": 5, "x_single_active_consumer": True}]
)
def test_a_redeclaration_has_the_same_arguments(received: dict[str, Any]) -> None:
    client = Client(Broker(), 1)
    client.declare("q", x_max_priority=5)
    assert names(client.declare("q", x_max_priority=5)) == ["Queue.DeclareOk"]
    assert closed(client.declare("q", **received))[1] == 406


# -- one active consumer -----------------------------------------------------------------------------------------------


class Team:
    """Clients with a consumer each of the queue ``q``; ``got`` has what came to each."""

    def __init__(self, kind: str, version: str = "4.3", **arguments: Any) -> None:
        self.broker = Broker(version=version)
        self.clients: dict[str, Client] = {}
        self.got: dict[str, list[bytes]] = {}
        self.publisher = Client(self.broker, 1)
        self.publisher.declare("q", durable=True, x_queue_type=kind, x_single_active_consumer=True, **arguments)

    def join(self, name: str, *, prefetch: int = 1, priority: int = 0) -> None:
        client = self.clients[name] = Client(self.broker, 1)
        self.got[name] = []
        client.do(commands.Basic.Qos(prefetch_count=prefetch))
        consume = commands.Basic.Consume(queue="q", consumer_tag=name, arguments={"x-priority": priority})
        self._take(client.all(consume))

    def do(self, name: str, method: Any) -> None:
        self._take(self.clients[name].all(method))

    def publish(self, *messages: str) -> None:
        for message in messages:
            publish = commands.Basic.Publish(routing_key="q")
            self._take(self.publisher.all(publish, properties=commands.Basic.Properties(), body=message.encode()))

    def leave(self, name: str) -> None:
        self._take(self.broker.disconnect(self.clients[name].id, now=0.0))

    def _take(self, answers: list[Any]) -> None:
        names_of = {client.id: name for name, client in self.clients.items()}
        for out in answers:
            if out.method.name == "Basic.Deliver":
                self.got[names_of[out.connection]].append(out.body)


KINDS = pytest.mark.parametrize(("kind", "version"), [(k, v) for k in ("classic", "quorum") for v in RELEASES])


@KINDS
def test_only_the_first_consumer_gets_messages(kind: str, version: str) -> None:
    team = Team(kind, version)
    team.join("a")
    team.join("b", prefetch=0)
    team.publish("1", "2", "3")
    assert team.got == {"a": [b"1"], "b": []}, "the second one waits, although the prefetch of the first is used up"
    team.do("a", CONFIRMED(1))
    assert team.got == {"a": [b"1", b"2"], "b": []}
    assert len(team.broker.consumers("q")) == 2


@KINDS
def test_the_next_one_takes_over_when_it_is_cancelled(kind: str, version: str) -> None:
    team = Team(kind, version)
    for name in "abc":
        team.join(name)
    team.publish("1", "2")
    team.do("a", commands.Basic.Cancel("a"))
    assert team.got == {"a": [b"1"], "b": [b"2"], "c": []}
    team.do("a", commands.Basic.Nack(1))
    team.do("b", CONFIRMED(1))
    assert team.got == {"a": [b"1"], "b": [b"2", b"1"], "c": []}


@KINDS
def test_the_next_one_gets_what_a_lost_one_had(kind: str, version: str) -> None:
    team = Team(kind, version)
    team.join("a", prefetch=2)
    team.join("b", prefetch=9)
    team.publish("1", "2", "3")
    team.leave("a")
    assert team.got["b"] == [b"1", b"2", b"3"]


@KINDS
def test_nobody_is_active_when_all_have_gone(kind: str, version: str) -> None:
    team = Team(kind, version)
    team.join("a")
    team.join("b")
    team.do("b", commands.Basic.Cancel("b"))
    team.do("a", commands.Basic.Cancel("a"))
    team.publish("1")
    assert team.got == {"a": [], "b": []}
    team.join("c")
    assert team.got["c"] == [b"1"]


def test_a_classic_queue_has_no_exclusive_consumer_besides() -> None:
    team = Team("classic")
    answer = closed(team.publisher.consume("q", "t", exclusive=True))
    assert answer == ("Channel.Close", 403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")


def test_of_classic_consumers_the_highest_priority_is_next_and_does_not_push() -> None:
    team = Team("classic")
    team.join("a")
    team.join("b")
    team.join("c", priority=5)
    team.publish("1")
    team.do("a", CONFIRMED(1))
    team.publish("2")
    assert team.got == {"a": [b"1", b"2"], "b": [], "c": []}
    team.leave("a")
    assert team.got == {"a": [b"1", b"2"], "b": [], "c": [b"2"]}


def test_a_quorum_consumer_makes_way_for_a_higher_priority_when_it_has_settled() -> None:
    team = Team("quorum")
    team.join("a", prefetch=2)
    team.publish("1", "2")
    team.join("b", priority=5)
    team.publish("3", "4")
    assert team.got == {"a": [b"1", b"2"], "b": []}
    team.do("a", CONFIRMED(1))
    assert team.got == {"a": [b"1", b"2"], "b": []}, "it gets no more, and the other one waits for it"
    team.do("a", CONFIRMED(2))
    assert team.got == {"a": [b"1", b"2"], "b": [b"3"]}
    team.do("b", commands.Basic.Cancel("b"))
    assert team.got == {"a": [b"1", b"2", b"4"], "b": [b"3"]}, "it has waited since"


def test_a_quorum_consumer_of_3_10_stays_active() -> None:
    team = Team("quorum", "3.10")
    team.join("a")
    team.join("b", priority=5)
    team.publish("1")
    assert team.got == {"a": [b"1"], "b": []}


def test_of_quorum_consumers_priority_and_then_prefetch_count() -> None:
    team = Team("quorum")
    team.join("a", priority=9)
    team.join("small", prefetch=1, priority=1)
    team.join("large", prefetch=7, priority=1)
    team.join("low", prefetch=9)
    for name in ("a", "large", "small", "low"):
        team.publish(name)
        assert team.got[name] == [name.encode()]
        team.do(name, CONFIRMED(1))
        team.leave(name)


def test_a_clone_of_a_queue_with_an_active_consumer_goes_on_alike() -> None:
    team = Team("quorum")
    team.join("a")
    team.publish("1", "2")
    team.join("b", priority=5)
    clone = team.broker.clone()
    assert clone.snapshot() == team.broker.snapshot()
    team.do("a", CONFIRMED(1))
    assert clone.snapshot() != team.broker.snapshot()
    clone.receive(team.clients["a"].id, 1, CONFIRMED(1), now=0.0)
    assert clone.snapshot() == team.broker.snapshot()
    assert clone.unacked("q")[0][0] == team.clients["b"].id


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_two_states_that_differ_in_the_active_consumer_are_not_equal(kind: str) -> None:
    images = []
    for order in ("ab", "ba"):
        team = Team(kind)
        for name in order:
            team.join(name)
        images.append(team.broker.snapshot())
    assert images[0] != images[1]
