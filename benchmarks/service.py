"""What a relay costs, one event in and one out, as ratios measured side by side: ``python -m benchmarks.service``.

The services of eda_pika and eda_aio, and as the measure a relay on pika alone, as short as it can be while it loses
nothing: it acknowledges a message when what came of it is confirmed. With the Python of an environment that has
eventail 2.3.6 in ``EDA_EVENTAIL_PYTHON``, eventail's too. Each is a process that finds its queue full; the time is that
from the first answer to the last, as the queue of the answers counts them. They run in turns, and their medians count.

The broker is found as by ``benchmarks.endpoint``; queues ``bench_…`` are declared and deleted in the end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# All else is imported where it is used: no environment has everything.

PREFETCH = 50
PAYLOAD = {"conversation": "0123456789abcdef" * 2, "turns": [1, 2, 3, 4.5], "language": "fr", "text": "bonjour " * 14}
ANSWERS = "bench_answers"


# --- the relays; each is given the URL and its name ---


def by_hand(url: str, name: str) -> None:
    """On pika."""
    import cbor2
    import pika

    def begin(channel: Any) -> None:
        numbers = itertools.count(1)
        waiting: dict[int, int] = {}  # deliveries, by the number of what was published for them

        def take(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            waiting[next(numbers)] = method.delivery_tag
            channel.basic_publish("events", "Answered", cbor2.dumps(cbor2.loads(body)), properties)

        def confirmed(frame: Any) -> None:
            assert frame.method.NAME == "Basic.Ack"
            upto = frame.method.delivery_tag
            for number in [number for number in waiting if number <= upto] if frame.method.multiple else [upto]:
                channel.basic_ack(waiting.pop(number))

        channel.basic_qos(prefetch_count=PREFETCH)
        channel.confirm_delivery(confirmed, lambda _: channel.basic_consume(f"{name}.events", take))

    connection = pika.SelectConnection(pika.URLParameters(url), lambda made: made.channel(on_open_callback=begin))
    connection.ioloop.start()


def in_callbacks(module: Any) -> Callable[[str, str], None]:
    """On eda_pika, or on eventail, whose names it has."""

    def run(url: str, name: str) -> None:
        class Relay(module.Service):  # type: ignore[misc]  # whichever it is
            PREFETCH_COUNT = PREFETCH

            def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
                self.publish_event("Answered", payload, conversation_id)

        module.ReconnectingSupervisor(Relay, [url], [f"Asked.{name}"], [], name).run()

    return run


def in_eda_pika(url: str, name: str) -> None:
    import eda_pika

    in_callbacks(eda_pika)(url, name)


def in_eventail(url: str, name: str) -> None:
    from eventail.async_service import pika

    in_callbacks(pika)(url, name)


def in_eda_aio(url: str, name: str, transport: str = "aio-pika") -> None:
    import asyncio

    from eda_aio import Service

    class Relay(Service):
        PREFETCH_COUNT = PREFETCH
        TRANSPORT = transport

        async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
            await self.publish_event("Answered", payload, conversation_id)

    asyncio.run(Relay(url, [f"Asked.{name}"], [], name).run())


def in_native(url: str, name: str) -> None:
    in_eda_aio(url, name, "native")


def aio_by_hand(url: str, name: str) -> None:
    """On aio-pika."""
    import asyncio

    import aio_pika
    import cbor2

    async def main() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=True)
            await channel.set_qos(PREFETCH)
            events = await channel.get_exchange("events")

            async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                body = cbor2.dumps(cbor2.loads(message.body))
                await events.publish(aio_pika.Message(body, headers=message.headers, delivery_mode=2), "Answered")
                await message.ack()

            await (await channel.get_queue(f"{name}.events")).consume(take)
            await asyncio.Event().wait()

    asyncio.run(main())


RELAYS = {
    "by_hand": by_hand,
    "eda_pika": in_eda_pika,
    "native": in_native,
    "eda_aio": in_eda_aio,
    "aio_by_hand": aio_by_hand,
    "eventail": in_eventail,
}


# --- the measurement ---


def answers(channel: Any, process: subprocess.Popen[bytes], number: int) -> tuple[float, int]:
    """When there were so many, or a few more; and how many."""
    while (there := channel.queue_declare(ANSWERS, passive=True).method.message_count) < number:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended with status {process.returncode}")
        time.sleep(0.002)
    return time.perf_counter(), there


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds(channel: Any, relay: str, python: str, url: str, count: int) -> tuple[float, float]:
    """For each message that a relay relays: of time, and of its processor time."""
    import cbor2
    import pika

    name = f"bench_{relay}"
    channel.queue_purge(f"{name}.events")
    channel.queue_purge(ANSWERS)
    properties = pika.BasicProperties("application/cbor", headers={"conversation_id": "c"}, delivery_mode=2)
    for _ in range(count):
        channel.basic_publish("events", f"Asked.{name}", cbor2.dumps(PAYLOAD), properties)
    with subprocess.Popen([python, __file__, "--relay", relay, url], stderr=subprocess.DEVNULL) as process:
        try:
            begin, before = answers(channel, process, 1)
            worked = cpu_seconds(process)
            end, after = answers(channel, process, count)
            worked = cpu_seconds(process) - worked
        finally:
            process.terminate()
    return (end - begin) / (after - before), worked / (after - before)


def declare(channel: Any, relays: Iterable[str]) -> None:
    """The queues. That of the answers is in memory, for the time of a confirm to be that of the relay's own work."""
    channel.exchange_declare("events", "topic", durable=True)
    channel.queue_declare(ANSWERS, exclusive=True)
    channel.queue_bind(ANSWERS, "events", "Answered")
    for relay in relays:
        channel.queue_declare(f"bench_{relay}.events", durable=True)
        channel.queue_bind(f"bench_{relay}.events", "events", f"Asked.bench_{relay}")


def compare(url: str, rounds: int, count: int) -> None:
    """Print the ratios."""
    import pika

    pythons = dict.fromkeys(RELAYS, sys.executable) | {"eventail": os.environ.get("EDA_EVENTAIL_PYTHON", "")}
    relays = [relay for relay in RELAYS if pythons[relay]]
    times: dict[str, list[tuple[float, float]]] = {relay: [] for relay in relays}
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        declare(channel, relays)
        try:
            for _ in range(rounds):
                for relay in relays:
                    times[relay].append(seconds(channel, relay, pythons[relay], url, count))
        finally:
            for relay in relays:
                channel.queue_delete(f"bench_{relay}.events")
    for column, title in enumerate(("time", "processor time")):
        medians = {relay: statistics.median(round[column] for round in each) for relay, each in times.items()}
        print(f"{title:16s}{'':>10s}" + "".join(f"{f'/ {other}':>14s}" for other in relays))
        for relay, median in medians.items():
            ratios = "".join(f"{median / medians[other]:14.2f}" for other in relays)
            print(f"{relay:16s}{median * 1e6:7.0f} us{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=3000, help="messages per round (default: %(default)s)")
    parser.add_argument("--relay", nargs=2, metavar=("NAME", "URL"), help="only run this relay, until it is ended")
    options = parser.parse_args()
    if options.relay:
        relay, url = options.relay
        RELAYS[relay](url, f"bench_{relay}")
        return
    from benchmarks.endpoint import broker

    with broker() as (url, _):
        compare(url, options.rounds, options.count)


if __name__ == "__main__":
    main()
