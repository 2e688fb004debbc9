"""Transactions: what is held until the commit, what comes back at a rollback, and what goes wrong, as in RabbitMQ."""

from __future__ import annotations

from typing import Any

import pytest

from tests.differential.playing import Play, Story, transcripts
from tests.support.rabbitmq import RabbitNode


def the_modes_of_a_channel(play: Play) -> None:
    """A channel is transactional or has confirms, and never the other one afterwards."""
    play.send("a", "Tx.Commit")
    play.send("a", "Tx.Rollback")
    play.send("a", "Confirm.Select")
    play.send("a", "Tx.Select")
    for nowait in (False, True):
        play.send("a", "Tx.Select")
        play.send("a", "Tx.Select")
        play.send("a", "Tx.Commit")
        play.send("a", "Tx.Rollback")
        play.send("a", "Confirm.Select", nowait=nowait)


def publishes_are_held(play: Play) -> None:
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    play.publish("a", "q", "before")
    play.send("a", "Tx.Select")
    play.publish("a", "q", "1")
    play.publish("a", "nowhere", "2", mandatory=True)
    play.publish("a", "nowhere", "3")
    play.publish("a", "q", "4")
    play.count("a", "q")
    play.send("a", "Tx.Commit")
    play.count("a", "q")
    play.publish("a", "q", "5")
    play.publish("a", "nowhere", "6", mandatory=True)
    play.send("a", "Tx.Rollback")
    play.count("a", "q")
    play.send("a", "Tx.Commit")
    play.publish("a", "q", "7")
    play.send("a", "Channel.Close", reply_code=200, reply_text="")
    for _ in range(4):
        play.send("a", "Basic.Get", queue="q", no_ack=True)


def acknowledgements_are_held(play: Play) -> None:
    """The prefetch is used up until the commit; after a rollback the deliveries can be settled again."""
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    for body in "123456":
        play.publish("a", "q", body)
    play.send("a", "Basic.Qos", prefetch_count=2)
    play.send("a", "Tx.Select")
    play.send("a", "Basic.Consume", queue="q", consumer_tag="c")
    play.send("a", "Basic.Ack", delivery_tag=1)
    play.count("a", "q")
    play.send("a", "Tx.Rollback")
    play.send("a", "Basic.Ack", delivery_tag=2, multiple=True)
    play.send("a", "Basic.Recover", requeue=True)
    play.send("a", "Tx.Commit")
    play.send("a", "Basic.Nack", delivery_tag=4, multiple=True, requeue=True)
    play.send("a", "Tx.Commit")
    play.send("a", "Basic.Reject", delivery_tag=5, requeue=True)
    play.send("a", "Basic.Reject", delivery_tag=6, requeue=False)
    play.send("a", "Tx.Rollback")
    play.send("a", "Basic.Reject", delivery_tag=6, requeue=False)
    play.send("a", "Basic.Reject", delivery_tag=5, requeue=True)
    play.send("a", "Tx.Commit")
    play.send("a", "Basic.Ack", delivery_tag=7)
    play.send("a", "Basic.Ack", delivery_tag=7)
    play.send("a", "Basic.Get", queue="q", no_ack=True)
    play.send("a", "Basic.Get", queue="q", no_ack=True)
    play.send("a", "Basic.Get", queue="q", no_ack=True)


def a_shared_prefetch(play: Play) -> None:
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    for body in "12345":
        play.publish("a", "q", body)
    play.send("a", "Basic.Qos", prefetch_count=2, global_=True)
    play.send("a", "Tx.Select")
    play.send("a", "Basic.Consume", queue="q", consumer_tag="c")
    play.send("a", "Basic.Ack", delivery_tag=1)
    play.send("a", "Basic.Qos", prefetch_count=3, global_=True)
    play.send("a", "Tx.Commit")
    play.send("a", "Basic.Ack", delivery_tag=0, multiple=True)
    play.send("a", "Tx.Commit")


