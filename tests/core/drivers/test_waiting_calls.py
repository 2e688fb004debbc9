"""Threads wait for calls that a loop makes, and each hears what becomes of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

from eda_core.drivers.waiting_calls import WaitingCalls
from eda_core.errors import NotAnswered, StateError

LONG = 30.0


class Loop:
    """A loop of which the test makes each turn."""

    def __init__(self) -> None:
        self.todo: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.before: list[str] = []
        self.calls = WaitingCalls(Future, self.todo.put, lambda: self.before.append("before"))

    def turn(self) -> None:
        self.todo.get(timeout=LONG)()


def test_a_thread_gets_what_the_call_returns_or_raises() -> None:
    loop, made_in = Loop(), []

    def call() -> str:
        made_in.append(threading.current_thread())
        return "done"

    def fail() -> None:
        raise KeyError("as asked")

    with ThreadPoolExecutor() as threads:
        done = threads.submit(loop.calls.make, call)
        loop.turn()
        assert done.result(LONG) == "done"
        failed = threads.submit(loop.calls.make, fail)
        loop.turn()
        with pytest.raises(KeyError, match="as asked"):
            failed.result(LONG)
    assert made_in == [threading.current_thread()]
    assert loop.before == ["before"] * 2
    assert len(loop.calls) == 0


def test_who_waits_when_the_loop_ends_hears_of_it_and_the_call_is_not_made() -> None:
    loop, made = Loop(), []
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(loop.calls.make, lambda: made.append(1)) for _ in range(3)]
        turns = [loop.todo.get(timeout=LONG) for _ in waiting]
        assert len(loop.calls) == 3
        loop.calls.end()
        for each in waiting:
            with pytest.raises(StateError, match="has stopped"):
                each.result(LONG)
    for turn in turns:
        turn()
    assert made == []


def test_who_asks_after_the_end_hears_of_it_at_once() -> None:
    loop = Loop()
    loop.calls.end()
    with pytest.raises(StateError, match="has stopped"):
        loop.calls.make(lambda: None)


def test_a_call_that_ends_the_loop_is_answered() -> None:
    loop = Loop()

    def last() -> Any:
        loop.calls.end()
        return "the last one"

    with ThreadPoolExecutor() as threads:
        answer = threads.submit(loop.calls.make, last)
        loop.turn()
        assert answer.result(LONG) == "the last one"


def test_who_waits_in_vain_hears_of_it_and_the_call_is_not_made() -> None:
    loop, made = Loop(), []
    with pytest.raises(NotAnswered, match=r"has not answered within 0\.01 s; its loop is busy"):
        loop.calls.make(lambda: made.append(1), 0.01)
    assert len(loop.calls) == 0
    loop.turn()
    assert made == []


def test_a_call_in_time_is_answered() -> None:
    loop = Loop()
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(loop.calls.make, lambda: "in time", LONG)
        loop.turn()
        assert answer.result(LONG) == "in time"
        failed = threads.submit(loop.calls.make, set[int]().pop, LONG)
        loop.turn()
        with pytest.raises(KeyError):
            failed.result(LONG)


def test_a_call_that_has_begun_is_waited_for() -> None:
    loop, begun, over = Loop(), threading.Event(), threading.Event()

    class OutOfTime(Future[Any]):
        """The time is over when the loop has begun the call."""

        def exception(self, timeout: float | None = None) -> BaseException | None:
            assert begun.wait(LONG)
            over.set()
            raise TimeoutError

    def call() -> str:
        begun.set()
        assert over.wait(LONG)
        return "late"

    calls = WaitingCalls(OutOfTime, loop.todo.put, lambda: None)
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(calls.make, call, 1.0)
        loop.turn()
        assert answer.result(LONG) == "late"


def test_who_only_looks_may_do_so_after_the_end() -> None:
    loop = Loop()
    with ThreadPoolExecutor() as threads:
        looking = threads.submit(loop.calls.look, lambda: "seen", LONG)
        loop.turn()
        assert looking.result(LONG) == "seen"
        waiting = threads.submit(loop.calls.look, lambda: "seen", LONG)
        loop.todo.get(timeout=LONG)
        loop.calls.end()
        assert waiting.result(LONG) == "seen"
    assert loop.calls.look(lambda: "seen", LONG) == "seen"
