"""Services whose handlers are plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import check_begun
from eda_core.services.api import ServiceApi
from eda_core.services.batch import EventBatch


class CallbackService(ServiceApi[None]):
    """Base of the adapters' ``Service`` whose methods return when what they ask for is accepted."""

    def make_input(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        self.make_input_now(call)


class CallbackBatch(EventBatch):
    __doc__ = EventBatch.__doc__

    def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event being handled; if that makes the batch full, hand it over and wait until it is dealt with."""
        if self._add(payload, conversation_id, meta):
            self.expire()

    def expire(self) -> None:
        """Hand over what there is, at once, and wait until it is dealt with."""
        with self._taken() as events:
            if events:
                check_begun(self.callback(events))
