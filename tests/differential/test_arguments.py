"""The arguments of queues and consumers: the model and RabbitMQ take, refuse and compare the same values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from pamqp import base
from pamqp.commands import Basic, Channel, Connection, Queue

from eda_core.testing.broker import Broker
from eda_core.testing.wire import Server
from tests.differential.client import Clock, MemoryPipe, TcpPipe
from tests.differential.comparison import modelled_release
from tests.differential.test_values import Raw
from tests.support.rabbitmq import RabbitNode


def text(value: str) -> bytes:
    """A long string on the wire."""
    octets = value.encode()
    return b"S" + struct.pack(">I", len(octets)) + octets


def number(value: int) -> bytes:
    return b"I" + struct.pack(">i", value)


#: Values on the wire.
VALUES: dict[str, bytes] = {
    "true": b"t\x01",
    "false": b"t\x00",
    **{str(value): number(value) for value in (-1, 0, 1, 2, 3, 255, 256)},
    "b 5": b"b\x05",
    "B 200": b"B\xc8",
    "l 5": b"l" + struct.pack(">q", 5),
    "d 1": b"d" + struct.pack(">d", 1.0),
    "x": b"x" + struct.pack(">I", 1) + b"1",
    "V": b"V",
    "A": b"A" + struct.pack(">I", 5) + number(1),
    "F": b"F" + struct.pack(">I", 7) + b"\x01a" + number(1),
    **{
        f"'{value}'": text(value)
        for value in (
            *("", "1", "é", "lazy", "default", "classic", "quorum", "undefined", "at-most-once", "drop-head"),
            *("client-local", "balanced", "random", "least-leaders", "min-masters"),
        )
    },
}
QUEUES = (
    *("x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy"),
    *("x-max-length", "x-max-length-bytes", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-max-priority"),
    *("x-overflow", "x-queue-mode", "x-queue-version", "x-single-active-consumer", "x-consumer-timeout"),
    *("x-consumer-disconnected-timeout", "x-queue-type", "x-quorum-initial-group-size", "x-quorum-target-group-size"),
    *("x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes", "x-initial-cluster-size"),
    *("x-queue-leader-locator", "x-queue-master-locator", "x-delivery-limit", "x-delayed-retry-type"),
    *("x-delayed-retry-min", "x-delayed-retry-max", "x-unknown"),
)
CONSUMERS = (
    *("x-priority", "x-cancel-on-ha-failover", "x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"),
    *("x-consumer-timeout", "x-unknown"),
)
#: What is compared in redeclarations, with the values that are declared first.
COMPARED = {
    "x-message-ttl": ("0", "200", "l 5"),
    "x-max-priority": ("1", "b 5"),
    "x-queue-mode": ("'lazy'",),
    "x-queue-version": ("2",),
    "x-single-active-consumer": ("true", "false"),
    "x-queue-leader-locator": ("'balanced'",),
    "x-dead-letter-exchange": ("'1'", "'é'"),
    "x-overflow": ("'drop-head'",),
    "x-queue-type": ("'classic'",),
    "x-unknown": ("1",),
}


def table(*entries: tuple[str, bytes]) -> bytes:
    """A field table."""
    octets = b"".join(bytes((len(name),)) + name.encode() + value for name, value in entries)
    return struct.pack(">I", len(octets)) + octets


class Asker:
    """Asks one side, and connects again when it has closed the connection."""

    def __init__(self, connect: Callable[[], Raw]) -> None:
        self._connect = connect
        self._open()

    def _open(self) -> None:
        self.client = self._connect()
        self.client.call(1, Channel.Open(), Channel.OpenOk)

    def ask(self, start: bytes, arguments: bytes, kind: type[base.Frame]) -> str:
        """Send a method with a table. Returns "taken", or the error."""
        self.client.with_table(1, start, arguments)
        ends = (kind, Channel.Close, Connection.Close)
        close = self.client.until(lambda received: isinstance(received.method, ends))[-1].method
        if isinstance(close, Channel.Close):
            self.client.call(1, Channel.Open(), Channel.OpenOk)
        elif isinstance(close, Connection.Close):
            self.client.hang_up()
            self._open()
        else:
            return "taken"
        return f"{close.reply_code} {close.reply_text}"

    def declare(self, *entries: tuple[str, bytes]) -> str:
        """Declare the durable queue ``z``."""
        return self.ask(b"\x00\x32\x00\x0a\x00\x00\x01z\x02", table(*entries), Queue.DeclareOk)

    def delete(self) -> None:
        self.client.call(1, Queue.Delete(queue="z"), Queue.DeleteOk)


@pytest.fixture
def sides(rabbitmq: RabbitNode, rabbit_vhost: str) -> Iterator[list[Asker]]:
    """The model, and RabbitMQ."""
    server = Server(Broker(vhosts=[rabbit_vhost], version=modelled_release(rabbitmq)))
    model = Asker(lambda: Raw(MemoryPipe(server, Clock()), rabbit_vhost))
    rabbit = Asker(lambda: Raw(TcpPipe("127.0.0.1", rabbitmq.port), rabbit_vhost))
    yield [model, rabbit]
    for side in (model, rabbit):
        side.client.close()


def differences(told: list[dict[str, str]]) -> dict[str, tuple[str, str]]:
    """What the two sides say otherwise. What is not modelled is 540 in the model, whatever RabbitMQ does."""
    model, rabbit = told
    return {
        name: (model[name], answer)
        for name, answer in rabbit.items()
        if model[name] != answer and not model[name].startswith("540")
    }


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_takes_and_refuses_the_same_arguments(kind: str, sides: list[Asker]) -> None:
    told: list[dict[str, str]] = []
    for side in sides:
        told.append({})
        for argument in QUEUES:
            for name, value in VALUES.items():
                if argument == "x-queue-master-locator" and not name.startswith("'"):
                    continue  # RabbitMQ 3.10 does not answer to numbers
                if kind == "quorum" and argument in ("x-queue-type", "x-delivery-limit"):
                    continue  # compared above; any value is taken
                entries = [(argument, value)]
                if kind == "quorum":
                    entries.insert(0, ("x-queue-type", text(kind)))
                told[-1][f"{argument} {name}"] = answer = side.declare(*entries)
                if answer == "taken":
                    side.delete()
    assert not differences(told)
    refused = {name for name, answer in told[0].items() if answer.startswith("540")}
    unmodelled = ("x-consumer-timeout", "x-delayed-retry", "x-queue-type 'stream'")
    assert all(name.startswith(unmodelled) for name in refused), "the model refuses what it does not have"


def test_a_redeclaration_compares_the_same_arguments(sides: list[Asker]) -> None:
    told: list[dict[str, str]] = []
    for side in sides:
        told.append({})
        for argument, names in COMPARED.items():
            for first in names:
                if side.declare((argument, VALUES.get(first, number(200)))) != "taken":
                    continue  # an argument that is not for classic queues in this release
                for name, value in VALUES.items():
                    told[-1][f"{argument} {first}, then {name}"] = side.declare((argument, value))
                told[-1][f"{argument} {first}, then none"] = side.declare()
                side.delete()
            side.declare()
            for name, value in VALUES.items():
                told[-1][f"{argument} none, then {name}"] = side.declare((argument, value))
            side.delete()
    assert not differences(told)
    assert len(told[1]) > 500


def test_a_redeclaration_of_a_quorum_queue_compares_the_same_arguments(sides: list[Asker]) -> None:
    told: list[dict[str, str]] = []
    quorum = ("x-queue-type", text("quorum"))
    for side in sides:
        told.append({})
        side.declare(quorum)
        for name, value in VALUES.items():
            told[-1][f"type {name}"] = side.declare(("x-queue-type", value))
            for argument in ("x-single-active-consumer", "x-delivery-limit", "x-consumer-disconnected-timeout"):
                told[-1][f"{argument} {name}"] = side.declare(quorum, (argument, value))
        told[-1]["no type"] = side.declare()
        side.delete()
    assert not differences(told)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_consumer_takes_and_refuses_the_same_arguments(kind: str, sides: list[Asker]) -> None:
    told: list[dict[str, str]] = []
    for side in sides:
        told.append({})
        side.declare(("x-queue-type", text(kind)))
        for argument in CONSUMERS:
            for name, value in VALUES.items():
                answer = side.ask(b"\x00\x3c\x00\x14\x00\x00\x01z\x01c\x00", table((argument, value)), Basic.ConsumeOk)
                told[-1][f"{argument} {name}"] = answer
                if answer == "taken":
                    side.client.call(1, Basic.Cancel("c"), Basic.CancelOk)
        side.delete()
    assert not differences(told)
