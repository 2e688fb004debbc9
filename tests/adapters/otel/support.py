"""Where the spans of a test go, and short forms of what is in them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer

from eda_otel import instrument
from tests.support.services import TIMEOUT, within

#: Of every span.
KEPT = ("messaging.system", "server.address", "server.port", "messaging.client.id")


class Spans(InMemorySpanExporter):
    """Attributes:
    provider: makes the spans that come here.
    tracer: that of a user.
    """

    def __init__(self) -> None:
        super().__init__()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self))
        self.tracer: Tracer = self.provider.get_tracer("user")
        self._news = threading.Condition()

    def of(self, *services: Any) -> None:
        """Trace these services and endpoints."""
        for service in services:
            instrument(service, self.provider)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._news:
            result = super().export(spans)
            self._news.notify_all()
        return result

    def ended(self, number: int) -> list[ReadableSpan]:
        """Wait until so many have ended; all of them, in the order of their beginnings."""
        with self._news:
            there = self._news.wait_for(lambda: len(self.get_finished_spans()) >= number, TIMEOUT)
        found = self.get_finished_spans()
        assert there, f"{number} spans; there are {[span.name for span in found]}"
        return sorted(found, key=lambda span: span.start_time or 0)

    async def until(self, number: int) -> list[ReadableSpan]:
        """As :meth:`ended`, in a coroutine."""
        return await within(asyncio.to_thread(self.ended, number), "the spans")

    async def one(self, name: str, number: int) -> ReadableSpan:
        """The only span of a name, when so many spans have ended."""
        (found,) = [span for span in await self.until(number) if span.name == name]
        return found


Row = tuple[str, SpanKind, str]


def tree(spans: Sequence[ReadableSpan]) -> list[Row]:
    """Of each span the name, the kind, and the name of its parent: "" if there is none, "?" if it is not here."""
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    return [
        (span.name, span.kind, "" if span.parent is None else names.get(span.parent.span_id, "?")) for span in spans
    ]


def traces(spans: Sequence[ReadableSpan]) -> int:
    """How many traces they belong to."""
    return len({span.context.trace_id for span in spans if span.context is not None})


def traceparent(span: ReadableSpan) -> str:
    """The header of a message that this span has sent."""
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Those that not every span has."""
    found = dict(span.attributes or {})
    assert all(name in found for name in KEPT), found
    return {name: value for name, value in found.items() if name not in KEPT}
