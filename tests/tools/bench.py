"""An operator for tests of tools that look at queues. It uses pika, which adds nothing and hides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.support.services import DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE
from tests.support.tools import Ran, run_tool

EVENTS_QUEUE = "a.events"
COMMANDS_QUEUE = "a.commands"


def ran(name: str, *arguments: str, **options: Any) -> Ran:
    """Run a tool to its end."""
    return asyncio.run(run_tool(name, *arguments, **options))


@dataclass(frozen=True)
class Seen:
    """A message with everything by which it can differ from another."""

    exchange: str
    routing_key: str
    properties: dict[str, Any]
    headers: dict[str, Any]
    body: bytes

    def living(self, headers: bool = True) -> dict[str, Any]:
        """The parts that a dead letter has in common with the original message."""
        mine = {name: value for name, value in self.headers.items() if not name.startswith("x-")}
        return {"properties": self.properties, "headers": mine if headers else None, "body": self.body}


class Operator:
    """An operator's connection, and the queues of a service ``a`` whose dead letters go to ``dead-letters``."""

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel: BlockingChannel = self.connection.channel()
        self.channel.confirm_delivery()

    def reopen(self) -> None:
        """Open a new channel, after the broker has closed one."""
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def operate(self, **arguments: Any) -> None:
        """Declare the exchanges, the service's queues (``a.events`` with ``arguments``) and that of dead letters."""
        for exchange in ("events", "commands", DEAD_LETTER_EXCHANGE):
            self.channel.exchange_declare(exchange, "topic", durable=True)
        self.channel.queue_declare(DEAD_LETTER_QUEUE, durable=True)
        self.channel.queue_bind(DEAD_LETTER_QUEUE, DEAD_LETTER_EXCHANGE, "#")
        dead = {"x-dead-letter-exchange": DEAD_LETTER_EXCHANGE}
        self.channel.queue_declare(EVENTS_QUEUE, durable=True, arguments={**dead, **arguments})
        self.channel.queue_declare(COMMANDS_QUEUE, durable=True, arguments=dead)
        self.channel.queue_bind(EVENTS_QUEUE, "events", "#")
        self.channel.queue_bind(COMMANDS_QUEUE, "commands", "a.#")

    def publish(self, exchange: str, key: str, body: bytes = b"{}", **properties: Any) -> None:
        """Publish a message. Returns when it is confirmed."""
        given = {"content_type": "application/json", "delivery_mode": 2, **properties}
        self.channel.basic_publish(exchange, key, body, pika.BasicProperties(**given))

    def event(self, key: str, body: bytes = b"{}", **headers: Any) -> None:
        """Publish an event, whose conversation id contains its key."""
        self.publish("events", key, body, headers={"conversation_id": f"conversation of {key}", **headers})

    def many(self, count: int, exchange: str = "events", key: str = "Counted") -> None:
        """Publish ``count`` numbered events without waiting for each. Returns when the queue has them."""
        channel = self.connection.channel()
        for number in range(count):
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=2,
                message_id=f"id {number}",
                headers={"conversation_id": f"c{number}"},
            )
            channel.basic_publish(exchange, key, b'{"number": %d}' % number, properties)
        channel.queue_declare(EVENTS_QUEUE, passive=True)  # answered after all before it
        channel.close()

    def kill(self, queue: str = EVENTS_QUEUE) -> None:
        """Reject all messages in a queue without requeue. Returns when the dead letters are in their queue."""
        before, count, tag = self.waiting(), 0, 0
        while (got := self.channel.basic_get(queue))[0] is not None:
            tag, count = got[0].delivery_tag, count + 1
        if tag:
            self.channel.basic_nack(tag, multiple=True, requeue=False)
        self.await_waiting(before + count)

    def await_waiting(
        self, count: int, timeout: float = 20.0, *, doubled: int = 0, queue: str = DEAD_LETTER_QUEUE
    ) -> None:
        """Wait until ``count`` messages are in the queue, or up to ``doubled`` more.

        RabbitMQ does not say when it has put dead letters there, or messages of a killed worker.
        """
        deadline = time.monotonic() + timeout
        while not count <= (found := self.waiting(queue)) <= count + doubled:
            assert time.monotonic() < deadline, f"{found} messages in {queue} instead of {count} after {timeout} s"

    def waiting(self, queue: str = DEAD_LETTER_QUEUE) -> int:
        """How many messages in a queue are ready for a consumer."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def drain(self, queue: str = DEAD_LETTER_QUEUE) -> list[Seen]:
        """Take all messages out of a queue, in order."""
        found = []
        while (got := self.channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(_seen(*got))
        return found

    def consume(self, queue: str, timeout: float = 20.0) -> Iterator[Seen]:
        """Take messages out of a queue, also those that still come. Fails if none comes for ``timeout`` seconds."""
        for method, properties, body in self.channel.consume(queue, auto_ack=True, inactivity_timeout=timeout):
            assert method is not None, f"nothing came from {queue} for {timeout} s"
            yield _seen(method, properties, body)

    def names(self, queue: str = DEAD_LETTER_QUEUE) -> list[str]:
        """Take all messages out of a queue. Returns their routing keys."""
        return [seen.routing_key for seen in self.drain(queue)]


def _seen(method: Any, properties: Any, body: bytes) -> Seen:
    values = {name: value for name, value in vars(properties).items() if value not in (None, "") and name != "headers"}
    return Seen(method.exchange, method.routing_key, values, dict(properties.headers or {}), body)


@contextmanager
def operator(url: str) -> Iterator[Operator]:
    """An operator at ``url``."""
    made = Operator(url)
    try:
        yield made
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):  # a test may have cut it
            made.connection.close()


def keys(seen: Sequence[Seen]) -> list[str]:
    return [each.routing_key for each in seen]
