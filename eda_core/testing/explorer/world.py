"""A world in which everything can happen: machines of services, the broker model, the network between, virtual time.

A :class:`World` lists the steps that are possible (:meth:`World.steps`) and takes one (:meth:`World.take`). It owns the
state and the parts that change it, and decides only in which order it asks them. Each part knows what can happen in
its field. After each step the judge has looked at what the machines did, and has raised :class:`Violation` if
something does not hold. A world can be forked cheaply. The explorer goes through all steps of a world, a test with
hypothesis through random ones.
"""

from __future__ import annotations

from typing import Any, Final

from eda_core.machine.identifiers import TAG_BITS, TAG_MASK
from eda_core.testing.explorer.batches import Batches
from eda_core.testing.explorer.calls import Calls
from eda_core.testing.explorer.clock import Clock
from eda_core.testing.explorer.faults import Faults
from eda_core.testing.explorer.handlers import Handlers
from eda_core.testing.explorer.judge import Judge
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.network import Network
from eda_core.testing.explorer.operator import Operator
from eda_core.testing.explorer.scenario import Scenario, Step, Violation
from eda_core.testing.explorer.state import State

_CHANNELS: Final = ("consuming", "publishing")


class World:
    """A state, and the parts that list and take the steps from it.

    Attributes:
        state: everything that the world consists of.
        judge, machines, network, faults, handlers, batches, calls, operator, clock: its parts. Each uses only those
            that stand before it.
    """

    __slots__ = (
        "batches",
        "calls",
        "clock",
        "faults",
        "handlers",
        "judge",
        "machines",
        "network",
        "operator",
        "state",
    )

    def __init__(self, scenario: Scenario) -> None:
        self._compose(State(scenario))
        self.operator.set_up()
        self.calls.set_up()
        for index in range(len(self.state.nodes)):
            self.machines.tell(index, "start")
        if not scenario.fresh:
            self.run_until_quiet()
        for message in scenario.inputs:
            self.operator.send(message)
        self.state.left = scenario.left()

    def _compose(self, state: State) -> None:
        self.state: State = state
        judge = Judge(state)
        machines = Machines(state, judge)
        network = Network(state, judge, machines)
        handlers = Handlers(state, judge, machines)
        batches = Batches(state, judge, machines, handlers)
        self.judge: Judge = judge
        self.machines: Machines = machines
        self.network: Network = network
        self.handlers: Handlers = handlers
        self.batches: Batches = batches
        self.faults: Faults = Faults(state, judge, machines, network)
        self.calls: Calls = Calls(state, judge, machines, network)
        self.operator: Operator = Operator(state, judge, machines, network, batches)
        self.clock: Clock = Clock(state, machines, network, batches)

    def fork(self) -> World:
        """An independent copy, without notes."""
        copy = World.__new__(World)
        copy._compose(self.state.fork())
        return copy

    def steps(self) -> tuple[list[Step], list[Step]]:
        """What happens if nothing goes wrong, in the order of preference; and what else may happen."""
        usual: list[Step] = []
        other: list[Step] = []
        for index, node in enumerate(self.state.nodes):
            for link in node.links.values():
                self.network.steps(index, link, usual, other)
                self.faults.link_steps(index, node, link, other)
            self.faults.worker_steps(index, node, other)
            self.handlers.steps(index, node, usual, other)
            self.batches.steps(index, node, usual, other)
            self.calls.caller_steps(index, node, other)
            self.operator.steps(index, node, usual, other)
        self.calls.answer_steps(usual, other)
        self.faults.broker_steps(usual, other)
        self.clock.steps(usual, other)
        return usual, other

    def take(self, step: Step) -> None:
        """Let a step happen.

        Raises:
            Violation: something does not hold now. The world is of no use any more.
        """
        kind = step[0]
        part, method = STEPS[kind]
        method(getattr(self, part), *step[1:])
        if kind in ("up", "alarm ends"):
            self.calls.collect()
        self.machines.finish()

    def run_until_quiet(self, limit: int = 2_000) -> None:
        """Let happen what usually happens, until nothing can happen any more (I5).

        Args:
            limit: the largest number of steps.

        Raises:
            Violation: something does not hold on the way, something is unfinished at the end, or there is no end.
        """
        for _ in range(limit):
            usual, _other = self.steps()
            if not usual:
                self.judge.quiet()
                return
            self.take(usual[0])
        raise Violation("I5", f"not quiet after {limit} steps, next is {describe(self.steps()[0][0])}")


