"""The numbers that the parts of the machine count in."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from eda_core.machine.counts import HANDLER_BOUNDS, KINDS, MOST_NAMES, OTHER, Counts, HandlerTimes
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Result, kind_of

MESSAGES: list[AnyMessage] = [
    Event("A", None, "c"),
    Command("svc.A", None, "c", "a.B", "1"),
    Result("a.B", None, "c", "success", "1"),
    Configuration("A", None, ""),
    LogRecord("svc.INFO", None, ""),
]


def test_each_kind_of_message_has_times_of_its_own() -> None:
    counts = Counts()
    times = [counts.times_of(message) for message in MESSAGES]
    assert len(set(map(id, times))) == len(MESSAGES)
    assert [counts.times_of(message) for message in MESSAGES] == times


def test_the_kinds_are_all_kinds_of_messages_in_their_own_words() -> None:
    assert set(KINDS) == set(get_args(AnyMessage))
    assert [KINDS[type(message)] for message in MESSAGES] == [kind_of(message) for message in MESSAGES]


def test_a_message_of_a_class_of_the_user_counts_as_its_kind() -> None:
    class Special(Event):
        pass

    counts = Counts()
    assert counts.times_of(Special("A", None, "c")) is counts.times_of(Event("A", None, "c"))


@given(st.lists(st.integers(0, 3 * MOST_NAMES), max_size=4 * MOST_NAMES))
def test_the_number_of_names_is_bounded(numbers: list[int]) -> None:
    counts = Counts()
    for number in numbers:
        times = counts.times_of(Event(f"E{number}", None, "c"))
        times.buckets[0] += 1
    by_name = counts.handlers[Event]
    known = list(dict.fromkeys(f"E{number}" for number in numbers))
    assert set(by_name) == {*known[:MOST_NAMES], *([OTHER] if len(known) > MOST_NAMES else [])}
    assert counts.succeeded() == len(numbers)
    for name in known[:MOST_NAMES]:
        assert by_name[name].buckets[0] == [f"E{number}" for number in numbers].count(name)


def test_there_is_a_bucket_for_each_bound_and_one_beyond() -> None:
    assert sorted(set(HANDLER_BOUNDS)) == list(HANDLER_BOUNDS)
    assert len(Counts().times_of(MESSAGES[0]).buckets) == len(HANDLER_BOUNDS) + 1


@given(st.lists(st.floats(0.0, 1000.0)))
def test_a_time_is_in_the_first_bucket_that_is_long_enough(seconds: list[float]) -> None:
    times = HandlerTimes()
    for each in seconds:
        times.add(each)
    assert sum(times.buckets) == len(seconds)
    assert times.seconds == sum(seconds)
    for number, bound in enumerate(HANDLER_BOUNDS):
        assert sum(times.buckets[: number + 1]) == sum(each <= bound for each in seconds)


def test_failed_and_lost_handlers_have_not_succeeded() -> None:
    counts = Counts()
    times = counts.times_of(MESSAGES[0])
    times.buckets[1], times.buckets[3], times.failed, times.lost = 5, 2, 1, 2
    assert counts.succeeded() == 4


def test_a_time_is_added() -> None:
    times = HandlerTimes()
    for seconds in (0.0, 0.001, 0.002, 1000.0):
        times.add(seconds)
    assert (times.buckets[:2], times.buckets[-1], times.seconds) == ([2, 1], 1, 1000.003)
