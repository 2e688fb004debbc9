"""Spans in a file, for trying out and for tests: each is a line of JSON. It needs the SDK of OpenTelemetry.

This module decides how lines get into a file to which several processes write. It does not know what is in a span.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from eda_core.drivers.library import require
from eda_core.services import ServiceApi

require("eda_otel", "otel", {"opentelemetry.sdk.trace": ""})

from opentelemetry import trace  # noqa: E402 - the check comes before the imports that would fail
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult  # noqa: E402

from eda_otel.tracing import instrument  # noqa: E402

__all__ = ["FileExporter", "write_spans"]

#: O_BINARY is needed where files are text by default.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class FileExporter(SpanExporter):
    """Appends each span to a file as one line of JSON, in one write: several processes may append to it.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, _FLAGS, 0o644)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append spans. It succeeds if all are written completely."""
        whole = True
        for span in spans:
            line = f"{span.to_json(indent=None)}\n".encode(errors="replace")
            try:
                whole &= os.write(self._file, line) == len(line)
            except OSError:  # the disk is full, or the file is closed
                whole = False
        return SpanExportResult.SUCCESS if whole else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def write_spans(service: ServiceApi[Any], path: str, worker: str) -> None:
    """Let a service be traced, and append its spans, and all others of this process, to a file.

    If the program has set a provider of the SDK, that one also writes to the file. Otherwise this sets one, with
    ``service.name`` and ``service.instance.id`` in its resource.

    Args:
        service: it does not run yet.
        worker: the name of the worker.

    Raises:
        OSError: the file cannot be opened.
        StateError: the service runs already.
    """
    processor = SimpleSpanProcessor(FileExporter(path))  # it writes at once, so nothing is lost if the worker is killed
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(processor)
    else:
        named: dict[str, Any] = {
            "service.name": service.logical_service,
            "service.instance.id": worker,
            "process.pid": os.getpid(),
        }
        provider = TracerProvider(resource=Resource.create(named))
        provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)
    if not service.traced:
        instrument(service)
