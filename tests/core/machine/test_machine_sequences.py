"""Random histories of one machine, checked by a model of what is around it (:mod:`tests.core.machine.sequences`)."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from eda_core.machine import link
from eda_core.machine.effects import Stopped
from eda_core.machine.outcomes import CONFIGURED, DEFERRED, DONE
from tests.core.machine.sequences import FAILED, World

choices = st.integers(0, 40)
moves = st.one_of(
    st.tuples(st.sampled_from(["answer", "deliver", "arrive", "lose"])),
    st.tuples(st.just("answer")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("handle"), choices, st.sampled_from([DONE, FAILED, DEFERRED, CONFIGURED])),
    st.tuples(st.just("by_hand"), choices, st.sampled_from(["ack", "reject", "requeue", "failed", "together"])),
    st.tuples(st.just("publish"), choices, st.booleans()),
    st.tuples(st.just("call"), choices, st.sampled_from([1.0, 30.0, 300.0])),
    st.tuples(st.just("result"), choices, st.booleans()),
    st.tuples(st.just("forget"), choices),
    st.tuples(st.just("reply"), choices, st.booleans(), st.sampled_from([True, True, False])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 2.0, 40.0])),
    st.tuples(st.just("stale"), choices),
)
#: Left to itself, hypothesis makes most lists too short to get anywhere.
histories = st.lists(moves, max_size=8) | st.lists(moves, min_size=25, max_size=60)


def live(world: World, history: list[tuple[Any, ...]]) -> None:
    world.perform(world.machine.start(world.now))
    for _ in range(3):
        world.arrive()
    for name, *arguments in history:
        if world.over is None:
            getattr(world, name)(*arguments)


@given(histories, st.booleans())
@example(  # the prefetch is used up by deliveries that wait for space in the outbox
    history=[
        *[("arrive",)] * 2,
        *[("publish", 0, False)] * 5,
        *[("reply", 0, False, False)] * 2,
        ("reply", 2, True, False),
    ],
    delays=False,
)
@example(  # a message comes again while its handler runs, which goes on for it with all that it has published
    history=[
        *[("arrive",), ("deliver",), ("publish", 0, False), ("publish", 0, True), ("lose",), ("publish", 0, False)],
        *[("publish", 0, True), ("wait", 40.0), *[("answer",)] * 3, *[("deliver",)] * 2, ("publish", 0, False)],
        *[("handle", 0, DONE), *[("reply", 0, False, True)] * 5],
    ],
    delays=False,
)
@example(  # the same, and the handler fails
    history=[
        *[("deliver",), ("publish", 0, False), ("lose",), ("wait", 0.0), *[("answer",)] * 3, ("deliver",)],
        *[("handle", 0, FAILED), ("reply", 0, False, True)],
    ],
    delays=True,
)
@example(  # the same, and its acknowledgement is left to later
    history=[
        *[("deliver",), ("lose",), ("wait", 40.0), *[("answer",)] * 3, ("deliver",), ("handle", 0, DEFERRED)],
        *[("publish", 0, True), ("by_hand", 0, "together"), ("reply", 0, False, True)],
    ],
    delays=False,
)
def test_whatever_happens_nothing_is_lost_and_all_becomes_quiet(history: list[tuple[Any, ...]], delays: bool) -> None:
    world = World(delays)
    for _ in range(3):  # from an open link, or too few histories would get far
        world.arrive()
    world.perform(world.machine.start(world.now))
    for _ in range(3):
        world.answer()
    for name, *arguments in history:
        getattr(world, name)(*arguments)
    world.calm()
    assert world.epoch is not None
    world.check_the_end()
    world.perform(world.machine.stop(world.now))
    assert world.epoch in world.closed, "I5: something is left"
    world.lose()
    assert world.over == Stopped()


@given(histories, histories, st.booleans())
@example(  # a result crosses the Close, which the broker does not answer in time
    before=[*[("answer",)] * 4, ("call", 0, 1.0)],
    after=[*[("answer",)] * 3, ("reply", 0, False, True), ("result", 0, False), ("wait", 40.0)],
    delays=False,
)
def test_a_stop_at_any_moment_finishes_everything_first(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], delays: bool
) -> None:
    world = World(delays)
    live(world, before)
    world.perform(world.machine.stop(world.now))
    for name, *arguments in after:
        if world.over is None:
            getattr(world, name)(*arguments)
    world.calm()
    assert world.over == Stopped()
    world.check_the_end()
    assert not any(publish.failed for publish in world.accepted.values()), "it had all the time"


@given(histories, st.booleans())
def test_a_stop_without_time_tells_of_every_ticket(history: list[tuple[Any, ...]], delays: bool) -> None:
    world = World(delays)
    live(world, history)
    world.perform(world.machine.stop(world.now, 0.0))
    world.wait(0.0)
    if world.machine.state is link.CLOSING:
        world.lose()
    assert world.over is not None
    for publish in world.accepted.values():
        assert publish.told, f"the caller of {publish.number} waits for ever"
