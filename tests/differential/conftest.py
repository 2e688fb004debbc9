"""The side of RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis.internal.conjecture import engine

from tests.differential.comparison import Rabbit
from tests.support.rabbitmq import RabbitNode
from tests.support.vhosts import VhostPool

#: What the broker model does as RabbitMQ 3.10, and RabbitMQ 4 does otherwise.
ONLY_AS_3_10 = frozenset(
    {
        "test_random_sequences",
        "test_random_sequences_on_a_quorum_queue",
        "test_a_letter_that_cannot_wait_for_space_in_a_shared_prefetch_is_left_to_chance",
        "test_every_pattern_with_every_key",
        "test_answer[exchange type that is a word of Erlang]",
        "test_lazy_queues_forget_the_expiration_of_what_they_read_from_disk",
    }
)


@pytest.fixture(autouse=True)
def modelled(request: pytest.FixtureRequest) -> None:
    """Skip what compares the model with a version that it does not model yet."""
    names = {request.node.originalname, request.node.name}
    if names & ONLY_AS_3_10 and "rabbitmq" in request.fixturenames:
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        if node.version[:2] != (3, 10):
            version = ".".join(map(str, node.version))
            pytest.skip(f"the broker model is that of RabbitMQ 3.10, and this is {version}")


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
