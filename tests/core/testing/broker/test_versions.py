"""What the model of one release of RabbitMQ does otherwise than that of another: each entry of the table, as seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp import commands

from eda_core.errors import LocalError
from eda_core.testing.broker import Broker
from eda_core.testing.broker.addresses import NAME
from eda_core.testing.broker.versions import NEWEST, VERSIONS, Version
from tests.core.testing.broker.broker_client import Client, bodies, closed, names


def client(version: str) -> Client:
    """A client with a queue ``dead`` for what dies in ``q`` or in the quorum queue ``qq``."""
    made = Client(Broker(version=version), 1)
    made.declare("dead")
    made.declare("q", x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    return made


def quorum(made: Client, **arguments: Any) -> None:
    made.declare("qq", durable=True, x_queue_type="quorum", **arguments)


def headers(made: Client, queue: str) -> dict[str, Any]:
    properties = made.get(queue).properties
    assert properties is not None
    return dict(properties.headers or {})


def rejected(made: Client, **published: Any) -> None:
    """A message was rejected in ``q``, so that it is in ``dead``."""
    made.publish("q", **published)
    made.get("q")
    made.do(commands.Basic.Reject(1, requeue=False))


def wrong_type_closes_connection(made: Client) -> object:
    declare = commands.Exchange.Declare(exchange="x", exchange_type="strange")
    return closed(made.do(declare))[:2] == ("Connection.Close", 503)


def max_message_bytes(made: Client) -> object:
    for size in (16 << 20, 128 << 20):
        assert made.publish("nowhere", bytes(size)) == []
        if refused := made.publish("nowhere", bytes(size + 1)):
            assert closed(refused)[:2] == ("Channel.Close", 406)
            return size
    return None


def refuses_unknown_delivery_modes(made: Client) -> object:
    properties = commands.Basic.Properties()
    properties.delivery_mode = 3  # the constructor would refuse it
    answers = made.do(commands.Basic.Publish(routing_key="q"), properties=properties)
    return names(answers) == ["Channel.Close"]


def topic_hashes(made: Client) -> object:
    allowed = 0
    for allowed in range(4):
        bind = commands.Queue.Bind(queue="q", exchange="amq.topic", routing_key=".".join("#" * (allowed + 1)))
        if names(made.do(bind)) != ["Queue.BindOk"]:
            return allowed
    return None


def tells_last_death(made: Client) -> object:
    rejected(made)
    return headers(made, "dead").get("x-last-death-reason") == "rejected"


def ignores_foreign_deaths(made: Client) -> object:
    foreign = {"count": 7, "reason": "rejected", "queue": "q", "exchange": "", "routing-keys": ["q"]}
    rejected(made, headers={"x-death": [foreign]})
    return headers(made, "dead")["x-death"][0]["count"] == 1


def keeps_carbon_copies(made: Client) -> object:
    rejected(made, headers={"CC": ["nowhere"]})
    return "CC" in headers(made, "dead")


def subtracts_blind_copies(made: Client) -> object:
    rejected(made, headers={"CC": ["other"], "BCC": ["q"]})
    return headers(made, "dead")["x-death"][0]["routing-keys"] == ["other", "q"]


def reverses_deaths(made: Client) -> object:
    for number in range(3):
        made.declare(f"h{number}", x_dead_letter_exchange="", x_dead_letter_routing_key=f"h{number + 1}")
    made.declare("h3")
    made.publish("h0")
    for number in range(3):
        made.get(f"h{number}")
        made.do(commands.Basic.Reject(number + 1, requeue=False))
    return [death["queue"] for death in headers(made, "h3")["x-death"]] == ["h2", "h0", "h1"]


def remembers_failures(made: Client) -> object:
    rejected(made)
    return dict(made.get("dead").method)["redelivered"]


def counts_each_return(made: Client) -> object:
    quorum(made)
    made.publish("qq")
    made.get("qq")
    made.do(commands.Basic.Nack(1))
    counts = headers(made, "qq")
    assert counts in ({"x-delivery-count": 1}, {"x-acquired-count": 1})
    return "x-delivery-count" in counts


def counts_from_zero(made: Client) -> object:
    quorum(made)
    made.publish("qq")
    return headers(made, "qq") == {"x-delivery-count": 0}


def delivery_limit(made: Client) -> object:
    quorum(made, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    made.publish("qq")
    for tag in range(1, 60):
        if names([made.get("qq")]) == ["Basic.GetEmpty"]:
            assert headers(made, "dead")["x-first-death-reason"] == "delivery_limit"
            return tag - 2  # the limit is of those that may come back
        made.do(commands.Basic.Reject(tag, requeue=True))
    return None


def drops_in_reverse(made: Client) -> object:
    quorum(made, x_max_length=1, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    made.consume("qq", "t")
    for number in range(4):
        made.publish("qq", b"%d" % number)
    made.do(commands.Channel.Close())
    return [message.body for message in made.broker.messages("dead")] == [b"2", b"1", b"0"]


def credits_buried_twice(made: Client) -> object:
    quorum(made, x_delivery_limit=0)
    made.do(commands.Basic.Qos(prefetch_count=1))
    for number in range(4):
        made.publish("qq", b"%d" % number)
    made.consume("qq", "t")
    return len(bodies(made.do(commands.Basic.Reject(1, requeue=True)))) == 2


def shares_prefetch(made: Client) -> object:
    quorum(made)
    for queue in ("q", "qq"):
        for _ in range(3):
            made.publish(queue)
    made.do(commands.Basic.Qos(prefetch_count=1, global_=True))
    alone, other = bodies(made.consume("q", "a")), bodies(made.consume("q", "b"))
    assert len(alone) == 1
    answer = made.consume("qq", "c")
    assert (names(answer) == ["Connection.Close"]) is not bool(other)
    return not other


def orders_by_priority(made: Client) -> object:
    quorum(made)
    for priority in (0, None, 40, 31, 4):
        made.publish("qq", str(priority).encode(), priority=priority)
    return bodies(made.consume("qq", "t")) == [b"40", b"31", b"None", b"4", b"0"]


def lowest_max_priority(made: Client) -> object:
    made.declare("ordered", x_max_priority=0)
    for priority in (0, 9):
        made.publish("ordered", b"%d" % priority, priority=priority)
    return bodies(made.consume("ordered", "t")).index(b"0")


def yields_to_priority(made: Client) -> object:
    quorum(made, x_single_active_consumer=True)
    made.consume("qq", "first")
    made.consume("qq", "second", arguments={"x-priority": 1})
    (delivery,) = made.publish("qq")
    return dict(delivery.method)["consumer_tag"] == "second"


def writes_type_as_term(made: Client) -> object:
    quorum(made, x_single_active_consumer=True)
    text = closed([made.get("qq")])[2]
    start = "RESOURCE_LOCKED - cannot obtain access to locked queue 'qq' in vhost '/'. basic.get operations are not"
    assert text.startswith(start)
    return '<<"quorum">>' in text


def returns_by_age(made: Client) -> object:
    quorum(made)
    made.publish("qq", b"got")
    made.get("qq")
    made.do(commands.Basic.Qos(prefetch_count=1))
    for tag in ("b", "a"):
        made.consume("qq", tag)
        made.publish("qq", tag.encode())
    made.do(commands.Channel.Close())
    return [message.body for message in made.broker.messages("qq")] == [b"b", b"a", b"got"]


def newer_arguments(made: Client) -> object:
    quorum(made)
    answers = [
        names(made.declare("q2", x_queue_leader_locator="balanced")),
        names(made.declare("q3", durable=True, x_queue_type="quorum", x_consumer_disconnected_timeout=1)),
        names(made.consume("q", "c1", arguments={"x-cancel-on-ha-failover": True})),
        names(made.consume("q", "c2", arguments={"x-stream-filter": "a"})),
    ]
    known = [["Queue.DeclareOk"], ["Queue.DeclareOk"], ["Basic.ConsumeOk"], ["Channel.Close"]]
    assert (answers == known) or answers[0] == ["Channel.Close"]
    return answers == known


def ignores_queue_mode(made: Client) -> object:
    return names(made.declare("other", x_queue_mode="strange")) == ["Queue.DeclareOk"]


def oldest_queue_version(made: Client) -> object:
    return 1 if names(made.declare("other", x_queue_version=1)) == ["Queue.DeclareOk"] else 2


def refuses_master_locator(made: Client) -> object:
    return names(made.declare("other", x_queue_master_locator="client-local")) == ["Connection.Close"]


def states_queue_type(made: Client) -> object:
    quorum(made)
    return closed(made.declare("qq", durable=True))[2].endswith("received 'classic' but current is 'quorum'")


def quotes_latin_1(made: Client) -> object:
    missing = commands.Queue.Declare(passive=True)
    missing.queue = "\udcff"
    text = closed(made.do(missing))[2]
    assert text in (f"NOT_FOUND - no queue '{name}' in vhost '/'" for name in ("\udcff", "\xff"))
    return "\xff" in text


def matches(made: Client, wanted: object, given: object) -> bool:
    """Whether a headers exchange takes two values for equal."""
    arguments: Any = {"a": wanted}
    made.do(commands.Queue.Bind(queue="q", exchange="amq.headers", arguments=arguments))
    made.publish("", exchange="amq.headers", headers={"a": given})
    return len(made.broker.messages("q")) == 1


def mixes_numbers(made: Client) -> object:
    return matches(made, 1, 1.0)


def ignores_times(made: Client) -> object:
    return not matches(made, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def replies_are_queues(made: Client) -> object:
    made.consume(NAME, "r", no_ack=True)
    made.publish("q", reply_to=NAME)
    properties = made.get("q").properties
    assert properties is not None
    return names(made.publish(properties.reply_to or "", mandatory=True)) == ["Basic.Deliver"]


def finds_queues_at_publish(made: Client) -> object:
    made.do(commands.Tx.Select())
    made.publish("late")
    made.declare("late")
    made.do(commands.Tx.Commit())
    return made.broker.messages("late") == []


SEEN: list[Callable[[Client], object]] = [
    wrong_type_closes_connection,
    max_message_bytes,
    refuses_unknown_delivery_modes,
    topic_hashes,
    tells_last_death,
    ignores_foreign_deaths,
    keeps_carbon_copies,
    subtracts_blind_copies,
    reverses_deaths,
    remembers_failures,
    counts_each_return,
    counts_from_zero,
    delivery_limit,
    drops_in_reverse,
    credits_buried_twice,
    shares_prefetch,
    orders_by_priority,
    lowest_max_priority,
    yields_to_priority,
    writes_type_as_term,
    returns_by_age,
    newer_arguments,
    ignores_queue_mode,
    oldest_queue_version,
    refuses_master_locator,
    states_queue_type,
    quotes_latin_1,
    mixes_numbers,
    ignores_times,
    replies_are_queues,
    finds_queues_at_publish,
]


def test_each_entry_of_the_table_is_tested() -> None:
    assert [each.__name__ for each in SEEN] == [field.name for field in fields(Version)][1:]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: str(seen.__name__))
def test_entry(seen: Callable[[Client], object], version: str) -> None:
    assert seen(client(version)) == getattr(VERSIONS[version], seen.__name__)


def test_a_message_of_a_higher_priority_does_not_keep_others_from_expiring() -> None:
    made = client(NEWEST)
    quorum(made, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    made.publish("qq", b"urgent", priority=9)
    made.publish("qq", b"old", expiration="5")
    made.broker.tick(now=1.0)
    assert [message.body for message in made.broker.messages("dead")] == [b"old"]


def test_failures_in_earlier_queues_count_towards_a_delivery_limit() -> None:
    """Dead letters of basic.reject come to a quorum queue with the count of the queues before."""
    made = client("4.3")
    quorum(made, x_delivery_limit=1, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    made.declare("first", x_dead_letter_exchange="", x_dead_letter_routing_key="qq")
    made.publish("first")
    made.get("first")
    made.do(commands.Basic.Reject(1, requeue=False))
    counts = headers(made, "qq")
    assert (counts["x-acquired-count"], counts["x-delivery-count"]) == (1, 1)
    made.do(commands.Basic.Reject(2, requeue=True))
    assert made.broker.messages("qq") == []
    assert len(made.broker.messages("dead")) == 1


def test_a_release_that_is_not_modelled_is_refused() -> None:
    with pytest.raises(LocalError, match=r"RabbitMQ '4\.1' is not modelled"):
        Broker(version="4.1")
