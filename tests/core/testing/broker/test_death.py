"""Expiry, length limits, dead letters, policies and quorum queues are those of RabbitMQ 3.10.8."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp import commands

from eda_core.errors import LocalError
from eda_core.testing.broker import Broker, Outgoing, Policy
from tests.core.testing.broker.broker_client import Client, bodies, closed, names

WALL = 1_700_000_000.0


@pytest.fixture
def client() -> Client:
    client = Client(Broker(epoch=WALL, version="3.10"), 1)
    client.do(commands.Exchange.Declare(exchange="dlx", exchange_type="topic"))
    client.declare("dead")
    client.do(commands.Queue.Bind(queue="dead", exchange="dlx", routing_key="#"))
    return client


def headers(client: Client, queue: str = "dead") -> dict[str, Any]:
    properties = client.get(queue, no_ack=True).properties
    assert properties is not None
    return dict(properties.headers or {})


def reject(client: Client, answer: Outgoing) -> None:
    assert isinstance(answer.method, commands.Basic.GetOk)
    client.do(commands.Basic.Reject(answer.method.delivery_tag, requeue=False))


def ready(client: Client, queue: str) -> list[bytes]:
    return [message.body for message in client.broker.messages(queue)]


def test_rejected_message_and_its_headers(client: Client) -> None:
    client.declare("q", x_dead_letter_exchange="dlx")
    client.now = 7.9
    client.publish("q", b"1", headers={"h": 1}, expiration="60000", message_id="i")
    client.get("q")
    client.do(commands.Basic.Reject(1, requeue=False))
    answer = client.get("dead", no_ack=True)
    assert answer.properties is not None
    assert answer.properties.expiration is None
    assert answer.properties.message_id == "i"
    assert dict(answer.method)["exchange"] == "dlx"
    assert answer.properties.headers == {
        "h": 1,
        "x-death": [
            {
                "count": 1,
                "reason": "rejected",
                "queue": "q",
                "time": datetime.fromtimestamp(WALL + 7, UTC),
                "exchange": "",
                "routing-keys": ["q"],
                "original-expiration": "60000",
            }
        ],
        "x-first-death-exchange": "",
        "x-first-death-queue": "q",
        "x-first-death-reason": "rejected",
    }


def test_deaths_are_merged_by_queue_and_reason_and_the_newest_comes_first(client: Client) -> None:
    for number in range(5):
        client.declare(f"c{number}", x_dead_letter_exchange="", x_dead_letter_routing_key=f"c{(number + 1) % 5}")
    client.publish("c0")
    seen = []
    for step in range(8):
        answer = client.get(f"c{step % 5}")
        assert answer.properties is not None
        deaths = (answer.properties.headers or {}).get("x-death", [])
        assert isinstance(deaths, list)
        seen.append([(death["queue"], death["count"]) for death in deaths if isinstance(death, dict)])
        client.do(commands.Basic.Reject(step + 1, requeue=False))
    # RabbitMQ 3.10 turns the older ones round each time.
    assert seen[3] == [("c2", 1), ("c0", 1), ("c1", 1)]
    assert seen[4] == [("c3", 1), ("c1", 1), ("c0", 1), ("c2", 1)]
    assert seen[6][0] == ("c0", 2)
    assert headers(client, "c3")["x-first-death-queue"] == "c0"


def test_dead_letter_routing_key_replaces_the_keys_and_the_carbon_copies(client: Client) -> None:
    client.declare("q", x_dead_letter_exchange="dlx", x_dead_letter_routing_key="new", x_max_length=0)
    client.publish("q", headers={"CC": ["x.y"]})
    (message,) = client.broker.messages("dead")
    assert message.routing_keys == ("new",)
    assert message.properties.headers is not None
    assert "CC" not in message.properties.headers
    assert headers(client)["x-death"][0]["routing-keys"] == ["q", "x.y"]


def test_message_ttl_works_at_the_head_only(client: Client) -> None:
    client.declare("q", x_dead_letter_exchange="dlx", x_message_ttl=300)
    client.publish("q", b"a")
    client.publish("q", b"b", expiration="100")
    assert client.broker.deadline() == pytest.approx(0.3)
    client.broker.tick(now=0.2)
    assert ready(client, "q") == [b"a", b"b"]
    client.broker.tick(now=0.3)
    assert ready(client, "dead") == [b"a", b"b"]
    assert headers(client)["x-first-death-reason"] == "expired"
    assert headers(client)["x-death"][0]["original-expiration"] == "100"
    assert client.broker.deadline() is None


def test_ticks_may_come_early_late_and_twice(client: Client) -> None:
    client.declare("q", x_message_ttl=300, x_dead_letter_exchange="dlx")
    client.publish("q")
    assert client.broker.tick(now=0.1) == client.broker.tick(now=0.1) == []
    client.broker.tick(now=99)
    client.broker.tick(now=99)
    client.broker.tick(now=5)
    assert ready(client, "dead") == [b"m"]


def test_a_ttl_of_zero_is_enough_for_a_waiting_consumer(client: Client) -> None:
    client.declare("q", x_message_ttl=0)
    client.publish("q")
    assert ready(client, "q") == []
    client.consume("q", "t")
    assert bodies(client.publish("q", b"now")) == [b"now"]
    assert client.do(commands.Basic.Nack(1)) == [], "returned it has expired"


def test_requeued_message_keeps_its_time(client: Client) -> None:
    client.declare("q", x_message_ttl=1000)
    client.publish("q")
    client.now = 0.9
    client.get("q")
    client.do(commands.Basic.Nack(1))
    client.broker.tick(now=1.0)
    assert ready(client, "q") == []


def test_dead_letters_live_from_their_death(client: Client) -> None:
    client.declare("a", x_message_ttl=50, x_dead_letter_exchange="", x_dead_letter_routing_key="b")
    client.declare("b", x_message_ttl=50)
    client.publish("a")
    client.broker.tick(now=0.07)
    assert ready(client, "b") == [b"m"]
    assert client.broker.deadline() == pytest.approx(0.1)
    client.broker.tick(now=5)
    assert ready(client, "b") == []


def test_a_cycle_without_reject_ends(client: Client) -> None:
    client.declare("a", x_message_ttl=50, x_dead_letter_exchange="", x_dead_letter_routing_key="b")
    client.declare("b", x_message_ttl=50, x_dead_letter_exchange="", x_dead_letter_routing_key="a")
    client.publish("a")
    client.broker.tick(now=10)
    assert ready(client, "a") + ready(client, "b") == []


def test_a_cycle_with_a_reject_goes_on(client: Client) -> None:
    client.declare("work", x_dead_letter_exchange="", x_dead_letter_routing_key="wait")
    client.declare("wait", x_message_ttl=50, x_dead_letter_exchange="", x_dead_letter_routing_key="work")
    client.publish("work")
    for turn in range(1, 4):
        client.now = turn - 1.0
        assert client.get("work").body == b"m"
        client.do(commands.Basic.Reject(turn, requeue=False))
    client.now = 9
    assert [death["count"] for death in headers(client, "work")["x-death"]] == [3, 3]


def test_unused_queue_expires(client: Client) -> None:
    client.declare("q", x_expires=200)
    client.consume("q", "t")
    client.broker.tick(now=5)
    assert "q" in client.broker.queue_names()
    client.now = 5
    client.do(commands.Basic.Cancel("t"))
    client.broker.tick(now=5.1)
    client.now = 5.15
    client.get("q")
    client.broker.tick(now=5.3)
    assert "q" in client.broker.queue_names(), "basic.get counts as use"
    client.broker.tick(now=5.4)
    assert "q" not in client.broker.queue_names()


def test_drop_head(client: Client) -> None:
    client.declare("q", x_max_length=2, x_dead_letter_exchange="dlx")
    for number in range(3):
        client.publish("q", b"%d" % number)
    assert (ready(client, "q"), ready(client, "dead")) == ([b"1", b"2"], [b"0"])
    client.get("q")
    client.publish("q", b"3")
    client.do(commands.Basic.Nack(1))
    assert ready(client, "dead") == [b"0", b"1"], "a returned message may be the one too many"
    assert headers(client)["x-first-death-reason"] == "maxlen"


def test_max_length_in_bytes(client: Client) -> None:
    client.declare("q", x_max_length_bytes=5)
    client.publish("q", b"abc")
    client.publish("q", b"de")
    assert ready(client, "q") == [b"abc", b"de"]
    client.publish("q", b"f")
    assert ready(client, "q") == [b"de", b"f"]
    client.publish("q", b"too long")
    assert ready(client, "q") == []


@pytest.mark.parametrize(("overflow", "dead"), [("reject-publish", []), ("reject-publish-dlx", [b"1"])])
def test_publishes_to_a_full_queue_are_refused(client: Client, overflow: str, dead: list[bytes]) -> None:
    client.declare("q", x_max_length=1, x_overflow=overflow, x_dead_letter_exchange="dlx")
    client.declare("wide")
    for queue in ("q", "wide"):
        client.do(commands.Queue.Bind(queue=queue, exchange="amq.fanout"))
    client.do(commands.Confirm.Select())
    assert names(client.publish("", b"0", exchange="amq.fanout")) == ["Basic.Ack"]
    (nack,) = client.publish("", b"1", exchange="amq.fanout")
    assert isinstance(nack.method, commands.Basic.Nack)
    assert nack.method.delivery_tag == 2
    assert ready(client, "q") == [b"0"]
    assert ready(client, "wide") == [b"0", b"1"], "the others have it nevertheless"
    assert ready(client, "dead") == dead


def test_without_the_exchange_the_dead_are_dropped(client: Client) -> None:
    client.declare("q", x_dead_letter_exchange="missing")
    client.publish("q")
    client.get("q")
    assert client.do(commands.Basic.Reject(1, requeue=False)) == []
    assert client.get("q").method.name == "Basic.GetEmpty"


def test_a_forged_x_death_does_no_harm(client: Client) -> None:
    client.declare("q", x_dead_letter_exchange="dlx")
    forged: list[Any] = ["text", [], [1, "x", {"queue": []}], [{"count": "many", "queue": "q", "reason": "rejected"}]]
    for value in forged:
        client.publish("q", headers={"x-death": value})
        reject(client, client.get("q"))
    for _ in forged:
        newest = headers(client)["x-death"][0]
        assert (newest["queue"], newest["count"]) == ("q", 1)


# -- policies -----------------------------------------------------------------------------------------------------


def test_the_policy_of_the_architecture() -> None:
    policy = Policy("DLX", r".*\.events|.*\.commands", {"dead-letter-exchange": "am-dlx"})
    client = Client(Broker(policies=[policy]), 1)
    client.do(commands.Exchange.Declare(exchange="am-dlx", exchange_type="fanout"))
    client.declare("dead")
    client.do(commands.Queue.Bind(queue="dead", exchange="am-dlx"))
    for queue in ("s.events", "s.commands", "other"):
        client.declare(queue)
        client.publish(queue, queue.encode())
        reject(client, client.get(queue))
    assert ready(client, "dead") == [b"s.events", b"s.commands"]


def test_policy_and_arguments(client: Client) -> None:
    broker = client.broker
    client.declare("q", x_max_length=3, x_dead_letter_exchange="dlx")
    for number in range(3):
        client.publish("q", b"%d" % number)
    broker.set_policy(Policy("short", "^q", {"max-length": 1, "dead-letter-exchange": "other"}), now=0)
    assert ready(client, "dead") == [b"0", b"1"], "the argument's exchange, the smaller length"
    broker.set_policy(Policy("long", "^q", {"max-length": 9}, priority=1), now=0)
    assert broker.queue("q").limits.max_length == 3
    broker.clear_policy("long", now=0)
    assert broker.queue("q").limits.max_length == 1
    broker.set_policy(Policy("quorum", "^q", {"delivery-limit": 1, "max-length": 2}, priority=5), now=0)
    assert broker.queue("q").limits.max_length == 1, "a policy with a delivery limit is not for classic queues"


@pytest.mark.parametrize(
    ("pattern", "definition"), [("(", {}), ("", {"ha-mode": "all"}), ("", {"max-length": -1}), ("", {"overflow": "x"})]
)
def test_wrong_policies(pattern: str, definition: dict[str, Any]) -> None:
    with pytest.raises(LocalError, match="policy 'p'"):
        Policy("p", pattern, definition)


# -- quorum queues --------------------------------------------------------------------------------------------------


def quorum(client: Client, count: int, **arguments: Any) -> None:
    client.declare("qq", durable=True, x_queue_type="quorum", **arguments)
    for number in range(count):
        client.publish("qq", b"%d" % number)


def test_quorum_counts_deliveries_and_returns_to_the_end(client: Client) -> None:
    quorum(client, 3)
    first = client.get("qq")
    assert first.properties is not None
    assert first.properties.headers == {"x-delivery-count": 0}
    client.do(commands.Basic.Nack(1))
    assert ready(client, "qq") == [b"1", b"2", b"0"]
    answers = client.consume("qq", "t")
    counts = [(out.properties.headers or {}).get("x-delivery-count") for out in answers if out.properties]
    assert counts == [None, None, 1], "consumers are told only when it is not the first time"
    assert [dict(out.method)["redelivered"] for out in answers[1:]] == [False, False, True]


def test_quorum_delivery_limit(client: Client) -> None:
    quorum(client, 2, x_delivery_limit=1, x_dead_letter_exchange="dlx")
    for tag in (1, 2):
        assert client.get("qq").body == b"0", "with a limit a returned message comes first"
        client.do(commands.Basic.Nack(tag))
    assert ready(client, "qq") == [b"1"]
    assert headers(client)["x-first-death-reason"] == "delivery_limit"


def test_quorum_counts_the_loss_of_a_connection(client: Client) -> None:
    quorum(client, 1, x_delivery_limit=0, x_dead_letter_exchange="dlx")
    client.get("qq")
    client.broker.disconnect(client.id, now=0)
    assert ready(client, "dead") == [b"0"]


def test_quorum_drops_what_expired_in_the_hands_of_a_consumer(client: Client) -> None:
    """tests/differential has found it: the consumer got it again."""
    quorum(client, 0)
    client.consume("qq", "t")
    client.publish("qq", b"old", expiration="5")
    client.publish("qq", b"new")
    client.now = 1.0
    assert bodies(client.do(commands.Basic.Recover(requeue=True))) == [b"new"]
    assert ready(client, "qq") == []


def test_quorum_drops_what_is_too_much_only_when_its_consumers_have_enough(client: Client) -> None:
    quorum(client, 0, x_max_length=2, x_delivery_limit=9)
    client.consume("qq", "t")
    client.do(commands.Channel.Open(), channel=2)
    for number in range(4):
        client.publish("qq", b"%d" % number)
    client.consume("qq", "other", channel=2)
    assert bodies(client.do(commands.Channel.Close())) == [b"0", b"1", b"2", b"3"]


def test_quorum_buries_what_is_too_much_at_once_backwards(client: Client) -> None:
    """tests/differential has found it."""
    quorum(client, 0, x_max_length=1, x_dead_letter_exchange="dlx")
    client.consume("qq", "t")
    for number in range(4):
        client.publish("qq", b"%d" % number)
    client.do(commands.Channel.Close())
    assert ready(client, "qq") == [b"3"]
    assert ready(client, "dead") == [b"2", b"1", b"0"]


def test_quorum_counts_what_is_about_to_expire_unless_the_message_is_settled_at_once(client: Client) -> None:
    """tests/differential has found it."""
    for no_ack, left in ((False, 1), (True, 0)):
        quorum(client, 2)
        client.publish("qq", b"short", expiration="5")
        client.get("qq", no_ack=True)
        client.now += 1.0
        answer = client.get("qq", no_ack=no_ack)
        assert dict(answer.method)["message_count"] == left
        assert ready(client, "qq") == []
        client.do(commands.Queue.Delete(queue="qq"))


def test_quorum_survives_a_restart_with_transient_messages(client: Client) -> None:
    quorum(client, 2)
    client.get("qq")
    client.broker.restart(now=1)
    entries = list(client.broker.queue("qq").entries())
    assert sorted((entry.message.body, entry.redelivered) for entry in entries) == [(b"0", True), (b"1", False)]


def test_quorum_refuses_global_prefetch_and_conditional_deletion(client: Client) -> None:
    quorum(client, 0)
    client.do(commands.Basic.Qos(prefetch_count=1, global_=True))
    text = "NOT_IMPLEMENTED - queue 'qq' in vhost '/' does not support global qos"
    assert closed(client.consume("qq", "t")) == ("Connection.Close", 540, text)
    again = Client(client.broker, 1)
    assert closed(again.do(commands.Queue.Delete(queue="qq", if_unused=True)))[:2] == ("Connection.Close", 540)


def test_a_circle_of_dead_letters_comes_to_an_end(client: Client) -> None:
    """tests/differential has found it. RabbitMQ lets a rejected dead letter go round full queues for ever."""
    client.declare("c0", x_max_length=0, x_dead_letter_exchange="", x_dead_letter_routing_key="c1")
    client.declare("c1", x_max_length=0, x_dead_letter_exchange="", x_dead_letter_routing_key="c0")
    rejected = {"count": 1, "reason": "rejected", "queue": "c1", "exchange": "", "routing-keys": ["c1"]}
    client.publish("c0", headers={"x-death": [rejected]})
    assert ready(client, "c0") == ready(client, "c1") == []
    client.publish("c0")
    client.declare("last")
    client.publish("last", b"lives")
    assert ready(client, "last") == [b"lives"]


def test_the_count_of_deaths_goes_on_at_the_other_end_of_its_range(client: Client) -> None:
    """It is a signed number of 64 bits, and a client may send the highest one."""
    client.declare("dead")
    client.declare("source", x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    forged = {"count": 2**63 - 1, "reason": "rejected", "queue": "source", "exchange": "", "routing-keys": ["source"]}
    client.publish("source", headers={"x-death": [forged]})
    client.get("source")
    client.do(commands.Basic.Reject(1, requeue=False))
    (message,) = client.broker.messages("dead")
    headers: dict[str, Any] = message.properties.headers or {}
    assert [death["count"] for death in headers["x-death"]] == [-(2**63)]


def test_a_routing_key_of_dead_letters_that_is_not_utf_8(client: Client) -> None:
    client.declare("dead")
    arguments: dict[str, Any] = {"x_dead_letter_exchange": "amq.topic", "x_dead_letter_routing_key": b"a.\xff"}
    client.declare("source", **arguments)
    client.do(commands.Queue.Bind(queue="dead", exchange="amq.topic", routing_key="a.*"))
    client.publish("source")
    client.get("source")
    client.do(commands.Basic.Reject(1, requeue=False))
    (message,) = client.broker.messages("dead")
    assert message.routing_keys == ("a.\udcff",)
