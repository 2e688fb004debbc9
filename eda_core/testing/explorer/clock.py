"""The time of a world: it stands still until nothing else happens, and then jumps to the next deadline.

This module decides when time may pass. It does not know what happens at a deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eda_core.testing.explorer.batches import Batches
from eda_core.testing.explorer.judge import unfinished
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.network import Network
from eda_core.testing.explorer.scenario import Step, Violation
from eda_core.testing.explorer.snapshot import asks
from eda_core.testing.explorer.state import Node, State

#: A broker may take minutes to notice that a client has gone. In the meantime the client may be back.
_SLOW: Final = frozenset(("dead link noticed",))


@dataclass(slots=True, eq=False)
class Clock:
    """Time, and who has to be told of it."""

    _state: State
    _machines: Machines
    _network: Network
    _batches: Batches

    def deadline(self) -> float | None:
        """When a machine, a batch or the broker next waits to be told of the time."""
        nodes = self._state.nodes
        times = [node.machine.deadline() for node in nodes]
        times += [node.batch.deadline() for node in nodes if node.batch is not None and not node.over]
        times.append(self._state.broker.deadline())
        return min((time for time in times if time is not None), default=None)

    def steps(self, usual: list[Step], other: list[Step]) -> None:
        """Whether time can pass beside, or instead of, what else can happen."""
        if self.deadline() is None:
            return
        if not usual and self._rests():
            if self._state.may("question"):
                other.append(("question due", -1))
        elif not usual:
            usual.append(("time passes", -1))
        elif all(step[0] in _SLOW for step in usual):
            other.append(("time passes", -1))
        elif self._state.may("haste"):
            other.append(("haste", -1))

    def _rests(self) -> bool:
        """Whether nothing is due but to ask brokers that answer, which would go on for ever."""
        serving = [node for node in self._state.nodes if not node.over]
        if not serving or self._state.broker.deadline() is not None:
            return False
        return all(asks(node.machine) and _answers(node) for node in serving)

    def time_passes(self, _: int) -> None:
        """Time jumps to the next deadline. R7: whoever waits for that is told; telling it twice does nothing."""
        state = self._state
        deadline = self.deadline()
        assert deadline is not None
        state.now = now = max(state.now, deadline)
        if _is_due(state.broker.deadline(), now):
            self._network.route(state.own_broker().tick(now=now))
        for index in range(len(state.nodes)):
            if _is_due(state.nodes[index].machine.deadline(), now):
                self._machines.tell(index, "tick")
                machine = state.nodes[index].machine
                if not _is_due(machine.deadline(), now) and machine.tick(now):
                    raise Violation("R7", "a spurious tick has effects")
            node = state.nodes[index]
            if node.batch is not None and not node.over and _is_due(node.batch.deadline(), now):
                self._batches.hand_over(index, None)

    def question_due(self, _: int) -> None:
        """As :meth:`time_passes`, although nothing is unfinished."""
        self._state.spend("question")
        self.time_passes(_)

    def haste(self, _: int) -> None:
        """As :meth:`time_passes`, although something else could happen first."""
        self._state.spend("haste")
        self.time_passes(_)


def _answers(node: Node) -> bool:
    return unfinished(node) is None and not node.links[node.machine.epoch].silent


def _is_due(deadline: float | None, now: float) -> bool:
    return deadline is not None and deadline <= now
