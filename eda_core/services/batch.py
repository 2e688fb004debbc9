"""Batches of events as in eventail, for adapters: what is left to them is to wait for the callback.

:class:`eda_core.Batch` is what they are made of, and what transports of your own may use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from eda_core.drivers.handling import handling
from eda_core.errors import Abandoned, LocalError
from eda_core.machine.aggregator import Batch, Collected, RawEvent
from eda_core.machine.effects import Effect
from eda_core.machine.identifiers import DeliveryId
from eda_core.services.api import ServiceApi

Taken = Sequence[Collected[RawEvent]]


class EventBatch:
    """Collects the events that handlers push, and hands them to ``callback`` together.

    The handler returns true after ``push``, and its event is acknowledged with the others of its batch. If it returns
    nothing, its event is acknowledged at once, as with eventail, and lost if the process dies before the batch is dealt
    with. A service that stops hands over what there is.

    Args:
        endpoint: the service.
        max_entries: hand over at this many; no more than its ``PREFETCH_COUNT`` where handlers return true, since no
            more are unacknowledged at once.
        timeout: seconds after the first event.
        callback: what it publishes is confirmed before the events are acknowledged. If it raises, the retry policy
            decides about each event.

    Raises:
        LocalError: ``max_entries`` is less than 1 or ``timeout`` is not more than 0.
    """

    expire: Callable[[], Any]

    def __init__(
        self, endpoint: ServiceApi[Any], max_entries: int, timeout: float, callback: Callable[[list[RawEvent]], Any]
    ) -> None:
        self.endpoint = endpoint
        self.max_entries = max_entries
        self.timeout = timeout
        self.callback = callback
        # Its own way to call back is neither for coroutines nor for threads.
        self._events: Batch[RawEvent] = Batch(max_entries, timeout, lambda _: None)
        self._timer: int | None = None

    def __len__(self) -> int:
        return len(self._events)

    def _add(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
        """Add the event being handled; whether the batch is full now."""
        delivery = meta.get("delivery_tag")
        if type(delivery) is not int:
            raise LocalError(
                f"the meta of an event to collect has the delivery_tag {delivery!r}",
                hint="push what the handler was given",
            )
        event, full = RawEvent(payload, conversation_id, meta), False

        def add(*, now: float) -> list[Effect]:
            nonlocal full
            full = self._events.add(DeliveryId(delivery), event, now)
            return []

        self.endpoint.running_driver().ask(lambda: self._begin(DeliveryId(delivery), add))
        return full

    def _begin(self, delivery: DeliveryId, add: Callable[..., list[Effect]]) -> None:
        driver = self.endpoint.running_driver()
        driver.tell(add)
        driver.at_end[delivery] = partial(self._events.handled, driver.machine, delivery)
        if len(self._events) == 1:
            self._cancel_timer()
            self._timer = self.endpoint.call_later(self.timeout, self.expire)
            driver.at_stop[self] = self.expire

    @contextmanager
    def _taken(self) -> Iterator[list[RawEvent]]:
        """What the batch held, to be dealt with in the block; none if it was empty."""
        driver, handled = self.endpoint.running_driver(), self.endpoint.handled_delivery()
        taken, within = driver.ask(lambda: self._take(handled))
        if not taken:
            yield []
            return
        failed: BaseException | None = None
        try:
            with handling(self.endpoint, within):
                yield [event for _, event in taken]
        except Abandoned:
            taken = []  # they stay with the broker
            raise
        except BaseException as error:
            failed = error
            if not isinstance(error, Exception):
                raise
        finally:
            driver.ask(lambda: self._settle(taken, failed))

    def _take(self, handled: DeliveryId | None) -> tuple[Taken, DeliveryId | None]:
        self._cancel_timer()
        driver = self.endpoint.running_driver()
        taken = self._events.take(driver.machine)
        for delivery, _ in taken:
            driver.at_end.pop(delivery, None)
        return taken, self._events.publisher(driver.machine, taken, handled)

    def _settle(self, taken: Taken, failed: BaseException | None) -> None:
        driver = self.endpoint.running_driver()
        driver.tell(partial(self._events.settle, driver.machine, taken), error=failed)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self.endpoint.cancel_timer(self._timer)
