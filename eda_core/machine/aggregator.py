"""Collecting deliveries, to handle and acknowledge them together (Enterprise Integration Patterns: Aggregator)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from eda_core.checks import check_seconds
from eda_core.errors import LocalError
from eda_core.machine.effects import Effect
from eda_core.machine.identifiers import TAG_BITS, DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import Deferred, Done, Outcome, failure
from eda_core.text import shortened

Entry = TypeVar("Entry")
#: An entry and its delivery; ``None`` for one that is acknowledged already.
Collected: TypeAlias = tuple[DeliveryId | None, Entry]


@dataclass(slots=True)
class RawEvent:
    """An event as a handler was given it, for the batches of adapters."""

    payload: Any
    conversation_id: str
    meta: dict[str, Any]

    def __repr__(self) -> str:
        return f"<RawEvent {shortened(self.conversation_id, 40)}>"


class Batch(Generic[Entry]):
    """Hands entries over when there are enough of them, or when the first has waited long enough.

    A handler pushes its message and returns a truthy value, which defers the acknowledgement. When ``callback``
    returns, all messages of the batch that it has not settled by hand are acknowledged, none before all their publishes
    are confirmed; when it raises, or the handler in which it published fails after that, the retry policy decides about
    each. Messages whose link was lost in the meantime leave the batch: the broker delivers them again.

    A handler that returns nothing has its message acknowledged by itself; :meth:`handled` then keeps the entry, and
    with it the service from stopping. It is lost with the process.

    An async driver, which has to await its callback, uses :meth:`add`, :meth:`take` and :meth:`settle` instead of
    :meth:`push`.

    Args:
        max_entries: hand over at this many; no more than the prefetch, or it will always be the time that does it.
        timeout: seconds after the first entry.
        callback: what to do with the entries, in the order of delivery.

    Raises:
        LocalError: ``max_entries`` is less than 1 or ``timeout`` is not more than 0, or endless.
    """

    def __init__(self, max_entries: int, timeout: float, callback: Callable[[Sequence[Entry]], object]) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise LocalError(f"max_entries is {max_entries!r}", hint="give a whole number, at least 1")
        check_seconds("timeout", timeout)
        self._max_entries = max_entries
        self._timeout = timeout
        self._callback = callback
        self._entries: list[Collected[Entry]] = []
        self._due: float | None = None
        self._link = 0
        self._holds = False

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Batch {len(self._entries)}/{self._max_entries}>"

    def push(self, machine: Machine, delivery: DeliveryId, entry: Entry, now: float) -> list[Effect]:
        """Add the message being handled, and hand the batch over if that makes it full."""
        return self.expire(machine, now) if self.add(delivery, entry, now) else []

    def tick(self, machine: Machine, now: float) -> list[Effect]:
        """Time has passed; early and repeated calls do no harm."""
        return self.expire(machine, now) if self._due is not None and now >= self._due else []

    def expire(self, machine: Machine, now: float) -> list[Effect]:
        """Hand over what there is, at once."""
        taken = self.take(machine)
        if not taken:
            return []
        try:
            self._callback([entry for _, entry in taken])
        except Exception as error:
            return self.settle(machine, taken, now, error)
        return self.settle(machine, taken, now)

    def deadline(self) -> float | None:
        """When to call :meth:`tick`, monotonic seconds; ``None`` while the batch is empty."""
        return self._due

    # The single steps

    def add(self, delivery: DeliveryId, entry: Entry, now: float) -> bool:
        """Add an entry; whether the batch is full now."""
        if self._link < delivery >> TAG_BITS:  # what is of an earlier one comes again
            self._link = delivery >> TAG_BITS
            self._entries = [each for each in self._entries if each[0] is None]
        if not self._entries:
            self._due = now + self._timeout
        self._entries.append((delivery, entry))
        return len(self._entries) >= self._max_entries

    def handled(self, machine: Machine, delivery: DeliveryId, outcome: Outcome, now: float) -> None:
        """A handler that added an entry is over. Call it before the machine's input of this name.

        An entry whose message is acknowledged now stays, whatever becomes of the link. One whose handler failed leaves.
        """
        if isinstance(outcome, Deferred):
            return
        kept = isinstance(outcome, Done) and machine.in_flight(delivery)
        for at in reversed(range(len(self._entries))):
            own, entry = self._entries[at]
            if own == delivery:
                self._entries[at : at + 1] = [(None, entry)] if kept else []
                if kept and not self._holds:
                    self._holds = True
                    machine.hold(now)

    def take(self, machine: Machine) -> list[Collected[Entry]]:
        """Empty the batch; what it held, without the messages that the broker delivers again."""
        taken = [each for each in self._entries if each[0] is None or machine.in_flight(each[0])]
        self._entries = []
        self._due, self._holds = None, False
        return taken

    def publisher(
        self, machine: Machine, taken: Sequence[Collected[Entry]], handled: DeliveryId | None
    ) -> DeliveryId | None:
        """Within which delivery the callback publishes: the one being handled if it is of the batch, else one whose
        handler is over. (Where another's still runs, its failure would drop what is for all of them.)"""
        deliveries = _deliveries(taken)
        if handled in deliveries:
            return handled
        return next(filter(machine.deferred, deliveries), deliveries[0] if deliveries else None)

    def settle(
        self, machine: Machine, taken: Sequence[Collected[Entry]], now: float, error: BaseException | None = None
    ) -> list[Effect]:
        """What was taken has been dealt with, or failed with ``error``."""
        deliveries = _deliveries(taken)
        acknowledged = len(taken) - len(deliveries)
        effects: list[Effect] = []
        if error is None:
            effects += machine.ack_together(deliveries, now)
        else:
            failed = failure(error)
            if acknowledged:
                reason = f"{acknowledged} event(s) of a batch, acknowledged before, are lost: {failed.reason}"
                effects += machine.callback_failed(None, replace(failed, reason=reason), now)
            for delivery in deliveries:
                if machine.in_flight(delivery):  # the callback may have settled it by hand, or a link was lost
                    effects += machine.failed(delivery, failed, now)
        if acknowledged:
            effects += machine.release(now)
        return effects


def _deliveries(taken: Sequence[Collected[Entry]]) -> list[DeliveryId]:
    return [delivery for delivery, _ in taken if delivery is not None]
