"""The methods of clients that use direct replies (see :mod:`eda_core.testing.broker.addresses`).

From RabbitMQ 4.2 on an address is a queue of a kind of its own, which keeps nothing. Before it is no queue.
"""

from __future__ import annotations

from pamqp import commands

from eda_core.testing.broker.addresses import NAME, PREFIX, Address, Place, among, crashes, read
from eda_core.testing.broker.call import Call
from eda_core.testing.broker.message import (
    ACCESS_REFUSED,
    INTERNAL_ERROR,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Refusal,
    with_properties,
)
from eda_core.testing.broker.state import ReplyConsumer, frame
from eda_core.testing.broker.topology import QUEUE


def declare(call: Call, method: commands.Queue.Declare, name: str) -> None:
    """Answer whether there is somebody at an address. ``NAME`` itself is always there.

    Raises:
        Refusal: 404, nobody is there any more; 541, it is no address. For an address of its own a channel gets one or
            the other.
    """
    if name != NAME:
        version = call.engine.version
        address = read(name, version)
        own = address is not None and address.place == _place(call)
        if crashes(name, version) or (own and not version.replies_are_queues):
            raise Refusal(INTERNAL_ERROR, "")
        home = None if address is None else call.engine.reply_channel(address, call.connection.vhost)
        if home is None or own:  # a process of RabbitMQ cannot ask itself
            raise Refusal(NOT_FOUND, f"no {call.topology.word(QUEUE, name)}")
    call.channel.last_queue = name
    call.reply(frame(commands.Queue.DeclareOk, queue=name, message_count=0, consumer_count=1), unless=method.nowait)


def consume(call: Call, method: commands.Basic.Consume) -> None:
    """Begin to consume direct replies.

    Raises:
        Refusal: 406. The consumer wants to acknowledge, or it is the second one of the channel.
    """
    if not method.no_ack:
        raise Refusal(PRECONDITION_FAILED, "reply consumer cannot acknowledge")
    if call.channel.replies is not None:
        raise Refusal(PRECONDITION_FAILED, "reply consumer already set")
    tag = method.consumer_tag or call.fresh_name("amq.ctag-")
    call.channel.replies = ReplyConsumer(tag, call.fresh_name(""))
    call.reply(frame(commands.Basic.ConsumeOk, consumer_tag=tag), unless=method.nowait)


def with_address(call: Call, properties: commands.Basic.Properties) -> commands.Basic.Properties:
    """The properties of a request, with the address of the channel's consumer in ``reply_to``.

    Raises:
        Refusal: 406. The channel does not consume direct replies.
    """
    replies = call.channel.replies
    if replies is None:
        raise Refusal(PRECONDITION_FAILED, "fast reply consumer does not exist")
    return with_properties(properties, reply_to=Address(_place(call), replies.key).name)


def _place(call: Call) -> Place:
    return Place(call.channel.connection, call.channel.number, call.channel.serial)


def demand_readable(call: Call, routing_keys: tuple[str, ...]) -> None:
    """Check that a message for the default exchange does not crash the channel.

    Raises:
        Refusal: 541. A routing key looks like an address, and is none.
    """
    version = call.engine.version
    if version.replies_are_queues or not among(routing_keys):
        return
    if any(key.startswith(PREFIX) and crashes(key, version) for key in routing_keys):
        raise Refusal(INTERNAL_ERROR, "")


def is_queue(call: Call, name: str) -> bool:
    """Whether a name is that of an address, and this a queue."""
    version = call.engine.version
    return version.replies_are_queues and name.startswith(PREFIX) and read(name, version) is not None


def refuse_binding(call: Call, name: str) -> None:
    """Check that a binding is not one of an address that is a queue.

    Raises:
        Refusal: 403. It is.
    """
    if call.engine.version.replies_are_queues and name.startswith(PREFIX):
        raise Refusal(ACCESS_REFUSED, "cannot bind or unbind to a volatile (direct reply-to) queue")


def refuse_get(call: Call, name: str) -> None:
    """Check that a message is not fetched from an address that is a queue.

    Raises:
        Refusal: 540. It is.
    """
    if is_queue(call, name):
        raise Refusal(NOT_IMPLEMENTED, f"basic.get not supported by volatile {call.topology.word(QUEUE, name)}")


def refuse_consume(call: Call, name: str) -> None:
    """Check that nobody begins to consume from an address that is a queue.

    Raises:
        Refusal: 406. Somebody does.
    """
    if is_queue(call, name):
        address = read(name, call.engine.version)
        mine = address is not None and call.engine.reply_channel(address, call.connection.vhost) is call.channel
        why = "multiple consumers are unsupported for" if mine else "only creator channel may consume from"
        raise Refusal(PRECONDITION_FAILED, f"{why} {call.topology.word(QUEUE, name)}")
