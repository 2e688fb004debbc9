"""Compares the topic match of the core with RabbitMQ's: every pattern with every key, up to four words.

The words of patterns and of keys are ``a``, ``b``, ``*`` and ``#``. In a key the last two are words like any other. A
second, shorter set has the empty word as well, which a key has between two adjacent dots.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from pamqp import commands

from eda_core.messages.routing import TopicPattern
from eda_core.testing.broker.versions import VERSIONS
from tests.differential.client import Properties, Received
from tests.differential.comparison import Rabbit

WORDS = ("a", "b", "*", "#")
SETS = {
    "up to four words": (WORDS, 4),
    "up to three words, empty ones among them": (("a", "*", "#", ""), 3),
}


def texts(words: Sequence[str], longest: int) -> list[str]:
    """All texts of up to ``longest`` words, each once; the empty text is one of them."""
    found = (".".join(chosen) for length in range(longest + 1) for chosen in itertools.product(words, repeat=length))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("name", SETS)
def test_every_pattern_with_every_key(rabbit: Rabbit, name: str, counted: Callable[[object], None]) -> None:
    keys = texts(*SETS[name])
    most = VERSIONS[rabbit.version].topic_hashes
    patterns = [key for key in keys if most is None or key.split(".").count("#") <= most]
    routed = routed_by_rabbitmq(rabbit, patterns, keys, f"topic-match-{list(SETS).index(name)}")
    for pattern in patterns:
        compiled = TopicPattern(pattern)
        assert routed[pattern] == {key for key in keys if compiled.matches(key)}, pattern
    matches = sum(map(len, routed.values()))
    counted(f"topic match, {name}: {len(patterns)} patterns x {len(keys)} keys, {matches} matches")


def routed_by_rabbitmq(
    rabbit: Rabbit, patterns: Sequence[str], keys: Sequence[str], exchange: str
) -> dict[str, set[str]]:
    """The keys that each pattern matches in RabbitMQ. There is one queue for each pattern, one message for each key."""
    client = rabbit.connect()
    client.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
    declare = commands.Exchange.Declare(exchange=exchange, exchange_type="topic")
    client.call(1, declare, commands.Exchange.DeclareOk)
    for number, pattern in enumerate(patterns):
        queue = f"{exchange}-{number}"
        client.send(1, commands.Queue.Declare(queue=queue, exclusive=True, nowait=True))
        client.send(1, commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=pattern, nowait=True))
        client.send(1, commands.Basic.Consume(queue=queue, consumer_tag=str(number), no_ack=True, nowait=True))
    client.call(1, commands.Confirm.Select(), commands.Confirm.SelectOk)
    for key in keys:
        client.send(1, commands.Basic.Publish(exchange=exchange, routing_key=key), Properties(), b"")
    routed: dict[str, set[str]] = {pattern: set() for pattern in patterns}
    unconfirmed = set(range(1, len(keys) + 1))

    def take(received: Received) -> None:
        method = received.method
        if isinstance(method, commands.Basic.Deliver):
            routed[patterns[int(method.consumer_tag or "")]].add(method.routing_key or "")
        elif isinstance(method, commands.Basic.Ack):
            unconfirmed.difference_update(range(1 if method.multiple else method.delivery_tag, method.delivery_tag + 1))

    while unconfirmed:
        for received in client.until(lambda received: True):
            take(received)
    # Now all are routed. A queue sends at most 200 messages to a busy channel, and keeps the others until it is free.
    for number in range(len(patterns)):
        left: int | None = 1
        while left:
            client.send(1, commands.Queue.Declare(queue=f"{exchange}-{number}", passive=True))
            for received in client.until(lambda received: isinstance(received.method, commands.Queue.DeclareOk)):
                take(received)
                left = getattr(received.method, "message_count", left)
    # What the server has not sent yet comes before this answer.
    client.send(1, commands.Channel.Flow(True))
    for received in client.until(lambda received: isinstance(received.method, commands.Channel.FlowOk)):
        take(received)
    client.call(1, commands.Exchange.Delete(exchange=exchange), commands.Exchange.DeleteOk)
    client.close()
    return routed
