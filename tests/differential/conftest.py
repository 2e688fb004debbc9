"""The fixtures: a session with RabbitMQ, and a hypothesis that varies more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis.internal.conjecture import engine

from tests.differential.comparison import Rabbit, modelled_release
from tests.support.rabbitmq import RabbitNode
from tests.support.vhosts import VhostPool


@pytest.fixture(scope="module")
def rabbit(rabbitmq: RabbitNode, rabbit_vhosts: VhostPool) -> Iterator[Rabbit]:
    """One vhost for all tests of a module. Each test has names of its own for its queues, and removes them."""
    version = modelled_release(rabbitmq)
    vhost = rabbit_vhosts.take()
    side = Rabbit("127.0.0.1", rabbitmq.port, vhost, version)
    yield side
    side.close()
    rabbit_vhosts.give_back(vhost)


@pytest.fixture
def varied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hypothesis make each sequence anew, the same ones in each run, and shorten one for 45 seconds at most.

    By default it follows each sequence with five that repeat parts of it, and shortens for five minutes. One sequence
    takes a tenth of a second here, so variety is worth more. It also draws constants of the modules that happen to be
    loaded, so the sequences of a fixed seed depend on the tests that ran before. There is no public way to change that.
    If the names in hypothesis change, sequences vary less, and from run to run, and faults are reported later.
    """
    private: Any = sys.modules.get("hypothesis.internal.conjecture.providers")  # old versions do not have it
    if hasattr(private, "CONSTANTS_CACHE") and hasattr(private, "Constants"):
        monkeypatch.setattr(private, "_get_local_constants", private.Constants, raising=False)
        monkeypatch.setattr(private, "CONSTANTS_CACHE", type(private.CONSTANTS_CACHE)(1024))
    monkeypatch.setattr(engine.ConjectureRunner, "generate_mutations_from", lambda runner, data: None, raising=False)
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 45, raising=False)
