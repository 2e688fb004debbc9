"""The brokers and the transports of eda_aio, and a provider of spans for each test."""

from __future__ import annotations

import pytest

from tests.adapters.aio.conftest import broker, transport
from tests.adapters.otel.support import Spans

__all__ = ["broker", "transport"]


@pytest.fixture
def spans() -> Spans:
    """What is traced in a test."""
    return Spans()
