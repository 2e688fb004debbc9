"""Breadth-first search through everything that can happen in a scenario, up to its bounds.

:func:`explore` visits every state once. A world judges each step on the way there (I1 to I4, I6 and rules of the
design); this module finds out that every state becomes quiet once nothing goes wrong any more (I5). Because the search
is breadth-first, the way to the first violation is the shortest one. It does not
know what a step is, and what is right.

I5 costs nothing extra: one of the steps of each state is the usual one, which is no fault. From any
visited state these steps lead only to visited states. So they must lead to a quiet one, and a circle is a livelock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from eda_core.testing.explorer.images import Images
from eda_core.testing.explorer.scenario import Scenario, Step, Violation
from eda_core.testing.explorer.world import World, describe

_QUIET = -1
_UNKNOWN = -2
_OUT = -3  # where the search broke off
_SAMPLE = 10


class Counterexample(AssertionError):
    """Something does not hold.

    Attributes:
        rule: the invariant or rule that is broken: see ``Violation``.
        steps: the shortest way to the state in which it is.
    """

    def __init__(self, scenario: Scenario, violation: Violation, steps: list[Step]) -> None:
        self.rule: str = violation.rule
        self.steps = steps
        super().__init__(f"{violation}\nscenario {scenario.name!r}, {len(steps)} step(s):\n{tell(scenario, steps)}")


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a search has seen.

    Attributes:
        states: how many different states.
        transitions: how many steps it took from one state to the next.
        merged: how many of the steps led to a state that was already known.
        depth: how many steps the shortest way to the farthest state has.
        quiet: in how many states nothing happens any more by itself.
        complete: whether these are all states of the scenario. If not, the search broke off; then it followed every
            tenth of the states that it did not visit, by the usual steps, until that was quiet.
        kinds: the kinds of the steps that it took.
    """

    scenario: str
    states: int
    transitions: int
    merged: int
    depth: int
    quiet: int
    complete: bool
    kinds: frozenset[str]

    def __str__(self) -> str:
        end = "" if self.complete else ", broken off"
        return (
            f"{self.scenario:<28} {self.states:>8,} states {self.transitions:>9,} transitions {self.merged:>9,} merged "
            f"{self.quiet:>6,} quiet, depth {self.depth}{end}"
        )


def explore(scenario: Scenario, limit: int = 1_000_000) -> Exploration:
    """Visit every state of a scenario.

    Args:
        limit: break off when so many states are known.

    Raises:
        Counterexample: something does not hold.
    """
    return _Search(scenario, limit).run()


class _Search:
    """One search.

    States have numbers. For each, ``parents`` and ``steps`` say how the search came to it, ``depths`` how far away it
    is, and ``following`` which state follows if nothing goes wrong.
    """

    def __init__(self, scenario: Scenario, limit: int) -> None:
        self.scenario = scenario
        self.limit = limit
        self.images = Images()
        self.known: dict[object, int] = {}
        self.parents: list[int] = []
        self.steps: list[Step] = []
        self.depths: list[int] = []
        self.following: list[int] = []
        self.frontier: deque[tuple[int, World]] = deque()
        self.transitions = 0

    def run(self) -> Exploration:
        try:
            first = World(self.scenario)
        except Violation as violation:
            raise Counterexample(self.scenario, violation, []) from None
        self._meet(first, -1, ())
        while self.frontier and len(self.parents) < self.limit:
            self._visit(*self.frontier.popleft())
        complete = not self.frontier
        for place, (number, world) in enumerate(self.frontier):
            if place % _SAMPLE == 0:
                self._follow(number, world)
            self.following[number] = _OUT
        self._judge_ends()
        states = len(self.parents)
        quiet = self.following.count(_QUIET)
        merged = self.transitions - states + 1
        depth = max(self.depths)
        kinds = frozenset(step[0] for step in self.steps if step)
        return Exploration(self.scenario.name, states, self.transitions, merged, depth, quiet, complete, kinds)

    def _visit(self, number: int, world: World) -> None:
        usual, other = world.steps()
        if not usual:
            self._follow(number, world)
            self.following[number] = _QUIET
        steps = (*usual, *other)
        for place, step in enumerate(steps):
            child = world.fork() if place < len(steps) - 1 else world  # nobody needs the world after its last step
            try:
                child.take(step)
            except Violation as violation:
                raise Counterexample(self.scenario, violation, [*self._way(number), step]) from None
            self.transitions += 1
            met = self._meet(child, number, step)
            if usual and not place:
                self.following[number] = met

    def _meet(self, world: World, parent: int, step: Step) -> int:
        """The number of a state. A new one is put in line to be visited."""
        number = len(self.parents)
        found = self.known.setdefault(self.images.world(world.state), number)
        if found == number:
            self.parents.append(parent)
            self.steps.append(step)
            self.depths.append(0 if parent < 0 else self.depths[parent] + 1)
            self.following.append(_UNKNOWN)
            self.frontier.append((number, world))
        return found

    def _follow(self, number: int, world: World) -> None:
        """I5 for a state that is quiet, or that the search does not visit any more."""
        try:
            world.run_until_quiet()
        except Violation as violation:
            raise Counterexample(self.scenario, violation, self._way(number)) from None

    def _judge_ends(self) -> None:
        """I5: the usual steps come to an end from every state."""
        ends = bytearray(len(self.following))  # 1: comes to an end
        for start in range(len(self.following)):
            chain: dict[int, None] = {}
            here = start
            while here >= 0 and not ends[here] and here not in chain:
                chain[here] = None
                here = self.following[here]
            if here >= 0 and not ends[here]:
                livelock = Violation(
                    "I5", "nothing goes wrong, and yet it never becomes quiet: a circle of usual steps"
                )
                raise Counterexample(self.scenario, livelock, self._way(here))
            for each in chain:
                ends[each] = 1

    def _way(self, number: int) -> list[Step]:
        steps: list[Step] = []
        while number > 0:
            steps.append(self.steps[number])
            number = self.parents[number]
        return steps[::-1]


def tell(scenario: Scenario, steps: list[Step]) -> str:
    """A history in words: each step, with the inputs of the machines and the effects that came out."""
    lines: list[str] = []
    try:
        world = World(scenario)
        for number, step in enumerate(steps, 1):
            world.state.notes = []
            lines.append(f"{number}. {describe(step)}")
            try:
                world.take(step)
            finally:
                lines += world.state.notes
    except Violation as violation:
        lines.append(f"!! {violation}")
    return "\n".join(lines)
