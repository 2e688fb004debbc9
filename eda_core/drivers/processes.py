"""What one process has of an object that threads share and forks copy: its driver, and which thread uses it.

This module decides who may use a blocking driver. It does not know what is published.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from eda_core.drivers.blocking import KEPT_RECORDS, BlockingDriver, Record
from eda_core.machine.config import Config

S = TypeVar("S", bound=BlockingDriver)


#: Makes the sessions of endpoints in this context, in the place of the adapters.
_stand_in: ContextVar[Callable[[Config, deque[Record]], Any]] = ContextVar("eda_stand_in")


@contextmanager
def sessions_by(make: Callable[[Config, deque[Record]], BlockingDriver]) -> Iterator[None]:
    """In the block, and in tasks that begin there, let ``make`` make the sessions of all endpoints.

    A simulation gives endpoints a session without a network in this way.
    """
    token = _stand_in.set(make)
    try:
        yield
    finally:
        _stand_in.reset(token)


class Lock(Protocol):
    """What this package needs of ``threading.RLock``."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...

    def __enter__(self) -> bool: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None: ...


class Forks:
    """Counts how often this process was forked. To ask for the number of a process takes a system call each time.

    Args:
        register: ``os.register_at_fork``; ``None`` where it does not exist.

    Attributes:
        count: it is greater in a child than it was in its parent.
    """

    def __init__(self, register: Callable[..., object] | None) -> None:
        self.count: int = 0
        if register is not None:
            register(after_in_child=self._note)

    def _note(self) -> None:
        self.count += 1


@dataclass
class ProcessState(Generic[S]):
    """What belongs to one process, and no other process touches: a fork copies the memory and shares the sockets.

    Attributes:
        lock: the thread that has it may use the session. A thread may take it twice, because handlers of signals and of
            logging run anywhere.
        user: the thread that uses the session. Meanwhile nothing else may use it, not even code of the same thread.
        session: the driver, if there is one.
        urls: the URLs of the last session, the one to begin with first: a host that hangs costs its time-out once.
        records: log records for the user of the session. A log does not wait for a publish, because the publish may
            wait for the thread that logs.
    """

    lock: Lock
    user: int | None = None
    session: S | None = None
    urls: tuple[str, ...] = ()
    records: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT_RECORDS))

    def begin(self, make: Callable[[Config, deque[Record]], S], config: Config) -> S:
        """Make the session by ``make``, or by what stands in for it (:func:`sessions_by`), and return it."""
        session: S = _stand_in.get(make)(config, self.records)
        self.session = session
        return session

    def drop(self) -> None:
        """End the session at once, whatever its state. After an interruption of this there is no session either."""
        session, self.session = self.session, None
        if session is not None:
            self.urls = session.machine.urls
            session.drop()

    def close(self, timeout: float) -> None:
        """Close the session in good order. Only its user calls this, or a thread that is about to be its user.

        Args:
            timeout: seconds.
        """
        session, self.session = self.session, None
        try:
            if session is not None:
                session.close(timeout)
        finally:
            self.user = None
