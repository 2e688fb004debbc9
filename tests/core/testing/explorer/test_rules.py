"""Random histories with virtual time: services, the broker model and faults, found and shrunk by hypothesis.

Where the explorer goes through everything in small worlds, this goes far in large ones: one or two services, up to
dozens of messages, and any number of faults. That everything ends well is checked on a fork, in the middle of a
history as well as at its end.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eda_core.machine.config import Config
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.values import AnyMessage, Configuration
from eda_core.testing.explorer.builders import ONE_URL, TWO_URLS, answered, asked, command, event, said, service
from eda_core.testing.explorer.model import BOUNDED, Ask, Plan, Post, Scenario, Step
from eda_core.testing.explorer.world import World, describe

#: Never exhausted; what is rare is so by the choice of rules.
PLENTY = dict.fromkeys(BOUNDED, 1_000)
#: What a service can publish outside its handlers, and the calls that it can make there.
OUTSIDE = tuple(
    (said, asked, said, Ask, said, lambda label: Ask(label, "nobody.Do"))[number % 6](f"x{number}")
    for number in range(60)
)
RARE = ("stop", "bad login", "restart", "haste", "alarm", "consumer cancelled", "channel closed", "late")
ANSWERS = ("success", "success", "error", "twice", "none")

RETRIES = st.sampled_from([RetryPolicy(), RetryPolicy(1), RetryPolicy(3), RetryPolicy.backoff(3)])


def worker(draw: Any, name: str, **settings: Any) -> Config:
    return service(
        draw(st.sampled_from([ONE_URL, TWO_URLS])),
        name,
        prefetch=draw(st.integers(1, 3)),
        window=draw(st.sampled_from([1, 2, 500])),
        buffer=draw(st.sampled_from([3, 10_000])),
        retry=draw(RETRIES),
        stop_timeout=draw(st.sampled_from([10.0, 100.0])),
        **settings,
    )


class Named:
    """A scenario, in short."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def __repr__(self) -> str:
        return repr(self.scenario)


@st.composite
def companies(draw: Any) -> Named:
    """One service, configured or not; two workers of one; or two services, of which one feeds the other.

    All may call a further one, and a single service may handle its messages in batches.
    """
    kind = draw(st.sampled_from(["one", "configured", "workers", "chain", "batch"]))
    first = worker(draw, "svc", **({"configurations": ("Settings",)} if kind == "configured" else {}))
    others = {
        "workers": lambda: (first,),
        "chain": lambda: (worker(draw, "next", events=("Mid",), commands=()),),
    }
    scenario = Scenario(
        kind,
        (first, *others.get(kind, tuple)()),
        plans={"s": Plan(configures=True)},
        outside=OUTSIDE,
        request=Post(event("r", "SettingsWanted")),
        configuration=Configuration("Settings", "s", "c"),
        bounds=PLENTY,
        message_ids=draw(st.booleans()),
        answers={post.label: ANSWERS[number % 5] for number, post in enumerate(OUTSIDE)},
        batch=(draw(st.integers(1, 3)), 5.0, (Post(event("b", "Out"), draw(st.booleans())),))
        if kind == "batch"
        else None,
    )
    return Named(scenario)


@st.composite
def plans(draw: Any, label: str, kind: str) -> dict[str, Plan]:
    """What the handler of a message does; and that of the next service, for what is published for it."""
    count = draw(st.integers(0, 2))
    names = st.sampled_from(["Out", "Mid"] if kind == "chain" else ["Out"])
    posts: tuple[Post | Ask, ...] = tuple(
        Post(event(f"{label}.{number}", draw(names)), immediate=draw(st.integers(0, 3)) == 3) for number in range(count)
    )
    if draw(st.integers(0, 3)) == 3:
        posts = (*posts, answered(f"{label}.r", label))
    if draw(st.integers(0, 3)) == 3:
        posts = (Ask(f"{label}.c", timeout=draw(st.sampled_from([5.0, 50.0]))), *posts)
    if kind == "batch":
        return {label: Plan(posts, batched=True)}
    deferred = draw(st.integers(0, 3)) == 3
    late = (said(f"{label}.l"),) if deferred and draw(st.booleans()) else ()
    made = {label: Plan(posts, late, poison=draw(st.integers(0, 4)) == 4, deferred=deferred)}
    for post in posts:
        if isinstance(post, Post) and post.message.name == "Mid":
            made[post.label] = Plan((said(f"{post.label}.0"),), poison=draw(st.integers(0, 4)) == 4)
    return made


