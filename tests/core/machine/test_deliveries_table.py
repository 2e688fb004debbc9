"""The table of a delivery's life, cell by cell."""

from __future__ import annotations

import itertools

import pytest

from eda_core.machine import deliveries as life
from eda_core.machine.deliveries import (
    ABANDONED,
    ACK,
    ACKED,
    ACKING,
    ACKING_GROUPED,
    ADOPT,
    BEGIN,
    COLLECT,
    CONFIRMED,
    COPY_FAILED,
    DEFERRED,
    DEFERS,
    FAIL,
    FAILED,
    FAILING,
    GIVE_UP,
    GROUP,
    GROUP_CONFIRMED,
    GROUP_FAILED,
    IGNORE,
    ILLEGAL,
    INPUTS,
    KEEP,
    LINK_LOST,
    LOST,
    ORPHANED,
    ORPHANED_ACKED,
    ORPHANED_FAILED,
    ORPHANED_REJECTED,
    ORPHANED_REQUEUED,
    PAUSED,
    PUBLISH_FAILED,
    READY_GROUPED,
    REJECT,
    REJECTED,
    REJECTING,
    REQUEUE,
    REQUEUED,
    RETRY,
    RETRY_LATER,
    RUNNING,
    RUNNING_ACKED,
    RUNNING_COLLECTED,
    RUNNING_FAILED,
    RUNNING_GROUPED,
    RUNNING_REJECTED,
    RUNNING_REQUEUED,
    STAGES,
    STOP,
    SUCCEEDED,
    TABLE,
    TOO_OFTEN,
)

CELLS = list(itertools.product(STAGES, INPUTS))
#: Its handler runs, and the stage while its link is lost.
ORPHANS = {
    RUNNING: ORPHANED,
    RUNNING_ACKED: ORPHANED_ACKED,
    RUNNING_REJECTED: ORPHANED_REJECTED,
    RUNNING_REQUEUED: ORPHANED_REQUEUED,
    RUNNING_FAILED: ORPHANED_FAILED,
    RUNNING_COLLECTED: ABANDONED,
    RUNNING_GROUPED: ABANDONED,
}
RUNS = tuple(ORPHANS)
#: How its handler goes on when its message is delivered again.
ADOPTED = {orphan: stage for stage, orphan in ORPHANS.items() if orphan is not ABANDONED}
#: It is over, and so is its handler.
ENDS = (ACKED, REJECTED, REQUEUED, LOST)
BY_HAND = (ACK, REJECT, REQUEUE, FAIL, GROUP)
#: It is settled on its link, or will be whatever happens.
SETTLED = (
    *(RUNNING_ACKED, RUNNING_REJECTED, RUNNING_REQUEUED, RUNNING_GROUPED),
    *(ACKING, ACKING_GROUPED, READY_GROUPED, REJECTING, ACKED, REJECTED, REQUEUED),
)


def handler(stage: str, signal: str) -> str:
    """Return the stage after the end of a handler."""
    if stage in (*ADOPTED, ABANDONED):
        return LOST
    if stage not in RUNS:
        return IGNORE
    if signal is FAILED or stage is RUNNING_FAILED:
        return FAILING
    succeeded = {RUNNING: ACKING, RUNNING_ACKED: ACKING, RUNNING_GROUPED: ACKING_GROUPED}
    succeeded |= {RUNNING_REJECTED: REJECTING, RUNNING_REQUEUED: REQUEUED}
    succeeded[RUNNING_COLLECTED] = ACKING
    return DEFERRED if stage in (RUNNING, RUNNING_COLLECTED) and signal is DEFERS else succeeded[stage]


def by_hand(stage: str, signal: str) -> str:
    """Return the stage after a decision by hand, which can be taken once."""
    if stage is ORPHANED:
        return IGNORE if signal is GROUP else ORPHANS[by_hand(RUNNING, signal)]
    if stage in (RUNNING, RUNNING_COLLECTED):
        kept = {ACK: RUNNING_ACKED, REJECT: RUNNING_REJECTED, REQUEUE: RUNNING_REQUEUED}
        return {**kept, FAIL: RUNNING_FAILED, GROUP: RUNNING_GROUPED}[signal]
    if stage is DEFERRED:
        done = {ACK: ACKING, REJECT: REJECTING, REQUEUE: REQUEUED, FAIL: FAILING, GROUP: ACKING_GROUPED}
        return done[signal]
    return IGNORE if stage in (ABANDONED, LOST) else ILLEGAL


def confirms(stage: str) -> str:
    """Return the stage after the confirm of all publishes. It is illegal where none can be unconfirmed."""
    if stage in RUNS or stage in (*ADOPTED, ABANDONED, DEFERRED):
        return IGNORE
    return {ACKING: ACKED, ACKING_GROUPED: READY_GROUPED, REJECTING: REJECTED}.get(stage, ILLEGAL)


def lost(stage: str) -> str:
    return ORPHANS.get(stage, IGNORE if stage in (*ENDS, *ADOPTED, ABANDONED) else LOST)


def publish_fails(stage: str) -> str:
    """Return the stage after one of its publishes has failed. One that is rejected or given back stays so."""
    if stage in RUNS:
        return IGNORE if stage in (RUNNING_REJECTED, RUNNING_REQUEUED, RUNNING_FAILED) else RUNNING_FAILED
    if stage in (ORPHANED, ORPHANED_ACKED):
        return ORPHANED_FAILED
    if stage in (DEFERRED, ACKING, ACKING_GROUPED):
        return FAILING
    waiting = (REJECTING, *ADOPTED, ABANDONED)
    return IGNORE if stage in waiting else ILLEGAL  # elsewhere nothing is unconfirmed


