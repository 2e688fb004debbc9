"""What traces cost a service that relays events, in turns with one that is not traced: ``python -m benchmarks.traces``.

Each mode runs the relays of ``benchmarks.peers`` in a process of its own, and its processor time for each message is
compared with that of the first mode. An exporter that does nothing drops the spans of the mode "recorded": what an
exporter costs depends on it. The broker is found as by ``benchmarks.endpoint``.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from benchmarks.endpoint import broker
from benchmarks.peers.environments import CLIENTS, environ
from benchmarks.peers.measuring import ANSWERS, WARM, Bench
from eda_core.services import ServiceApi
from eda_otel import instrument
from eda_otel.files import write_spans

#: The clients of ``benchmarks.peers`` that are measured.
RELAYS: Final = ("native", "eda_aio", "eda_pika")


class Nowhere(SpanExporter):
    """Drops spans."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def recorded(service: Any) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    instrument(service, provider)


MODES: Final[dict[str, Callable[[Any], None]]] = {
    "off": lambda service: None,
    "without a provider": instrument,
    "1 % sampled": lambda service: instrument(service, TracerProvider(ParentBased(TraceIdRatioBased(0.01)))),
    "recorded": recorded,
    "to a file": lambda service: write_spans(service, str(Path(tempfile.mkdtemp(), "spans")), "bench"),
}


def work(mode: str, module: str, task: str) -> None:
    """Be the program of a client whose services are traced."""
    begin_run = ServiceApi.begin_run

    def traced(service: Any, make: Any) -> Any:
        MODES[mode](service)
        return begin_run(service, make)

    ServiceApi.begin_run = traced  # type: ignore[method-assign,assignment]
    sys.argv[1:] = [task]
    runpy.run_module(f"benchmarks.peers.programs.{module}", run_name="__main__")


def measure(bench: Bench, name: str, mode: str, count: int) -> float:
    """The processor time of one relayed message, microseconds."""
    client, task = CLIENTS[name], bench.task("relay")
    task.variant = client.variant
    bench.fill(task, count)
    command = [sys.executable, "-m", "benchmarks.traces", "--work", mode, client.module, json.dumps(asdict(task))]
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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", nargs=3, metavar=("MODE", "MODULE", "TASK"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=10_000, help="messages of each relay")
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    took: dict[tuple[str, str], list[float]] = {}
    with broker() as (url, _), Bench(url) as bench:
        for _ in range(args.rounds):
            for name in RELAYS:
                for mode in MODES:
                    took.setdefault((name, mode), []).append(measure(bench, name, mode, args.count))
    for (name, mode), times in took.items():
        median, off = statistics.median(times), statistics.median(took[name, "off"])
        print(f"{CLIENTS[name].title:20s}{mode:20s}{median:7.1f} us  {median / off:4.1f} x")


if __name__ == "__main__":
    main()
