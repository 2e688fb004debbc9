"""The transport without an event loop: it publishes, waits for confirms, and loses nothing with a connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from eda_core import Event
from eda_core.drivers import NotConfirmed
from eda_core.testing.live import EmbeddedBrokerThread
from examples.blocking_transport import Publisher
from examples.blocking_transport import __file__ as source


@pytest.fixture
def broker() -> Iterator[EmbeddedBrokerThread]:
    """A broker with a queue for all events."""
    with EmbeddedBrokerThread() as made:
        with pika.BlockingConnection(pika.URLParameters(made.url)) as connection:
            channel = connection.channel()
            channel.exchange_declare("events", "topic", durable=True)
            channel.queue_declare("all", durable=True)
            channel.queue_bind("all", "events", "#")
        yield made


def waiting(broker: EmbeddedBrokerThread) -> int:
    """How many messages are in the queue."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        return int(connection.channel().queue_declare("all", passive=True).method.message_count)


def some(count: int) -> Iterator[Event]:
    return (Event("Told", {"number": number}, "c") for number in range(count))


def test_it_is_short() -> None:
    assert len(Path(source).read_text("utf-8").splitlines()) < 220


def test_all_that_it_publishes_is_confirmed(broker: EmbeddedBrokerThread) -> None:
    publisher = Publisher(broker.url, "publisher")
    publisher.publish_events(some(1200))  # more than twice its window
    publisher.publish_events([Event("Told", "x" * 1_000_000, "c")])
    publisher.close(5.0)
    assert (publisher.over, waiting(broker)) == (True, 1201)


def test_it_connects_again(broker: EmbeddedBrokerThread) -> None:
    publisher = Publisher(broker.url, "publisher")

    def cut_in_the_middle() -> Iterator[Event]:
        for number, event in enumerate(some(600)):
            if number == 300:
                broker.cut()
            yield event

    publisher.publish_events(cut_in_the_middle())
    publisher.close(5.0)
    assert waiting(broker) >= 600


def test_a_broker_that_is_not_there_is_told() -> None:
    publisher = Publisher("amqp://127.0.0.1:1/", "publisher")
    with pytest.raises(NotConfirmed, match="Connection refused"):
        publisher.publish_events(some(1), timeout=0.5)


def test_a_refused_login_is_told(broker: EmbeddedBrokerThread) -> None:
    publisher = Publisher(broker.url.replace("guest:guest", "guest:wrong"), "publisher")
    with pytest.raises(NotConfirmed, match="refuses the user 'guest'"):
        publisher.publish_events(some(1), timeout=5.0)


def test_a_silent_broker_costs_no_more_than_the_timeout(broker: EmbeddedBrokerThread) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publisher = Publisher(f"amqp://127.0.0.1:{silent.getsockname()[1]}/", "publisher")
        began = time.monotonic()
        with pytest.raises(NotConfirmed, match="has not answered within"):
            publisher.publish_events(some(1), timeout=0.5)
        assert time.monotonic() - began < 30


def test_tls_is_refused() -> None:
    publisher = Publisher("amqps://127.0.0.1:1/", "publisher")
    with pytest.raises(NotConfirmed, match="this example has no TLS"):
        publisher.publish_events(some(1), timeout=0.2)
