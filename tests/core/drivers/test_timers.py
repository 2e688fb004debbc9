"""The timers that a service sets for itself."""

from __future__ import annotations

from random import Random

import pytest

from eda_core.drivers.timers import Timers


def test_none_are_due_of_none() -> None:
    timers = Timers()
    assert (len(timers), timers.deadline(), timers.due(1e9)) == (0, None, [])


def test_those_that_are_due_are_told_once_in_the_order_of_their_times() -> None:
    timers = Timers()
    third, first, second = timers.add(3.0, print), timers.add(1.0, print), timers.add(2.0, print)
    assert timers.deadline() == 1.0
    assert timers.due(0.999) == []
    assert timers.due(2.0) == [first, second]
    assert timers.due(2.0) == []
    assert timers.deadline() == 3.0
    assert timers.due(9.0) == [third]


def test_those_of_one_time_are_due_in_the_order_in_which_they_were_set() -> None:
    timers = Timers()
    numbers = [timers.add(1.0, print) for _ in range(20)]
    assert timers.due(1.0) == numbers == sorted(set(numbers))


def test_one_that_is_run_is_over() -> None:
    timers = Timers()
    number = timers.add(1.0, lambda: "called")
    assert len(timers) == 1
    assert timers.due(1.0) == [number]
    assert timers.run(number) == "called"
    assert timers.run(number) is None
    assert len(timers) == 0


def test_one_that_fails_is_over_too() -> None:
    timers = Timers()
    number = timers.add(1.0, lambda: [][1])
    with pytest.raises(IndexError):
        timers.run(number)
    assert timers.run(number) is None


def test_one_that_was_cancelled_is_not_due_and_not_run() -> None:
    timers = Timers()
    before, behind = timers.add(1.0, print), timers.add(1.0, lambda: [][1])
    timers.cancel(before)
    timers.cancel(before)
    timers.cancel(99)
    assert timers.due(1.0) == [behind]
    timers.cancel(behind)
    assert timers.run(behind) is None


def test_all_can_be_cancelled() -> None:
    timers = Timers()
    number = timers.add(1.0, print)
    timers.clear()
    assert (len(timers), timers.deadline(), timers.due(1.0)) == (0, None, [])
    assert timers.add(1.0, print) > number, "numbers are never used again"


def test_timers_past_a_sweep_are_due_in_order() -> None:
    """The heap is rebuilt without the cancelled ones, and is still a heap."""
    timers, random = Timers(), Random(7)
    times = [random.random() for _ in range(200)]
    numbers = {timers.add(time, print): time for time in times}
    doomed = [timers.add(random.random(), print) for _ in range(1000)]
    for number in doomed:
        timers.cancel(number)
    before = len(timers._due)
    last = timers.add(0.5, print)
    assert len(timers._due) < before, "there was no sweep"
    numbers[last] = 0.5
    for now in (0.25, 0.5, 0.75, 1.0):
        assert timers.deadline() == min(numbers.values())
        due = timers.due(now)
        assert due == sorted((each for each in numbers if numbers[each] <= now), key=lambda each: (numbers[each], each))
        for each in due:
            del numbers[each]
    assert numbers == {}


def test_cancelled_timers_do_not_pile_up() -> None:
    """As of a batch that is full long before its time, again and again."""
    timers = Timers()
    kept = [timers.add(5.0 - each, print) for each in range(5)]
    for each in range(10_000):
        timers.cancel(timers.add(1000.0 + each, print))
    assert len(timers._due) < 100
    assert timers.due(5000.0) == kept[::-1]
