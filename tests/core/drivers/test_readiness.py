"""Who is told that a service is ready, or why it is not."""

from __future__ import annotations

import pytest

from eda_core.drivers.readiness import Readiness, Tell
from eda_core.errors import LocalError, ServiceError


def test_each_is_told_once() -> None:
    readiness, told = Readiness(), list[object]()
    readiness.wait(told.append)
    assert told == []
    readiness.reach()
    readiness.reach()
    assert told == [None]
    readiness.wait(told.append)
    assert told == [None], "it may have lost its link since"
    readiness.reach()
    assert told == [None, None]


def test_the_first_reason_of_an_end_counts_also_for_those_who_come_later() -> None:
    readiness, told, why = Readiness(), list[object](), ServiceError("refused")
    readiness.wait(told.append)
    readiness.raise_end()
    readiness.end(why)
    readiness.end(ServiceError("another"))
    readiness.wait(told.append)
    assert told == [why, why]
    with pytest.raises(ServiceError) as caught:
        readiness.raise_end()
    assert caught.value is why


def test_a_service_that_was_refused_to_run_may_be_mended() -> None:
    readiness, told = Readiness(), list[object]()
    readiness.end(LocalError("no such method"))
    readiness.begin()
    readiness.wait(told.append)
    readiness.reach()
    assert told == [None]


def test_who_does_not_wait_any_more_is_not_told() -> None:
    readiness, told = Readiness(), list[object]()
    readiness.wait(told.append)
    readiness.forget(told.append)
    readiness.forget(told.append)
    readiness.reach()
    assert told == []


def test_another_thread_may_have_told_the_last_one() -> None:
    readiness, told = Readiness(), list[object]()

    class Emptied(list[Tell]):
        """As seen by the slower one of two threads."""

        def popleft(self) -> Tell:
            self.clear()
            raise IndexError

    readiness._waiting = Emptied([told.append])  # type: ignore[assignment]
    readiness.reach()
    assert told == []


def test_who_watches_is_told_of_each_end_until_it_has_enough() -> None:
    readiness, told = Readiness(), list[str]()

    def twice() -> bool:
        told.append("twice")
        return told.count("twice") == 2

    def once() -> bool:
        told.append("once")
        return True

    readiness.watch(twice)
    readiness.watch(once)
    readiness.reach()
    assert told == []
    readiness.end(ServiceError("refused"))
    assert told == ["twice", "once"]
    readiness.begin()
    for _ in range(2):
        readiness.end(ServiceError("over"))
        assert told == ["twice", "once", "twice"]
    readiness.watch(once)
    assert told == ["twice", "once", "twice", "once"], "at once, because it has ended"