def several_kinds_of_settlement(kind: str) -> Story:
    """They are carried out kind by kind, in the order in which the kinds came."""

    def story(play: Play) -> None:
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", "x-queue-type": kind}
        play.send("a", "Queue.Declare", queue="dead", exclusive=True)
        play.send("a", "Queue.Declare", queue="q", durable=True, arguments=arguments)
        for body in "12345678":
            play.publish("a", "q", body)
        play.send("a", "Tx.Select")
        for _ in range(8):
            play.send("a", "Basic.Get", queue="q", no_ack=False)
        play.send("a", "Basic.Nack", delivery_tag=5, requeue=False)
        play.send("a", "Basic.Nack", delivery_tag=4, requeue=False)
        play.send("a", "Basic.Reject", delivery_tag=3, requeue=False)
        play.send("a", "Basic.Reject", delivery_tag=2, requeue=True)
        play.send("a", "Basic.Nack", delivery_tag=1, requeue=True)
        play.send("a", "Basic.Ack", delivery_tag=6)
        play.send("a", "Basic.Nack", delivery_tag=8, multiple=True, requeue=False)
        play.count("a", "dead")
        play.send("a", "Tx.Commit")
        play.count("a", "dead")
        play.send("a", "Basic.Consume", 2, queue="dead", consumer_tag="d", no_ack=True)
        play.send("a", "Basic.Consume", 3, queue="q", consumer_tag="c", no_ack=True)
        play.send("a", "Queue.Delete", queue="q")

    return story


def a_channel_ends(how: str) -> Story:
    """What it holds is forgotten, and what it has not settled goes back to the queue in order."""

    def story(play: Play) -> None:
        play.send("b", "Queue.Declare", queue="q", auto_delete=True)
        for body in "1234":
            play.publish("b", "q", body)
        play.send("a", "Tx.Select")
        play.send("a", "Basic.Consume", queue="q", consumer_tag="c")
        play.send("b", "Basic.Consume", queue="q", consumer_tag="d")
        play.send("a", "Basic.Ack", delivery_tag=2)
        play.send("a", "Basic.Nack", delivery_tag=3, requeue=False)
        play.publish("a", "q", "held")
        if how == "closed":
            play.send("a", "Channel.Close", reply_code=200, reply_text="")
        elif how == "cut":
            play.hang_up("a")
        else:
            play.send("a", "Basic.Ack", delivery_tag=9)
        play.count("b", "q")

    return story


def a_publish_is_refused(play: Play) -> None:
    """At once, and the channel forgets what it held."""
    play.send("b", "Queue.Declare", queue="q", exclusive=False, auto_delete=True)
    play.send("b", "Basic.Consume", queue="q", consumer_tag="c", no_ack=True)
    wrongs: tuple[dict[str, Any], ...] = ({"exchange": "missing"}, {"expiration": "soon"}, {"user_id": "somebody"})
    for wrong in wrongs:
        play.send("a", "Tx.Select")
        play.publish("a", "q", "held")
        play.publish("a", "q", "wrong", **wrong)
    play.publish("a", "q", "arrives")


def a_full_queue(play: Play) -> None:
    """The commit fails, and yet everything else is done."""
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    play.send("a", "Queue.Declare", queue="full", exclusive=True, arguments=limits)
    play.publish("a", "q", "taken")
    play.send("a", "Tx.Select")
    play.send("a", "Basic.Get", queue="q", no_ack=False)
    play.send("a", "Basic.Ack", delivery_tag=1)
    play.publish("a", "nowhere", "1", mandatory=True)
    play.publish("a", "full", "2")
    play.publish("a", "full", "3")
    play.publish("a", "q", "4")
    play.send("a", "Tx.Commit")
    play.count("a", "full")
    play.send("a", "Basic.Get", queue="q", no_ack=True)
    play.send("a", "Basic.Get", queue="q", no_ack=True)


