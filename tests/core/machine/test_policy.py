"""The policies: retries, what is remembered of attempts, and the delays between attempts to connect."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.errors import LocalError
from eda_core.machine.attempts import AttemptMemory, fallback_key
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages.headers import DELIVERY_COUNT_HEADER

Properties = Basic.Properties

# Retries


def test_the_default_is_one_retry_at_once() -> None:
    retry = RetryPolicy()
    assert [retry.gives_up(attempt) for attempt in (1, 2, 3)] == [False, True, True]
    assert retry.delay(1) == 0.0


@given(st.integers(1, 1000))
def test_the_last_attempt_of_the_policy_is_the_last(attempts: int) -> None:
    retry = RetryPolicy(attempts)
    assert sum(not retry.gives_up(attempt) for attempt in range(1, attempts + 2)) == attempts - 1
    assert not retry.gives_up(attempts - 1)
    assert retry.gives_up(attempts)


def test_the_last_delay_is_also_that_before_any_further_try() -> None:
    retry = RetryPolicy(5, (1.0, 10.0))
    assert [retry.delay(attempt) for attempt in (1, 2, 3, 4)] == [1.0, 10.0, 10.0, 10.0]


def test_a_policy_is_shown_shortened() -> None:
    assert repr(RetryPolicy(3, (1.0, 2.0))) == "RetryPolicy(attempts=3, delays=(1.0, 2.0))"
    assert len(repr(RetryPolicy.backoff(1000))) < 100


def test_backoff_grows_up_to_its_cap() -> None:
    assert RetryPolicy.backoff() == RetryPolicy(6, (1.0, 4.0, 16.0, 64.0, 256.0))
    assert RetryPolicy.backoff(5, base=2.0, factor=3.0, cap=20.0).delays == (2.0, 6.0, 18.0, 20.0)
    assert RetryPolicy.backoff(1) == RetryPolicy(1)


@given(st.integers(1, 200), st.floats(0.001, 100), st.floats(1, 10), st.floats(0.001, 4_000_000))
def test_backoff_never_falls_nor_passes_its_cap(attempts: int, base: float, factor: float, cap: float) -> None:
    delays = RetryPolicy.backoff(attempts, base=base, factor=factor, cap=cap).delays
    assert len(delays) == attempts - 1
    assert list(delays) == sorted(delays)
    assert all(delay <= cap for delay in delays)


def test_backoff_over_very_many_attempts_does_not_overflow() -> None:
    assert RetryPolicy.backoff(1000).delays[-1] == 3600.0


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "2", None, True])
def test_a_message_is_tried_a_whole_number_of_times_and_at_least_once(attempts: Any) -> None:
    with pytest.raises(LocalError) as caught:
        RetryPolicy(attempts)
    assert str(caught.value) == f"RetryPolicy(attempts={attempts!r}); a message is tried at least once"


@pytest.mark.parametrize("delay", [0, 0.0005, -1, 4_000_001, math.inf, math.nan, "1", None, True])
def test_delays_that_no_queue_can_have_are_refused(delay: Any) -> None:
    with pytest.raises(LocalError, match=r"; give seconds, up to 4000000$"):
        RetryPolicy(3, (1.0, delay))


@pytest.mark.parametrize("delays", [[1.0], "1", 5, None])
def test_delays_are_a_tuple(delays: Any) -> None:
    with pytest.raises(LocalError, match=r"; give seconds, up to 4000000$"):
        RetryPolicy(3, delays)


@pytest.mark.parametrize("named", [{"attempts": "3"}, {"attempts": 0}, {"base": "1"}, {"factor": None}, {"cap": "x"}])
def test_backoff_takes_numbers(named: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        RetryPolicy.backoff(**named)


# What is remembered of attempts


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


# Reconnecting

policies = st.builds(lambda base, more: ReconnectPolicy(base, base + more), st.floats(0.001, 60), st.floats(0, 600))
chances = st.floats(0, 1)


@pytest.mark.parametrize("urls", [1, 2, 3])
def test_after_each_round_of_urls_the_delay_is_longer_up_to_the_cap(urls: int) -> None:
    policy = ReconnectPolicy(base=2.0, cap=10.0)
    delays = [policy.delay(failures, urls, lambda: 0.5) for failures in range(1, 5 * urls + 1)]
    assert delays[urls - 1 :: urls] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert sum(delays) == 17.0, "within a round there is none"
    assert policy.delay(6**40, urls, lambda: 1.0) == 10.0


@given(policies, st.integers(1, 10**30), st.integers(1, 10), chances)
def test_a_delay_is_never_negative_nor_over_the_cap(
    policy: ReconnectPolicy, failures: int, urls: int, chance: float
) -> None:
    assert 0.0 <= policy.delay(failures, urls, lambda: chance) <= policy.cap


@given(policies, st.integers(0, 10**6), st.integers(2, 10), chances, st.data())
def test_within_a_round_the_next_url_is_tried_at_once(
    policy: ReconnectPolicy, rounds: int, urls: int, chance: float, data: st.DataObject
) -> None:
    failures = rounds * urls + data.draw(st.integers(1, urls - 1))
    assert policy.delay(failures, urls, lambda: chance) == 0.0


@given(policies, st.integers(1, 40), st.integers(1, 10))
def test_the_ceiling_doubles_with_each_round_up_to_the_cap(policy: ReconnectPolicy, rounds: int, urls: int) -> None:
    def ceiling(rounds: int) -> float:
        return policy.delay(rounds * urls, urls, lambda: 1.0)

    assert ceiling(1) == policy.base
    assert ceiling(rounds + 1) == min(policy.cap, 2 * ceiling(rounds))


@given(policies, st.integers(1, 40), chances, chances)
def test_a_delay_is_drawn_evenly_below_its_ceiling(
    policy: ReconnectPolicy, failures: int, chance: float, other: float
) -> None:
    assume(chance <= other)
    full = policy.delay(failures, 1, lambda: 1.0)
    assert policy.delay(failures, 1, lambda: chance) == chance * full
    assert policy.delay(failures, 1, lambda: chance) <= policy.delay(failures, 1, lambda: other)


@pytest.mark.parametrize(("base", "cap"), [(0, 1), (-1, 1), (2, 1), (math.nan, 1), (1, math.nan), ("1", 2), (1, None)])
def test_a_policy_that_makes_no_sense_is_refused(base: Any, cap: Any) -> None:
    with pytest.raises(LocalError, match=r", base is more than 0 and at most cap$"):
        ReconnectPolicy(base, cap)


@pytest.mark.parametrize("stable_after", [-1, math.nan, "10", None])
def test_what_counts_as_stable_is_seconds(stable_after: Any) -> None:
    with pytest.raises(LocalError, match=r"; stable_after is not negative, base "):
        ReconnectPolicy(stable_after=stable_after)
    assert [ReconnectPolicy(stable_after=seconds).stable_after for seconds in (0, math.inf)] == [0, math.inf]
