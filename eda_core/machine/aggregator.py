"""Collects deliveries, to handle and acknowledge them together (Enterprise Integration Patterns: Aggregator).

It decides when a batch is complete and which of its deliveries are acknowledged. It knows nothing of how the callback
runs, and reads no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeAlias, TypeVar

from eda_core.checks import check_seconds
from eda_core.errors import LocalError
from eda_core.machine.effects import Effect
from eda_core.machine.identifiers import TAG_BITS, DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import DEFERRED, Deferred, Failed, Outcome, failure

Entry = TypeVar("Entry")
#: An entry and its delivery, which is ``None`` if it is acknowledged already.
Collected: TypeAlias = tuple[DeliveryId | None, Entry]


class Aggregator(Generic[Entry]):
    """Collects entries into a batch, until there are enough or the first one has waited long enough.

    A handler adds an entry for its message (:meth:`add`) and returns ``True``, which defers the acknowledgement.
    When the batch is full or :meth:`deadline` has passed, the driver empties it (:meth:`take`), calls the callback with
    the entries, and reports what that has done (:meth:`settle`). If it succeeded, all messages of the batch are
    acknowledged, and none before all their publishes are confirmed. If it failed, or if the handler within whose
    delivery it published fails later, the retry policy decides about each message. Messages that the callback has
    settled itself are left alone. If a link is lost, its messages leave the batch, because the broker delivers them
    again.

    If a handler adds an entry and returns nothing, its message is acknowledged at once. The entry stays in the batch,
    and a stop of the service waits for it (:meth:`handled`). It is lost if the process dies. But if the callback has
    begun before the handler ends, the message is acknowledged by :meth:`settle`, as if the handler had deferred it.

    Args:
        max_entries: the size of a full batch. It should be at most the prefetch: otherwise no batch becomes full.
        timeout: how long the first entry waits at most, seconds.

    Raises:
        LocalError: ``max_entries`` is not a whole number of at least 1, or ``timeout`` not a number of seconds above 0.
    """

    def __init__(self, max_entries: int, timeout: float) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise LocalError(f"max_entries is {max_entries!r}", hint="give a whole number, at least 1")
        check_seconds("timeout", timeout)
        self._max_entries = max_entries
        self._timeout = timeout
        self._entries: list[Collected[Entry]] = []
        self._due: float | None = None
        self._link = 0
        self._holds = False
        #: The deliveries whose entries were taken, and whose callback has not ended.
        self._taken: set[DeliveryId] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Aggregator {len(self._entries)}/{self._max_entries}>"

    @property
    def acknowledged(self) -> bool:
        """Whether it has entries whose messages are acknowledged already. They are lost if the process dies."""
        return self._holds

    def deadline(self) -> float | None:
        """Return when the first entry has waited long enough, in monotonic seconds; ``None`` while there is none."""
        return self._due

    def add(self, machine: Machine, delivery: DeliveryId, entry: Entry, now: float) -> bool:
        """Add an entry. Returns whether the batch is full now.

        Raises:
            LocalError: the delivery is settled already, or is no delivery of this service.
        """
        machine.collected(delivery, now)
        if self._link < delivery >> TAG_BITS:  # a new link: the broker delivers the messages of earlier ones again
            self._link = delivery >> TAG_BITS
            self._entries = [each for each in self._entries if each[0] is None or machine.in_flight(each[0])]
        if not self._entries:
            self._due = now + self._timeout
        self._entries.append((delivery, entry))
        return len(self._entries) >= self._max_entries

    def handled(self, machine: Machine, delivery: DeliveryId, outcome: Outcome, now: float) -> Outcome:
        """Note that a handler that added an entry has ended, and return the outcome for ``Machine.handled``.

        If the message is acknowledged now, its entry stays, whatever happens to the link. If the handler failed, its
        entry leaves the batch. If the callback runs, the acknowledgement is deferred until :meth:`settle`.
        """
        failed = isinstance(outcome, Failed)
        if isinstance(outcome, Deferred):
            return outcome
        if delivery in self._taken and not failed:
            return DEFERRED
        kept = not failed and machine.in_flight(delivery)
        for at in reversed(range(len(self._entries))):
            own, entry = self._entries[at]
            if own == delivery:
                self._entries[at : at + 1] = [(None, entry)] if kept else []
                if kept and not self._holds:
                    self._holds = True
                    machine.hold(now)
        return outcome

    def take(self, machine: Machine) -> list[Collected[Entry]]:
        """Empty the batch, and return its entries, without those whose messages the broker delivers again."""
        taken = [each for each in self._entries if each[0] is None or machine.in_flight(each[0])]
        self._taken.update(_deliveries(taken))
        self._entries = []
        self._due, self._holds = None, False
        return taken

    def publisher(
        self, machine: Machine, taken: Sequence[Collected[Entry]], handled: DeliveryId | None
    ) -> DeliveryId | None:
        """Return the delivery within which the callback publishes; ``None`` if all are acknowledged already.

        It is the delivery that is being handled, if that is in the batch, or else one whose handler has ended: if a
        handler that still runs failed later, what was published for the whole batch would be lost.
        """
        deliveries = _deliveries(taken)
        if handled in deliveries:
            return handled
        return next(filter(machine.deferred, deliveries), deliveries[0] if deliveries else None)

    def settle(
        self, machine: Machine, taken: Sequence[Collected[Entry]], now: float, error: BaseException | None = None
    ) -> list[Effect]:
        """Acknowledge the messages that were taken, or leave each to the retry policy if the callback raised."""
        deliveries = _deliveries(taken)
        self._taken.difference_update(deliveries)
        acknowledged = len(taken) - len(deliveries)
        effects: list[Effect] = []
        if error is None:
            effects += machine.ack_together(deliveries, now)
        else:
            failed = failure(error)
            if acknowledged:
                reason = f"{acknowledged} event(s) acknowledged before their batch failed are lost: {failed.reason}"
                effects += machine.callback_failed(None, replace(failed, reason=reason), now)
            for delivery in deliveries:
                if machine.in_flight(delivery):  # else the callback has settled it by hand, or the link is lost
                    effects += machine.failed(delivery, failed, now)
        if acknowledged:
            effects += machine.release(now)
        return effects


def _deliveries(taken: Sequence[Collected[Entry]]) -> list[DeliveryId]:
    return [delivery for delivery, _ in taken if delivery is not None]
