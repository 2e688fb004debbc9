"""When to look at what: the earliest time of each key counts."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from eda_core.testing.broker.agenda import Agenda


def test_keys_are_due_in_the_order_of_their_times_and_once() -> None:
    agenda: Agenda[str] = Agenda()
    for key, time in (("b", 2.0), ("c", 3.0), ("a", 1.0), ("never", math.inf)):
        agenda.note(key, time)
    assert (agenda.earliest(), agenda.first()) == (1.0, (1.0, "a"))
    assert agenda.take_due(2.5) == ["a", "b"]
    assert agenda.take_due(2.5) == []
    assert agenda.take_due(math.inf) == ["c"]
    assert (agenda.earliest(), agenda.first()) == (None, None)


def test_a_time_becomes_earlier_and_not_later() -> None:
    agenda: Agenda[str] = Agenda()
    for time in (5.0, 3.0, 4.0):
        agenda.note("a", time)
    assert agenda.take_due(3.0) == ["a"]
    assert agenda.take_due(10.0) == []


def test_what_is_forgotten_can_be_noted_for_later() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.note("a", 1.0)
    agenda.forget("a")
    agenda.forget("b")
    assert agenda.first() is None
    agenda.note("a", 2.0)
    assert agenda.take_due(5.0) == ["a"]


def test_a_copy_is_independent() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.note("a", 1.0)
    copy = agenda.clone()
    agenda.forget("a")
    copy.note("b", 0.5)
    assert agenda.first() is None
    assert copy.take_due(1.0) == ["b", "a"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20))), st.integers(0, 20))
def test_the_earliest_times_count(notes: list[tuple[int, int]], now: int) -> None:
    agenda: Agenda[int] = Agenda()
    times: dict[int, int] = {}
    for key, time in notes:
        agenda.note(key, time)
        times[key] = min(time, times.get(key, time))
    assert sorted(agenda.take_due(now)) == sorted(key for key, time in times.items() if time <= now)
