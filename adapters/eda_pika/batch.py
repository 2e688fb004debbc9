"""Batches of events, as in eventail; see :class:`eda_core.Batch` for what they promise."""

from collections.abc import Callable
from functools import partial
from typing import Any

from eda_core import DeliveryId, RawEvent
from eda_core import batch as core
from eda_core.service import handling
from eda_pika.service import Service


class Batch:
    """Collects the events that handlers push, and hands them to ``callback`` together.

    The handler returns true after :meth:`push`, and its event is acknowledged with the others of its batch. A service
    that stops hands over what there is.

    Args:
        endpoint: the service.
        max_entries: hand over at this many; no more than its ``PREFETCH_COUNT``.
        timeout: seconds after the first event.
        callback: what it publishes is confirmed before the events are acknowledged.

    Raises:
        LocalError: ``max_entries`` is less than 1 or ``timeout`` is not more than 0.
    """

    def __init__(
        self, endpoint: Service, max_entries: int, timeout: float, callback: Callable[[list[RawEvent]], Any]
    ) -> None:
        self._endpoint, self._timeout, self._callback = endpoint, timeout, callback
        # Its own way to call back is not for threads.
        self._events: core.Batch[RawEvent] = core.Batch(max_entries, timeout, lambda _: None)
        self._timer: int | None = None

    def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event being handled; if that makes the batch full, hand it over and wait until it is dealt with."""
        if self._endpoint.running().ask(partial(self._add, RawEvent(payload, conversation_id, meta))):
            self.expire()

    def expire(self) -> None:
        """Hand over what there is, at once, and wait until it is dealt with."""
        driver, service = self._endpoint.running(), self._endpoint
        taken = driver.ask(self._take)
        if not taken:
            return
        failed: BaseException | None = None
        try:
            with handling(service, self._events.publisher(taken, service.delivery())):
                self._callback([event for _, event in taken])
        except BaseException as error:
            failed = error
            if not isinstance(error, Exception):
                raise
        finally:
            settle = partial(self._events.settle, driver.machine, taken, error=failed)
            driver.ask(lambda: driver.feed(settle(now=driver.now())))

    def _add(self, event: RawEvent) -> bool:
        driver = self._endpoint.running()
        full = self._events.add(DeliveryId(event.meta["delivery_tag"]), event, driver.now())
        if len(self._events) == 1:
            self._cancel_timer()
            self._timer = driver.call_later(self._timeout, self.expire)
            driver.at_stop[self] = self.expire
        return full

    def _take(self) -> list[tuple[DeliveryId, RawEvent]]:
        self._cancel_timer()
        return self._events.take(self._endpoint.running().machine)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._endpoint.running().cancel_timer(self._timer)
