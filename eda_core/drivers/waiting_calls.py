"""Calls that threads wait for, and that another thread makes: the one that runs the loop.

It decides who hears what when the loop ends. It starts no thread and knows no loop: an adapter gives it what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from eda_core.errors import StateError

T = TypeVar("T")


class WaitingCalls:
    """The calls of one loop.

    Args:
        future: makes an object like ``concurrent.futures.Future``.
        in_loop: calls a function in the loop, soon. Any thread may call it.
        before: is called in the loop before each call.
    """

    def __init__(
        self,
        future: Callable[[], Any],
        in_loop: Callable[[Callable[[], None]], object],
        before: Callable[[], object],
    ) -> None:
        self._future, self._in_loop, self._before = future, in_loop, before
        self._waiting: set[Any] = set()
        self._ended = False

    def __len__(self) -> int:
        """How many calls wait for the loop."""
        return len(self._waiting)

    def make(self, call: Callable[[], T]) -> T:
        """Let the loop make a call, and wait for it. Returns or raises what the call does.

        Raises:
            StateError: the loop has ended, and does not make it.
        """
        answer = self._future()
        self._waiting.add(answer)
        self._in_loop(partial(self._answer, answer, call))
        if self._ended:  # perhaps before end() could see this call
            answer.cancel()
        try:
            result: T = answer.result()
            return result
        except BaseException:
            if not answer.cancelled():
                raise
        raise StateError("the service has stopped", hint="call this before")

    def _answer(self, answer: Any, call: Callable[[], object]) -> None:
        self._waiting.discard(answer)
        self._before()
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(call())
            except Exception as error:
                answer.set_exception(error)

    def end(self) -> None:
        """The loop has ended: nobody waits any more."""
        self._ended = True
        while self._waiting:
            self._waiting.pop().cancel()
