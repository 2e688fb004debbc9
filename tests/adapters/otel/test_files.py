"""Spans in a file that several processes write to."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from eda_otel.files import FileExporter
from tests.support.services import asynchronous, program

WRITER = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from eda_otel.files import FileExporter

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(FileExporter(sys.argv[1])))
tracer = provider.get_tracer("writer")
sys.stdin.readline()
for number in range(200):
    tracer.start_span("span", attributes={"number": number, "writer": sys.argv[2], "text": "x" * 5000}).end()
"""
#: What ``eda run --traces`` does; with "own" the program has set a provider, and has the service traced.
PROGRAM = """
import sys
import eda_aio
from opentelemetry import trace
from eda_otel.files import write_spans

service = eda_aio.Service("amqp://127.0.0.1:1/", [], [], "svc")
if "own" in sys.argv:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from eda_otel import instrument

    trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": "mine"})))
    instrument(service)
before = service._eda_tracing
write_spans(service, sys.argv[1], "Service.1")
assert service.traced and service._eda_tracing is (before or service._eda_tracing)
trace.get_tracer("user").start_span("a span of the user").end()
"""
MISSING = """
import sys
sys.modules["opentelemetry.{missing}"] = None
try:
    import {module}
except ModuleNotFoundError as error:
    print(error)
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@asynchronous
async def test_several_processes_append_to_one_file(tmp_path: Path) -> None:
    path, script = tmp_path / "spans.jsonl", tmp_path / "writer.py"
    path.write_text("{}\n", "utf-8")
    script.write_text(WRITER, "utf-8")
    async with (
        program(str(script), str(path), "a", cwd=tmp_path) as first,
        program(str(script), str(path), "b", cwd=tmp_path) as second,
    ):
        for writer in (first, second):
            writer.tell("go")
        assert [*await asyncio.gather(first.end(), second.end())] == [0, 0], first.errors + second.errors
    kept, *spans = read(path)
    assert kept == {}
    for name in "ab":
        numbers = [span["attributes"]["number"] for span in spans if span["attributes"]["writer"] == name]
        assert numbers == list(range(200))


@pytest.mark.parametrize("own", [False, True])
@asynchronous
async def test_spans_of_the_user_are_in_the_file_too(tmp_path: Path, own: bool) -> None:
    """A provider that the program has set stays the one."""
    path, script = tmp_path / "spans.jsonl", tmp_path / "user.py"
    script.write_text(PROGRAM, "utf-8")
    async with program(str(script), str(path), "own" if own else "", cwd=tmp_path) as ran:
        assert await ran.end() == 0, ran.errors
    (span,) = read(path)
    resource = span["resource"]["attributes"]
    assert span["name"] == "a span of the user"
    assert resource["service.name"] == ("mine" if own else "svc")
    assert (resource.get("service.instance.id") == "Service.1") is not own


def test_a_file_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileExporter(str(tmp_path / "nowhere" / "spans.jsonl"))
    exporter = FileExporter(str(tmp_path / "spans.jsonl"))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.shutdown()
    exporter.shutdown()
    span: Any = provider.get_tracer("user").start_span("late")
    span.end()
    assert exporter.export([span]) is SpanExportResult.FAILURE


@pytest.mark.parametrize(("module", "missing"), [("eda_otel", "trace"), ("eda_otel.files", "sdk")])
@asynchronous
async def test_what_is_missing_is_named_with_the_extra(module: str, missing: str) -> None:
    async with program("-c", MISSING.format(module=module, missing=missing)) as ran:
        assert await ran.end() == 0, ran.errors
    (line,) = ran.lines.all
    assert line.startswith(f"eda_otel needs opentelemetry.{missing}")
    assert line.endswith(": pip install 'eda-core[otel]'")
