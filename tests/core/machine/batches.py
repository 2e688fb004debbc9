"""An aggregator with a callback that is a plain function, which is called at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from eda_core.machine.aggregator import Aggregator
from eda_core.machine.effects import Effect
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine

Entry = TypeVar("Entry")


class Batch(Aggregator[Entry], Generic[Entry]):
    """Does with an aggregator what a driver does with it: calls the callback when a batch is full or due."""

    def __init__(self, max_entries: int, timeout: float, callback: Callable[[Sequence[Entry]], object]) -> None:
        super().__init__(max_entries, timeout)
        self.callback = callback

    def push(self, machine: Machine, delivery: DeliveryId, entry: Entry, now: float) -> list[Effect]:
        return self.expire(machine, now) if self.add(machine, delivery, entry, now) else []

    def tick(self, machine: Machine, now: float) -> list[Effect]:
        due = self.deadline()
        return self.expire(machine, now) if due is not None and now >= due else []

    def expire(self, machine: Machine, now: float) -> list[Effect]:
        taken = self.take(machine)
        if not taken:
            return []
        try:
            self.callback([entry for _, entry in taken])
        except Exception as error:
            return self.settle(machine, taken, now, error)
        return self.settle(machine, taken, now)
