"""The texts of errors that quote what a client has sent: the model and RabbitMQ write the same octets."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands
from pamqp.commands import Channel, Connection

from eda_core.testing.wire import frames
from tests.differential.client import Client, SilenceError
from tests.differential.comparison import pipes
from tests.differential.session import method
from tests.support.rabbitmq import RabbitNode

#: What is quoted. RabbitMQ cuts a text after 255 octets (3.10) or characters (4.3), wherever that is.
NAMES: dict[str, bytes] = {
    "ASCII": b"plain7",
    "UTF-8": "é€".encode(),
    "Latin-1 in UTF-8": "é".encode(),
    "not UTF-8": b"\xff",
    "not UTF-8 as a whole": "é".encode() + b"\xff",
    "a part of a character": b"\xc3",
    "apostrophes": b"'\xff'",
    "no printable characters": b"\x01\x7f\x80",
    "what formats use": b'~s~p {}%s\\"',
    "many": b"a" * 200,
    "very many": b"a" * 240,
    "many characters": "é".encode() * 100,
    "very many characters": "é".encode() * 120,
    "many wide characters": "€".encode() * 70,
    "many octets": b"\xff" * 100,
    "very many octets": b"\xff" * 240,
}
#: Where RabbitMQ breaks a long term into lines, or closes the socket without a word: by what is done, and the name.
LEFT_OUT = {
    ("the end of an expiration", "many octets"),
    ("a match", "many wide characters"),
    ("a tag in use", "very many characters"),
    ("a tag in use", "many wide characters"),
}
Step = tuple[str, dict[str, Any]]


def _steps(name: str, q: str = "q") -> dict[str, list[Step]]:
    """What is done for each error: the last method is the one that is refused."""
    queue = {"queue": name}
    return {
        "a missing queue": [("Queue.Declare", {**queue, "passive": True})],
        "a missing exchange": [("Exchange.Declare", {"exchange": name, "passive": True})],
        "an unknown type": [("Exchange.Declare", {"exchange": "x", "exchange_type": name})],
        "another type": [
            ("Exchange.Declare", {"exchange": name, "exchange_type": "topic"}),
            ("Exchange.Declare", {"exchange": name, "exchange_type": "fanout"}),
        ],
        "a reserved name": [("Queue.Declare", {"queue": f"amq.{name}"[:255]})],
        "a queue in use": [
            ("Queue.Declare", queue),
            ("Basic.Consume", {**queue, "consumer_tag": "c"}),
            ("Queue.Delete", {**queue, "if_unused": True}),
        ],
        "other arguments": [
            ("Queue.Declare", {"queue": q, "arguments": {"x-dead-letter-exchange": name}}),
            ("Queue.Declare", {"queue": q, "arguments": {"x-dead-letter-exchange": f"{name}b"}}),
        ],
        "an argument more": [
            ("Queue.Declare", {"queue": q}),
            ("Queue.Declare", {"queue": q, "arguments": {"x-dead-letter-exchange": name}}),
        ],
        "a tag in use": [
            ("Queue.Declare", {"queue": q}),
            ("Basic.Consume", {"queue": q, "consumer_tag": name}),
            ("Basic.Consume", {"queue": q, "consumer_tag": name}),
        ],
        "a missing exchange of a publish": [("Basic.Publish", {"exchange": name})],
        "an internal exchange": [
            ("Exchange.Declare", {"exchange": name, "internal": True}),
            ("Basic.Publish", {"exchange": name}),
        ],
        "an expiration": [("Basic.Publish", {"properties": {"expiration": name}})],
        "the end of an expiration": [("Basic.Publish", {"properties": {"expiration": f"7{name}"[:255]}})],
        "a user": [("Basic.Publish", {"properties": {"user_id": name}})],
        "a key": [
            ("Queue.Declare", queue),
            ("Queue.Bind", {**queue, "exchange": "amq.topic", "routing_key": f"#.#.#.{name}"[:255]}),
        ],
        "a match": [
            ("Queue.Declare", {"queue": q}),
            ("Queue.Bind", {"queue": q, "exchange": "amq.headers", "arguments": {"x-match": name}}),
        ],
        "a type of queues": [("Queue.Declare", {"queue": q, "arguments": {"x-queue-type": name}})],
        "an overflow": [("Queue.Declare", {**queue, "arguments": {"x-overflow": name}})],
        "a mode": [("Queue.Declare", {"queue": q, "arguments": {"x-queue-mode": name}})],
        "a queue to bind": [("Queue.Bind", {**queue, "exchange": "amq.topic"})],
        "a binding of exchanges": [("Exchange.Bind", {"destination": name, "source": "amq.topic"})],
        "an exchange to delete": [("Exchange.Delete", {"exchange": f"amq.{name}"[:255]})],
    }


class Closer(Client):
    """Keeps the octets of the last Close."""

    close_octets = b""

    def unmarshal(self, data: bytes) -> object:
        if data[0] == frames.FRAME_METHOD and data[7:11] in (b"\x00\x14\x00\x28", b"\x00\x0a\x00\x32"):
            self.close_octets = data[3:]
            if data[7:9] == b"\x00\x14":
                return Channel.Close()
            return Connection.Close()
        return super().unmarshal(data)


def _first_difference(one: bytes, other: bytes) -> str:
    """The surroundings of the first octet that differs, and the ends."""
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b and at > 12), 0)
    return "\n".join(f"    {len(each)} {each[max(0, at - 30) : at + 40]!r} {each[-16:-5]!r}" for each in (one, other))


def _refused(client: Closer, steps: list[Step]) -> bytes:
    """The octets of the Close that comes for the last method."""
    client.call(1, Channel.Open(), Channel.OpenOk)
    for name, values in steps:
        values = dict(values)
        properties = commands.Basic.Properties()
        for key, value in values.pop("properties", {}).items():
            setattr(properties, key, value)
        client.send(1, method(name, values), properties, b"" if name == "Basic.Publish" else None)
    client.send(1, Channel.Flow(True))
    try:
        client.until(lambda received: isinstance(received.method, Channel.Close | Channel.FlowOk | Connection.Close))
    except SilenceError as error:
        return str(error).encode()
    return client.close_octets


@pytest.mark.parametrize("what", list(_steps("a")))
def test_a_text_quotes_the_same_octets(what: str, rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    differ = {}
    for number, (label, octets) in enumerate(NAMES.items()):
        found = []
        for pipe in pipes(rabbitmq, rabbit_vhost):
            client = Closer(pipe, rabbit_vhost)
            found.append(_refused(client, _steps(octets.decode("utf-8", "surrogateescape"), f"q{number}")[what]))
            client.hang_up()
        if found[0] != found[1] and (what, label) not in LEFT_OUT:
            differ[label] = found
    assert not differ, "\n".join(f"{label}\n{_first_difference(one, other)}" for label, (one, other) in differ.items())