def expected(stage: str, signal: str) -> str:
    """Return the table, made in another way: input by input instead of stage by stage."""
    if signal in (SUCCEEDED, DEFERS, FAILED):
        return handler(stage, signal)
    if signal in BY_HAND:
        return by_hand(stage, signal)
    if signal is CONFIRMED:
        return confirms(stage)
    if signal is PUBLISH_FAILED:
        return publish_fails(stage)
    if signal is COPY_FAILED:
        return REJECTING if stage is ACKING else ILLEGAL
    if signal is LINK_LOST:
        return lost(stage)
    if signal is STOP:
        return REQUEUED if stage is PAUSED else IGNORE
    if signal is BEGIN:
        return RUNNING if stage is PAUSED else ILLEGAL
    if signal is COLLECT:
        if stage in SETTLED:  # the batch would drop it, and nobody would know
            return ILLEGAL
        return {RUNNING: RUNNING_COLLECTED, ORPHANED: ABANDONED}.get(stage, IGNORE)
    if signal is ADOPT:
        return ADOPTED.get(stage, ILLEGAL)
    if signal is TOO_OFTEN:
        return FAILING if stage is PAUSED else ILLEGAL
    if signal is GROUP_CONFIRMED:
        return ACKED if stage is READY_GROUPED else ILLEGAL
    if signal is GROUP_FAILED:
        failing = {RUNNING_GROUPED: RUNNING_FAILED, ACKING_GROUPED: FAILING, READY_GROUPED: FAILING}
        return failing.get(stage, ILLEGAL)
    policy = {RETRY: REQUEUED, RETRY_LATER: ACKING, GIVE_UP: REJECTING, KEEP: ACKING}
    return policy[signal] if stage is FAILING else ILLEGAL


def reachable(start: str) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        for cell in TABLE[todo.pop()].values():
            if cell in STAGES and cell not in found:
                found.add(cell)
                todo.append(cell)
    return found


def test_stages_and_inputs_are_distinct_and_the_table_has_exactly_them() -> None:
    assert len({*STAGES, *INPUTS, IGNORE, ILLEGAL}) == len(STAGES) + len(INPUTS) + 2
    assert set(TABLE) == set(STAGES)
    assert all(set(row) == set(INPUTS) for row in TABLE.values())


@pytest.mark.parametrize(("stage", "signal"), CELLS)
def test_every_cell_is_what_the_rules_of_a_life_say(stage: str, signal: str) -> None:
    assert TABLE[stage][signal] == expected(stage, signal)


@pytest.mark.parametrize(("stage", "signal"), CELLS)
def test_stages_come_out_as_the_constants_themselves(stage: str, signal: str) -> None:
    """The machine compares stages by identity, so no stage may be a copy."""
    cell = TABLE[stage][signal]
    assert any(cell is known for known in (*STAGES, IGNORE, ILLEGAL))


def test_every_stage_is_reachable() -> None:
    assert reachable(RUNNING) | reachable(PAUSED) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_leads_to_an_end(stage: str) -> None:
    assert reachable(stage) & set(ENDS)


@pytest.mark.parametrize("stage", ENDS)
def test_an_end_is_for_ever(stage: str) -> None:
    assert reachable(stage) == {stage}


@pytest.mark.parametrize("stage", STAGES)
def test_what_others_do_is_legal_at_any_time(stage: str) -> None:
    """A handler may end late, the link may be lost, and the service be stopped, at any moment."""
    for signal in (SUCCEEDED, DEFERS, FAILED, LINK_LOST, STOP):
        assert TABLE[stage][signal] is not ILLEGAL


def test_the_only_way_to_an_acknowledgement_is_by_confirms() -> None:
    """Invariant I1, as far as the table decides it."""
    ways = {(stage, signal) for stage, signal in CELLS if TABLE[stage][signal] is ACKED}
    assert ways == {(ACKING, CONFIRMED), (READY_GROUPED, GROUP_CONFIRMED)}
    assert {signal for stage, signal in CELLS if TABLE[stage][signal] is READY_GROUPED} == {CONFIRMED}


def test_the_only_way_to_the_dead_letters_is_a_rejection_whose_publishes_are_confirmed() -> None:
    assert [(stage, signal) for stage, signal in CELLS if TABLE[stage][signal] is REJECTED] == [(REJECTING, CONFIRMED)]


def test_what_the_groups_of_stages_say() -> None:
    assert {*RUNS, *ADOPTED} == life.HOLDING
    assert {*RUNS, *ADOPTED, DEFERRED} == life._AWAITING
    assert {stage for stage in STAGES if TABLE[stage][ADOPT] in STAGES} == life._ADOPTABLE
    undecided = {stage for stage in STAGES if TABLE[stage][ACK] in STAGES}
    assert undecided == set(life._UNDECIDED)
    confirming = {stage for stage in STAGES if TABLE[stage][CONFIRMED] in STAGES}
    assert confirming == life._CONFIRMING


def test_the_module_keeps_each_stage_in_its_list() -> None:
    """A stage or input that someone adds must be in the list that the product tests run over."""
    own = {name: value for name, value in vars(life).items() if name.isupper() and isinstance(value, str)}
    imported = {"ATTEMPT", "COMMANDS", "CONFIGURATIONS", "DEDUPLICATION_ID", "EVENTS"}
    assert {value for name, value in own.items() if name not in imported} == {*STAGES, *INPUTS, IGNORE, ILLEGAL}
