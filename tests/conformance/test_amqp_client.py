"""The core's own AMQP client over a plain socket, against RabbitMQ."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pamqp import base
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue

from eda_core.amqp import Client, Ended, Event, Opened, Received
from eda_core.amqp.states import CLOSED, OPEN
from eda_core.messages import Properties
from eda_core.urls import Address
from tests.support.rabbitmq import RabbitNode

#: Seconds for the broker to answer. Only a broker that hangs takes so long.
PATIENCE = 60.0


class Plugged:
    """A client and its socket."""

    def __init__(self, url: str, **options: Any) -> None:
        address = Address.of(url)
        given = {"user": address.user, "password": address.password, "vhost": address.vhost, **options}
        self.client = Client(now=time.monotonic(), name="test_amqp_client", **given)
        self.socket = socket.create_connection((address.host, address.port), PATIENCE)
        self.events: list[Event] = []

    def until(self, enough: Callable[[], bool]) -> list[Event]:
        """Write, read and keep time, until it is enough or the connection has ended. Returns the new events."""
        before, limit = len(self.events), time.monotonic() + PATIENCE
        while not enough() and not self.client.should_close:
            self.write()
            now = time.monotonic()
            assert now < limit, self.events
            self.socket.settimeout(max(0.001, min(limit, self.client.deadline() or limit) - now))
            try:
                data = self.socket.recv(65_536)
            except TimeoutError:
                self.events += self.client.tick(time.monotonic())
            except OSError as error:
                self.events += self.client.lose(str(error))
            else:
                self.events += self.client.receive(data, time.monotonic()) if data else self.client.lose("")
        self.write()
        return self.events[before:]

    def write(self) -> None:
        if self.client.has_data:
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(self.client.data_to_send())

    def hear(self, count: int) -> list[Received]:
        """The next methods of the broker, so many of them."""
        wanted = len(self.events) + count
        found = [event for event in self.until(lambda: len(self.events) >= wanted) if isinstance(event, Received)]
        assert len(found) == count, self.events
        return found

    def ask(self, channel: int, *methods: base.Frame) -> list[str]:
        for method in methods:
            self.client.send(channel, method)
        return [event.method.name for event in self.hear(len(methods))]

    def open(self) -> int:
        """Wait for the handshake, and open a channel."""
        [opened] = self.until(lambda: bool(self.events))
        assert isinstance(opened, Opened), opened
        assert opened.server_properties["product"] == "RabbitMQ"
        channel = self.client.open_channel()
        assert self.hear(1)[0].method.name == "Channel.OpenOk"
        return channel

    def end(self) -> Ended:
        [end] = self.until(lambda: False)
        assert isinstance(end, Ended)
        assert (self.client.state, self.client.should_close) == (CLOSED, True)
        return end


@contextmanager
def plugged(url: str, **options: Any) -> Iterator[Plugged]:
    made = Plugged(url, **options)
    try:
        yield made
    finally:
        made.socket.close()


@pytest.mark.parametrize("frame_max", [8192, 131_072, 2**20])
def test_a_conversation(rabbit_url: str, frame_max: int) -> None:
    with plugged(rabbit_url, frame_max=frame_max, max_body=100_000) as here:
        client, channel = here.client, here.open()
        assert client.frame_max == min(frame_max, 131_072)
        assert here.ask(
            channel, Confirm.Select(), Queue.Declare(queue="q"), Basic.Consume(queue="q", consumer_tag="tag")
        ) == ["Confirm.SelectOk", "Queue.DeclareOk", "Basic.ConsumeOk"]
        properties = Properties("text/plain", headers={"k": ["é", 1.5, None, {"deep": b"\xff"}]}, delivery_mode=2)
        bodies = [b"", b"one", b"x" * 100_000, b"y" * 300_000]
        for body in bodies:
            client.publish(channel, "", "q", properties, body)
        client.publish(channel, "", "nowhere", properties, b"returned", mandatory=True)
        delivered: list[Received] = []
        confirmed: set[int] = set()
        returned: list[Received] = []

        def complete() -> bool:
            for event in here.events:
                assert isinstance(event, Received)
                if isinstance(event.method, Basic.Deliver):
                    delivered.append(event)
                elif isinstance(event.method, Basic.Return):
                    returned.append(event)
                else:
                    assert isinstance(event.method, Basic.Ack)
                    last = event.method.delivery_tag or 0
                    confirmed.update(range(1, last + 1) if event.method.multiple else [last])
            here.events.clear()
            return (len(delivered), len(returned), confirmed) == (4, 1, {1, 2, 3, 4, 5})

        here.events.clear()
        here.until(complete)
        assert [event.body for event in delivered] == [*bodies[:3], b""]
        assert [type(event.properties).__name__ for event in delivered] == [*["Properties"] * 3, "Unreadable"]
        assert all(dict(event.properties or {}) == dict(properties) for event in delivered)
        assert [event.method.delivery_tag for event in delivered] == [1, 2, 3, 4]
        assert (returned[0].body, returned[0].method.reply_code) == (b"returned", 312)
        client.ack(channel, 4, multiple=True)
        assert here.ask(channel, Basic.Cancel("tag")) == ["Basic.CancelOk"]
        assert here.ask(channel, Basic.Get(queue="q")) == ["Basic.GetEmpty"]
        client.close_channel(channel)
        assert [event.method.name for event in here.hear(1)] == ["Channel.CloseOk"]
        assert client.close(time.monotonic()) == []
        assert here.end() == Ended("")


def test_both_close_a_channel_at_once(rabbit_url: str) -> None:
    """RabbitMQ answers the client's Channel.Close, too. Then the number can be opened again."""
    with plugged(rabbit_url) as here:
        channel = here.open()
        for _ in range(5):
            here.client.send(channel, Queue.Declare(queue="missing", passive=True))
            here.client.close_channel(channel)
            assert [event.method.name for event in here.hear(1)] == ["Channel.CloseOk"]
            assert here.client.open_channel(channel) == channel
            assert here.hear(1)[0].method.name == "Channel.OpenOk"
        assert here.ask(channel, Queue.Declare(queue="q")) == ["Queue.DeclareOk"]


