"""Batches of events with eventail's interface, for adapters. An adapter adds how to wait for the callback.

This module decides who calls the callback, and when. It does not know which messages are acknowledged:
:class:`eda_core.machine.aggregator.Aggregator` decides that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from eda_core.criticality import WARNING
from eda_core.drivers.handling import handling, run_of
from eda_core.errors import LocalError
from eda_core.machine.aggregator import Aggregator, Collected
from eda_core.machine.effects import Effect
from eda_core.machine.events import EARLY_ACK
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.outcomes import Deferred, Outcome
from eda_core.services.api import ServiceApi
from eda_core.text import shortened


@dataclass(slots=True)
class RawEvent:
    """An event of a batch, with the arguments that its handler was given."""

    payload: Any
    conversation_id: str
    meta: dict[str, Any]

    def __repr__(self) -> str:
        return f"<RawEvent {shortened(self.conversation_id, 40)}>"


class EventBatch:
    """Collects the events that handlers push, and passes them to a callback together.

    If a handler returns ``True`` after ``push``, its event is acknowledged together with the others of the batch. It is
    an error to acknowledge it by hand as well, or to put it into another batch. If the handler returns nothing, its
    event is acknowledged at once, as with eventail. Then it is lost if the process dies before the callback has ended,
    and the log warns of that once. If the callback runs when the handler ends, the event is acknowledged with the
    others in any case. When a service stops, the callback gets the events that there are, and at once each event that
    comes later.

    Args:
        endpoint: the service.
        max_entries: the size of a full batch. If the handlers return ``True``, it should be at most ``PREFETCH_COUNT``,
            because no more events are unacknowledged at once.
        timeout: how long the first event waits at most, seconds.
        callback: is called with the events of a batch. What it publishes is confirmed before the events are
            acknowledged. If it raises, the retry policy decides about each event.

    Raises:
        LocalError: ``max_entries`` is less than 1, or ``timeout`` is not more than 0.
    """

    expire: Callable[[], Any]

    def __init__(
        self, endpoint: ServiceApi[Any], max_entries: int, timeout: float, callback: Callable[[list[RawEvent]], Any]
    ) -> None:
        self.endpoint = endpoint
        self.max_entries = max_entries
        self.timeout = timeout
        self.callback = callback
        self._events: Aggregator[RawEvent] = Aggregator(max_entries, timeout)
        self._timer: int | None = None
        #: Whether it was told that events are acknowledged before their batch is handled.
        self._told = False
        if max_entries > endpoint.PREFETCH_COUNT:
            endpoint._eda_doubt(
                f"a Batch of {max_entries} events never gets full if its handlers return True, because PREFETCH_COUNT "
                f"is {endpoint.PREFETCH_COUNT}; write PREFETCH_COUNT = {max_entries} in the class"
            )

    def __len__(self) -> int:
        return len(self._events)

    def _add(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
        """Add the event that is being handled. Returns whether the batch is full now.

        Raises:
            LocalError: ``meta`` is not the one that the handler was given, or the event is settled or in another batch.
        """
        delivery = meta.get("delivery_tag")
        if type(delivery) is not int:
            raise LocalError(
                f"the meta of an event for a batch has the delivery_tag {delivery!r}",
                hint="pass the meta that the handler was given",
            )
        event, driver = RawEvent(payload, conversation_id, meta), self.endpoint.running_driver()
        full = False

        def add(*, now: float) -> list[Effect]:
            nonlocal full
            full = self._events.add(driver.machine, DeliveryId(delivery), event, now) or driver.machine.stopping
            return []

        run = run_of(self.endpoint)
        name = (
            run.name()
            if run is not None and run.delivery is not None
            else f"a handler of {type(self.endpoint).__name__}"
        )
        driver.ask(lambda: self._begin(DeliveryId(delivery), add, partial(self._handled, name, event)))
        return full

    def _begin(
        self,
        delivery: DeliveryId,
        add: Callable[..., list[Effect]],
        handled: Callable[[DeliveryId, Outcome, float], Outcome],
    ) -> None:
        driver = self.endpoint.running_driver()
        batched = self.endpoint._eda_batched
        if batched.get(delivery, self) is not self:
            raise LocalError(f"delivery {delivery} is in another batch", hint="put each event into one batch")
        driver.tell(add)
        batched[delivery] = self
        driver.at_end[delivery] = partial(handled, delivery)
        if len(self._events) == 1:
            self._cancel_timer()
            self._timer = self.endpoint.call_later(self.timeout, self.expire)
            driver.at_stop[self] = self.expire

    def _handled(self, name: str, event: RawEvent, delivery: DeliveryId, outcome: Outcome, now: float) -> Outcome:
        """Note that a handler has ended. Warn once if its event is acknowledged now, and not with its batch."""
        driver = self.endpoint.running_driver()
        outcome = self._events.handled(driver.machine, delivery, outcome, now)
        if not isinstance(outcome, Deferred):
            self.endpoint._eda_batched.pop(delivery, None)
        if self._events.acknowledged and not self._told:
            self._told = True
            text = f"{name} has put its event into a batch and has not returned True: the event is acknowledged before "
            text += "its batch is handled, and is lost if the process dies; end the handler with 'return True'"
            driver.report(WARNING, text, EARLY_ACK)
            driver.tell(driver.machine.log, WARNING, text, conversation_id=event.conversation_id)
        return outcome

    @contextmanager
    def _taken(self) -> Iterator[list[RawEvent]]:
        """Empty the batch and give its events to the block, which calls the callback if there are any."""
        driver, handled = self.endpoint.running_driver(), self.endpoint.handled_delivery()
        taken, within = driver.ask(lambda: self._take(handled))
        if not taken:
            yield []
            return
        failed: BaseException | None = None
        try:
            with handling(self.endpoint, within) as run:
                if driver.tracing is not None:
                    run.span = driver.tracing.handling_batch([event.meta for _, event in taken])
                yield [event for _, event in taken]
                run.check_awaited()
                run.end_span()
        except BaseException as error:
            if driver.ends_service(error):
                taken = []  # neither acknowledged nor failed: the broker delivers them again
            failed = error
            if not isinstance(error, Exception):
                raise
        finally:
            driver.ask(lambda: self._settle(taken, failed))

    def _take(self, handled: DeliveryId | None) -> tuple[Sequence[Collected[RawEvent]], DeliveryId | None]:
        self._cancel_timer()
        driver = self.endpoint.running_driver()
        taken = self._events.take(driver.machine)
        batched = self.endpoint._eda_batched
        for delivery in [each for each, batch in batched.items() if batch is self]:
            del batched[delivery]
        return taken, self._events.publisher(driver.machine, taken, handled)

    def _settle(self, taken: Sequence[Collected[RawEvent]], failed: BaseException | None) -> None:
        driver = self.endpoint.running_driver()
        for delivery, _ in taken:
            driver.at_end.pop(delivery, None)
        driver.tell(partial(self._events.settle, driver.machine, taken), error=failed)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self.endpoint.cancel_timer(self._timer)