class Company(RuleBasedStateMachine):
    """The rules: a message comes, something usual happens, something else happens, all goes well for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.arrived = 0
        self.plans: dict[str, Plan] = {}
        self.answers: dict[str, str] = {}

    @property
    def alive(self) -> World:
        assert self.world is not None
        return self.world

    @initialize(named=companies(), data=st.data())
    def start(self, named: Named, data: st.DataObject) -> None:
        scenario = named.scenario
        self.plans = dict(scenario.plans)
        self.answers = dict(scenario.answers or {})
        object.__setattr__(scenario, "plans", self.plans)  # they grow with the messages that arrive
        object.__setattr__(scenario, "answers", self.answers)
        self.world = World(scenario)
        for _ in range(data.draw(st.integers(1, 3))):
            self.a_message_arrives(data, False)

    @precondition(lambda self: self.arrived < 12 and not self.alive.alarm)
    @rule(data=st.data(), asks=st.booleans())
    def a_message_arrives(self, data: st.DataObject, asks: bool) -> None:
        label = f"m{self.arrived}"
        self.arrived += 1
        self.plans.update(data.draw(plans(label, self.alive.scenario.name)))
        self.answers[f"{label}.c"] = data.draw(st.sampled_from(ANSWERS))
        message: AnyMessage = command(label) if asks else event(label)
        self.alive._arrive(message)

    @rule(data=st.data(), count=st.integers(1, 20))
    def something_usual_happens(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            usual, _other = self.alive.steps()
            if not usual:
                return
            self.take(data, usual)

    @rule(data=st.data())
    def something_else_happens(self, data: st.DataObject) -> None:
        other = [step for step in self.alive.steps()[1] if step[0] not in RARE]
        if other:
            self.take(data, other)

    @rule(data=st.data(), sure=st.integers(0, 4))
    def something_rare_happens(self, data: st.DataObject, sure: int) -> None:
        other = [step for step in self.alive.steps()[1] if step[0] in RARE]
        if other and sure == 4:
            self.take(data, other)

    def take(self, data: st.DataObject, steps: list[Step]) -> None:
        kinds = sorted({step[0] for step in steps})
        kind = kinds[data.draw(st.integers(0, len(kinds) - 1))]
        steps = [step for step in steps if step[0] == kind]
        step = steps[data.draw(st.integers(0, len(steps) - 1))]
        note(describe(step))
        self.alive.notes = []
        try:
            self.alive.take(step)
        finally:
            note("\n".join(self.alive.notes))

    @rule()
    def all_goes_well_from_here(self) -> None:
        """I5, on a fork: the history goes on as if nobody had looked."""
        fork = self.alive.fork()
        fork.settle()

    @rule()
    def a_spurious_tick_does_nothing(self) -> None:
        """R7, on a fork."""
        fork = self.alive.fork()
        for index, node in enumerate(fork.nodes):
            due = node.machine.deadline()
            if due is None or due > fork.now:
                assert fork._machine(index).tick(fork.now) == []

    @invariant()
    def is_not_over_before_its_time(self) -> None:
        """Nobody is over but who was asked to stop, or cannot log in anywhere."""
        if self.world is not None:
            for node in self.world.nodes:
                assert not node.over or node.stop_due is not None or self.world._spent("bad_login")


def test_random_histories() -> None:
    run_state_machine_as_test(Company, settings=settings(max_examples=250, stateful_step_count=40, deadline=None))


@pytest.mark.deep
def test_many_random_histories() -> None:
    run_state_machine_as_test(Company, settings=settings(max_examples=5_000, stateful_step_count=100, deadline=None))
