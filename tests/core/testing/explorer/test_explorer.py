"""The explorer visits every state of every scenario; and tests of the explorer itself."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest

from eda_core.machine.config import Config
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.codec import DEFAULT_LIMITS
from eda_core.services.kept import Kept
from eda_core.testing.explorer import (
    Counterexample,
    Exploration,
    Plan,
    Scenario,
    Step,
    Violation,
    World,
    describe,
    explore,
    tell,
)
from eda_core.testing.explorer.images import Images
from eda_core.testing.explorer.judge import Judge
from eda_core.testing.explorer.scenario import AFTERWARDS, event, said, service
from eda_core.testing.explorer.scenarios import DEEP, SCENARIOS
from eda_core.testing.explorer.search import _Search
from eda_core.testing.explorer.snapshot import clone, stale_rules
from eda_core.testing.explorer.world import STEPS

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
ENOUGH = 100_000


@contextmanager
def no_collector() -> Iterator[None]:
    """The search makes millions of objects, and none that only the collector could free."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def timed(scenario: Scenario, limit: int) -> tuple[Exploration, float]:
    start = time.perf_counter()
    with no_collector():
        found = explore(scenario, limit)
    return found, time.perf_counter() - start


@cache
def explored(name: str) -> tuple[Exploration, float]:
    return timed(BY_NAME[name], 1_000_000)


@pytest.mark.parametrize("name", BY_NAME)
def test_scenario(name: str, counted: Callable[[object], None]) -> None:
    found, seconds = explored(name)
    counted(f"{found}, {seconds:.1f} s")
    assert found.complete
    assert found.quiet > 0
    assert found.transitions == found.merged + found.states - 1


def test_the_states_add_up(counted: Callable[[object], None]) -> None:
    found = [explored(name) for name in BY_NAME]
    states = sum(each.states for each, _ in found)
    transitions = sum(each.transitions for each, _ in found)
    seconds = sum(each for _, each in found)
    counted(f"explored {states:,} states and {transitions:,} transitions in {seconds:.1f} s")
    assert states >= ENOUGH


def test_everything_that_can_happen_does() -> None:
    """Nothing would be known of a kind of step that no scenario takes."""
    kinds = {kind for name in BY_NAME for kind in explored(name)[0].kinds}
    assert kinds == set(STEPS)


@pytest.mark.deep
def test_deeper(counted: Callable[[object], None]) -> None:
    """Ten times as many states: larger bounds, broken off where they have no end within a night."""
    total = 0
    for scenario in DEEP:
        found, seconds = timed(scenario, 100_000)
        total += found.states
        counted(f"{found}, {seconds:.1f} s")
    counted(f"explored {total:,} states")
    assert total >= 10 * ENOUGH


def test_an_inbox_that_is_recorded_after_the_effect_is_found() -> None:
    """The worker dies in between, and another one does the work again."""
    plans = {"m": Plan((said("m.0"),), inbox=AFTERWARDS)}
    scenario = replace(BY_NAME["inbox"], plans=plans, bounds={"kill": 1})
    with no_collector(), pytest.raises(Counterexample, match="the effect of m happens a second time") as caught:
        explore(scenario)
    assert caught.value.rule == "once"
    assert [step[0] for step in caught.value.steps if step[0] in ("commits", "kill")] == ["commits", "kill", "commits"]


def test_an_effect_that_is_not_committed_is_found() -> None:
    """A kept message without its effect: the claim was committed, and the work was not."""
    world = World(BY_NAME["inbox"])
    world.state.database = {"m": Kept(event("m"), None, DEFAULT_LIMITS).record()}
    with pytest.raises(Violation, match="once: m is acknowledged, and its effect has never happened"):
        world.run_until_quiet()


# Is the search exact?


@pytest.mark.parametrize("name", BY_NAME)
def test_equal_images_behave_alike(name: str) -> None:
    """The image leaves nothing out: worlds with equal images have the same steps, which lead to equal images.

    Many histories lead to one state, and the search follows only the first of them. Here some others are followed too.
    """
    images, dice = Images(), random.Random(name)
    first = World(BY_NAME[name])
    known = {images.world(first.state): first}
    frontier, compared = [first], 0
    while frontier and len(known) < 800 and compared < 150:
        world = frontier.pop(dice.randrange(len(frontier)))
        for child in children(world):
            image = images.world(child.state)
            twin = known.setdefault(image, child)
            if twin is child:
                frontier.append(child)
            elif dice.random() < 0.2:
                compared += 1
                assert successors(images, twin) == successors(images, child)
    assert compared > 20


def children(world: World) -> Iterator[World]:
    usual, other = world.steps()
    for step in (*usual, *other):
        child = world.fork()
        child.take(step)
        yield child


