"""Services with very many queues declare them in portions, so that a slow broker is told from a dead one."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import base
from pamqp.commands import Queue

from eda_core.machine import link
from eda_core.machine.connection import PORTION
from eda_core.machine.effects import CONSUMING, Close, Declare, Effect, Ready, Report
from eda_core.machine.policy import RetryPolicy
from tests.core.kit import Bench, kinds, of, only

#: So many retry queues, one for each delay.
DELAYS = tuple(float(number) for number in range(1, 2 * PORTION + 7))


def declaring(**settings: Any) -> tuple[Bench, Declare]:
    """A bench that has begun to declare, with the first portion."""
    bench = Bench(commands=[], connect_timeout=12.0, retry=RetryPolicy(delays=DELAYS), **settings)
    bench.connect()
    return bench, bench.link_up()


def finish(bench: Bench, declare: Declare) -> tuple[list[base.Frame], list[Effect]]:
    """Answer all portions. Returns all commands, and the effects of the last answer."""
    commands = [*declare.commands]
    while following := of(Declare, effects := bench.declared(declare)):
        (declare,) = following
        assert kinds(effects) == ["Declare"]
        commands += declare.commands
    return commands, effects


def queues(commands: list[base.Frame]) -> list[str | None]:
    return [each.queue for each in commands if isinstance(each, Queue.Declare)]


EXPECTED = ["svc.events", *(f"svc.events.retry.{1000 * int(delay)}" for delay in DELAYS)]


def test_no_portion_is_larger_than_it_may_be_and_none_is_missing() -> None:
    bench, declare = declaring()
    sizes = []
    while bench.state is link.DECLARING:
        assert declare.channel == CONSUMING
        sizes.append(len(declare.commands))
        declare = only(Declare, bench.declared(declare))
    assert sizes == [PORTION, PORTION, 11]  # with four exchanges and the service's queue
    assert only(Ready, bench.declared(declare)) == Ready()


def test_the_link_opens_when_the_last_portion_is_answered() -> None:
    bench, declare = declaring()
    commands, effects = finish(bench, declare)
    assert queues(commands) == EXPECTED
    assert only(Ready, effects) == Ready()
    assert bench.state is link.OPEN
    assert bench.machine.deadline() is None


def test_each_answer_gives_the_broker_the_whole_time_again() -> None:
    bench, declare = declaring()
    for _ in range(3):
        assert bench.wait(11.9) == []
        declare = only(Declare, bench.declared(declare))
    assert bench.wait(11.9) == []
    assert only(Ready, bench.declared(declare)) == Ready()


def test_a_broker_that_answers_no_more_is_left() -> None:
    bench, declare = declaring()
    bench.declared(declare)
    assert bench.wait(11.9) == []
    effects = bench.due()
    assert kinds(effects) == ["Close", "Report"]
    assert "no link after 12 s" in only(Report, effects).text


@pytest.mark.parametrize("answered", [1, 2])
def test_after_a_lost_link_everything_is_declared_again(answered: int) -> None:
    bench, declare = declaring()
    for _ in range(answered):
        declare = only(Declare, bench.declared(declare))
    bench.lose()
    bench.connect()
    commands, effects = finish(bench, bench.link_up())
    assert queues(commands) == EXPECTED
    assert only(Ready, effects) == Ready()


def test_a_stop_declares_nothing_more() -> None:
    bench, declare = declaring()
    assert only(Close, bench.stop()).reason == "the service stops"
    assert bench.declared(declare) == []
