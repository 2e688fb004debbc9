"""Exchanges, queues and bindings: what may be declared, and how the broker refuses the rest (as RabbitMQ 3.10.8)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pamqp import base, commands

from eda_core.errors import LocalError
from eda_core.testing.broker import Broker
from tests.core.testing.broker.broker_client import Client, bodies, closed, names


def declare_exchange(name: str, kind: str = "topic", **options: Any) -> commands.Exchange.Declare:
    return commands.Exchange.Declare(exchange=name, exchange_type=kind, **options)


def declare_queue(name: str, **arguments: Any) -> commands.Queue.Declare:
    return commands.Queue.Declare(
        queue=name, arguments={f"x-{key.replace('_', '-')}": v for key, v in arguments.items()}
    )


@pytest.fixture
def client() -> Client:
    client = Client(Broker(), 1)
    client.declare("q", durable=True)
    return client


CHANNEL_ERRORS: list[tuple[base.Frame, int, str]] = [
    (declare_exchange("amq.mine"), 403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"),
    (declare_exchange(""), 403, "ACCESS_REFUSED - operation not permitted on the default exchange"),
    (declare_exchange("x", "strange"), 406, "PRECONDITION_FAILED - unknown exchange type 'strange'"),
    (
        declare_exchange("amq.topic", "direct"),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.topic' in vhost '/': "
        "received 'direct' but current is 'topic'",
    ),
    (declare_exchange("no", passive=True), 404, "NOT_FOUND - no exchange 'no' in vhost '/'"),
    (
        commands.Exchange.Delete(exchange="amq.topic"),
        403,
        "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed",
    ),
    (
        commands.Queue.Declare(queue="q", durable=False),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
        "received 'false' but current is 'true'",
    ),
    (
        commands.Queue.Declare(queue="q", durable=True, exclusive=True),
        405,
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the original "
        "declaration.",
    ),
    (commands.Queue.Declare(queue="no", passive=True), 404, "NOT_FOUND - no queue 'no' in vhost '/'"),
    (declare_queue("amq.x"), 403, "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'"),
    (
        commands.Queue.Bind(queue="q", exchange="", routing_key="k"),
        403,
        "ACCESS_REFUSED - operation not permitted on the default exchange",
    ),
    (commands.Queue.Bind(queue="no", exchange="no"), 404, "NOT_FOUND - no exchange 'no' in vhost '/'"),
    (commands.Queue.Bind(queue="no", exchange="amq.topic"), 404, "NOT_FOUND - no queue 'no' in vhost '/'"),
    (
        declare_queue("z", message_ttl=-1),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'z' in vhost '/': {value_negative,-1}",
    ),
    (
        declare_queue("z", expires=0),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'z' in vhost '/': {value_zero,0}",
    ),
    (
        declare_queue("z", overflow="spill"),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'z' in vhost '/': invalid_overflow",
    ),
    (
        declare_queue("z", dead_letter_routing_key="k"),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue 'z' in vhost '/': "
        "routing_key_but_no_dlx_defined",
    ),
    (
        declare_queue("z", delivery_limit=3),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for queue 'z' in vhost '/' "
        "of queue type rabbit_classic_queue",
    ),
    (
        declare_queue("z", queue_type="quorum"),
        406,
        "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'z' in vhost '/'",
    ),
    (commands.Basic.Get(queue="no"), 404, "NOT_FOUND - no queue 'no' in vhost '/'"),
    (commands.Basic.Ack(3), 406, "PRECONDITION_FAILED - unknown delivery tag 3"),
    (commands.Basic.Nack(0, multiple=False), 406, "PRECONDITION_FAILED - unknown delivery tag 0"),
]


@pytest.mark.parametrize(("method", "code", "text"), CHANNEL_ERRORS, ids=lambda value: getattr(value, "name", None))
def test_what_closes_the_channel(client: Client, method: base.Frame, code: int, text: str) -> None:
    client.do(commands.Channel.Open(), channel=2)
    assert closed(client.do(method, channel=2)) == ("Channel.Close", code, text)
    assert client.do(commands.Basic.Get(queue="q"), channel=2) == [], "a closing channel takes nothing more"
    assert client.do(commands.Channel.CloseOk(), channel=2) == []
    assert names(client.do(commands.Channel.Open(), channel=2)) == ["Channel.OpenOk"]


CONNECTION_ERRORS: list[tuple[base.Frame, int, str]] = [
    (commands.Basic.Publish(immediate=True), 540, "NOT_IMPLEMENTED - immediate=true"),
    (commands.Basic.Qos(prefetch_size=5), 540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)"),
    (commands.Basic.Recover(requeue=False), 540, "NOT_IMPLEMENTED - requeue=false"),
    (commands.Channel.Flow(False), 540, "NOT_IMPLEMENTED - active=false"),
    (commands.Channel.Open(), 504, "CHANNEL_ERROR - second 'channel.open' seen"),
    (commands.Basic.QosOk(), 503, "COMMAND_INVALID - unimplemented method"),
    (
        declare_queue("z", queue_type="stream"),
        540,
        "NOT_IMPLEMENTED - x-queue-type=stream of queue 'z' in vhost '/' is not modelled",
    ),
    (
        commands.Queue.Declare(queue="z", durable=True, arguments={"x-queue-type": "quorum", "x-consumer-timeout": 5}),
        540,
        "NOT_IMPLEMENTED - x-consumer-timeout of queue 'z' in vhost '/' is not modelled",
    ),
]


@pytest.mark.parametrize(("method", "code", "text"), CONNECTION_ERRORS, ids=lambda value: getattr(value, "name", None))
def test_what_closes_the_connection(client: Client, method: base.Frame, code: int, text: str) -> None:
    (out,) = client.do(method)
    assert closed([out]) == ("Connection.Close", code, text)
    close = out.method
    assert isinstance(close, commands.Connection.Close)
    assert ((close.class_id or 0) << 16 | (close.method_id or 0)) == method.index, "the failed method is named"
    assert client.id not in client.broker.connections()
    assert client.do(commands.Queue.Declare(queue="late")) == []
    assert names(client.do(commands.Connection.Close(200, "", 0, 0), channel=0)) == ["Connection.CloseOk"]
    assert client.do(commands.Connection.CloseOk(), channel=0) == []


def test_a_method_on_a_channel_that_is_not_open_closes_the_connection(client: Client) -> None:
    assert closed(client.do(commands.Basic.Qos(), channel=7)) == (
        "Connection.Close",
        504,
        "CHANNEL_ERROR - expected 'channel.open'",
    )


def test_a_long_error_text_is_cut_to_a_short_string(client: Client) -> None:
    _, _, text = closed(client.do(commands.Queue.Declare(queue="q" * 240, passive=True)))
    assert len(text) == 255
    assert text.endswith("q...")


def test_server_named_queue_and_the_last_declared_queue_as_default(client: Client) -> None:
    (answer,) = client.declare("", exclusive=True)
    assert isinstance(answer.method, commands.Queue.DeclareOk)
    name = answer.method.queue or ""
    assert re.fullmatch(r"amq\.gen-\w+", name)
    assert names(client.do(commands.Queue.Bind(exchange="amq.direct"))) == ["Queue.BindOk"]
    assert [binding.key for binding in client.broker.bindings()] == [name], "an empty key means the queue's name too"
    client.publish(name, exchange="amq.direct")
    assert bodies(client.do(commands.Basic.Get())) == [b"m"]


def test_the_default_queue_without_any_declared() -> None:
    client = Client(Broker(), 1)
    assert closed(client.do(commands.Basic.Get()))[1:] == (404, "NOT_FOUND - no previously declared queue")


def test_names_are_made_by_the_callable_if_there_is_one() -> None:
    client = Client(Broker(names=iter(["one", "two"]).__next__), 1)
    (answer,) = client.declare("", exclusive=True)
    assert dict(answer.method)["queue"] == "amq.gen-one"
    (answer,) = client.do(commands.Basic.Consume())
    assert dict(answer.method)["consumer_tag"] == "amq.ctag-two"


def test_nowait_answers_nothing(client: Client) -> None:
    silent: list[base.Frame] = [
        commands.Queue.Declare(queue="n", nowait=True),
        declare_exchange("x", nowait=True),
        commands.Queue.Bind(queue="n", exchange="x", routing_key="#", nowait=True),
        commands.Basic.Consume(queue="n", consumer_tag="t", nowait=True),
        commands.Basic.Cancel("t", nowait=True),
        commands.Queue.Purge(queue="n", nowait=True),
        commands.Queue.Delete(queue="n", nowait=True),
        commands.Exchange.Delete(exchange="x", nowait=True),
        commands.Confirm.Select(nowait=True),
    ]
    for method in silent:
        assert client.do(method) == [], method.name
    assert client.broker.queue_names() == ["q"]


def test_exclusive_queue_is_locked_for_others_and_goes_with_its_connection(client: Client) -> None:
    client.declare("mine", exclusive=True)
    other = Client(client.broker, 1, 2, 3, 4)
    for channel, method in enumerate(
        [
            commands.Queue.Declare(queue="mine", passive=True),
            commands.Basic.Consume(queue="mine"),
            commands.Queue.Delete(queue="mine"),
            commands.Queue.Bind(queue="mine", exchange="amq.topic"),
        ],
        start=1,
    ):
        assert closed(other.do(method, channel=channel))[:2] == ("Channel.Close", 405)
    client.broker.disconnect(client.id, now=1)
    assert client.broker.queue_names() == ["q"]


def test_deleting(client: Client) -> None:
    client.publish("q")
    client.do(commands.Channel.Open(), channel=2)
    assert closed(client.do(commands.Queue.Delete(queue="q", if_empty=True), channel=2))[2].endswith("'/' not empty")
    client.do(commands.Channel.CloseOk(), channel=2)
    client.do(commands.Channel.Open(), channel=2)
    client.consume("q", "t")
    assert closed(client.do(commands.Queue.Delete(queue="q", if_unused=True), channel=2))[2].endswith("'/' in use")
    answers = client.do(commands.Queue.Delete(queue="q"))
    assert names(answers) == ["Queue.DeleteOk", "Basic.Cancel"]
    assert client.do(commands.Basic.Ack(1)) == [], "what came from a deleted queue may still be acknowledged"
    assert names(client.do(commands.Queue.Delete(queue="q"))) == ["Queue.DeleteOk"], "deleting twice is no error"


def test_unbinding_what_is_not_there_is_no_error(client: Client) -> None:
    assert names(client.do(commands.Queue.Unbind(queue="no", exchange="no", routing_key="k"))) == ["Queue.UnbindOk"]


def test_auto_delete_queue_and_exchange_go_with_their_last_use(client: Client) -> None:
    client.do(declare_exchange("x", auto_delete=True))
    client.declare("a", auto_delete=True)
    client.do(commands.Queue.Bind(queue="a", exchange="x", routing_key="#"))
    client.consume("a", "t")
    assert "x" in client.broker.exchange_names()
    client.do(commands.Basic.Cancel("t"))
    assert client.broker.queue_names() == ["q"]
    assert "x" not in client.broker.exchange_names()


@pytest.mark.parametrize(
    ("kind", "binding", "published", "expected"),
    [
        ("direct", "a.b", "a.b", 1),
        ("direct", "a.*", "a.b", 0),
        ("topic", "a.*", "a.b", 1),
        ("topic", "a.*", "a.b.c", 0),
        ("topic", "#", "", 1),
        ("fanout", "x", "y", 1),
    ],
)
def test_routing(client: Client, kind: str, binding: str, published: str, expected: int) -> None:
    client.do(declare_exchange("x", kind))
    client.do(commands.Queue.Bind(queue="q", exchange="x", routing_key=binding))
    client.publish(published, exchange="x")
    assert len(client.broker.messages("q")) == expected


@pytest.mark.parametrize(
    ("match", "headers", "expected"),
    [
        ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 2}, 1),
        ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1}, 0),
        ({"x-match": "any", "a": 1, "b": "x"}, {"a": 1}, 1),
        ({"x-match": "any", "a": 1}, {"a": True}, 0),
        ({"a": None}, {"a": "anything"}, 1),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, 0),
        ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, 1),
    ],
)
def test_routing_by_headers(client: Client, match: dict[str, Any], headers: dict[str, Any], expected: int) -> None:
    client.do(commands.Queue.Bind(queue="q", exchange="amq.headers", arguments=match))
    client.publish("", exchange="amq.headers", headers=headers)
    assert len(client.broker.messages("q")) == expected


def test_two_bindings_deliver_once(client: Client) -> None:
    for key in ("a.*", "*.b", "#"):
        client.do(commands.Queue.Bind(queue="q", exchange="amq.topic", routing_key=key))
        client.do(commands.Queue.Bind(queue="q", exchange="amq.topic", routing_key=key))
    client.publish("a.b", exchange="amq.topic")
    assert len(client.broker.messages("q")) == 1
    assert len(client.broker.bindings()) == 3


def test_exchange_to_exchange_and_alternate_exchange(client: Client) -> None:
    client.do(declare_exchange("spare", "fanout"))
    client.do(declare_exchange("outer", arguments={"alternate-exchange": "spare"}))
    client.do(declare_exchange("inner"))
    client.do(commands.Exchange.Bind(destination="inner", source="outer", routing_key="in.#"))
    client.do(commands.Queue.Bind(queue="q", exchange="inner", routing_key="#"))
    client.declare("lost")
    client.do(commands.Queue.Bind(queue="lost", exchange="spare"))
    client.publish("in.x", b"1", exchange="outer")
    client.publish("out", b"2", exchange="outer")
    assert [message.body for message in client.broker.messages("q")] == [b"1"]
    assert [message.body for message in client.broker.messages("lost")] == [b"2"]
    client.do(commands.Exchange.Unbind(destination="inner", source="outer", routing_key="in.#"))
    client.publish("in.x", b"3", exchange="outer")
    assert [message.body for message in client.broker.messages("lost")] == [b"2", b"3"]


def test_carbon_copies_route_and_blind_ones_are_hidden(client: Client) -> None:
    client.declare("c")
    client.declare("b")
    client.publish("q", headers={"CC": ["c"], "BCC": ["b", "q"]})
    assert [len(client.broker.messages(queue)) for queue in "qcb"] == [1, 1, 1]
    assert client.broker.messages("b")[0].properties.headers == {"CC": ["c"]}


def test_names_that_pamqp_would_refuse_are_carried(client: Client) -> None:
    for name in ("œuvres|1", "x" * 200):
        method = commands.Queue.Declare()
        method.queue = name
        (answer,) = client.do(method)
        assert dict(answer.method)["queue"] == name


def test_virtual_hosts_are_apart() -> None:
    broker = Broker(vhosts=("/", "other"))
    assert broker.has_vhost("other")
    assert not broker.has_vhost("third")
    with pytest.raises(LocalError, match="third"):
        broker.connect(vhost="third")
    home = Client(broker, 1)
    home.declare("q")
    away = broker.connect(vhost="other")
    broker.receive(away, 1, commands.Channel.Open(), now=0)
    (answer,) = broker.receive(away, 1, commands.Queue.Declare(queue="q", passive=True), now=0)
    assert closed([answer])[2] == "NOT_FOUND - no queue 'q' in vhost 'other'"
