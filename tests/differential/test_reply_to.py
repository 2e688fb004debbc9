"""Direct replies: who may consume them, where they arrive, and what an address is good for, as in RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.differential.playing import Play, Story, transcripts
from tests.support.rabbitmq import RabbitNode
from tests.support.vhosts import VhostPool

_NAME: Final = "amq.rabbitmq.reply-to"


def an_address(play: Play, tag: str = "r", channel: int = 1) -> str:
    """Client ``a`` consumes direct replies, and sends a request to its own queue ``requests``."""
    play.send("a", "Queue.Declare", 9, queue="requests", exclusive=True)
    play.send("a", "Basic.Consume", channel, queue=_NAME, consumer_tag=tag, no_ack=True)
    play.publish("a", "requests", "request", channel, reply_to=_NAME, correlation_id="7")
    play.send("a", "Basic.Get", 9, queue="requests", no_ack=True)
    return play.addresses[-1]


def requests_and_replies(play: Play) -> None:
    """Client ``b`` answers; a mandatory answer, too. The tags of replies and of other deliveries."""
    address = an_address(play)
    play.publish("b", address, "1", correlation_id="7", headers={"h": 1}, expiration="0", reply_to="back")
    play.publish("b", address, "2", mandatory=True)
    play.send("a", "Basic.Consume", queue="requests", consumer_tag="c", no_ack=True)
    play.publish("a", "requests", "3")
    play.publish("b", address, "4")
    play.publish("a", "requests", "5", reply_to=_NAME)
    play.send("a", "Basic.Ack", delivery_tag=1)


def what_is_refused(play: Play) -> None:
    play.publish("a", "requests", "no consumer", reply_to=_NAME)
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="r")
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="r", no_ack=True)
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="s", no_ack=False)
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="r", no_ack=True, exclusive=True)
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="r", no_ack=True)
    play.publish("a", "requests", "still no consumer", 2, reply_to=_NAME)


def tags_of_consumers(play: Play) -> None:
    """A consumer of direct replies may have the tag of another consumer, if it came before. The broker can make one."""
    play.send("a", "Queue.Declare", queue="q", exclusive=True)
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="", no_ack=True)
    play.send("a", "Channel.Close", reply_code=200, reply_text="")
    play.send("a", "Queue.Declare", queue=_NAME)
    play.send("a", "Basic.Consume", queue="", consumer_tag="x", no_ack=True, nowait=True)
    play.send("a", "Basic.Consume", queue="q", consumer_tag="x")
    play.publish("a", "q", "1")
    play.send("a", "Basic.Cancel", consumer_tag="x")
    play.publish("a", "q", "2")
    play.send("a", "Basic.Cancel", consumer_tag="x")
    play.send("a", "Basic.Cancel", consumer_tag="x")
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="y", no_ack=True)
    play.send("a", "Basic.Cancel", consumer_tag="y", nowait=True)
    play.publish("a", "q", "3", reply_to=_NAME)
    play.send("a", "Basic.Consume", queue="q", consumer_tag="z")
    play.send("a", "Basic.Consume", queue=_NAME, consumer_tag="z", no_ack=True)


def a_requester_that_is_gone(how: str) -> Story:
    """Nobody gets the reply, nor does a later consumer of the same channel."""

    def story(play: Play) -> None:
        address = an_address(play)
        play.send("b", "Queue.Declare", queue=address)
        play.send("b", "Queue.Declare", queue=address, passive=True, durable=True, arguments={"x-max-length": 4})
        if how == "cancelled":
            play.send("a", "Basic.Cancel", consumer_tag="r")
        elif how == "closed":
            play.send("a", "Channel.Close", reply_code=200, reply_text="")
        elif how == "refused":
            play.send("a", "Basic.Ack", delivery_tag=99)
        else:
            play.hang_up("a")
        play.count("b", address)
        play.publish("b", address, "1", mandatory=True)
        play.send("b", "Confirm.Select")
        play.publish("b", address, "2", mandatory=True)
        again = an_address(play)
        play.publish("b", address, "3")
        play.publish("b", again, "4")
        play.send("b", "Queue.Declare", queue=address, passive=True)
        play.send("b", "Queue.Declare", queue=again, passive=True, nowait=True)

    return story


def ones_own_address(play: Play) -> None:
    """Of the channel, of an earlier consumer of it, of another channel, and of an earlier channel with its number."""
    address = an_address(play)
    play.send("a", "Queue.Declare", 2, queue=address, passive=True)
    play.send("a", "Queue.Declare", queue=address, passive=True)
    address = an_address(play)
    play.send("a", "Basic.Cancel", consumer_tag="r")
    play.send("a", "Queue.Declare", queue=address)
    address = an_address(play)
    play.send("a", "Channel.Close", reply_code=200, reply_text="")
    play.send("a", "Queue.Declare", queue=address)


def an_address_as_a_queue(play: Play) -> None:
    """Whatever else can be done with a queue."""
    address = an_address(play)
    for gone in (False, True):
        if gone:
            play.send("a", "Basic.Cancel", consumer_tag="r")
        play.send("b", "Queue.Purge", queue=address)
        play.send("b", "Queue.Delete", queue=address, if_unused=True)
        play.publish("b", address, "1")
        play.send("b", "Queue.Bind", queue=address, exchange="amq.topic", routing_key="k")
        play.send("b", "Queue.Bind", queue=address, exchange="missing", routing_key="k")
        play.send("b", "Queue.Unbind", queue=address, exchange="amq.topic", routing_key="k")
        play.send("b", "Exchange.Bind", destination=address, source="amq.topic", routing_key="k")
        play.send("b", "Basic.Consume", queue=address, consumer_tag="c", no_ack=True)
        play.send("b", "Basic.Get", queue=address, no_ack=True)
    address = an_address(play)
    play.send("a", "Basic.Consume", queue=address, consumer_tag="c", no_ack=True)
    play.send("b", "Queue.Declare", queue=an_address(play))
    play.send("b", "Basic.Get", no_ack=True)


def the_name_as_a_queue(play: Play) -> None:
    """``amq.rabbitmq.reply-to`` itself."""
    play.send("a", "Queue.Declare", queue=_NAME, passive=True)
    play.send("a", "Queue.Declare", queue=_NAME, durable=True, arguments={"x-queue-type": "quorum"})
    play.send("a", "Queue.Declare", queue=f"{_NAME}\r\n")
    play.send("a", "Queue.Bind", queue=_NAME, exchange="amq.topic", routing_key="k")
    play.send("a", "Basic.Get", queue=_NAME)
    play.send("a", "Queue.Purge", queue=_NAME)
    play.send("a", "Queue.Delete", queue=_NAME)
    play.publish("a", _NAME, "1", mandatory=True)


#: What looks like an address, and was not made by a broker.
INVENTED: Final = ("x", ".", ".x", ".a.b", ".YWI=.b", ".YWI=.b.c", "..YWI=.b")


def an_invented_address(suffix: str) -> Story:
    def story(play: Play) -> None:
        play.send("a", "Queue.Declare", queue=_NAME + suffix)
        play.send("a", "Queue.Declare", queue=_NAME + suffix, passive=True)
        play.send("a", "Basic.Get", queue=_NAME + suffix)
        play.send("a", "Queue.Bind", queue=_NAME + suffix, exchange="amq.topic", routing_key="k")
        play.publish("a", _NAME + suffix, "1", mandatory=True)
        play.publish("a", "k", "2", exchange="amq.topic", mandatory=True, headers={"CC": [_NAME + suffix]})

    return story


def addresses_that_are_varied(play: Play) -> None:
    """More dots, another end."""
    address = an_address(play)
    for varied in (f"{address}.x", f"{address}x", address.replace("to.", "to..")):
        play.publish("b", varied, "1", mandatory=True)
        play.send("b", "Queue.Declare", queue=varied, passive=True)


def several_addresses_of_a_message(play: Play) -> None:
    """By CC and BCC: each channel gets a message once."""
    address = an_address(play)
    play.publish("b", "nowhere", "1", mandatory=True, headers={"CC": [address]})
    play.publish("b", address, "2", mandatory=True, headers={"CC": [address, "requests"]})
    play.publish("b", "requests", "3", headers={"BCC": [address]})
    other = an_address(play, "s", 2)
    play.publish("b", other, "4", mandatory=True, headers={"CC": [address]})
    play.publish("b", address, "5", exchange="amq.direct", mandatory=True)


def dead_letters_as_replies(play: Play) -> None:
    address = an_address(play)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": address}
    play.send("b", "Queue.Declare", queue="q", exclusive=True, arguments=arguments)
    play.publish("b", "q", "1")
    play.send("b", "Basic.Get", queue="q")
    play.send("b", "Basic.Nack", delivery_tag=1, requeue=False)


def replies_in_a_transaction(play: Play) -> None:
    address = an_address(play)
    play.send("b", "Tx.Select")
    play.publish("b", address, "1")
    play.publish("b", address, "2", mandatory=True)
    play.publish("b", f"{_NAME}.x", "3", mandatory=True)
    play.send("b", "Tx.Rollback")
    play.publish("b", address, "4", mandatory=True)
    play.send("b", "Tx.Commit")


def replies_from_another_vhost(play: Play) -> None:
    address = an_address(play)
    play.publish("stranger", address, "1", mandatory=True)
    play.send("stranger", "Queue.Declare", queue=address, passive=True)
    play.send("stranger", "Queue.Purge", queue=address)
    play.publish("b", address, "2")


STORIES: dict[str, Story] = {
    "requests": requests_and_replies,
    "refused": what_is_refused,
    "tags": tags_of_consumers,
    **{f"a requester is {how}": a_requester_that_is_gone(how) for how in ("cancelled", "closed", "refused", "cut")},
    "one's own": ones_own_address,
    "an address as a queue": an_address_as_a_queue,
    "the name as a queue": the_name_as_a_queue,
    **{f"invented: {suffix}": an_invented_address(suffix) for suffix in INVENTED},
    "varied": addresses_that_are_varied,
    "several": several_addresses_of_a_message,
    "dead letters": dead_letters_as_replies,
    "transaction": replies_in_a_transaction,
    "another vhost": replies_from_another_vhost,
}


@pytest.fixture
def other_vhost(rabbit_vhosts: VhostPool) -> Iterator[str]:
    name = rabbit_vhosts.take()
    yield name
    rabbit_vhosts.give_back(name)


@pytest.mark.parametrize("name", STORIES)
def test_direct_replies_are_as_in_rabbitmq(
    name: str, rabbitmq: RabbitNode, rabbit_vhost: str, other_vhost: str
) -> None:
    model, rabbit = transcripts(STORIES[name], rabbitmq, rabbit_vhost, other_vhost)
    assert list(map(_uncut, model)) == list(map(_uncut, rabbit))


def _uncut(line: str) -> str:
    """Without the end of a text: where it is cut depends on how long an address is."""
    return line.partition(" in vhost")[0]
