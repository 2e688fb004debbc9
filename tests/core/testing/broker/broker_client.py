"""A client of the broker model, for tests."""

from __future__ import annotations

from typing import Any

from pamqp import base, commands

from eda_core.testing.broker import Broker, Outgoing

Properties = commands.Basic.Properties


class Client:
    """One connection. ``do`` sends a method, and returns what comes back to this connection, in order."""

    def __init__(self, broker: Broker, *channels: int, user: str = "guest") -> None:
        self.broker = broker
        self.id = broker.connect(user=user)
        self.now = 0.0
        for channel in channels:
            self.do(commands.Channel.Open(), channel=channel)

    def all(self, method: base.Frame, *, channel: int = 1, properties: Any = None, body: bytes = b"") -> list[Outgoing]:
        return self.broker.receive(self.id, channel, method, properties, body, now=self.now)

    def do(self, method: base.Frame, *, channel: int = 1, properties: Any = None, body: bytes = b"") -> list[Outgoing]:
        answers = self.all(method, channel=channel, properties=properties, body=body)
        return [out for out in answers if out.connection == self.id]

    def declare(self, queue: str, **arguments: Any) -> list[Outgoing]:
        """Declare a queue. ``x_message_ttl=5`` is the argument ``x-message-ttl``."""
        table = {key.replace("_", "-"): arguments.pop(key) for key in list(arguments) if key.startswith("x_")}
        return self.do(commands.Queue.Declare(queue=queue, arguments=table, **arguments))

    def publish(
        self,
        key: str,
        body: bytes = b"m",
        *,
        exchange: str = "",
        channel: int = 1,
        mandatory: bool = False,
        **props: Any,
    ) -> list[Outgoing]:
        method = commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
        return self.do(method, channel=channel, properties=Properties(**props), body=body)

    def consume(self, queue: str, tag: str, *, channel: int = 1, **options: Any) -> list[Outgoing]:
        return self.do(commands.Basic.Consume(queue=queue, consumer_tag=tag, **options), channel=channel)

    def get(self, queue: str, *, no_ack: bool = False) -> Outgoing:
        (answer,) = self.do(commands.Basic.Get(queue=queue, no_ack=no_ack))
        return answer


def names(answers: list[Outgoing]) -> list[str]:
    return [out.method.name for out in answers]


def bodies(answers: list[Outgoing]) -> list[bytes]:
    return [out.body for out in answers if out.method.name in ("Basic.Deliver", "Basic.GetOk", "Basic.Return")]


def closed(answers: list[Outgoing]) -> tuple[str, int, str]:
    """The name, the code and the text of the only answer, a Close."""
    (out,) = answers
    method = out.method
    assert isinstance(method, commands.Channel.Close | commands.Connection.Close), method.name
    return method.name, method.reply_code or 0, method.reply_text
