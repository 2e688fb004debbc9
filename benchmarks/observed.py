"""What a relay costs that is seen from outside, as ratios: ``python -m benchmarks.observed``.

A service of eda_aio on the native transport receives events of 200 bytes, and publishes another one for each. Each way
is measured in a process of its own, in turns, and what counts is the processor time of that process. The broker is
found as by ``benchmarks.endpoint``; a queue ``bench.events`` is declared and deleted.

- nothing: what a service has in any case; also its counts.
- metrics: scraped over HTTP once in a second, which is ten times as often as usual.
- traces: two spans for each relay, which a processor of the SDK batches, and drops.
- payloads: the payload is a Struct of msgspec, both ways.
- turns: handlers of one conversation run one after the other. There are twenty conversations.
- store: a claim check, for payloads larger than these.
- letters: dead letters would be published by the service.
- all: all of these.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, closing, suppress
from importlib import import_module
from typing import Any, ClassVar, Final

import msgspec

from benchmarks.endpoint import broker
from benchmarks.peers.programs.work import payload
from eda_aio import Service
from eda_core.services import ClaimCheck
from eda_kombu import Endpoint
from eda_otel import instrument
from eda_probe import HealthServer

WAYS: Final = ("nothing", "metrics", "traces", "payloads", "turns", "store", "letters", "all")
#: Seconds between two scrapes.
SCRAPE: Final = 1.0


class Payload(msgspec.Struct):
    """What ``benchmarks.peers`` sends."""

    conversation: str
    turns: list[float]
    language: str
    text: str


class NoStore:
    """Nothing is as large as that."""

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError

    def get(self, key: str) -> bytes:
        raise AssertionError


class Relay(Service):
    """Relays so many events, and tells the processor time for each, in microseconds."""

    TRANSPORT = "native"
    PREFETCH_COUNT = 100

    def __init__(self, url: str, count: int) -> None:
        super().__init__([url], ["Asked"], [], "bench")
        self.count, self.left = count, count
        self.began = 0.0

    async def on_Asked(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        if self.left == self.count:
            self.began = time.process_time()
        self.left -= 1
        await self.publish_event("Answered", payload, conversation_id)
        if not self.left:
            await self.stop()


class TypedRelay(Relay):
    """The same with a model."""

    async def on_Asked(self, payload: Payload, conversation_id: str, meta: dict[str, Any]) -> None:
        await super().on_Asked(payload, conversation_id, meta)


def relay(way: str, url: str, count: int) -> None:
    """Measure one way, in this process."""

    def has(name: str) -> bool:
        return way in (name, "all")

    class Measured(TypedRelay if has("payloads") else Relay):  # type: ignore[misc]  # one of two classes
        SERIALIZE_BY: ClassVar[str] = "conversation_id" if has("turns") else ""
        CLAIM_CHECK: ClassVar[ClaimCheck | None] = ClaimCheck(NoStore()) if has("store") else None
        DEAD_LETTER_EXCHANGE: ClassVar[str] = "am-dlx" if has("letters") else ""

    service = Measured(url, count)
    if has("traces"):
        trace: Any = import_module("opentelemetry.sdk.trace")
        export: Any = import_module("opentelemetry.sdk.trace.export")
        provider = trace.TracerProvider()
        provider.add_span_processor(export.BatchSpanProcessor(_dropping(export)))
        instrument(service, provider)

    with ExitStack() as stack:
        if has("metrics"):
            code = "import sys; from benchmarks.observed import scrape; scrape(int(sys.argv[1]))"
            port = stack.enter_context(HealthServer(service, 0)).port
            stack.callback(subprocess.Popen([sys.executable, "-c", code, str(port)]).kill)
        asyncio.run(service.run())
    print((time.process_time() - service.began) / count * 1e6)


def _dropping(export: Any) -> Any:
    class Dropping(export.SpanExporter):  # type: ignore[misc]  # the SDK is imported only here
        def export(self, spans: Any) -> Any:
            return export.SpanExportResult.SUCCESS

    return Dropping()


def scrape(port: int) -> None:
    """Scrape a service as often as is said above, in a process whose time does not count, until that is killed."""
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            answer.read()
        time.sleep(SCRAPE)


def main() -> int:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=10_000, help="relays in each round (default: %(default)s)")
    parser.add_argument("--relay", nargs=2, metavar=("WAY", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        way, url = options.relay
        relay(way, url, options.count)
        return 0
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        url, _ = stack.enter_context(broker())
        endpoint = stack.enter_context(Endpoint([url], "source"))
        kombu: Any = import_module("kombu")
        connection = stack.enter_context(closing(kombu.Connection(url)))
        endpoint.publish_event("Asked", {}, "c")  # declares the exchanges
        queue = kombu.Queue("bench.events", kombu.Exchange("events", "topic", durable=True), "Asked")(connection)
        queue.declare()
        stack.callback(queue.delete)
        for _ in range(options.rounds):
            for way in WAYS:
                queue.purge()
                endpoint.publish_many(("Asked", payload(200), f"c{n % 20}") for n in range(options.count))
                command = (
                    sys.executable,
                    "-m",
                    "benchmarks.observed",
                    "--count",
                    str(options.count),
                    "--relay",
                    way,
                    url,
                )
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
                times[way].append(float(done.stdout))
    for way, found in times.items():
        ratios = sorted(each / first for each, first in zip(found, times["nothing"], strict=True))
        told = f"{statistics.median(ratios):.2f} x nothing ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{way:10s}{statistics.median(found):7.1f} us of processor time for each relay   {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