def a_queue_that_comes_late(play: Play) -> None:
    play.send("a", "Tx.Select")
    play.publish("a", "q", "1", mandatory=True)
    play.publish("a", "q", "2", mandatory=True, headers={"CC": ["other"]})
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    play.send("a", "Tx.Commit")
    play.count("a", "q")


def a_queue_that_goes(*, exchange: str = "", others: int = 0) -> Story:
    """The messages before it and behind it, and the queues besides."""

    def story(play: Play) -> None:
        names = [f"q{number}" for number in range(others + 1)]
        play.send("b", "Queue.Declare", queue="watched", auto_delete=True)
        play.send("b", "Basic.Consume", queue="watched", consumer_tag="c", no_ack=True)
        for name in names:
            play.send("a", "Queue.Declare", queue=name, exclusive=True)
            if exchange:
                play.send("a", "Queue.Bind", queue=name, exchange=exchange)
        play.send("a", "Tx.Select")
        play.publish("a", "watched", "1")
        play.publish("a", "q0", "2", mandatory=True, exchange=exchange, headers={"CC": ["watched", *names]})
        play.publish("a", "watched", "3")
        for name in names:
            play.send("a", "Queue.Delete", queue=name)
        play.send("a", "Tx.Commit")

    return story


def a_queue_that_is_another(kind: str) -> Story:
    """It has the same name, but was declared after the publish."""

    def story(play: Play) -> None:
        declare: dict[str, Any] = {"queue": "q", "durable": True, "arguments": {"x-queue-type": kind}}
        play.send("a", "Queue.Declare", **declare)
        play.send("a", "Tx.Select")
        play.publish("a", "q", "1", mandatory=True)
        play.send("a", "Queue.Delete", queue="q")
        play.send("a", "Queue.Declare", **declare)
        play.publish("a", "q", "2")
        play.send("a", "Tx.Commit")
        play.count("a", "q")
        play.send("a", "Basic.Get", queue="q", no_ack=True)
        play.send("a", "Queue.Delete", queue="q")

    return story


def routes_that_change(play: Play) -> None:
    """A message goes where it was to go when it was published."""
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    play.send("a", "Queue.Declare", queue="r", exclusive=True)
    play.send("a", "Exchange.Declare", exchange="x", exchange_type="fanout")
    play.send("a", "Queue.Bind", queue="q", exchange="x")
    play.send("a", "Tx.Select")
    play.publish("a", "k", "1", exchange="x")
    play.send("a", "Queue.Unbind", queue="q", exchange="x")
    play.publish("a", "k", "2", exchange="x", mandatory=True)
    play.send("a", "Queue.Bind", queue="r", exchange="x")
    play.publish("a", "k", "3", exchange="x")
    play.send("a", "Exchange.Delete", exchange="x")
    play.send("a", "Tx.Commit")
    for name in "qrqr":
        play.send("a", "Basic.Get", queue=name, no_ack=True)


STORIES: dict[str, Story] = {
    "modes": the_modes_of_a_channel,
    "publishes": publishes_are_held,
    "acknowledgements": acknowledgements_are_held,
    "shared prefetch": a_shared_prefetch,
    **{f"settlements, {kind} queue": several_kinds_of_settlement(kind) for kind in ("classic", "quorum")},
    **{f"a channel is {how}": a_channel_ends(how) for how in ("closed", "cut", "refused")},
    "refused": a_publish_is_refused,
    "full": a_full_queue,
    "a queue comes late": a_queue_that_comes_late,
    "a queue goes": a_queue_that_goes(),
    "queues go": a_queue_that_goes(others=2),
    "queues of an exchange go": a_queue_that_goes(exchange="amq.fanout", others=2),
    **{f"another {kind} queue": a_queue_that_is_another(kind) for kind in ("classic", "quorum")},
    "routes": routes_that_change,
}


@pytest.mark.parametrize("name", STORIES)
def test_a_transaction_is_as_in_rabbitmq(name: str, rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    model, rabbit = transcripts(STORIES[name], rabbitmq, rabbit_vhost)
    assert model == rabbit
