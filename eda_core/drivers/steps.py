"""Measures how long user code keeps the event loop: the longest time from one of its waits to the next.

No thread watches it: the clock is read before and after each step. This module does not know who is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Steps:
    """The steps of one handler.

    Attributes:
        longest: how long the longest step has taken so far, seconds.
    """

    __slots__ = ("_now", "longest")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.longest: float = 0.0

    def step(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function as one step, and return or raise what it does."""
        began = self._now()
        try:
            return function(*arguments)
        finally:
            self.longest = max(self.longest, self._now() - began)

    def of(self, awaitable: Awaitable[T]) -> Awaitable[T]:
        """Return what is to be awaited in the place of ``awaitable``."""
        return _Stepwise(self, awaitable)


class _Stepwise(Awaitable[T]):
    """Does what ``yield from`` does (PEP 380), one measured step after the other."""

    def __init__(self, steps: Steps, awaitable: Awaitable[T]) -> None:
        self._steps, self._awaitable = steps, awaitable

    def __await__(self) -> Generator[Any, Any, T]:
        steps, now = self._steps, self._steps._now
        inner: Any = self._awaitable.__await__()
        go_on: tuple[Any, ...] = (next, inner)
        while True:
            began = now()
            try:  # not by step(): this is done for each message
                awaited = go_on[0](*go_on[1:])
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                seconds = now() - began
                if seconds > steps.longest:
                    steps.longest = seconds
            try:
                sent = yield awaited
            except GeneratorExit:
                steps.step(inner.close)
                raise
            except BaseException as error:
                go_on = (inner.throw, error)
            else:
                go_on = (next, inner) if sent is None else (inner.send, sent)
