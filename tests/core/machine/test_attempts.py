"""What a worker remembers of the attempts at messages."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.machine.attempts import AttemptMemory, fallback_key
from eda_core.messages.headers import DELIVERY_COUNT_HEADER

Properties = Basic.Properties


def test_a_redelivery_that_nothing_is_known_of_has_failed_once_elsewhere() -> None:
    assert AttemptMemory().attempt("key", {}) == 2


def test_what_failed_here_counts_and_what_was_only_lost_does_not() -> None:
    memory = AttemptMemory()
    memory.remember("failed", 1)
    memory.remember("lost", 0)
    assert memory.attempt("failed", {}) == 2
    assert memory.attempt("lost", {}) == 1


def test_a_quorum_queue_counts_lost_links_which_are_no_failures() -> None:
    memory = AttemptMemory()
    memory.remember("key", 0, lost=True)
    assert memory.attempt("key", {DELIVERY_COUNT_HEADER: 1}) == 1
    memory.remember("key", 1)
    memory.remember("key", 1, lost=True)
    assert memory.attempt("key", {DELIVERY_COUNT_HEADER: 3}) == 2
    assert memory.failures("key") == 1
    assert memory.failures("other") == 0


def test_the_latest_count_is_the_one_that_holds_until_it_is_forgotten() -> None:
    memory = AttemptMemory()
    for failures in (1, 2, 3):
        memory.remember("key", failures)
    assert memory.attempt("key", {}) == 4
    memory.forget("key")
    assert memory.attempt("key", {}) == 2
    memory.forget("key")


@pytest.mark.parametrize("known", [None, 0, 1])
@pytest.mark.parametrize("count", [1, 19])
def test_the_count_of_a_quorum_queue_is_the_surest_source(count: int, known: int | None) -> None:
    memory = AttemptMemory()
    if known is not None:
        memory.remember("key", known)
    assert memory.attempt("key", {DELIVERY_COUNT_HEADER: count}) == count + 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_count_that_stands_still_does_not_keep_a_message_going_for_ever(count: int) -> None:
    memory, attempts = AttemptMemory(), [1]
    for _ in range(6):
        memory.remember("key", attempts[-1])
        attempts.append(memory.attempt("key", {DELIVERY_COUNT_HEADER: count}))
    assert attempts == sorted(set(attempts))


@pytest.mark.parametrize("count", [-1, True, "3", 2.0, None, [1]])
def test_a_count_that_is_none_is_passed_over(count: object) -> None:
    memory = AttemptMemory()
    memory.remember("key", 2)
    assert memory.attempt("key", {DELIVERY_COUNT_HEADER: count}) == 3


def test_the_memory_is_bounded_and_the_oldest_goes_first() -> None:
    memory = AttemptMemory(limit=3)
    for key in ("a", "b", "c", "a", "d"):
        memory.remember(key, 8)
    known = {key: memory.attempt(key, {}) for key in "abcd"}
    assert known == {"a": 9, "b": 2, "c": 9, "d": 9}


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
        assert [memory.attempt(key, {}) for key in range(10)] == [counts.get(key, 1) + 1 for key in range(10)]


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
