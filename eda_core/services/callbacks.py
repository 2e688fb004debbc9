"""Services whose handlers are plain functions, and their batches.

This module decides when their methods return. It does not know in which thread the handlers run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import check_begun
from eda_core.services.api import ServiceApi
from eda_core.services.batch import EventBatch


class CallbackService(ServiceApi[None]):
    """The base class of services whose methods return as soon as the machine has accepted what they ask for."""

    def make_input(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> None:
        self.make_input_now(call, waits=waits)


class CallbackBatch(EventBatch):
    __doc__ = EventBatch.__doc__

    def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event that is being handled, with the arguments of its handler. Call the callback if it is full now.

        Raises:
            LocalError: ``meta`` is not the one that the handler was given.
        """
        if self._add(payload, conversation_id, meta):
            self.expire()

    def expire(self) -> None:
        """Call the callback with the events that there are, if any."""
        with self._taken() as events:
            if events:
                check_begun(self.callback(events))
