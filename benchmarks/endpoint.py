"""What confirmed publishing costs a synchronous program, side by side in one run: ``python -m benchmarks.endpoint``.

Events of 300 bytes go to a durable queue: one by one with ``Endpoint.publish_event``, with kombu's own confirmed
``Producer.publish``, with eventail's endpoint where that is installed, and many with ``Endpoint.publish_many``. All are
timed in turns, so that what else the machine does hits each of them; the medians of the rounds count, as ratios.

The broker is the RabbitMQ at ``EDA_AMQP_URL``, where a queue ``bench.endpoint`` is declared and deleted in the end; or
a private node of it, if it is installed; or the embedded broker, which is itself what limits ``publish_many``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import cbor2

from eda_kombu import Endpoint
from tests.support.rabbitmq import RabbitNode, find_server

kombu: Any = import_module("kombu")  # types for a part of it

PAYLOAD = {"conversation": "0123456789abcdef" * 2, "turns": [1, 2, 3, 4.5], "language": "fr", "text": "bonjour " * 26}
#: publish_many has to be so much faster than publishing one by one.
BOUND = 8.0


@contextmanager
def broker() -> Iterator[tuple[str, bool]]:
    """The URL of one, and whether that is a RabbitMQ."""
    url = os.environ.get("EDA_AMQP_URL")
    if url:
        yield url, True
    elif find_server() is not None:
        with RabbitNode() as node:
            yield node.url, True
    else:
        with embedded() as url:
            yield url, False


@contextmanager
def embedded() -> Iterator[str]:
    """The URL of an embedded broker in a process of its own."""
    command = [sys.executable, "-m", "eda_tools.broker", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def kombu_one(connection: Any) -> Callable[[], None]:
    """As kombu does it by itself."""
    producer = connection.Producer(exchange=kombu.Exchange("events", "topic", durable=True))

    def publish() -> None:
        producer.publish(
            cbor2.dumps(PAYLOAD),
            routing_key="Benched",
            headers={"conversation_id": "c"},
            content_type="application/cbor",
            content_encoding="binary",
            retry=True,
        )

    return publish


def eventail_one(url: str) -> Callable[[], None] | None:
    """As eventail does it, if it is installed."""
    try:
        from eventail.sync_publisher import Endpoint as Eventail
    except ImportError:
        return None
    endpoint = Eventail([url], "bench")
    return lambda: endpoint.publish_event("Benched", PAYLOAD, "c")


def timed(publish: Callable[[], object], count: int) -> float:
    """Seconds per message, called once for each."""
    begin = time.perf_counter()
    for _ in range(count):
        publish()
    return (time.perf_counter() - begin) / count


def main() -> int:
    """Print the ratios; status 1 if publish_many is under its bound and ``--check`` was given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=300, help="messages per round, one by one (default: %(default)s)")
    parser.add_argument(
        "--check", action="store_true", help=f"fail if publish_many is not {BOUND:g} times as fast, on RabbitMQ"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        url, is_rabbit = stack.enter_context(broker())
        endpoint = stack.enter_context(Endpoint([url], "bench"))
        connection = stack.enter_context(kombu.Connection(url, transport_options={"confirm_publish": True}))
        endpoint.publish_event("Benched", PAYLOAD, "c")  # declares the exchanges
        queue = kombu.Queue("bench.endpoint", kombu.Exchange("events", "topic", durable=True), "Benched")(connection)
        queue.declare()
        stack.callback(queue.delete)
        many = options.count * 10
        ways: dict[str, Callable[[], float]] = {
            "publish_event": lambda: timed(lambda: endpoint.publish_event("Benched", PAYLOAD, "c"), options.count),
            "publish_many": lambda: (
                timed(lambda: endpoint.publish_many(("Benched", PAYLOAD, "c") for _ in range(many)), 1) / many
            ),
            "kombu's own": lambda: timed(kombu_publish, options.count),
        }
        kombu_publish, eventail_publish = kombu_one(connection), eventail_one(url)
        if eventail_publish is not None:
            ways["eventail's"] = lambda: timed(eventail_publish, options.count)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                times[name].append(way())
                queue.purge()
    medians = {name: statistics.median(each) for name, each in times.items()}
    base = medians["publish_event"]
    for name, seconds in medians.items():
        bound = f" (bound {BOUND:g})" if name == "publish_many" and is_rabbit else ""
        print(f"{name:16s}{1 / seconds:8.0f}/s   {base / seconds:5.2f} x publish_event, one by one{bound}")
    return int(options.check and is_rabbit and base / medians["publish_many"] < BOUND)


if __name__ == "__main__":
    sys.exit(main())
