"""The model and RabbitMQ send the same octets in the same order, also where a decoder would hide a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp import base
from pamqp import frame as pamqp_frame
from pamqp.commands import Basic, Channel, Connection, Queue

from eda_core.testing.wire import frames
from tests.differential.client import Client, Received
from tests.differential.comparison import pipes
from tests.support.rabbitmq import RabbitNode


class Recorder(Client):
    """Keeps the octets of each method frame."""

    octets: list[bytes]

    def __init__(self, *arguments: object) -> None:
        self.octets = []
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.octets.clear()  # of the handshake, in which each server says who it is

    def unmarshal(self, data: bytes) -> object:
        if data[0] == frames.FRAME_METHOD:
            self.octets.append(data)
        return super().unmarshal(data)

    def ask(self, channel: int, method: base.Frame, *kinds: type[base.Frame]) -> None:
        """Send a method, and wait for one of these answers."""
        self.send(channel, method)
        self.until(lambda received: isinstance(received.method, kinds))


def a_channel(client: Recorder) -> None:
    client.ask(1, Channel.Open(), Channel.OpenOk)


def a_recovery(client: Recorder) -> None:
    """The answer comes before what is delivered again."""
    client.open_with("q")
    for body in (b"1", b"2"):
        client.send(1, Basic.Publish(routing_key="q"), Basic.Properties(), body)
    delivered = 0

    def two(received: Received) -> bool:
        nonlocal delivered
        delivered += isinstance(received.method, Basic.Deliver)
        return delivered == 2

    client.send(1, Basic.Consume(queue="q", consumer_tag="c"))
    client.until(two)
    delivered = 0
    client.send(1, Basic.Recover(requeue=True))
    client.until(two)


def a_new_secret(client: Recorder) -> None:
    client.ask(0, Connection.UpdateSecret("guest", "it was old"), Connection.UpdateSecretOk)


def unknown_tag(tag: int) -> Callable[[Recorder], None]:
    def play(client: Recorder) -> None:
        client.ask(1, Channel.Open(), Channel.OpenOk)
        client.ask(1, Basic.Ack(tag), Channel.Close)

    return play


def a_deleted_queue(client: Recorder) -> None:
    """The consumer is told before the answer."""
    client.open_with("q")
    client.ask(1, Basic.Consume(queue="q", consumer_tag="c"), Basic.ConsumeOk)
    client.ask(1, Queue.Delete(queue="q"), Queue.DeleteOk)


STORIES: dict[str, Callable[[Recorder], None]] = {
    "channel": a_channel,
    "recover": a_recovery,
    "secret": a_new_secret,
    **{f"tag {tag}": unknown_tag(tag) for tag in (5, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1)},
    "deleted queue": a_deleted_queue,
}


@pytest.mark.parametrize("name", STORIES)
def test_the_octets_are_the_same(name: str, rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    found = []
    for pipe in pipes(rabbitmq, rabbit_vhost):
        client = Recorder(pipe, rabbit_vhost)
        STORIES[name](client)
        found.append(client.octets)
        client.close()
    model, rabbit = found
    assert model == rabbit, [[pamqp_frame.unmarshal(each)[2] for each in octets] for octets in found]
