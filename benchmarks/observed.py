"""What a relay costs with what a service may be given, as ratios: ``python -m benchmarks.observed``.

Each way runs the relays of ``benchmarks.peers`` in a process of its own, in turns, and its processor time for each
message is compared with that of the first way in the same round. The broker is found as by ``benchmarks.endpoint``.

- nothing: what a service has in any case, its counts among it.
- metrics: scraped over HTTP once in a second, which is ten times as often as usual.
- payloads: each is read as a Struct of msgspec, and written from it.
- turns: handlers of one conversation run one after the other. There is one conversation.
- store: a claim check, for payloads larger than these.
- letters: dead letters would be published by the service.
- traces, unset: without a provider of OpenTelemetry; 1 %: so many are sampled; recorded: all, and an exporter that does
  nothing drops them, since what an exporter costs depends on it; to a file: as ``eda run --traces`` does.
- all: all of these, with traces recorded.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from benchmarks.endpoint import broker
from benchmarks.peers.environments import CLIENTS, environ
from benchmarks.peers.measuring import ANSWERS, WARM, Bench
from benchmarks.peers.programs.work import ANSWERED
from eda_core.services import ClaimCheck, Handlers, ServiceApi
from eda_otel import instrument
from eda_otel.files import write_spans
from eda_probe import HealthServer

#: The clients of ``benchmarks.peers`` that are measured.
RELAYS: Final = ("native", "eda_aio", "eda_pika")
#: Seconds between two scrapes.
SCRAPE: Final = 1.0


class Payload(msgspec.Struct):
    """What ``benchmarks.peers`` sends."""

    conversation: str
    turns: list[float]
    language: str
    text: str


class Nothing:
    """A store for payloads that are larger than any."""

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError

    def get(self, key: str) -> bytes:
        raise AssertionError


class Nowhere(SpanExporter):
    """Drops spans."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def metrics(service: Any) -> None:
    code = "import sys; from benchmarks.observed import scrape; scrape(int(sys.argv[1]))"
    subprocess.Popen([sys.executable, "-c", code, str(HealthServer(service, 0).port)], env=environ())


def scrape(port: int) -> None:
    """Scrape a service as often as is said above, in a process whose time does not count, until it is gone."""
    time.sleep(SCRAPE)
    with suppress(OSError):
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()
            time.sleep(SCRAPE)


def payloads(service: Any) -> None:
    def relay(service: Any, payload: Payload, conversation_id: str, meta: Any) -> Any:
        return service.publish_event(ANSWERED, payload, conversation_id)

    async def relay_it(service: Any, payload: Payload, conversation_id: str, meta: Any) -> None:
        await service.publish_event(ANSWERED, payload, conversation_id)

    kind: Any = type(service)
    kind.handle_event = Handlers.handle_event
    kind.on_Asked0 = relay_it if kind._eda_awaits else relay


def turns(service: Any) -> None:
    type(service).SERIALIZE_BY = "conversation_id"


def store(service: Any) -> None:
    type(service).CLAIM_CHECK = ClaimCheck(Nothing())


def letters(service: Any) -> None:
    type(service).DEAD_LETTER_EXCHANGE = "am-dlx"


def recorded(service: Any) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    instrument(service, provider)


def everything(service: Any) -> None:
    for each in (metrics, payloads, turns, store, letters, recorded):
        each(service)


WAYS: Final[dict[str, Callable[[Any], None]]] = {
    "nothing": lambda service: None,
    "metrics": metrics,
    "payloads": payloads,
    "turns": turns,
    "store": store,
    "letters": letters,
    "traces, unset": instrument,
    "traces, 1 %": lambda service: instrument(service, TracerProvider(ParentBased(TraceIdRatioBased(0.01)))),
    "traces, recorded": recorded,
    "traces, to a file": lambda service: write_spans(service, str(Path(tempfile.mkdtemp(), "spans")), "bench"),
    "all": everything,
}


def work(way: str, module: str, task: str) -> None:
    """Be the program of a client, whose service is given something before it runs."""
    begin_run = ServiceApi.begin_run

    def given(service: Any, make: Any) -> Any:
        WAYS[way](service)
        return begin_run(service, make)

    ServiceApi.begin_run = given  # type: ignore[method-assign,assignment]
    sys.argv[1:] = [task]
    runpy.run_module(f"benchmarks.peers.programs.{module}", run_name="__main__")


def measure(bench: Bench, name: str, way: str, count: int) -> float:
    """The processor time of one relayed message, microseconds."""
    client, task = CLIENTS[name], bench.task("relay")
    task.variant = client.variant
    bench.fill(task, count)
    command = [sys.executable, "-m", "benchmarks.observed", "--work", way, client.module, json.dumps(asdict(task))]
    with subprocess.Popen(command, env=environ()) as process:
        try:
            _, before = bench.until(ANSWERS, lambda there: there >= count * WARM, [])
            worked = cpu(process.pid)
            _, after = bench.until(ANSWERS, lambda there: there >= count, [])
            return (cpu(process.pid) - worked) / (after - before) * 1e6
        finally:
            process.kill()


def cpu(pid: int) -> float:
    """The processor time of a process so far, seconds."""
    return sum(int(each.read_text("ascii").split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def main() -> None:
    """Measure in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs=3, metavar=("WAY", "MODULE", "TASK"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=10_000, help="messages of each relay (default: %(default)s)")
    parser.add_argument("--clients", nargs="+", choices=RELAYS, default=RELAYS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    took: dict[tuple[str, str], list[float]] = {}
    with broker() as (url, _), Bench(url) as bench:
        for _ in range(args.rounds):
            for name in args.clients:
                for way in WAYS:
                    took.setdefault((name, way), []).append(measure(bench, name, way, args.count))
    for (name, way), times in took.items():
        ratios = sorted(each / first for each, first in zip(times, took[name, "nothing"], strict=True))
        told = f"{statistics.median(ratios):5.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{CLIENTS[name].title:20s}{way:20s}{statistics.median(times):7.1f} us {told}")


if __name__ == "__main__":
    main()