#: For each kind of step: the part that takes it, and by which method.
STEPS: Final[dict[str, tuple[str, Any]]] = {
    "connect": ("network", Network.connect),
    "no link": ("faults", Faults.no_link),
    "bad login": ("faults", Faults.bad_login),
    "up": ("network", Network.up),
    "down": ("network", Network.down),
    "late": ("network", Network.late),
    "confirm": ("network", Network.confirm),
    "drop seen by the service": ("faults", Faults.drop_seen_by_the_service),
    "drop seen by the broker": ("faults", Faults.drop_seen_by_the_broker),
    "loss noticed": ("network", Network.loss_noticed),
    "dead link noticed": ("network", Network.dead_link_noticed),
    "closed": ("network", Network.closed),
    "claims": ("handlers", Handlers.claims),
    "commits": ("handlers", Handlers.commits),
    "publishes": ("handlers", Handlers.publishes),
    "succeeds": ("handlers", Handlers.succeeds),
    "fails": ("handlers", Handlers.fails),
    "acknowledges": ("handlers", Handlers.acknowledges),
    "rejects": ("handlers", Handlers.rejects),
    "requeues": ("handlers", Handlers.requeues),
    "fails late": ("handlers", Handlers.fails_late),
    "pushes": ("batches", Batches.pushes),
    "batch publishes": ("batches", Batches.publishes),
    "batch succeeds": ("batches", Batches.succeeds),
    "batch fails": ("batches", Batches.fails),
    "forgets": ("calls", Calls.forgets),
    "peer answers": ("calls", Calls.peer_answers),
    "publishes outside": ("operator", Operator.publishes_outside),
    "stop": ("operator", Operator.stop),
    "configuration comes": ("operator", Operator.configuration_comes),
    "consumer cancelled": ("faults", Faults.consumer_cancelled),
    "kill": ("faults", Faults.kill),
    "channel closed": ("faults", Faults.channel_closed),
    "falls silent": ("faults", Faults.falls_silent),
    "speaks again": ("faults", Faults.speaks_again),
    "alarm": ("faults", Faults.alarm),
    "alarm ends": ("faults", Faults.alarm_ends),
    "restart": ("faults", Faults.restart),
    "time passes": ("clock", Clock.time_passes),
    "haste": ("clock", Clock.haste),
    "question due": ("clock", Clock.question_due),
}


def describe(step: Step) -> str:
    """A step in words."""
    kind, index, *arguments = step
    words = [kind] if index < 0 else [f"{kind} (worker {index}"]
    if kind == "confirm":
        epoch, tag, multiple, ok = arguments
        word = "confirms" if ok else "refuses"
        return f"the broker {word} {'all up to ' if multiple else ''}publish {tag} of link {epoch} (worker {index})"
    if kind == "peer answers":
        return f"the other service answers call {arguments[0] + 1} of those that it has taken"
    if kind == "forgets" or kind.startswith("batch "):
        return f"{words[0]}, {'call' if kind == 'forgets' else 'callback'} {arguments[0]})"
    if kind in ("up", "down", "late"):
        epoch, channel = arguments
        whom = "the broker receives" if kind == "up" else "worker receives"
        late = ", which it has given up," if kind == "late" else ""
        return f"{whom} what is next on the {_CHANNELS[channel]} channel of link {epoch}{late} (worker {index})"
    if index < 0:
        return words[0]
    about = [
        f"delivery {argument & TAG_MASK} of link {argument >> TAG_BITS}" if argument >> TAG_BITS else f"link {argument}"
        for argument in arguments
    ]
    return f"{', '.join([*words, *about])})"
