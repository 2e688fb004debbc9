"""The fixtures: a session with RabbitMQ, and a hypothesis that varies more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis.internal.conjecture import engine

from tests.differential.comparison import Rabbit
from tests.support.rabbitmq import RabbitNode
from tests.support.vhosts import VhostPool


@pytest.fixture(scope="module")
def rabbit(rabbitmq: RabbitNode, rabbit_vhosts: VhostPool) -> Iterator[Rabbit]:
    """One vhost for all tests of a module. Each test has names of its own for its queues, and removes them."""
    vhost = rabbit_vhosts.take()
    side = Rabbit("127.0.0.1", rabbitmq.port, vhost)
    yield side
    side.close()
    rabbit_vhosts.give_back(vhost)


@pytest.fixture
def varied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hypothesis make each sequence anew, and shorten one that shows a fault for 45 seconds at most.

    By default it follows each sequence with five that repeat parts of it, and shortens for five minutes. One sequence
    takes a tenth of a second here, so variety is worth more; there is no public way to say so. If the names in
    hypothesis change, sequences vary less and faults are reported later; nothing else is lost.
    """
    monkeypatch.setattr(engine.ConjectureRunner, "generate_mutations_from", lambda runner, data: None, raising=False)
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 45, raising=False)
