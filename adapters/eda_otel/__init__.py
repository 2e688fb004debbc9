"""OpenTelemetry for services and endpoints: spans of handlers and publishes, by the conventions for messaging."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

require("eda_otel", "otel", {"opentelemetry.trace": ""})

from eda_otel.metrics import measure
from eda_otel.tracing import instrument

__all__ = ["instrument", "measure"]
