"""The policies: retries, and the delays between attempts to connect."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.errors import LocalError
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy

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
    assert repr(RetryPolicy(3, counted=True)) == "RetryPolicy(attempts=3, delays=(), counted=True)"
    assert len(repr(RetryPolicy.backoff(1000))) < 100


@pytest.mark.parametrize(
    ("policy", "republishes"),
    [(RetryPolicy(), False), (RetryPolicy(counted=True), True), (RetryPolicy(3, (1.0,)), True)],
)
def test_a_policy_says_whether_failed_messages_are_published_again(policy: RetryPolicy, republishes: bool) -> None:
    assert policy.republishes is republishes


@pytest.mark.parametrize("settings", [{"counted": 1}, {"counted": None}, {"max_losses": -1}, {"max_losses": 2.0}])
def test_a_setting_that_is_wrong_is_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(LocalError, match=name):
        RetryPolicy(**settings)


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
    assert str(caught.value) == f"RetryPolicy(attempts={attempts!r}); give a whole number of at least 1"


@pytest.mark.parametrize("delay", [0, 0.0005, -1, 4_000_001, math.inf, math.nan, "1", None, True])
def test_delays_that_no_queue_can_have_are_refused(delay: Any) -> None:
    with pytest.raises(LocalError, match=r"; give delays as a tuple of seconds from 0.001 to 4000000$"):
        RetryPolicy(3, (1.0, delay))


@pytest.mark.parametrize("delays", [[1.0], "1", 5, None])
def test_delays_are_a_tuple(delays: Any) -> None:
    with pytest.raises(LocalError, match=r"; give delays as a tuple of seconds from 0.001 to 4000000$"):
        RetryPolicy(3, delays)


@pytest.mark.parametrize("named", [{"attempts": "3"}, {"attempts": 0}, {"base": "1"}, {"factor": None}, {"cap": "x"}])
def test_backoff_takes_numbers(named: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        RetryPolicy.backoff(**named)


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
    with pytest.raises(LocalError, match=r"; give base > 0, base <= cap and stable_after >= 0, in seconds$"):
        ReconnectPolicy(base, cap)


@pytest.mark.parametrize("stable_after", [-1, math.nan, "10", None])
def test_what_counts_as_stable_is_seconds(stable_after: Any) -> None:
    with pytest.raises(LocalError, match=r"; give base > 0, base <= cap and stable_after >= 0, in seconds$"):
        ReconnectPolicy(stable_after=stable_after)
    assert [ReconnectPolicy(stable_after=seconds).stable_after for seconds in (0, math.inf)] == [0, math.inf]


@pytest.mark.parametrize("initial_attempts", [0, -1, True, 1.0, "3"])
def test_the_number_of_initial_attempts_is_whole_and_at_least_1(initial_attempts: Any) -> None:
    with pytest.raises(LocalError, match=r"; give initial_attempts as a whole number from 1, or None$"):
        ReconnectPolicy(initial_attempts=initial_attempts)
    assert [ReconnectPolicy(initial_attempts=number).initial_attempts for number in (None, 1, 7)] == [None, 1, 7]
