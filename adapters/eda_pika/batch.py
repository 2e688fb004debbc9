"""Batches of events, as in eventail."""

from collections.abc import Callable
from typing import Any, TypeVar

from eda_core.collect import EventBatch

T = TypeVar("T")


class Batch(EventBatch):
    __doc__ = EventBatch.__doc__

    def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event being handled; if that makes the batch full, hand it over and wait until it is dealt with."""
        if self._add(payload, conversation_id, meta):
            self.expire()

    def expire(self) -> None:
        """Hand over what there is, at once, and wait until it is dealt with."""
        with self._taken() as events:
            if events:
                self.callback(events)

    def _at_machine(self, call: Callable[[], T]) -> T:
        driver: Any = self._timers._eda_driver()
        answer: T = driver.ask(call)
        return answer
