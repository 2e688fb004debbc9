"""The brokers on which the tools are tested, and their operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.aio.conftest import broker
from tests.support.services import BrokerUnderTest
from tests.tools.bench import Operator, operator

__all__ = ["broker"]


@pytest.fixture
def bench(broker: BrokerUnderTest) -> Iterator[Operator]:
    """An operator, with the queues of a service ``a`` and its dead letters set up."""
    with operator(broker.url) as made:
        made.operate()
        yield made
