"""A world in which everything can happen: machines of services, the broker model, the network between, virtual time.

A :class:`World` lists the steps that are possible (:meth:`World.steps`) and takes one (:meth:`World.take`); after each
it has judged what the machines did (:mod:`eda_core.testing.explorer.invariants`) and raises :class:`Violation` if
something does not hold. It can be forked cheaply, and has an image in which equivalent worlds are equal. The explorer
goes through all of its steps, a test with hypothesis through random ones.
"""

from __future__ import annotations

from typing import Final

from eda_core.machine import link as life
from eda_core.machine.identifiers import TAG_BITS, TAG_MASK
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.explorer.invariants import DEAD, judge_quiet
from eda_core.testing.explorer.model import Link, Node, Scenario, Step, Violation
from eda_core.testing.explorer.snapshot import label_of
from eda_core.testing.explorer.state import CONSUMING, PUBLISHING
from eda_core.testing.explorer.steps import NUMBER, STEPS, Steps

__all__ = ["Scenario", "Violation", "World", "describe"]

_CHANNELS: Final = ("consuming", "publishing")


#: A broker may take minutes to miss a client that is gone; in the meantime it is back.
SLOW: Final = frozenset(("dead link noticed",))


class World(Steps):
    """See the module."""

    __slots__ = ()

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self._set_up()
        for index in range(len(self.nodes)):
            self._tell(index, "start")
        if not scenario.fresh:
            self.settle()
        for message in scenario.inputs:
            self._arrive(message)
        self.left: tuple[int, ...] = scenario.left()

    def fork(self) -> World:
        """An independent copy."""
        copy = World.__new__(World)
        self._fork_into(copy)
        return copy

    # -- what can happen ----------------------------------------------------------------------------------------------

    def steps(self) -> tuple[list[Step], list[Step]]:
        """What happens if nothing goes wrong, in the order of preference; and what may happen beside."""
        usual: list[Step] = []
        other: list[Step] = []
        for index, node in enumerate(self.nodes):
            for link in node.links.values():
                self._link_steps(index, node, link, usual, other)
            self._handler_steps(index, node, usual, other)
            self._service_steps(index, node, usual, other)
        if self.inbox and not self.alarm:
            usual.append(("peer answers", -1, 0))
            other += [("peer answers", -1, place) for place in range(1, len(self.inbox))]
        if self.alarm:
            usual.append(("alarm ends", -1))
        elif self._may("alarm"):
            other.append(("alarm", -1))
        if self._may("restart"):
            other.append(("restart", -1))
        if self.deadline() is not None:
            if not usual:
                usual.append(("time passes", -1))
            elif all(step[0] in SLOW for step in usual):
                other.append(("time passes", -1))
            elif self._may("haste"):
                other.append(("haste", -1))
        return usual, other

    def _link_steps(self, index: int, node: Node, link: Link, usual: list[Step], other: list[Step]) -> None:
        epoch = link.epoch
        if link.connecting:
            usual.append(("closed" if link.closing else "connect", index, epoch))
            other += [(kind, index, epoch) for kind in ("no link", "bad login") if self._may(kind.replace(" ", "_"))]
            return
        for channel in (CONSUMING, PUBLISHING):
            if link.up[channel]:
                usual.append(("up", index, epoch, channel))
            if link.down[channel]:
                if link.attended:
                    usual.append(("down", index, epoch, channel))
                elif self._may("late"):
                    other.append(("late", index, epoch, channel))
        if not link.connection:
            usual.append(("loss noticed", index, epoch))
        elif not link.attended:
            usual.append(("dead link noticed", index, epoch))
        else:
            if link.closing and not any(link.up):
                usual.append(("closed", index, epoch))
            self._broker_steps(index, node, link, usual, other)

    def _broker_steps(self, index: int, node: Node, link: Link, usual: list[Step], other: list[Step]) -> None:
        epoch = link.epoch
        for place, tag in enumerate(self.broker.unconfirmed(ConnectionId(link.connection), NUMBER[PUBLISHING])):
            usual.append(("confirm", index, epoch, tag, False, True))
            if place:
                other.append(("confirm", index, epoch, tag, True, True))
            if self._may("refusal"):
                other.append(("confirm", index, epoch, tag, False, False))
                if place:
                    other.append(("confirm", index, epoch, tag, True, False))
        if self._may("drop"):
            other += [("drop seen by the service", index, epoch), ("drop seen by the broker", index, epoch)]
        if self._may("cancel") and node.machine.state is life.OPEN:
            other.append(("consumer cancelled", index, epoch))
        if self._may("channel"):
            other.append(("channel closed", index, epoch))

    def _handler_steps(self, index: int, node: Node, usual: list[Step], other: list[Step]) -> None:
        failing = self._may("failure")
        for delivery, run in node.runs.items():
            plan = self.plan(run.label)
            posts = plan.late if run.deferred else plan.posts
            if run.waits:
                continue
            if run.made < len(posts):
                usual.append(("publishes", index, delivery))
            elif plan.batched and run.made == len(posts):
                usual.append(("pushes", index, delivery))
            elif run.deferred:
                usual.append(("acknowledges", index, delivery))
            else:
                usual.append(("fails" if plan.poison else "succeeds", index, delivery))
            if failing and run.deferred:
                other += [(kind, index, delivery) for kind in ("rejects", "requeues", "fails late")]
            elif failing and not plan.poison:
                other.append(("fails", index, delivery))

        for place, hand in enumerate(node.hands):
            whole = self.scenario.batch is None or hand.made == len(self.scenario.batch[2])
            usual.append(("batch succeeds" if whole else "batch publishes", index, place))
            if failing:
                other.append(("batch fails", index, place))
        if self._may("forget"):
            other += [("forgets", index, ticket) for ticket in node.calls]

    def _service_steps(self, index: int, node: Node, usual: list[Step], other: list[Step]) -> None:
        if node.machine.state in (life.STOPPED, life.CLOSING):
            return
        if node.wants_configuration and not self.alarm:
            usual.append(("configuration comes", index))
        if not index and node.outside < len(self.scenario.outside) and self._may("outside"):
            other.append(("publishes outside", index))
        if node.stop_due is None and self._may("stop"):
            other.append(("stop", index))

    # -- taking a step ------------------------------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        """Let it happen.

        Raises:
            Violation: something does not hold now. The world is of no use any more.
        """
        STEPS[step[0]](self, *step[1:])
        while self.todo:
            index, action = self.todo.pop(0)
            action(index)

    def settle(self, limit: int = 2_000) -> None:
        """Let happen what usually happens, until nothing can any more (I5).

        Raises:
            Violation: something does not hold on the way, is unfinished at the end, or there is no end.
        """
        for _ in range(limit):
            usual, _other = self.steps()
            if not usual:
                self.judge_quiet()
                return
            self.take(usual[0])
        raise Violation("I5", f"not quiet after {limit} steps, next is {describe(self.steps()[0][0])}")

    def judge_quiet(self) -> None:
        """Raises Violation if something is unfinished in this world, in which nothing happens any more by itself."""
        for node in self.nodes:
            problem = judge_quiet(node)
            if problem is not None:
                raise Violation("I5", f"it is quiet, but of {node.machine!r}: {problem}")
        if any(node.over for node in self.nodes):
            return  # what it has not finished waits in the queues: see judge_lost
        dead = {label_of(message.body) for message in self.broker.messages(DEAD)}
        unfinished = self.promised - self.done - dead
        if unfinished:
            raise Violation("I5", f"it is quiet, but not handled and not dead-lettered: {sorted(unfinished)}")
        poison = {label for label in self.promised if self.plan(label).poison} - dead
        if poison:
            raise Violation("I4", f"never dead-lettered: {sorted(poison)}")


def describe(step: Step) -> str:
    """A step in words."""
    kind, index, *arguments = step
    words = [kind] if index < 0 else [f"{kind} (worker {index}"]
    if kind == "confirm":
        epoch, tag, multiple, ok = arguments
        word = "confirms" if ok else "refuses"
        return f"the broker {word} {'all up to ' if multiple else ''}publish {tag} of link {epoch} (worker {index})"
    if kind == "peer answers":
        return f"the other service answers call {arguments[0] + 1} of those it has"
    if kind == "forgets" or kind.startswith("batch "):
        return f"{words[0]}, {'call' if kind == 'forgets' else 'callback'} {arguments[0]})"
    if kind in ("up", "down", "late"):
        epoch, channel = arguments
        whom = "the broker receives" if kind == "up" else "worker receives"
        late = " after it has given it up" if kind == "late" else ""
        name = _CHANNELS[channel]
        return f"{whom} what is next on the {name} channel of link {epoch}{late} (worker {index})"
    if index < 0:
        return words[0]
    about = [
        f"delivery {argument & TAG_MASK} of link {argument >> TAG_BITS}" if argument >> TAG_BITS else f"link {argument}"
        for argument in arguments
    ]
    return f"{', '.join([*words, *about])})"
