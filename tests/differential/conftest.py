"""The side of RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis.internal.conjecture import engine

from tests.differential.comparison import Rabbit
from tests.support.rabbitmq import RabbitNode
from tests.support.vhosts import VhostPool


@pytest.fixture(scope="module")
def rabbit(rabbitmq: RabbitNode, rabbit_vhosts: VhostPool) -> Iterator[Rabbit]:
    """One vhost for all tests of a module: each names its queues in its own way, and removes them."""
    vhost = rabbit_vhosts.take()
    side = Rabbit("127.0.0.1", rabbitmq.port, vhost)
    yield side
    side.close()
    rabbit_vhosts.give_back(vhost)


@pytest.fixture
def varied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hypothesis make each sequence anew, and not take five minutes to find the shortest one that shows a fault.

    It likes to follow each with five that repeat parts of it, and there is no public way to say that where one takes a
    tenth of a second, variety is worth more. Should the names change, the sequences are only less varied, and what
    shows a fault takes longer to be told.
    """
    monkeypatch.setattr(engine.ConjectureRunner, "generate_mutations_from", lambda runner, data: None, raising=False)
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 45, raising=False)
