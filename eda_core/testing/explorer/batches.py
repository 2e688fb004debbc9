"""Handlers that collect their messages in a batch, and the callbacks that handle a whole batch.

The batches are those of :mod:`eda_core.machine.aggregator`; the steps here drive them as a service does. This module
does not know when a batch may be acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass

from eda_core.machine.identifiers import DeliveryId
from eda_core.testing.explorer.handlers import Handlers
from eda_core.testing.explorer.judge import Judge
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.scenario import Step, Violation
from eda_core.testing.explorer.state import DEFERRED, RUNS, BatchRun, Node, State


@dataclass(slots=True, eq=False)
class Batches:
    """The batches of the workers, and their callbacks that run."""

    _state: State
    _judge: Judge
    _machines: Machines
    _handlers: Handlers

    def steps(self, index: int, node: Node, usual: list[Step], other: list[Step]) -> None:
        """What the callbacks of a worker can do."""
        batch = self._state.scenario.batch
        for place, run in enumerate(node.batch_runs):
            ready = batch is None or run.made == len(batch[2])
            usual.append(("batch succeeds" if ready else "batch publishes", index, place))
            if self._state.may("failure"):
                other.append(("batch fails", index, place))

    def hand_over(self, index: int, handled: DeliveryId | None) -> None:
        """A batch is full, or its time has come: its callback begins.

        Args:
            handled: the delivery whose handler made the batch full, and runs the callback.
        """
        node = self._state.node(index)
        assert node.batch is not None
        taken: list[tuple[DeliveryId, str]] = []
        for delivery, label in node.batch.take(node.machine):
            if delivery is None or node.delivery(delivery) is None:
                raise Violation("I2", f"the batch hands over {label}, which is not in flight")
            taken.append((delivery, label))
        within = node.batch.publisher(node.machine, taken, handled)
        if within is not None:
            node.batch_runs = (*node.batch_runs, BatchRun(tuple(taken), handled, within))
            if handled is not None:
                node.runs[handled] = node.runs[handled]._replace(waits=True)

    # -- steps --------------------------------------------------------------------------------------------------------

    def pushes(self, index: int, delivery: DeliveryId) -> None:
        """A handler adds its message. If that makes the batch full it waits for the callback, else it ends."""
        node = self._state.node(index)
        run = node.runs[delivery]
        assert node.batch is not None
        node.runs[delivery] = run._replace(made=run.made + 1, collected=True, adoptable=False)
        if node.batch.add(self._state.machine(index), delivery, run.label, self._state.now):
            self.hand_over(index, delivery)
        else:
            self._handlers.end_batched(index, delivery)

    def publishes(self, index: int, place: int) -> None:
        """A callback publishes what comes next. If the machine refuses that, the callback fails."""
        scenario, node = self._state.scenario, self._state.node(index)
        run = node.batch_runs[place]
        assert scenario.batch is not None
        post = scenario.batch[2][run.made]
        node.batch_runs = (*node.batch_runs[:place], run._replace(made=run.made + 1), *node.batch_runs[place + 1 :])
        cause = dict(run.taken)[run.within] if scenario.message_ids else ""
        if not self._machines.post(index, post, run.within, cause):
            self._end(index, place, RuntimeError("full"))

    def succeeds(self, index: int, place: int) -> None:
        """A callback returns."""
        self._end(index, place, None)

    def fails(self, index: int, place: int) -> None:
        """A callback raises."""
        self._state.spend("failure")
        self._end(index, place, RuntimeError("on purpose"))

    def _end(self, index: int, place: int, error: Exception | None) -> None:
        machine, node = self._state.machine(index), self._state.node(index)
        run = node.batch_runs[place]
        node.batch_runs = (*node.batch_runs[:place], *node.batch_runs[place + 1 :])
        found = [node.delivery(delivery) for delivery, _ in run.taken]
        counting = [each for each in found if each is not None and each.end in (RUNS, DEFERRED)]
        if error is None:
            self._judge.acknowledged_together(node, counting)
        else:
            self._judge.failed_together(node, counting)
        node.resume(run.handled)
        assert node.batch is not None
        self._machines.feed(index, node.batch.settle, machine, run.taken, error=error)
