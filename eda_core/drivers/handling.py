"""Remembers which delivery the running user code handles, and for which service.

It uses a context variable, so the tasks that a handler starts belong to its delivery, too. It does not know what the
delivery is used for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from eda_core.machine.identifiers import DeliveryId

#: The service whose code runs in this context, and the delivery that it handles.
_handled: ContextVar[tuple[object, DeliveryId | None] | None] = ContextVar("eda_handled", default=None)


@contextmanager
def handling(service: object, delivery: DeliveryId | None) -> Iterator[None]:
    """Let what ``service`` publishes in the block, and in tasks that are started there, belong to ``delivery``."""
    token = _handled.set((service, delivery))
    try:
        yield
    finally:
        _handled.reset(token)


def handled_by(service: object) -> DeliveryId | None:
    """Return the delivery that ``service`` handles in the code that calls this; ``None`` outside of its handlers."""
    handler, delivery = _handled.get() or (None, None)
    return delivery if handler is service else None
