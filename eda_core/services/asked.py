"""What the methods of services with coroutines return: awaitables that notice if nobody awaits them.

It decides what counts as awaited, and what the error says. It knows no event loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")
#: Where the code of this package is.
_OURS: Final = (lambda: None).__code__.co_filename.rpartition("services")[0]


class Asked(Coroutine[Any, Any, T]):
    """A coroutine that a method of a service returns. It does nothing until it is awaited, or made a task.

    When the last reference to it is dropped, it tells whether this was forgotten. (CPython does that at once.)

    Args:
        work: the coroutine that does what the method is asked for.
        forgotten: is called with an error text if nobody has awaited it.
    """

    __slots__ = ("_begun", "_forgotten", "_name", "_where", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], forgotten: Callable[[str], None]) -> None:
        self._begun = False
        self._work = work
        self._forgotten = forgotten
        frame, self._name = sys._getframe(1), ""
        while (code := frame.f_code).co_filename.startswith(_OURS) and frame.f_back is not None:
            self._name, frame = code.co_name, frame.f_back
        self._where = (code.co_filename, frame.f_lineno)

    def __await__(self) -> Generator[Any, Any, T]:
        self._begun = True
        return self._work.__await__()

    def send(self, value: Any, /) -> Any:
        """Go on, as a task does."""
        self._begun = True
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an exception in the coroutine, as a task does that is cancelled."""
        self._begun = True
        return self._work.throw(*error)

    def close(self) -> None:
        """End the coroutine."""
        self._begun = True
        self._work.close()

    def __del__(self) -> None:
        if not getattr(self, "_begun", True):  # it is missing if __init__ has failed
            with suppress(Exception):  # the interpreter may be at its end
                self._work.close()  # or Python would warn as well
                file, line = self._where
                self._forgotten(
                    f"{self._name}() was not awaited in {file}, line {line}, so that it did nothing; write await "
                    f"before it"
                )


class Finished(Coroutine[Any, Any, None]):
    """Is returned by a method of a service that has done its work already. To await it is good style, but no need."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield

    def send(self, value: Any, /) -> Any:
        """End, as a coroutine does."""
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        """Raise the exception."""
        kind = error[0]
        raise kind() if isinstance(kind, type) else kind

    def close(self) -> None:
        """Do nothing: there is nothing to end."""


#: The only one.
FINISHED = Finished()
