"""Order, prefetch, settling, confirms, alarms and restart are those of RabbitMQ 3.10.8."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from eda_core.errors import LocalError
from eda_core.testing.broker import Broker
from eda_core.testing.broker.versions import LARGEST_BODY
from tests.core.testing.broker.broker_client import Client, Properties, bodies, closed, names


@pytest.fixture
def client() -> Client:
    client = Client(Broker(), 1, 2)
    client.declare("q")
    return client


def fill(client: Client, count: int, queue: str = "q") -> None:
    for number in range(count):
        client.publish(queue, b"%d" % number)


def test_mandatory_is_returned_before_the_confirm(client: Client) -> None:
    client.do(commands.Confirm.Select())
    answers = client.publish("nowhere", b"lost", mandatory=True, message_id="i")
    assert names(answers) == ["Basic.Return", "Basic.Ack"]
    assert dict(answers[0].method) == {
        "reply_code": 312,
        "reply_text": "NO_ROUTE",
        "exchange": "",
        "routing_key": "nowhere",
    }
    assert answers[0].body == b"lost"
    assert answers[0].properties is not None
    assert answers[0].properties.message_id == "i"
    assert names(client.publish("nowhere")) == ["Basic.Ack"]


def test_confirm_tags_count_per_channel(client: Client) -> None:
    client.publish("q")
    client.do(commands.Confirm.Select())
    client.do(commands.Confirm.Select(), channel=2)
    tags = [dict(client.publish("q", channel=channel)[0].method)["delivery_tag"] for channel in (1, 2, 1)]
    assert tags == [1, 1, 2]


def test_publishing_to_what_does_not_exist_closes_the_channel(client: Client) -> None:
    assert closed(client.publish("k", exchange="no")) == (
        "Channel.Close",
        404,
        "NOT_FOUND - no exchange 'no' in vhost '/'",
    )


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"expiration": "soon"}, "invalid expiration 'soon': no_integer"),
        ({"expiration": "10s"}, "invalid expiration '10s': {leftover_string,\"s\"}"),
        ({"expiration": "-1"}, "invalid expiration '-1': {value_negative,-1}"),
        ({"user_id": "joe"}, "user_id property set to 'joe' but authenticated user was 'guest'"),
        ({"headers": {"CC": "q"}}, 'invalid message: {unacceptable_type_in_header,"CC",longstr}'),
    ],
)
def test_refused_properties(client: Client, properties: dict[str, Any], text: str) -> None:
    answer = closed(client.publish("q", **properties))
    assert answer == ("Channel.Close", 406, f"PRECONDITION_FAILED - {text}")


def test_own_user_id_passes(client: Client) -> None:
    assert client.publish("q", user_id="guest") == []
    assert len(client.broker.messages("q")) == 1


def test_get_and_get_empty(client: Client) -> None:
    fill(client, 2)
    first = client.get("q")
    assert (first.body, dict(first.method)["message_count"]) == (b"0", 1)
    assert client.get("q", no_ack=True).body == b"1"
    assert client.get("q").method.name == "Basic.GetEmpty"
    assert [message.body for *_, message in client.broker.unacked("q")] == [b"0"]


def test_returned_messages_take_their_old_places(client: Client) -> None:
    fill(client, 6)
    for _ in range(4):
        client.get("q")
    client.do(commands.Basic.Nack(3))
    client.do(commands.Basic.Nack(1))
    assert [m.body for m in client.broker.messages("q")] == [b"0", b"2", b"4", b"5"]
    answer = client.get("q")
    assert (answer.body, dict(answer.method)["redelivered"]) == (b"0", True)
    client.do(commands.Basic.Nack(0, multiple=True))
    assert [m.body for m in client.broker.messages("q")] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    redelivered = [entry.redelivered for entry in client.broker.queue("q").entries()]
    assert redelivered == [True] * 4 + [False] * 2


def test_consume_answers_before_it_delivers_and_round_robin(client: Client) -> None:
    fill(client, 1)
    answers = client.consume("q", "a")
    assert names(answers) == ["Basic.ConsumeOk", "Basic.Deliver"]
    client.consume("q", "b", channel=2)
    tags = [dict(client.publish("q")[0].method)["consumer_tag"] for _ in range(4)]
    assert tags == ["a", "b", "a", "b"]


def test_consumers_of_higher_priority_come_first(client: Client) -> None:
    client.do(commands.Basic.Qos(prefetch_count=1))
    client.consume("q", "low")
    client.consume("q", "high", arguments={"x-priority": 3})
    tags = [dict(client.publish("q")[0].method)["consumer_tag"] for _ in range(2)]
    assert tags == ["high", "low"]


def test_prefetch_counts_per_consumer_and_for_new_ones_only(client: Client) -> None:
    client.consume("q", "free")
    client.do(commands.Basic.Qos(prefetch_count=1))
    client.declare("r")
    client.consume("r", "bound")
    fill(client, 3, "q")
    fill(client, 3, "r")
    assert len(client.broker.messages("q")) == 0
    assert len(client.broker.messages("r")) == 2
    assert bodies(client.do(commands.Basic.Ack(4))) == [b"1"]


def test_shared_prefetch_holds_the_whole_channel() -> None:
    client = Client(Broker(version="3.10"), 1)
    client.declare("q")
    client.do(commands.Basic.Qos(prefetch_count=2, global_=True))
    client.declare("r")
    client.consume("q", "a")
    client.consume("r", "b")
    fill(client, 2, "q")
    fill(client, 2, "r")
    assert len(client.broker.unacked("q")) == 2
    assert bodies(client.do(commands.Basic.Ack(2, multiple=True))) == [b"0", b"1"]
    fill(client, 1, "q")
    assert bodies(client.do(commands.Basic.Qos(prefetch_count=0, global_=True))) == [b"0"]


def test_one_consumer_returns_a_message_and_another_gets_it(client: Client) -> None:
    other = Client(client.broker, 1)
    for one in (client, other):
        one.do(commands.Basic.Qos(prefetch_count=1))
        one.consume("q", "t")
    for body in (b"0", b"1", b"2"):
        client.publish("q", body)
    other.do(commands.Basic.Ack(1))
    other.do(commands.Basic.Ack(2))
    answers = client.all(commands.Basic.Nack(1))
    assert [(out.connection, out.body) for out in answers] == [(other.id, b"0")]


def test_no_ack_consumer_leaves_nothing_unacknowledged(client: Client) -> None:
    client.do(commands.Basic.Qos(prefetch_count=1))
    client.consume("q", "t", no_ack=True)
    fill(client, 3)
    assert client.broker.unacked("q") == []
    assert len(client.broker.messages("q")) == 0


def test_same_consumer_tag_twice_closes_the_connection(client: Client) -> None:
    client.consume("q", "t")
    text = "NOT_ALLOWED - attempt to reuse consumer tag 't'"
    assert closed(client.consume("q", "t")) == ("Connection.Close", 530, text)


def test_exclusive_consumer(client: Client) -> None:
    client.consume("q", "t", exclusive=True)
    text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"
    assert closed(client.consume("q", "u", channel=2)) == ("Channel.Close", 403, text)
    client.do(commands.Basic.Cancel("t"))
    assert names(client.consume("q", "v")) == ["Basic.ConsumeOk"]


def test_cancelled_consumer_keeps_what_it_has(client: Client) -> None:
    client.consume("q", "t")
    fill(client, 1)
    assert names(client.do(commands.Basic.Cancel("t"))) == ["Basic.CancelOk"]
    fill(client, 1)
    assert len(client.broker.messages("q")) == 1
    assert client.do(commands.Basic.Ack(1)) == []


def test_recover_puts_everything_back(client: Client) -> None:
    client.consume("q", "t")
    fill(client, 2)
    answers = client.do(commands.Basic.Recover(requeue=True))
    assert sorted(names(answers)) == ["Basic.Deliver", "Basic.Deliver", "Basic.RecoverOk"]
    assert all(dict(out.method).get("redelivered", True) for out in answers)


def test_acknowledging_unknown_tags(client: Client) -> None:
    fill(client, 3)
    for _ in range(3):
        client.get("q")
    client.do(commands.Basic.Ack(2))
    text = "PRECONDITION_FAILED - unknown delivery tag 2"
    assert closed(client.do(commands.Basic.Ack(2, multiple=True)))[2] == text
    assert [m.body for m in client.broker.messages("q")] == []
    client.do(commands.Channel.CloseOk())
    assert [m.body for m in client.broker.messages("q")] == [b"0", b"2"], "given back when the channel is gone"


def test_acknowledging_all_when_there_is_nothing(client: Client) -> None:
    assert client.do(commands.Basic.Ack(0, multiple=True)) == []


@pytest.mark.parametrize("end", ["disconnect", "channel close", "connection close", "error"])
def test_the_end_of_a_channel_gives_the_messages_to_others(client: Client, end: str) -> None:
    other = Client(client.broker, 1)
    client.consume("q", "mine")
    fill(client, 2)
    other.consume("q", "theirs")
    if end == "disconnect":
        answers = client.broker.disconnect(client.id, now=1)
    elif end == "channel close":
        answers = client.all(commands.Channel.Close(200, "", 0, 0))
    elif end == "connection close":
        answers = client.all(commands.Connection.Close(200, "", 0, 0), channel=0)
    else:
        answers = client.all(commands.Basic.Ack(99))
    delivered = [(out.connection, out.body, dict(out.method)["redelivered"]) for out in answers if out.body]
    assert delivered == [(other.id, b"0", True), (other.id, b"1", True)]
    assert client.broker.consumers("q") == [(other.id, 1, "theirs")]


def test_purge_leaves_what_is_unacknowledged(client: Client) -> None:
    fill(client, 3)
    client.get("q")
    (answer,) = client.do(commands.Queue.Purge(queue="q"))
    assert dict(answer.method)["message_count"] == 2
    client.do(commands.Basic.Nack(1))
    assert len(client.broker.messages("q")) == 1


def test_consumer_cancelled_by_the_broker(client: Client) -> None:
    client.consume("q", "t")
    (answer,) = client.broker.force_consumer_cancel(client.id, 1, "t", now=0)
    assert dict(answer.method) == {"consumer_tag": "t", "nowait": True}
    assert client.broker.consumers("q") == []
    with pytest.raises(LocalError, match="no consumer"):
        client.broker.force_consumer_cancel(client.id, 1, "t", now=0)


def test_confirms_in_the_order_the_explorer_wants() -> None:
    client = Client(Broker(auto_confirm=False), 1)
    client.do(commands.Confirm.Select())
    client.declare("q")
    for _ in range(4):
        assert client.publish("q") == []
    broker = client.broker
    assert broker.unconfirmed(client.id, 1) == [1, 2, 3, 4]
    (ack,) = broker.confirm(client.id, 1, tag=3)
    assert dict(ack.method) == {"delivery_tag": 3, "multiple": False}
    (nack,) = broker.confirm(client.id, 1, tag=2, multiple=True, ok=False)
    assert isinstance(nack.method, commands.Basic.Nack)
    assert broker.unconfirmed(client.id, 1) == [4]
    with pytest.raises(LocalError, match="publish 3"):
        broker.confirm(client.id, 1, tag=3)
    with pytest.raises(LocalError, match="no channel"):
        broker.confirm(client.id, 9, tag=3)


def test_alarm_blocks_those_who_publish_and_holds_what_they_send(client: Client) -> None:
    broker = client.broker
    consumer = Client(broker, 1)
    consumer.consume("q", "t")
    client.publish("q", b"before")
    newcomer = Client(broker, 1)
    assert broker.set_alarm(True, now=0) == []
    assert names(client.do(commands.Queue.Declare(queue="early"))) == ["Queue.DeclareOk"], "not before a publish"
    assert names(newcomer.all(commands.Basic.Publish(routing_key="q"), body=b"new")) == ["Connection.Blocked"]
    (blocked,) = client.publish("q", b"held")
    assert (blocked.channel, dict(blocked.method)) == (0, {"reason": "low on memory"})
    assert client.do(commands.Queue.Declare(queue="late")) == []
    assert consumer.do(commands.Basic.Ack(1)) == []
    assert broker.queue_names() == ["early", "q"]
    answers = broker.set_alarm(False, now=1)
    assert [(out.connection, out.method.name) for out in answers] == [
        (client.id, "Connection.Unblocked"),
        (consumer.id, "Basic.Deliver"),
        (client.id, "Queue.DeclareOk"),
        (newcomer.id, "Connection.Unblocked"),
        (consumer.id, "Basic.Deliver"),
    ]


def test_a_message_without_body_passes_and_blocks(client: Client) -> None:
    client.consume("q", "t")
    client.broker.set_alarm(True, now=0)
    assert names(client.publish("q", b"")) == ["Connection.Blocked", "Basic.Deliver"]
    assert client.do(commands.Basic.Ack(1)) == []
    assert len(client.broker.unacked("q")) == 1
    client.broker.set_alarm(False, now=0)
    assert client.broker.unacked("q") == []
    assert client.publish("q", b"") != [], "no longer held"


def test_what_a_blocked_connection_held_is_lost_with_it(client: Client) -> None:
    client.publish("q")
    client.broker.set_alarm(True, now=0)
    client.publish("q", b"held")
    client.broker.disconnect(client.id, now=0)
    client.broker.set_alarm(False, now=0)
    assert len(client.broker.messages("q")) == 1


def test_restart_keeps_what_is_durable(client: Client) -> None:
    client.declare("kept", durable=True)
    client.declare("mine", exclusive=True, durable=True)
    client.do(commands.Exchange.Declare(exchange="x", exchange_type="topic", durable=True))
    client.do(commands.Exchange.Declare(exchange="y", exchange_type="topic"))
    for queue in ("kept", "q"):
        for exchange in ("x", "y"):
            client.do(commands.Queue.Bind(queue=queue, exchange=exchange, routing_key="k"))
    for body, mode in ((b"0", 2), (b"1", 1), (b"2", 2), (b"3", 2)):
        client.publish("kept", body, delivery_mode=mode)
    client.get("kept")
    assert client.broker.restart(now=1) == [client.id]
    assert client.broker.connections() == []
    assert client.do(commands.Basic.Get(queue="kept")) == []
    again = Client(client.broker, 1)
    assert again.broker.queue_names() == ["kept"]
    assert [binding[:3] for binding in again.broker.bindings()] == [("x", "queue", "kept")]
    entries = list(again.broker.queue("kept").entries())
    assert [(entry.message.body, entry.redelivered) for entry in entries] == [
        (b"0", True),
        (b"2", True),
        (b"3", True),
    ]


def test_restart_keeps_a_durable_queue_that_goes_with_its_last_consumer(client: Client) -> None:
    """The broker does not see its consumers go. It has forgotten them afterwards."""
    client.declare("auto", durable=True, auto_delete=True)
    client.consume("auto", "t")
    client.broker.restart(now=1)
    assert client.broker.queue_names() == ["auto"]
    again = Client(client.broker, 1)
    again.consume("auto", "t")
    again.do(commands.Basic.Cancel("t"))
    assert client.broker.queue_names() == []


def test_a_consumer_tag_of_the_brokers_is_none_that_a_client_has_chosen(client: Client) -> None:
    client.declare("other")
    client.consume("q", "amq.ctag-1")
    (answer,) = client.consume("other", "")
    assert answer.method.consumer_tag == "amq.ctag-2"  # type: ignore[attr-defined]  # a ConsumeOk
    client.do(commands.Channel.Close(200, "", 0, 0))
    assert client.broker.consumers("q") == client.broker.consumers("other") == []


def test_a_clone_goes_its_own_way_and_equal_states_have_equal_images(client: Client) -> None:
    client.consume("q", "t")
    client.publish("q", b"0")
    twin = client.broker.clone()
    assert twin.snapshot() == client.broker.snapshot()
    before = client.broker.snapshot()
    hash(before)
    twin.receive(client.id, 1, commands.Basic.Ack(1), now=0)
    assert client.broker.snapshot() == before
    assert twin.snapshot() != before
    assert len(client.broker.unacked("q")) == 1
    client.do(commands.Basic.Ack(1))
    assert twin.snapshot() == client.broker.snapshot()


def test_channel_flow_and_close(client: Client) -> None:
    assert names(client.do(commands.Channel.Flow(True))) == ["Channel.FlowOk"]
    assert names(client.do(commands.Channel.Close(200, "", 0, 0))) == ["Channel.CloseOk"]
    assert closed(client.do(commands.Basic.Qos()))[1] == 504


def test_unknown_connections_are_ignored(client: Client) -> None:
    client.broker.disconnect(client.id, now=0)
    assert client.do(commands.Channel.Open()) == []
    assert client.broker.disconnect(client.id, now=0) == []


def test_properties_survive_unchanged(client: Client) -> None:
    properties = Properties(headers={"a": [1, {"b": None}]}, message_id="i", priority=3, delivery_mode=2)
    client.do(commands.Basic.Publish(routing_key="q"), properties=properties, body=b"x")
    assert client.get("q").properties == properties


def test_a_limit_that_the_model_cannot_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="messages of 134217729 bytes: the model takes at most 134217728"):
        Broker().limit_messages(LARGEST_BODY + 1, now=0.0)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("no_ack", [True, False])
def test_a_client_that_does_not_read_gets_as_much_as_there_is_room_for(kind: str, no_ack: bool) -> None:
    broker = Broker()
    client, other = Client(broker, 1, 2), Client(broker, 1)
    client.declare("q", x_queue_type=kind, durable=True)
    fill(client, 9)
    client.consume("q", "c", no_ack=no_ack)
    taken = Client(broker, 1)
    broker.give_room(taken.id, 500, now=0.0)
    fill(client, 9, "q")
    assert broker.room(client.id) is None
    client.do(commands.Basic.Cancel("c"))
    fill(client, 6)
    first = taken.consume("q", "t", no_ack=no_ack)
    assert bodies(first) == [b"0", b"1", b"2"]  # the third takes what is left of the room
    assert bodies(other.all(commands.Basic.Get(queue="q", no_ack=True))) == [b"3"]
    more = broker.give_room(taken.id, 250, now=0.0)
    assert bodies([out for out in more if out.connection == taken.id]) == [b"4", b"5"]
    fill(client, 1)
    rest = broker.give_room(taken.id, None, now=0.0)
    assert bodies([out for out in rest if out.connection == taken.id]) == [b"0"]


def test_confirms_may_be_collected() -> None:
    client = Client(Broker(confirm_interval=0.5), 1, 2)
    client.declare("full", x_max_length=1, x_overflow="reject-publish")
    client.do(commands.Confirm.Select())
    client.now = 1.0
    assert client.publish("full") == []
    assert client.publish("nowhere") == []
    (refused,) = client.publish("full")
    assert dict(refused.method) == {"delivery_tag": 3, "multiple": False, "requeue": False}, "refusals do not wait"
    assert client.broker.unconfirmed(client.id, 1) == [1, 2]
    assert client.broker.deadline() == client.broker.earliest() == 1.5
    assert client.broker.tick(now=1.4) == []
    (collected,) = client.broker.tick(now=1.5)
    assert dict(collected.method) == {"delivery_tag": 2, "multiple": True}
    assert client.broker.deadline() is None
    client.now = 2.0
    client.publish("nowhere")
    client.now = 2.5
    ack, answer = client.do(commands.Channel.Flow(True))
    assert (dict(ack.method), answer.method.name) == ({"delivery_tag": 4, "multiple": False}, "Channel.FlowOk")


def test_collected_confirms_end_with_their_channel_and_their_broker() -> None:
    client = Client(Broker(confirm_interval=0.5), 1)
    client.do(commands.Confirm.Select())
    client.publish("nowhere")
    clone = client.broker.clone()
    assert clone.snapshot() == client.broker.snapshot()
    assert names(clone.tick(now=9)) == ["Basic.Ack"]
    client.do(commands.Channel.Close())
    assert client.broker.tick(now=9) == []
    clone.restart(now=9)
    assert clone.deadline() is None


@pytest.mark.parametrize("options", [{"confirm_interval": -1}, {"confirm_interval": float("nan")}])
def test_confirms_are_collected_for_a_time(options: Any) -> None:
    with pytest.raises(LocalError, match="confirm_interval is"):
        Broker(**options)
    with pytest.raises(LocalError, match="without auto_confirm"):
        Broker(confirm_interval=1, auto_confirm=False)
