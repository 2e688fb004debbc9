"""What a worker remembers of the attempts at messages."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.machine.attempts import AttemptMemory, History, fallback_key
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.headers import ACQUIRED_COUNT_HEADER, DELIVERY_COUNT_HEADER

Properties = Basic.Properties


def history(memory: AttemptMemory, headers: dict[str, Any], attempts: int = 9, counted: int = 0) -> tuple[int, int]:
    """Return the failures and the losses of the message ``key``."""
    found = memory.history("key", headers, RetryPolicy(attempts), counted)
    return found.failures, found.losses


def on_4_3(acquired: int, returned: int = 0) -> dict[str, Any]:
    """Return the headers of a quorum queue of RabbitMQ 4.3. A count of 0 is not written."""
    return {ACQUIRED_COUNT_HEADER: acquired} | ({DELIVERY_COUNT_HEADER: returned} if returned else {})


def test_a_redelivery_that_nothing_is_known_of_was_lost_and_has_not_failed() -> None:
    assert history(AttemptMemory(), {}) == (0, 0)


def test_what_failed_here_counts_and_what_was_only_lost_does_not() -> None:
    memory = AttemptMemory()
    memory.remember("key", 1)
    assert history(memory, {}) == (1, 0)
    memory.remember("key", 1, lost=True)
    assert history(memory, {}) == (1, 0)
    memory.remember("key", 2)
    assert history(memory, {}) == (2, 0)


@pytest.mark.parametrize("known", [None, 0, 1])
@pytest.mark.parametrize(("acquired", "returned"), [(1, 0), (1, 1), (4, 1), (9, 9), (12, 3)])
def test_a_quorum_queue_of_4_3_counts_failures_and_losses(acquired: int, returned: int, known: int | None) -> None:
    memory = AttemptMemory()
    if known is not None:
        memory.remember("key", known, lost=True)
    failures = max(known or 0, acquired - returned)
    assert history(memory, on_4_3(acquired, returned)) == (failures, returned)


def test_before_4_3_a_quorum_queue_counts_lost_links_which_are_no_failures() -> None:
    memory = AttemptMemory()
    memory.remember("key", 0, lost=True)
    assert history(memory, {DELIVERY_COUNT_HEADER: 1}) == (0, 1)
    memory.remember("key", 1)
    memory.remember("key", 1, lost=True)
    assert history(memory, {DELIVERY_COUNT_HEADER: 3}) == (1, 2)


@pytest.mark.parametrize("known", [None, 0, 1])
@pytest.mark.parametrize(("count", "failures"), [(1, 1), (4, 4), (5, 4), (19, 4)])
def test_before_4_3_the_count_of_a_quorum_queue_is_of_failures_as_far_as_the_policy_allows_them(
    count: int, failures: int, known: int | None
) -> None:
    """A message that had failed more often would be a dead letter. So the others are losses."""
    memory = AttemptMemory()
    if known is not None:
        memory.remember("key", known)
    assert history(memory, {DELIVERY_COUNT_HEADER: count}, attempts=5) == (failures, count - failures)


def test_the_latest_count_is_the_one_that_holds_until_it_is_forgotten() -> None:
    memory = AttemptMemory()
    for failures in (1, 2, 3):
        memory.remember("key", failures)
    assert history(memory, {}) == (3, 0)
    memory.forget("key")
    assert history(memory, {}) == (0, 0)
    memory.forget("key")


@pytest.mark.parametrize("headers", [{}, {DELIVERY_COUNT_HEADER: 1}, {DELIVERY_COUNT_HEADER: 3}, on_4_3(2, 1)])
def test_a_count_that_stands_still_does_not_keep_a_message_going_for_ever(headers: dict[str, Any]) -> None:
    memory, seen = AttemptMemory(), [0]
    for _ in range(6):
        memory.remember("key", seen[-1] + 1)
        seen.append(history(memory, headers)[0])
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("count", [-1, True, "3", 2.0, None, [1]])
@pytest.mark.parametrize("name", [DELIVERY_COUNT_HEADER, ACQUIRED_COUNT_HEADER])
def test_a_count_that_is_none_is_passed_over(name: str, count: object) -> None:
    memory = AttemptMemory()
    memory.remember("key", 2)
    assert history(memory, {name: count}) == (2, 0)


@pytest.mark.parametrize("headers", [{}, {DELIVERY_COUNT_HEADER: 4}, on_4_3(4, 1), on_4_3(4)])
@pytest.mark.parametrize("known", [None, 1, 2, 3])
@pytest.mark.parametrize("counted", [0, 2])
def test_what_is_published_again_counts_in_its_header_and_every_return_is_a_loss(
    headers: dict[str, Any], known: int | None, counted: int
) -> None:
    """The larger one of header and memory counts: a message that could not be published again is given back."""
    memory = AttemptMemory()
    if known is not None:
        memory.remember("key", known)
    failures = max(known or 0, counted)
    losses = 4 - (failures - counted) if headers else 0
    policy = RetryPolicy(9, (1.0,))
    assert memory.history("key", headers, policy, counted) == History(failures, losses, 0)


def test_the_losses_while_a_handler_took_long_are_kept_until_the_message_is_forgotten() -> None:
    memory = AttemptMemory()
    memory.remember("key", 0, lost=True, overruns=2)
    memory.remember("key", 1)
    assert memory.history("key", {}, RetryPolicy()) == History(1, 0, 2)
    memory.forget("key")
    assert memory.history("key", {}, RetryPolicy()) == History(0, 0, 0)


def test_the_memory_is_bounded_and_the_oldest_goes_first() -> None:
    memory = AttemptMemory(limit=3)
    for key in ("a", "b", "c", "a", "d"):
        memory.remember(key, 8)
    known = {key: memory.history(key, {}, RetryPolicy()).failures for key in "abcd"}
    assert known == {"a": 8, "b": 0, "c": 8, "d": 8}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5) | st.none()), max_size=60), st.integers(1, 6))
def test_the_memory_is_that_of_the_latest_keys(steps: list[tuple[int, int | None]], limit: int) -> None:
    memory, expected = AttemptMemory(limit), list[tuple[int, int]]()
    for key, failures in steps:
        expected = [entry for entry in expected if entry[0] != key]
        if failures is None:
            memory.forget(key)
        else:
            memory.remember(key, failures)
            expected = [*expected, (key, failures)][-limit:]
        counts = dict(expected)
        found = [memory.history(key, {}, RetryPolicy()).failures for key in range(10)]
        assert found == [counts.get(key, 0) for key in range(10)]


@pytest.mark.parametrize("message_id", [None, ""])
def test_a_message_without_an_id_is_recognized_by_all_there_is(message_id: str | None) -> None:
    def key(routing_key: str = "k", body: bytes = b"x", **properties: Any) -> Hashable:
        given = {"correlation_id": "c", "headers": {"conversation_id": "C"}, **properties}
        return fallback_key(routing_key, Properties(message_id=message_id, **given), body)

    assert key() == key()
    others = [key("l"), key(body=b"y"), key(correlation_id=None), key(headers={"conversation_id": "D"})]
    assert len({key(), *others}) == 5
    nothing: list[Any] = [None, {}, {"conversation_id": None}, {"conversation_id": [1]}, []]
    without = {key(headers=headers) for headers in nothing}
    assert len({key(), *without}) == 2
