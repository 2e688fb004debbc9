"""Random histories with virtual time: services, the broker model and faults. Hypothesis finds and shrinks them.

The explorer goes through everything that can happen in small worlds. The histories here go far in large worlds: one or
two services, up to dozens of messages, and any number of faults. Forks of the worlds show, in the middle of a history
and at its end, that everything ends well.
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
from eda_core.testing.explorer import BOUNDED, Ask, Plan, Post, Scenario, Step, World, describe
from eda_core.testing.explorer.scenario import ONE_URL, TWO_URLS, answered, asked, command, event, said, service

#: Never used up. What happens rarely does so because its rule is chosen rarely. The services here do not ask a silent
#: broker whether it still works, so no link falls silent; scenarios of their own explore that, and killed workers.
PLENTY = {kind: 1_000 for kind in BOUNDED if kind not in ("kill", "silence", "question")}
#: What a service publishes outside its handlers, and the calls that it makes there.
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
    """A scenario with a short text."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def __repr__(self) -> str:
        return repr(self.scenario)


@st.composite
def companies(draw: Any) -> Named:
    """One service, configured or not; two workers of one service; or two services, one of which feeds the other.

    All of them may call another service, and a single service may handle its messages in batches.
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
    """What the handler of a message does, and what the next service does with what that publishes."""
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
    """The rules: a message arrives, something usual happens, something else happens, nothing goes wrong any more."""

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

    @precondition(lambda self: self.arrived < 12 and not self.alive.state.alarm)
    @rule(data=st.data(), asks=st.booleans())
    def a_message_arrives(self, data: st.DataObject, asks: bool) -> None:
        label = f"m{self.arrived}"
        self.arrived += 1
        self.plans.update(data.draw(plans(label, self.alive.state.scenario.name)))
        self.answers[f"{label}.c"] = data.draw(st.sampled_from(ANSWERS))
        message: AnyMessage = command(label) if asks else event(label)
        self.alive.operator.send(message)

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
        self.alive.state.notes = []
        try:
            self.alive.take(step)
        finally:
            note("\n".join(self.alive.state.notes))

    @rule()
    def all_goes_well_from_here(self) -> None:
        """I5, on a fork, so that the history goes on as it was."""
        fork = self.alive.fork()
        fork.run_until_quiet()

    @rule()
    def a_spurious_tick_does_nothing(self) -> None:
        """R7, on a fork."""
        state = self.alive.fork().state
        for index, node in enumerate(state.nodes):
            due = node.machine.deadline()
            if due is None or due > state.now:
                assert state.machine(index).tick(state.now) == []

    @invariant()
    def is_not_over_before_its_time(self) -> None:
        """A service is only over if it was asked to stop, or cannot log in anywhere."""
        if self.world is not None:
            for node in self.world.state.nodes:
                assert not node.over or node.stop_due is not None or self.world.state.spent("bad_login")


def test_random_histories() -> None:
    run_state_machine_as_test(Company, settings=settings(max_examples=250, stateful_step_count=40, deadline=None))


@pytest.mark.deep
def test_many_random_histories() -> None:
    run_state_machine_as_test(Company, settings=settings(max_examples=5_000, stateful_step_count=100, deadline=None))
