"""Which delivery the running user code handles, and for which service.

The context carries it (``contextvars``), so tasks that a handler begins belong to its delivery too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from eda_core.machine.identifiers import DeliveryId

#: The delivery being handled in this context, and by which service.
_handled: ContextVar[tuple[object, DeliveryId | None] | None] = ContextVar("eda_handled", default=None)


@contextmanager
def handling(service: object, delivery: DeliveryId | None) -> Iterator[None]:
    """For adapters: what ``service`` publishes in the block, and in tasks begun there, is part of ``delivery``."""
    token = _handled.set((service, delivery))
    try:
        yield
    finally:
        _handled.reset(token)


def handled_by(service: object) -> DeliveryId | None:
    """The delivery that ``service`` handles in the code that calls this; ``None`` outside its handlers."""
    handler, delivery = _handled.get() or (None, None)
    return delivery if handler is service else None
