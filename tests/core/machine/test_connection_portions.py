"""Services with very many names declare them in portions, so that a slow broker is told from a dead one."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import base
from pamqp.commands import Basic, Queue

from eda_core.machine import link
from eda_core.machine.connection import PORTION
from eda_core.machine.effects import Close, Declare, Effect, Ready, Report
from tests.core.kit import Bench, kinds, of, only

NAMES = [f"Event{number}" for number in range(2 * PORTION + 7)]


def binding(**settings: Any) -> tuple[Bench, Declare]:
    """A bench that has begun to bind, with the first portion."""
    bench = Bench(events=NAMES, commands=[], connect_timeout=12.0, **settings)
    bench.connect()
    return bench, only(Declare, bench.declared(bench.link_up()))


def finish(bench: Bench, declare: Declare) -> tuple[list[base.Frame], list[Effect]]:
    """Answer all portions. Returns all commands, and the effects of the last answer."""
    commands = [*declare.commands]
    while following := of(Declare, effects := bench.declared(declare)):
        (declare,) = following
        assert kinds(effects) == ["Declare"]
        commands += declare.commands
    return commands, effects


def test_no_portion_is_larger_than_it_may_be_and_none_is_missing() -> None:
    bench, declare = binding()
    sizes = [len(declare.commands)]
    commands = [*declare.commands]
    while bench.state is not link.OPEN:
        for effect in of(Declare, bench.declared(declare)):
            declare = effect
            sizes.append(len(effect.commands))
            commands += effect.commands
    assert sizes == [PORTION, PORTION, 8]
    assert [each.routing_key for each in commands if isinstance(each, Queue.Bind)] == NAMES
    assert isinstance(commands[-1], Basic.Qos)


def test_the_link_opens_when_the_last_portion_is_answered() -> None:
    bench, declare = binding()
    _, effects = finish(bench, declare)
    assert only(Ready, effects) == Ready()
    assert bench.state is link.OPEN
    assert bench.machine.deadline() is None


def test_each_answer_gives_the_broker_the_whole_time_again() -> None:
    bench, declare = binding()
    for _ in range(2):
        assert bench.wait(11.9) == []
        declare = only(Declare, bench.declared(declare))
    assert bench.wait(11.9) == []
    assert only(Ready, bench.declared(declare)) == Ready()


def test_a_broker_that_answers_no_more_is_left() -> None:
    bench, declare = binding()
    bench.declared(declare)
    assert bench.wait(11.9) == []
    effects = bench.due()
    assert kinds(effects) == ["Close", "Report"]
    assert "no link after 12 s" in only(Report, effects).text


@pytest.mark.parametrize("answered", [1, 2])
def test_after_a_lost_link_everything_is_declared_again(answered: int) -> None:
    bench, declare = binding()
    for _ in range(answered):
        declare = only(Declare, bench.declared(declare))
    bench.lose()
    bench.connect()
    commands, effects = finish(bench, only(Declare, bench.declared(bench.link_up())))
    assert [each.routing_key for each in commands if isinstance(each, Queue.Bind)] == NAMES
    assert only(Ready, effects) == Ready()


def test_a_stop_declares_nothing_more() -> None:
    bench, declare = binding()
    assert only(Close, bench.stop()).reason == "the service stops"
    assert bench.declared(declare) == []