def test_a_channel_that_the_broker_closes_can_be_opened_again(rabbit_url: str) -> None:
    with plugged(rabbit_url) as here:
        channel = here.open()
        for _ in range(5):
            assert here.ask(channel, Queue.Declare(queue="missing", passive=True)) == ["Channel.Close"]
            assert not here.client.is_open(channel)
            here.client.open_channel(channel)
            here.client.send(channel, Queue.Declare(queue="q"))
            assert [event.method.name for event in here.hear(2)] == ["Channel.OpenOk", "Queue.DeclareOk"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"password": "wrong"}, 403, "ACCESS_REFUSED"),
        ({"vhost": "nowhere"}, 530, "NOT_ALLOWED - vhost nowhere not found"),
        ({"mechanism": "EXTERNAL"}, None, "the broker does not offer the mechanism EXTERNAL; it offers "),
    ],
)
def test_a_login_that_is_refused(rabbit_url: str, options: dict[str, Any], code: int | None, words: str) -> None:
    with plugged(rabbit_url, **options) as here:
        end = here.end()
        assert end.reason.startswith(words)
        assert end.code == code


def test_the_broker_closes_the_connection(rabbit_url: str) -> None:
    with plugged(rabbit_url) as here:
        channel = here.open()
        here.client.send(channel, Channel.Open())
        end = here.end()
        assert end.code == 504
        assert end.reason.startswith("CHANNEL_ERROR")


def test_both_close_the_connection_at_once(rabbit_url: str) -> None:
    """RabbitMQ may reset the socket instead of an answer to the client's Connection.Close."""
    with plugged(rabbit_url) as here:
        channel = here.open()
        here.client.send(channel, Channel.Open())
        here.client.close(time.monotonic())
        assert here.end() == Ended("")


def test_a_secret_is_updated(rabbit_url: str) -> None:
    with plugged(rabbit_url) as here:
        here.open()
        here.client.update_secret("guest", "renewed")
        [event] = here.hear(1)
        assert isinstance(event.method, Connection.UpdateSecretOk)


def test_what_just_fits_into_a_frame_is_taken(rabbit_url: str) -> None:
    """And what does not is refused before it is sent, because the broker would close the connection."""
    with plugged(rabbit_url, frame_max=8192) as here:
        channel = here.open()
        room = 8192 - 20 - len(Properties(headers={"k": ""}).marshal())
        assert here.ask(channel, Queue.Declare(queue="q")) == ["Queue.DeclareOk"]
        with pytest.raises(ValueError, match="do not fit into a frame"):
            here.client.publish(channel, "", "q", Properties(headers={"k": "x" * (room + 1)}), b"")
        with pytest.raises(ValueError, match="and 8192 fit into a frame"):
            here.client.send(channel, Queue.Declare(queue="q", arguments={"k": "x" * 8192}))
        here.client.publish(channel, "", "q", Properties(headers={"k": "x" * room}), b"")
        here.client.send(channel, Basic.Get(queue="q"))
        [event] = here.hear(1)
        assert event.properties is not None
        assert event.properties.headers == {"k": "x" * room}


def test_heartbeats_go_both_ways(rabbit_url: str) -> None:
    """With one second, RabbitMQ would close the connection after two seconds of silence."""
    with plugged(rabbit_url, heartbeat=1) as here:
        here.open()
        before = here.client.received
        assert here.until(lambda: here.client.received >= before + 8 * 6) == []
        assert here.client.state is OPEN


def test_as_many_channels_as_the_broker_allows(rabbit_url: str) -> None:
    with plugged(rabbit_url, channel_max=50) as here:
        here.open()
        assert here.client.channel_max == 50
        for _ in range(49):
            here.client.open_channel()
        assert {event.method.name for event in here.hear(49)} == {"Channel.OpenOk"}
        for number in list(here.client.channels):
            here.client.close_channel(number)
        assert {event.method.name for event in here.hear(50)} == {"Channel.CloseOk"}
        assert here.client.channels == set()


def test_a_broker_that_is_killed(rabbit_victim: Any) -> None:
    node: RabbitNode = rabbit_victim.node
    with plugged(rabbit_victim.url) as here:
        here.open()
        node.kill()
        assert here.end().code is None
