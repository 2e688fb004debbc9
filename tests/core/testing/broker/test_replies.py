"""Direct replies on the broker model. ``tests/differential/test_reply_to.py`` compares them with RabbitMQ."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import base, commands

from eda_core.testing.broker import Broker
from eda_core.testing.broker.addresses import NAME
from eda_core.testing.broker.versions import VERSIONS
from tests.core.testing.broker.broker_client import Client, bodies, closed, names


def method(kind: type[base.Frame], **values: Any) -> base.Frame:
    """A method with names that the constructor of pamqp would refuse."""
    made = kind()
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Requester(Client):
    """A client with a consumer of direct replies."""

    def __init__(self, broker: Broker, *channels: int) -> None:
        super().__init__(broker, *(channels or (1,)))
        self.declare("requests", exclusive=True)
        self.address = self.request()

    def request(self, tag: str = "r", channel: int = 1) -> str:
        """Begin to consume, and return the address that a request has."""
        self.consume(NAME, tag, channel=channel, no_ack=True)
        self.publish("requests", channel=channel, reply_to=NAME)
        properties = self.get("requests", no_ack=True).properties
        assert properties is not None
        assert properties.reply_to is not None
        return properties.reply_to


@pytest.fixture(params=VERSIONS)
def broker(request: pytest.FixtureRequest) -> Broker:
    return Broker(version=request.param)


@pytest.fixture
def requester(broker: Broker) -> Requester:
    return Requester(broker)


@pytest.fixture
def server(broker: Broker) -> Client:
    return Client(broker, 1)


def sent_to(requester: Client, server: Client, key: str, **options: Any) -> list[Any]:
    """What the requester gets when the server publishes something."""
    publish = commands.Basic.Publish(routing_key=key, mandatory=options.pop("mandatory", False))
    properties = commands.Basic.Properties(**options)
    answers = server.all(publish, properties=properties, body=b"reply")
    return [out for out in answers if out.connection == requester.id]


def test_a_reply_goes_to_the_consumer_of_the_channel_that_asked(requester: Requester, server: Client) -> None:
    (reply,) = sent_to(requester, server, requester.address, correlation_id="7")
    assert (reply.channel, reply.method.consumer_tag, reply.body) == (1, "r", b"reply")
    assert reply.properties.correlation_id == "7"
    assert (reply.method.exchange, reply.method.routing_key) == ("", requester.address)
    assert closed(requester.do(commands.Basic.Ack(reply.method.delivery_tag)))[1] == 406


def test_each_consumer_has_an_address_of_its_own(requester: Requester, server: Client) -> None:
    requester.do(commands.Basic.Cancel("r"))
    assert sent_to(requester, server, requester.address) == []
    again = requester.request("s")
    assert again != requester.address
    assert sent_to(requester, server, requester.address) == []
    assert [out.method.consumer_tag for out in sent_to(requester, server, again)] == ["s"]


@pytest.mark.parametrize("how", ["close", "refused", "connection", "drop"])
def test_a_requester_that_is_gone_gets_nothing(requester: Requester, server: Client, how: str) -> None:
    if how == "close":
        requester.do(commands.Channel.Close())
    elif how == "refused":
        requester.do(commands.Basic.Ack(99))
    elif how == "connection":
        requester.do(commands.Connection.Close(), channel=0)
    else:
        requester.broker.disconnect(requester.id, now=0)
    assert sent_to(requester, server, requester.address) == []
    passive = method(commands.Queue.Declare, queue=requester.address, passive=True)
    assert closed(server.do(passive))[1] == 404


def test_a_channel_cannot_ask_for_its_own_consumer(requester: Requester) -> None:
    """RabbitMQ fails at it, one release with 541."""
    declare = method(commands.Queue.Declare, queue=requester.address, passive=True)
    assert closed(requester.do(declare))[1] == (541 if requester.broker.version == "3.10" else 404)


def test_a_later_channel_with_the_same_number_is_another_one(requester: Requester) -> None:
    requester.do(commands.Channel.Close())
    requester.do(commands.Channel.Open())
    requester.request()
    declare = method(commands.Queue.Declare, queue=requester.address, passive=True)
    assert closed(requester.do(declare))[1] == 404


def test_a_mandatory_reply(requester: Requester, server: Client) -> None:
    """RabbitMQ 3.10 sends each one back, also if it was delivered; 4.3 none, also if nobody is there."""
    found = []
    for _ in range(2):
        found.append(bodies(server.publish(requester.address, b"reply", mandatory=True)))
        requester.do(commands.Basic.Cancel("r"))
    assert found == ([[b"reply"]] * 2 if server.broker.version == "3.10" else [[], []])


def test_tags_of_replies(requester: Requester, server: Client) -> None:
    requester.consume("requests", "c", no_ack=True)
    tags = [sent_to(requester, server, key)[0].method.delivery_tag for key in (requester.address,) * 2]
    tags += [dict(out.method)["delivery_tag"] for out in requester.publish("requests")]
    assert tags == ([2, 2, 2] if server.broker.version == "3.10" else [2, 3, 4])


def test_a_channel_gets_a_message_once(server: Client) -> None:
    requester = Requester(server.broker, 1, 2)
    other = requester.request("s", 2)
    headers: Any = {"CC": [requester.address, other]}
    answers = server.all(
        commands.Basic.Publish(routing_key=other), properties=commands.Basic.Properties(headers=headers), body=b"x"
    )
    assert sorted(out.channel for out in answers) == [1, 2]


def test_replies_use_up_the_room_of_a_connection(requester: Requester, server: Client) -> None:
    server.broker.give_room(requester.id, 10_000, now=0)
    sent_to(requester, server, requester.address)
    left = server.broker.room(requester.id)
    assert left is not None
    assert left < 10_000
    server.broker.give_room(requester.id, 1, now=0)
    assert [len(sent_to(requester, server, requester.address)) for _ in range(2)] == [1, 1], "they cannot wait"


def test_dead_letters_may_be_replies(requester: Requester, server: Client) -> None:
    server.declare("q", x_message_ttl=5, x_dead_letter_exchange="", x_dead_letter_routing_key=requester.address)
    server.publish("q", b"late")
    (reply,) = server.broker.tick(now=1.0)
    assert (reply.connection, reply.body) == (requester.id, b"late")


def test_a_channel_that_ends_gets_no_dead_letters_of_its_own(requester: Requester) -> None:
    arguments = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": requester.address}
    requester.declare("qq", durable=True, x_queue_type="quorum", x_delivery_limit=0, **arguments)
    requester.publish("qq")
    requester.get("qq")
    assert names(requester.do(commands.Channel.Close())) == ["Channel.CloseOk"]
    assert len(requester.broker.messages("qq")) == 0


def test_a_clone_has_the_consumers_too(requester: Requester, server: Client) -> None:
    before = server.broker.snapshot()
    clone = server.broker.clone()
    assert clone.snapshot() == before
    requester.do(commands.Basic.Cancel("r"))
    assert server.broker.snapshot() != before
    answers = clone.receive(server.id, 1, commands.Basic.Publish(routing_key=requester.address), None, b"", now=0)
    assert [out.connection for out in answers] == [requester.id]


@pytest.mark.parametrize(
    "kind", [commands.Basic.Get, commands.Basic.Consume, commands.Queue.Purge, commands.Queue.Bind]
)
def test_an_address_is_hardly_a_queue(requester: Requester, server: Client, kind: type[base.Frame]) -> None:
    values = {"queue": requester.address}
    if kind is commands.Queue.Bind:
        values["exchange"] = "amq.topic"
    (answer,) = server.do(method(kind, **values))
    code = getattr(answer.method, "reply_code", None)
    new = {commands.Basic.Get: 540, commands.Basic.Consume: 406, commands.Queue.Purge: None, commands.Queue.Bind: 403}
    assert code == (404 if server.broker.version == "3.10" else new[kind])


def test_a_name_that_is_no_address_ends_the_connection(server: Client) -> None:
    declare = method(commands.Queue.Declare, queue=f"{NAME}.a.b")
    assert closed(server.do(declare)) == ("Connection.Close", 541, "INTERNAL_ERROR")


def test_publishing_to_such_a_name(server: Client) -> None:
    answers = server.publish(f"{NAME}.a.b", b"x", mandatory=True)
    assert names(answers) == (["Connection.Close"] if server.broker.version == "3.10" else ["Basic.Return"])
