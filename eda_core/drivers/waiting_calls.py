"""Calls that threads wait for, and that another thread makes: the one that runs the loop.

It decides who hears what when the loop ends. It starts no thread and knows no loop: an adapter gives it what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from eda_core.errors import NotAnswered, StateError

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

    def make(self, call: Callable[[], T], timeout: float | None = None) -> T:
        """Let the loop make a call, and wait for it. Returns or raises what the call does.

        Args:
            timeout: how long to wait, seconds; ``None`` for as long as it takes.

        Raises:
            NotAnswered: the loop has not begun the call in time, and does not make it any more.
            StateError: the loop has ended, and does not make it.
        """
        answer = self._future()
        self._waiting.add(answer)
        self._in_loop(partial(self._answer, answer, call))
        if self._ended:  # perhaps before end() could see this call
            answer.cancel()
        if timeout is not None and not self._in_time(answer, timeout):
            raise NotAnswered(f"the service has not answered within {timeout:g} s", hint="its loop is busy")
        try:
            result: T = answer.result()
            return result
        except BaseException:
            if not answer.cancelled():
                raise
        raise StateError("the service has stopped", hint="call this before")

    def _in_time(self, answer: Any, timeout: float) -> bool:
        """Wait until a call is made, has failed, or will not be made. Returns false if that takes too long."""
        if self._ended:  # nobody makes it
            return True
        with suppress(Exception):  # also CancelledError: the loop has ended
            answer.exception(timeout)
        if answer.done() or not answer.cancel():  # it may be made just now
            return True
        self._waiting.discard(answer)
        return False

    def look(self, call: Callable[[], T], timeout: float) -> T:
        """Do as :meth:`make` with a call that only looks at the machine. If the loop has ended, call it here."""
        try:
            return self.make(call, timeout)
        except StateError:
            return call()

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
