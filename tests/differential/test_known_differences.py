"""What is known to differ between the model and RabbitMQ 3.10.8: the table of ``docs/broker-model.rst``, line by line.

Each test shows both answers. If a test fails because the two agree, its line has to leave the table.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from pamqp import base, commands

from eda_core.testing.wire import PROTOCOL_HEADER, frames
from tests.differential.client import Client, Pipe
from tests.differential.comparison import Model, Rabbit, pipes
from tests.support.rabbitmq import RabbitNode

ACCEPTED: Final = "accepted"


def method(value: base.Frame) -> bytes:
    return frames.encode_method(1, value)


def declare(**arguments: Any) -> bytes:
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    return method(commands.Queue.Declare(queue="other", durable=True, arguments=named))


#: What is sent on an open channel, how the answer of the model begins, and the answer of RabbitMQ.
ANSWERS: Final[dict[str, tuple[bytes, str, str]]] = {
    "exchange type that is a word of Erlang": (
        method(commands.Exchange.Declare(exchange="x", exchange_type="queue")),
        "503 COMMAND_INVALID - unknown exchange type 'queue'",
        "503 COMMAND_INVALID - invalid exchange type 'queue'",
    ),
    "stream": (declare(x_queue_type="stream"), "540", ACCEPTED),
    "dead letters at least once": (
        declare(x_queue_type="quorum", x_dead_letter_strategy="at-least-once"),
        "540",
        ACCEPTED,
    ),
    "negative delivery limit": (declare(x_queue_type="quorum", x_delivery_limit=-1), "540", ACCEPTED),
    "time-out of consumers": (declare(x_queue_type="quorum", x_consumer_timeout=5_000), ACCEPTED, ACCEPTED),
    "delayed retries": (declare(x_queue_type="quorum", x_delayed_retry_type="all"), ACCEPTED, ACCEPTED),
    "consumer credit": (
        method(commands.Basic.Consume(queue="q", arguments={"x-credit": {"credit": 1, "drain": False}})),
        "540",
        ACCEPTED,
    ),
}


#: What RabbitMQ 4.3 answers otherwise: how the answer of the model begins, and the answer of RabbitMQ.
ANSWERS_OF_4_3: Final = {
    "exchange type that is a word of Erlang": (
        "406 PRECONDITION_FAILED - unknown exchange type 'queue'",
        "406 PRECONDITION_FAILED - invalid exchange type 'queue'",
    ),
    "time-out of consumers": ("540", ACCEPTED),
    "delayed retries": ("540", ACCEPTED),
    "consumer credit": (ACCEPTED, ACCEPTED),
}


def answer(client: Client, sent: bytes) -> str:
    """The answer of the server: ACCEPTED, or the error."""
    try:
        client.open_with("q")
        client.send_raw(sent)
        client.send(1, commands.Channel.Flow(True))
        ends = commands.Channel.FlowOk | commands.Channel.Close
        last = client.until(lambda received: isinstance(received.method, ends) or client.ended is not None)[-1].method
        close = client.ended or last
        if isinstance(close, commands.Connection.Close | commands.Channel.Close):
            return f"{close.reply_code} {close.reply_text}"
        client.call(1, commands.Queue.Delete(queue="other"), commands.Queue.DeleteOk)
        return ACCEPTED
    finally:
        client.hang_up()


@pytest.mark.parametrize("name", ANSWERS)
def test_answer(rabbit: Rabbit, name: str) -> None:
    sent, ours, theirs = ANSWERS[name]
    if rabbit.version == "4.3":
        ours, theirs = ANSWERS_OF_4_3.get(name, (ours, theirs))
    assert answer(Model("", version=rabbit.version).connect(0), sent).startswith(ours)
    assert answer(rabbit.connect(), sent) == theirs


class Recorder:
    """A pipe that keeps what it received."""

    def __init__(self, pipe: Pipe) -> None:
        self.received = b""
        self._pipe = pipe
        self.send = pipe.send
        self.close = pipe.close

    def receive(self, timeout: float) -> bytes | None:
        data = self._pipe.receive(timeout)
        self.received += data or b""
        return data


def test_lazy_queues_forget_the_expiration_of_what_they_read_from_disk(rabbit: Rabbit) -> None:
    """RabbitMQ 3.10 does not decode the property again. The model has no disk."""
    seen = []
    for client in (Model("", version=rabbit.version).connect(0), rabbit.connect()):
        client.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
        client.call(1, commands.Queue.Declare(queue="dead", exclusive=True), commands.Queue.DeclareOk)
        arguments: Any = {"x-queue-mode": "lazy", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        declared = commands.Queue.Declare(queue="lazy", exclusive=True, arguments=arguments)
        client.call(1, declared, commands.Queue.DeclareOk)
        expiring = commands.Basic.Properties(expiration="3600000")
        client.send(1, commands.Basic.Publish(routing_key="lazy"), expiring, b"")
        client.call(1, commands.Basic.Get(queue="lazy"), commands.Basic.GetOk)
        client.send(1, commands.Basic.Reject(1, requeue=False))
        client.send(1, commands.Basic.Consume(queue="dead", consumer_tag="t"))
        delivered = client.until(lambda received: isinstance(received.method, commands.Basic.Deliver))[-1]
        assert delivered.properties is not None
        headers: dict[str, Any] = delivered.properties.headers or {}
        (death,) = headers["x-death"]
        seen.append(death.get("original-expiration"))
        client.close()
    assert seen == ["3600000", None if rabbit.version == "3.10" else "3600000"]


def test_faults_before_the_connection_is_open(rabbitmq: RabbitNode) -> None:
    """The model says what is wrong. RabbitMQ closes the socket without a reason."""
    closes = []
    for pipe in pipes(rabbitmq):
        pipe.send(PROTOCOL_HEADER + frames.encode_method(0, commands.Connection.Open("/")))
        received = b""
        while commands.Connection.Close.index.to_bytes(4, "big") not in received:
            data = pipe.receive(20.0)
            if not data:
                break
            received += data
        closes.append(b"CHANNEL_ERROR - unexpected method" in received)
        pipe.close()
    assert closes == [True, False]
