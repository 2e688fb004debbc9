"""The types of values in tables: the model and RabbitMQ name them, compare them and pass them on alike."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from pamqp import commands
from pamqp.commands import Basic, Channel, Exchange, Queue

from eda_core.amqp.reading import read_entries
from eda_core.testing.wire import frames
from tests.differential.client import Client
from tests.differential.comparison import pipes
from tests.support.rabbitmq import RabbitNode

#: Values on the wire. Each type is there, and several numbers and texts in each of their types.
VALUES: dict[str, bytes] = {
    "true": b"t\x01",
    "false": b"t\x00",
    **{
        f"{kind} {number}": kind.encode() + struct.pack(f">{layout}", number)
        for kind, layout, numbers in (
            ("b", "b", (1, -1)),
            ("B", "B", (1,)),
            ("s", "h", (1, -1)),
            ("u", "H", (1,)),
            ("I", "i", (1, -1)),
            ("i", "I", (1,)),
            ("l", "q", (1, -1, 2**40)),
        )
        for number in numbers
    },
    "f 1": b"f" + struct.pack(">f", 1.0),
    "f 0.1": b"f" + struct.pack(">f", 0.1),
    "d 1": b"d" + struct.pack(">d", 1.0),
    "d 0.1": b"d" + struct.pack(">d", 0.1),
    "D 1": b"D\x00" + struct.pack(">i", 1),
    "D 1.0": b"D\x01" + struct.pack(">i", 10),
    "S 1": b"S" + struct.pack(">I", 1) + b"1",
    "x 1": b"x" + struct.pack(">I", 1) + b"1",
    "S not UTF-8": b"S" + struct.pack(">I", 1) + b"\xff",
    "x not UTF-8": b"x" + struct.pack(">I", 1) + b"\xff",
    "T seconds": b"T" + struct.pack(">Q", 1_700_000_000),
    "T milliseconds": b"T" + struct.pack(">Q", 1_700_000_000_123),
    "T of no year": b"T" + struct.pack(">Q", 2**63),
    "A of I": b"A" + struct.pack(">I", 5) + b"I" + struct.pack(">i", 1),
    "A of l": b"A" + struct.pack(">I", 9) + b"l" + struct.pack(">q", 1),
    "F of I": b"F" + struct.pack(">I", 7) + b"\x01aI" + struct.pack(">i", 1),
    "F of b": b"F" + struct.pack(">I", 4) + b"\x01ab" + struct.pack(">b", 1),
    "V": b"V",
}
#: Arguments of queues that are checked in several ways.
ARGUMENTS = ("x-message-ttl", "x-overflow", "x-dead-letter-exchange", "x-single-active-consumer", "x-queue-type")


def table(name: str, *values: bytes) -> bytes:
    """A field table with this name, once for each value."""
    entries = b"".join(bytes((len(name),)) + name.encode() + value for value in values)
    return struct.pack(">I", len(entries)) + entries


class Raw(Client):
    """Sends tables octet by octet, and keeps those of the messages that it gets."""

    headers: bytes = b""

    def unmarshal(self, data: bytes) -> object:
        if data[0] == frames.FRAME_HEADER:
            self.headers = data[7:-1]
            return super().unmarshal(frames.encode_content(0, Basic.Properties(), bytes(_size(data)), 0)[: 8 + 14])
        return super().unmarshal(data)

    def with_table(self, channel: int, start: bytes, arguments: bytes) -> None:
        self.send_raw(frames.frame(frames.FRAME_METHOD, channel, start + arguments))

    def publish(self, exchange: str, key: str, headers: bytes) -> None:
        """A mandatory message without a body."""
        self.send(1, Basic.Publish(exchange=exchange, routing_key=key, mandatory=True))
        content = struct.pack(">HHQH", 60, 0, 0, 0x2000) + headers
        self.send_raw(frames.frame(frames.FRAME_HEADER, 1, content))

    def get(self, queue: str) -> tuple[int, dict[bytes, bytes]]:
        """The tag of the next message, and its headers: the octets of each value."""
        while True:
            self.send(1, Basic.Get(queue=queue))
            got = self.until(lambda received: isinstance(received.method, (Basic.GetOk, Basic.GetEmpty)))[-1].method
            if isinstance(got, Basic.GetOk):
                length = struct.unpack_from(">I", self.headers, 14)[0]
                entries = read_entries(self.headers, 18, 18 + length)
                return got.delivery_tag or 0, {name: octets for name, _, octets, _ in entries}


def _size(data: bytes) -> int:
    return int(struct.unpack_from(">Q", data, 11)[0])


@pytest.fixture
def both(rabbitmq: RabbitNode, rabbit_vhost: str) -> Callable[[Callable[[Raw], Any]], list[Any]]:
    """Play a story on the model and on RabbitMQ. Returns what it has returned on each."""

    def play(story: Callable[[Raw], Any]) -> list[Any]:
        told = []
        for pipe in pipes(rabbitmq, rabbit_vhost):
            client = Raw(pipe, rabbit_vhost)
            client.call(1, Channel.Open(), Channel.OpenOk)
            told.append(story(client))
            client.close()
        return told

    return play


def test_errors_name_the_types(both: Callable[[Callable[[Raw], Any]], list[Any]]) -> None:
    def story(client: Raw) -> dict[tuple[str, str], str]:
        texts = {}
        for argument in (*ARGUMENTS, "alternate-exchange"):
            for name, octets in VALUES.items():
                if name == "S not UTF-8" or (argument, name) == ("x-single-active-consumer", "true"):
                    continue  # the text holds the octets; it is not modelled
                if argument == "alternate-exchange":
                    client.with_table(1, b"\x00\x28\x00\x0a\x00\x00\x01z\x05topic\x00", table(argument, octets))
                    end: Any = Exchange.DeclareOk
                else:
                    client.with_table(1, b"\x00\x32\x00\x0a\x00\x00\x01z\x02", table(argument, octets))
                    end = Queue.DeclareOk
                answer = client.until(lambda received, end=end: isinstance(received.method, (end, Channel.Close)))  # type: ignore[misc]
                close = answer[-1].method
                texts[argument, name] = close.reply_text or "" if isinstance(close, Channel.Close) else "taken"
                if not isinstance(close, Channel.Close):
                    client.call(1, Queue.Delete(queue="z"), Queue.DeleteOk)
                    client.call(1, Exchange.Delete(exchange="z"), Exchange.DeleteOk)
                else:
                    client.call(1, Channel.Open(), Channel.OpenOk)
        return texts

    model, rabbit = both(story)
    assert model == rabbit


def test_a_headers_exchange_compares_the_types(both: Callable[[Callable[[Raw], Any]], list[Any]]) -> None:
    def story(client: Raw) -> dict[str, list[str]]:
        client.call(1, Exchange.Declare(exchange="h", exchange_type="headers"), Exchange.DeclareOk)
        client.call(1, Queue.Declare(queue="q", exclusive=True), Queue.DeclareOk)
        matches: dict[str, list[str]] = {}
        for wanted, octets in VALUES.items():
            start = b"\x00\x32\x00\x14\x00\x00\x01q\x01h\x00\x00"
            client.with_table(1, start, table("a", octets))
            client.until(lambda received: isinstance(received.method, Queue.BindOk))
            for name, value in VALUES.items():
                client.publish("h", "", table("a", value))
                client.send(1, Queue.Purge(queue="q"))
                purged = client.until(lambda received: isinstance(received.method, Queue.PurgeOk))[-1].method
                assert isinstance(purged, Queue.PurgeOk)
                if purged.message_count:
                    matches.setdefault(wanted, []).append(name)
            client.with_table(1, b"\x00\x32\x00\x32\x00\x00\x01q\x01h\x00", table("a", octets))
            client.until(lambda received: isinstance(received.method, commands.Queue.UnbindOk))
        client.call(1, Exchange.Delete(exchange="h"), Exchange.DeleteOk)
        return matches

    model, rabbit = both(story)
    different = {name: (model.get(name), rabbit.get(name)) for name in VALUES if model.get(name) != rabbit.get(name)}
    assert not different, "\n".join(f"{name} model {one} rabbit {other}" for name, (one, other) in different.items())


def test_values_are_passed_on_as_they_are(both: Callable[[Callable[[Raw], Any]], list[Any]]) -> None:
    """Also in a dead letter, whose headers the broker writes anew."""

    def story(client: Raw) -> dict[str, list[Any]]:
        client.call(1, Queue.Declare(queue="dead", exclusive=True), Queue.DeclareOk)
        to_dead: Any = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        client.call(1, Queue.Declare(queue="q", exclusive=True, arguments=to_dead), Queue.DeclareOk)
        seen: dict[str, list[Any]] = {}
        for name, octets in VALUES.items():
            client.publish("", "q", table("a", octets))
            tag, headers = client.get("q")
            client.send(1, Basic.Reject(tag, requeue=False))
            seen[name] = [headers[b"a"]]
            tag, headers = client.get("dead")
            client.send(1, Basic.Ack(tag))
            seen[name].append(headers[b"a"])
        return seen

    model, rabbit = both(story)
    assert model == rabbit
    assert {name: [octets, octets] for name, octets in VALUES.items()} == rabbit
