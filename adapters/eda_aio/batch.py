"""Batches of events, as in eventail."""

from __future__ import annotations

import inspect
from typing import Any

from eda_core.collect import EventBatch


class Batch(EventBatch):
    __doc__ = EventBatch.__doc__

    async def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event being handled; if that makes the batch full, hand it over and wait until it is dealt with."""
        if self._add(payload, conversation_id, meta):
            await self.expire()

    async def expire(self) -> None:
        """Hand over what there is, at once, and wait until it is dealt with."""
        with self._taken() as events:
            if events:
                returned = self.callback(events)
                if inspect.isawaitable(returned):
                    await returned
