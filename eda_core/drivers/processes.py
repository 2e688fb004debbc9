"""What one process has of an object that threads share and forks copy: its driver, and which thread uses it.

This module decides who may use a blocking driver. It does not know what is published.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from eda_core.drivers.blocking import KEPT_RECORDS, BlockingDriver, Record

S = TypeVar("S", bound=BlockingDriver)


class Lock(Protocol):
    """What this package needs of ``threading.RLock``."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...

    def __enter__(self) -> bool: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None: ...


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
