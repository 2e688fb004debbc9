"""The brokers on which the tools are tested, and their operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eda_tools.cli import signals
from tests.adapters.aio.conftest import broker
from tests.support.services import BrokerUnderTest
from tests.tools.bench import Operator, operator

__all__ = ["broker"]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that run in this process must not end it, and all tests with it, when a busy machine keeps it waiting."""
    monkeypatch.setattr(signals, "GRACE", 3600.0)


@pytest.fixture
def bench(broker: BrokerUnderTest) -> Iterator[Operator]:
    """An operator, with the queues of a service ``a`` and its dead letters set up."""
    with operator(broker.url) as made:
        made.operate()
        yield made
