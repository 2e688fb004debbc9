"""Batches of events, as in eventail; see :class:`eda_core.Batch` for what they promise."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from eda_aio.service import Service
from eda_core import DeliveryId, RawEvent
from eda_core import batch as core
from eda_core.service import handling


class Batch:
    """Collects the events that handlers push, and hands them to ``callback`` together.

    The handler returns true after :meth:`push`, and its event is acknowledged with the others of its batch. A service
    that stops hands over what there is.

    Args:
        endpoint: the service.
        max_entries: hand over at this many; no more than its ``PREFETCH_COUNT``.
        timeout: seconds after the first event.
        callback: a function or a coroutine function. What it publishes is confirmed before the events are acknowledged.

    Raises:
        LocalError: ``max_entries`` is less than 1 or ``timeout`` is not more than 0.
    """

    def __init__(
        self, endpoint: Service, max_entries: int, timeout: float, callback: Callable[[list[RawEvent]], Any]
    ) -> None:
        self._endpoint = endpoint
        self._callback = callback
        # Its own way to call back is not for coroutines.
        self._events: core.Batch[RawEvent] = core.Batch(max_entries, timeout, lambda _: None)
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None

    async def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event being handled; if that makes the batch full, hand it over and wait until it is dealt with."""
        driver = self._endpoint.running()
        event = RawEvent(payload, conversation_id, meta)
        full = self._events.add(DeliveryId(meta["delivery_tag"]), event, driver.now())
        if len(self._events) == 1:
            self._cancel_timer()
            self._timer = self._endpoint.call_later(self._timeout, self.expire)
            driver.at_stop[self] = self.expire
        if full:
            await self.expire()

    async def expire(self) -> None:
        """Hand over what there is, at once, and wait until it is dealt with."""
        driver, service = self._endpoint.running(), self._endpoint
        self._cancel_timer()
        taken = self._events.take(driver.machine)
        if not taken:
            return
        failed: BaseException | None = None
        try:
            with handling(service, self._events.publisher(taken, service.delivery())):
                returned = self._callback([event for _, event in taken])
                if inspect.isawaitable(returned):
                    await returned
        except BaseException as error:
            failed = error
            if not isinstance(error, Exception):
                raise
        finally:
            driver.feed(self._events.settle(driver.machine, taken, driver.now(), failed))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
