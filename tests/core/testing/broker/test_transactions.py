"""Transactions on the broker model. ``tests/differential/test_transactions.py`` compares them with RabbitMQ."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from eda_core.testing.broker import Broker, Outgoing
from eda_core.testing.broker.versions import VERSIONS
from tests.core.testing.broker.broker_client import Client, bodies, closed, names

SELECT, COMMIT, ROLLBACK = commands.Tx.Select(), commands.Tx.Commit(), commands.Tx.Rollback()


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest) -> Client:
    """A client with a queue ``q``, and a transaction on channel 1."""
    made = Client(Broker(version=request.param), 1, 2)
    made.declare("q")
    made.do(SELECT)
    return made


def ready(client: Client, queue: str = "q") -> list[bytes]:
    return [message.body for message in client.broker.messages(queue)]


def taken(client: Client, queue: str = "q") -> list[bytes]:
    return [message.body for *_, message in client.broker.unacked(queue)]


def test_publishes_wait_for_the_commit(client: Client) -> None:
    assert client.publish("q", b"1") == client.publish("nowhere", b"2", mandatory=True) == []
    assert client.publish("q", b"3") == []
    assert ready(client) == []
    answers = client.do(COMMIT)
    assert (names(answers), bodies(answers)) == (["Basic.Return", "Tx.CommitOk"], [b"2"])
    assert ready(client) == [b"1", b"3"]
    assert names(client.do(COMMIT)) == ["Tx.CommitOk"]
    assert ready(client) == [b"1", b"3"]


def test_a_rollback_forgets_publishes(client: Client) -> None:
    client.publish("q")
    client.publish("nowhere", mandatory=True)
    assert names(client.do(ROLLBACK)) == ["Tx.RollbackOk"]
    assert names(client.do(COMMIT)) == ["Tx.CommitOk"]
    assert ready(client) == []


def test_other_channels_are_not_concerned(client: Client) -> None:
    client.publish("q", b"1", channel=2)
    assert ready(client) == [b"1"]


def test_acknowledgements_wait_for_the_commit(client: Client) -> None:
    client.publish("q", b"1", channel=2)
    client.publish("q", b"2", channel=2)
    client.do(commands.Basic.Qos(prefetch_count=1))
    client.consume("q", "c")
    assert client.do(commands.Basic.Ack(1)) == []
    assert taken(client) == [b"1"]
    answers = client.do(COMMIT)
    assert (names(answers), bodies(answers)) == (["Tx.CommitOk", "Basic.Deliver"], [b"2"])
    assert taken(client) == [b"2"]


@pytest.mark.parametrize("settle", [commands.Basic.Ack(1), commands.Basic.Nack(1), commands.Basic.Reject(1)])
def test_a_rollback_gives_deliveries_back(client: Client, settle: Any) -> None:
    client.publish("q", b"1", channel=2)
    client.publish("q", b"2", channel=2)
    client.get("q")
    client.get("q")
    client.do(settle)
    client.do(ROLLBACK)
    assert taken(client) == [b"1", b"2"]
    client.do(commands.Basic.Ack(2, multiple=True))
    assert closed(client.do(commands.Basic.Ack(1)))[1:] == (406, "PRECONDITION_FAILED - unknown delivery tag 1")


def test_what_a_channel_had_to_settle_goes_back_at_its_end(client: Client) -> None:
    for body in (b"1", b"2", b"3"):
        client.publish("q", body, channel=2)
        client.get("q")
    client.do(commands.Basic.Ack(2))
    client.do(commands.Basic.Nack(1, requeue=False))
    client.publish("q", b"never")
    client.do(commands.Channel.Close())
    assert ready(client) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (None, COMMIT, "channel is not transactional"),
        (None, ROLLBACK, "channel is not transactional"),
        (commands.Confirm.Select(), SELECT, "cannot switch from confirm to tx mode"),
        (SELECT, commands.Confirm.Select(), "cannot switch from tx to confirm mode"),
    ],
)
def test_what_does_not_go_together(client: Client, first: Any, second: Any, text: str) -> None:
    if first is not None:
        client.do(first, channel=2)
    assert closed(client.do(second, channel=2)) == ("Channel.Close", 406, f"PRECONDITION_FAILED - {text}")


def test_a_second_select_changes_nothing(client: Client) -> None:
    client.publish("q", b"1")
    assert names(client.do(SELECT)) == ["Tx.SelectOk"]
    client.do(COMMIT)
    assert ready(client) == [b"1"]


def test_a_publish_is_checked_at_once(client: Client) -> None:
    client.publish("q", b"never")
    assert closed(client.publish("q", exchange="missing"))[1] == 404
    assert ready(client) == []


def test_a_commit_that_a_full_queue_refuses_is_carried_out_in_part(client: Client) -> None:
    client.declare("full", x_max_length=1, x_overflow="reject-publish")
    client.publish("q", b"taken", channel=2)
    client.publish("q", b"next", channel=2)
    client.do(commands.Basic.Qos(prefetch_count=1))
    client.consume("q", "c")
    client.do(commands.Basic.Ack(1))
    for body in (b"1", b"2"):
        client.publish("full", body)
    client.publish("q", b"3")
    assert closed(client.do(COMMIT)) == ("Channel.Close", 406, "PRECONDITION_FAILED - partial tx completion")
    assert (ready(client, "full"), ready(client)) == ([b"1"], [b"next", b"3"])


def test_a_queue_that_is_deleted_before_the_commit(client: Client) -> None:
    client.publish("q", b"1", mandatory=True)
    client.do(commands.Queue.Delete(queue="q"))
    answers = client.do(COMMIT)
    if client.broker.version == "3.10":
        assert names(answers) == ["Basic.Return", "Tx.CommitOk"]
    else:
        missing = 'failed to deliver message: {not_found,{resource,<<"/">>,queue,<<"q">>}}'
        assert closed(answers) == ("Connection.Close", 506, f"RESOURCE_ERROR - {missing}")


def test_deliveries_go_back_when_such_a_commit_ends_the_connection(client: Client) -> None:
    other = Client(client.broker, 1)
    other.declare("kept")
    other.publish("kept", b"1")
    client.get("kept")
    client.do(commands.Basic.Ack(1))
    client.publish("q")
    client.do(commands.Queue.Delete(queue="q"))
    client.do(COMMIT)
    assert len(ready(other, "kept")) + len(taken(other, "kept")) == (0 if client.broker.version == "3.10" else 1)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_that_is_declared_again_before_the_commit(client: Client, kind: str) -> None:
    client.declare("z", durable=True, x_queue_type=kind)
    client.publish("z", b"1", mandatory=True)
    client.do(commands.Queue.Delete(queue="z"))
    client.declare("z", durable=True, x_queue_type=kind)
    answers = client.do(COMMIT)
    lost = kind == "classic" and client.broker.version == "4.3"
    assert names(answers) == ["Channel.Close" if lost else "Tx.CommitOk"]
    assert ready(client, "z") == ([] if lost else [b"1"])


def test_held_deliveries_count_as_consumers_of_a_quorum_queue(client: Client) -> None:
    client.declare("qq", durable=True, x_queue_type="quorum")
    client.publish("qq", channel=2)
    client.consume("qq", "c")
    client.do(commands.Basic.Cancel("c"))
    counts = []
    for method in (commands.Basic.Ack(1), COMMIT):
        client.do(method)
        (answer,) = client.do(commands.Queue.Declare(queue="qq", passive=True))
        counts.append(dict(answer.method)["consumer_count"])
    assert counts == [1, 0]


def test_an_alarm_holds_the_whole_transaction(client: Client) -> None:
    client.broker.set_alarm(True, now=0)
    client.publish("q", b"1")
    assert client.do(COMMIT) == []
    answers = client.broker.set_alarm(False, now=0)
    assert names(answers) == ["Connection.Unblocked", "Tx.CommitOk"]
    assert ready(client) == [b"1"]


def test_a_clone_has_the_transaction_too(client: Client) -> None:
    client.publish("q", b"0", channel=2)
    client.get("q")
    before = client.broker.snapshot()
    client.publish("q", b"1")
    published = client.broker.snapshot()
    client.do(commands.Basic.Ack(1))
    settled = client.broker.snapshot()
    assert len({before, published, settled}) == 3
    clone = client.broker.clone()
    assert clone.snapshot() == settled
    client.do(ROLLBACK)
    assert clone.snapshot() == settled
    assert client.broker.snapshot() == before
    answers: list[Outgoing] = clone.receive(client.id, 1, COMMIT, now=0)
    assert names(answers) == ["Tx.CommitOk"]
    assert ([m.body for m in clone.messages("q")], clone.unacked("q")) == ([b"1"], [])