def successors(images: Images, world: World) -> list[tuple[object, ...]]:
    """What each possible step leads to, with its kind. The epochs and tags in the steps may differ."""
    usual, other = world.steps()
    kinds = [step[0] for step in (*usual, *other)]
    return sorted(
        ((kind, *images.world(child.state)) for kind, child in zip(kinds, children(world), strict=True)), key=repr
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fork_is_as_good_as_the_world(name: str) -> None:
    """A history gives the same images whether the world was forked at every step or never."""
    dice, images = random.Random(name), Images()
    for _ in range(20):
        world, history = World(BY_NAME[name]), list[tuple[Step, tuple[Hashable, ...]]]()
        while len(history) < 60 and (choices := [step for steps in world.steps() for step in steps]):
            before, image = world, images.world(world.state)
            world = before.fork()
            world.take(step := dice.choice(choices))
            history.append((step, images.world(world.state)))
            forget_image(before)
            assert images.world(before.state) == image  # the fork has left it alone
        straight = World(BY_NAME[name])
        for step, image in history:
            straight.take(step)
            assert images.world(straight.state) == image


def forget_image(world: World) -> None:
    """Have the image made anew. A world keeps it as long as it believes that nothing has changed."""
    world.state.broker_image = None
    for node in world.state.nodes:
        node.image = None


def test_a_cloned_machine_shares_nothing_that_changes() -> None:
    world = World(BY_NAME["plain relay"])
    machine = world.state.nodes[0].machine
    copy = clone(machine)
    before = repr(machine)
    copy.publish(event("x"), 0.0)
    copy.stop(0.0)
    assert repr(machine) == before != repr(copy)


def test_the_rules_of_images_are_about_attributes_that_exist() -> None:
    assert stale_rules() == []


# When something does not hold


def test_a_history_is_told_in_words() -> None:
    scenario = Scenario("told", (service(),), (event("m"),), {"m": Plan((said("m.0"),))}, bounds={"failure": 1})
    world = World(scenario)
    steps: list[Step] = []
    while (step := world.steps()[0][0])[0] != "succeeds":
        steps.append(step)
        world.take(step)
    told = tell(scenario, [*steps, step])
    assert told.splitlines()[0].startswith("1. worker receives what is next on the consuming channel of link 1")
    assert "Dispatch(" in told
    assert "Publish(#1 events/Out" in told


def test_a_violation_becomes_a_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    def quiet(judge: Judge) -> None:
        raise Violation("I5", "for the test")

    monkeypatch.setattr(Judge, "quiet", quiet)
    with pytest.raises(Counterexample, match="I5: for the test") as caught:
        explore(Scenario("nothing", (service(),)))
    assert caught.value.rule == "I5"
    assert caught.value.steps == []


def test_a_configuration_with_nothing_but_defaults_can_be_explored() -> None:
    config = Config.make("amqp://a/", "shop", ["Started"])
    found = explore(Scenario("defaults", (config,), (event("m", "Started"),), bounds={"drop": 1}), ENOUGH)
    assert found.complete
    assert found.states > 10


def test_what_never_ends_is_found() -> None:
    """A policy never gives up a message that always fails: the search breaks off, follows it, and finds no end."""
    scenario = Scenario("for ever", (service(retry=RetryPolicy(10**6)),), (event("p"),), {"p": Plan(poison=True)})
    with pytest.raises(Counterexample, match="I5: not quiet after"):
        explore(scenario, limit=20)


def test_a_circle_is_found() -> None:
    search = _Search(BY_NAME["plain relay"], 1)
    search.following = [1, -1, 3, 4, 2]
    search.parents, search.steps = [-1, 0, 0, 0, 0], [(), *[("stop", 0)] * 4]
    with pytest.raises(Counterexample, match="circle of usual steps"):
        search._judge_ends()


def test_bounds_have_names_that_exist() -> None:
    with pytest.raises(ValueError, match="no such bound"):
        Scenario("odd", (service(),), bounds={"lightning": 1}).left()


def test_the_cloner_refuses_what_it_cannot_place() -> None:
    machine = World(BY_NAME["plain relay"]).state.nodes[0].machine
    machine._token = bytearray()  # type: ignore[assignment]  # that is the point
    with pytest.raises(TypeError, match="does not know how to clone"):
        clone(machine)


@pytest.mark.parametrize("kind", STEPS)
def test_every_step_has_words(kind: str) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "up": (1, 0),
        "down": (1, 1),
        "late": (1, 1),
        "confirm": (1, 2, True, False),
    }
    assert len(describe((kind, 0, *arguments.get(kind, (1,))))) > len("worker 0")
