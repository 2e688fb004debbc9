"""The life-cycle table, cell by cell."""

from __future__ import annotations

import itertools

import pytest

from eda_core.errors import StateError
from eda_core.machine import link
from eda_core.machine.link import (
    BACKOFF,
    BINDING,
    CLOSING,
    CONNECTING,
    DECLARED,
    DECLARING,
    DOWN,
    DRAINING,
    DUE,
    FATAL,
    FINISHED,
    IDLE,
    IGNORE,
    ILLEGAL,
    INPUTS,
    LINK_UP,
    OPEN,
    START,
    STATES,
    STOP,
    STOPPED,
    TABLE,
    step,
)

CELLS = list(itertools.product(STATES, INPUTS))

#: There is a link, or one is being made.
WITH_LINK = (CONNECTING, DECLARING, BINDING, OPEN, DRAINING)


def expected(state: str, signal: str) -> str:
    """Return the table, made in another way: input by input instead of state by state."""
    if signal is START:
        return CONNECTING if state is IDLE else ILLEGAL
    if state is STOPPED:
        return IGNORE
    if signal is LINK_UP:
        return {CONNECTING: DECLARING, CLOSING: IGNORE}.get(state, ILLEGAL)
    if signal is DECLARED:
        # On an open link it is about a queue that is added, which is for the other table to say.
        own = {DECLARING: BINDING, BINDING: OPEN, OPEN: IGNORE, DRAINING: IGNORE, CLOSING: IGNORE}
        return own.get(state, ILLEGAL)
    if signal is DOWN:
        return BACKOFF if state in WITH_LINK else {CLOSING: STOPPED, BACKOFF: IGNORE}.get(state, ILLEGAL)
    if signal is DUE:
        return {BACKOFF: CONNECTING, CLOSING: STOPPED}.get(state, IGNORE)
    if signal is STOP:
        return {IDLE: STOPPED, OPEN: DRAINING}.get(state, IGNORE)
    if signal is FINISHED:
        return CLOSING if state in WITH_LINK else {CLOSING: IGNORE}.get(state, STOPPED)
    assert signal is FATAL
    return ILLEGAL if state is IDLE else STOPPED


def reachable(start: str) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        for cell in TABLE[todo.pop()].values():
            if cell in STATES and cell not in found:
                found.add(cell)
                todo.append(cell)
    return found


def test_states_and_inputs_are_distinct_and_the_table_has_exactly_them() -> None:
    assert len({*STATES, *INPUTS, IGNORE, ILLEGAL}) == len(STATES) + len(INPUTS) + 2
    assert tuple(TABLE) == STATES
    assert all(tuple(row) == INPUTS for row in TABLE.values())


@pytest.mark.parametrize(("state", "signal"), CELLS)
def test_every_cell_is_what_the_rules_of_the_life_cycle_say(state: str, signal: str) -> None:
    assert TABLE[state][signal] == expected(state, signal)


@pytest.mark.parametrize(("state", "signal"), CELLS)
def test_step_goes_on_stays_or_refuses(state: str, signal: str) -> None:
    cell = TABLE[state][signal]
    if cell is ILLEGAL:
        with pytest.raises(StateError, match=f"'{signal}' is not possible while {state}"):
            step(TABLE, state, signal)
    else:
        assert step(TABLE, state, signal) is (state if cell is IGNORE else cell)


@pytest.mark.parametrize(("state", "signal"), CELLS)
def test_states_come_out_as_the_constants_themselves(state: str, signal: str) -> None:
    """The machine compares states by identity, so no state may be a copy."""
    cell = TABLE[state][signal]
    assert any(cell is known for known in (*STATES, IGNORE, ILLEGAL))


def test_every_state_is_reachable_from_idle() -> None:
    assert reachable(IDLE) == set(STATES)


@pytest.mark.parametrize("state", STATES)
def test_every_state_can_end(state: str) -> None:
    assert STOPPED in reachable(state)


def test_stopped_is_for_ever() -> None:
    assert reachable(STOPPED) == {STOPPED}


def test_closing_leads_to_nothing_but_the_end() -> None:
    assert reachable(CLOSING) == {CLOSING, STOPPED}


@pytest.mark.parametrize("state", STATES)
def test_what_others_do_is_legal_wherever_there_is_a_link(state: str) -> None:
    """At any moment the link may end, time may pass, and a stop may be asked for."""
    for signal in (DUE, STOP, FINISHED):
        assert TABLE[state][signal] is not ILLEGAL
    if state is not IDLE:
        assert TABLE[state][DOWN] is not ILLEGAL
        assert TABLE[state][FATAL] is not ILLEGAL


def test_the_module_keeps_each_state_in_its_list() -> None:
    """A state or input that someone adds must be in the list that the product tests run over."""
    constants = {name: value for name, value in vars(link).items() if name.isupper() and isinstance(value, str)}
    adding = {*link.ADDING_STATES, *link.ADDING_INPUTS}
    assert set(constants.values()) == {*STATES, *INPUTS, *adding, IGNORE, ILLEGAL}


# Adding a queue to an open link

ADDING_CELLS = list(itertools.product(link.ADDING_STATES, link.ADDING_INPUTS))


def test_the_table_of_adding_a_queue_has_exactly_its_states_and_inputs() -> None:
    assert tuple(link.ADDING) == link.ADDING_STATES
    assert all(tuple(row) == link.ADDING_INPUTS for row in link.ADDING.values())
    assert len({*link.ADDING_STATES, *link.ADDING_INPUTS, *STATES, *INPUTS}) == 6 + len(STATES) + len(INPUTS)


@pytest.mark.parametrize(("state", "signal"), ADDING_CELLS)
def test_every_cell_of_adding_is_what_its_rules_say(state: str, signal: str) -> None:
    following = {link.NOTHING: link.QUEUE, link.QUEUE: link.BINDINGS, link.BINDINGS: link.NOTHING}
    if signal is link.WANTED:  # the one that is asked for comes first
        expected = following[state] if state is link.NOTHING else IGNORE
    elif signal is link.REPLIED:
        expected = ILLEGAL if state is link.NOTHING else following[state]
    else:
        expected = IGNORE if state is link.NOTHING else link.NOTHING
    assert link.ADDING[state][signal] is expected


@pytest.mark.parametrize(("state", "signal"), ADDING_CELLS)
def test_a_step_of_adding_goes_on_stays_or_refuses(state: str, signal: str) -> None:
    cell = link.ADDING[state][signal]
    if cell is ILLEGAL:
        with pytest.raises(StateError, match=f"'{signal}' is not possible while {state}"):
            step(link.ADDING, state, signal)
    else:
        assert step(link.ADDING, state, signal) is (state if cell is IGNORE else cell)


def test_the_groups_of_states_are_of_the_table() -> None:
    assert set(link.SERVING) == {OPEN, DRAINING}
    assert set(link.OVER) == {CLOSING, STOPPED}
    assert set(link.WITHOUT_LINK) == {IDLE, BACKOFF, CLOSING, STOPPED}
