"""What clients cannot read the model and RabbitMQ take, route, deliver and dead-letter alike, octet by octet."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp import commands, header
from pamqp.commands import Basic

from eda_core.amqp import read_method
from eda_core.testing.broker import Broker
from eda_core.testing.broker.message import with_properties
from eda_core.testing.conformance import Put
from eda_core.testing.conformance.unreadable import UNREADABLE
from eda_core.testing.wire import Server, frames
from tests.differential.client import Client, Clock, MemoryPipe, Received, TcpPipe
from tests.support.rabbitmq import RabbitNode

ONCE = datetime(2026, 1, 1, tzinfo=UTC)
#: Properties that nobody may publish, and how RabbitMQ's answer begins. (What follows it quotes in several ways.)
REFUSED: dict[str, tuple[Basic.Properties, str]] = {
    "expiration": (Basic.Properties(expiration="\udcff"), "PRECONDITION_FAILED - invalid expiration '"),
    "user_id": (Basic.Properties(user_id="\udcff"), "PRECONDITION_FAILED - user_id property set to '"),
}


class Reader(Client):
    """Reads names and properties with all their octets."""

    def unmarshal(self, data: bytes) -> object:
        if data[0] == frames.FRAME_METHOD:
            return read_method(data[7:-1])
        if data[0] != frames.FRAME_HEADER:
            return super().unmarshal(data)
        size, properties = frames.decode_content_header(data[7:-1])
        return header.ContentHeader(0, size, properties)

    def publish(self, put: Put) -> None:
        self.send(1, Basic.Publish(exchange=put.exchange, routing_key=put.key), put.properties, put.body)

    def get(self, queue: str) -> Received:
        """The next message of ``queue``, which may still be on its way."""
        while True:
            self.send(1, Basic.Get(queue=queue))
            got = self.until(lambda received: isinstance(received.method, (Basic.GetOk, Basic.GetEmpty)))[-1]
            if isinstance(got.method, Basic.GetOk):
                return got

    def open(self) -> None:
        """Open channel 1, with the queue ``q``, whose dead letters go to the queue ``dead``."""
        arguments: Any = {"x-dead-letter-exchange": "dlx"}
        for method, answer in (
            (commands.Channel.Open(), commands.Channel.OpenOk),
            (commands.Exchange.Declare(exchange="events", exchange_type="topic"), commands.Exchange.DeclareOk),
            (commands.Exchange.Declare(exchange="dlx", exchange_type="topic"), commands.Exchange.DeclareOk),
            (commands.Queue.Declare(queue="q", exclusive=True, arguments=arguments), commands.Queue.DeclareOk),
            (commands.Queue.Declare(queue="dead", exclusive=True), commands.Queue.DeclareOk),
            (commands.Queue.Bind(queue="q", exchange="events", routing_key="#"), commands.Queue.BindOk),
            (commands.Queue.Bind(queue="dead", exchange="dlx", routing_key="#"), commands.Queue.BindOk),
        ):
            self.call(1, method, answer)


def life(client: Reader, put: Put) -> list[Any]:
    """What a message looks like when it is delivered, and when it was rejected and is delivered as a dead letter."""
    seen: list[Any] = []
    for queue in ("q", "dead"):
        got = client.get(queue)
        assert isinstance(got.method, Basic.GetOk)
        assert got.properties is not None
        seen.append((got.method.exchange, got.method.routing_key, dict(_without_time(got.properties)), got.body))
        if queue == "q":
            assert frames.encode_properties(got.properties) == frames.encode_properties(put.properties)
            client.send(1, Basic.Reject(got.method.delivery_tag, False))
        else:
            client.send(1, Basic.Ack(got.method.delivery_tag or 0))
    return seen


def _without_time(properties: Basic.Properties) -> Basic.Properties:
    headers: dict[str, Any] = dict(properties.headers or {})
    if "x-death" in headers:
        headers["x-death"] = [{**death, "time": ONCE} for death in headers["x-death"]]
    # In their order. RabbitMQ 4 has headers more.
    kept = [(name, value) for name, value in headers.items() if not name.startswith("x-last-death")]
    return with_properties(properties, headers=kept)


@pytest.mark.rabbitmq
def test_unreadable_messages(rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    model = Reader(MemoryPipe(Server(Broker()), Clock()), "/")
    rabbit = Reader(TcpPipe("127.0.0.1", rabbitmq.port), rabbit_vhost)
    for client in (model, rabbit):
        client.open()
    for kind, (put, _) in UNREADABLE.items():
        for client in (model, rabbit):
            client.publish(put)
        assert life(model, put) == life(rabbit, put), kind
    for client in (model, rabbit):
        client.close()


@pytest.mark.rabbitmq
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(rabbitmq: RabbitNode, rabbit_vhost: str, name: str) -> None:
    properties, words = REFUSED[name]
    for pipe, vhost in (
        (MemoryPipe(Server(Broker()), Clock()), "/"),
        (TcpPipe("127.0.0.1", rabbitmq.port), rabbit_vhost),
    ):
        client = Reader(pipe, vhost)
        client.open()
        client.publish(Put("events", "Happened", b"", properties))
        close = client.until(lambda received: isinstance(received.method, commands.Channel.Close))[-1].method
        assert isinstance(close, commands.Channel.Close)
        text: Any = close.reply_text
        begin = text.partition(b"\xff")[0].decode() if isinstance(text, bytes) else text
        assert (close.reply_code, begin[: len(words)]) == (406, words)
        client.close()


@pytest.mark.rabbitmq
def test_names_that_are_declared_are_utf_8(rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    declare = struct.pack(">I", commands.Queue.Declare.index) + b"\0\0\2\xff\xfe\0" + bytes(4)
    for pipe, vhost in (
        (MemoryPipe(Server(Broker()), Clock()), "/"),
        (TcpPipe("127.0.0.1", rabbitmq.port), rabbit_vhost),
    ):
        client = Reader(pipe, vhost)
        client.open()
        client.send_raw(frames.frame(frames.FRAME_METHOD, 1, declare))
        close = client.until(lambda received: received.channel == 0)[-1].method
        client.hang_up()
        assert isinstance(close, commands.Connection.Close)
        assert (close.reply_code, close.reply_text) == (501, "FRAME_ERROR - Malformed UTF-8 in shortstr")
