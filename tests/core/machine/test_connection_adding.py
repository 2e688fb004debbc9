"""Queues that are wanted while the service runs: the one for the results of calls, which the first call asks for."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic, Exchange, Queue

from eda_core.errors import StateError
from eda_core.machine import link
from eda_core.machine.effects import Close, Consume, Declare, Publish, Ready, Report
from eda_core.machine.outcomes import CONFIGURED
from eda_core.machine.topology import REPLIES
from tests.core.kit import REPLY_KEY, Bench, calling, kinds, of, only, opened, replies
from tests.core.machine.states import REACH, draining


def queues(declare: Declare) -> list[str]:
    """Return the names of the queues that are declared; "" if the broker names it."""
    return [command.queue for command in declare.commands if isinstance(command, Queue.Declare)]


def bound(declare: Declare) -> list[tuple[str, str, str]]:
    """Return the queue, the exchange and the key of each binding."""
    return [
        (command.queue, command.exchange, command.routing_key)
        for command in declare.commands
        if isinstance(command, Queue.Bind)
    ]


@pytest.mark.parametrize("state", [link.OPEN, link.DRAINING])
def test_on_an_open_link_it_is_declared_bound_and_consumed_in_a_row(state: str) -> None:
    bench = REACH[state]()
    declare = only(Declare, bench.call())
    assert {type(command) for command in declare.commands} == {Exchange.Declare, Queue.Declare}
    (queue,) = (command for command in declare.commands if isinstance(command, Queue.Declare))
    assert (queue.queue, queue.exclusive, queue.durable) == ("", True, False)
    name = replies(declare)[-1].queue  # type: ignore[attr-defined]
    bind = only(Declare, bench.declared(declare))
    assert bound(bind) == [(name, "commands", REPLY_KEY)]
    assert isinstance(bind.commands[-1], Basic.Qos)
    done = bench.declared(bind)
    assert of(Consume, done) == [Consume(bench.epoch, name, REPLIES)]
    assert of(Ready, done) == [], "the service was ready before"
    assert bench.state is state


@pytest.mark.parametrize("state", [link.DECLARING, link.BINDING])
def test_wanted_while_the_others_are_declared_it_comes_after_them(state: str) -> None:
    bench = Bench()
    bench.connect()
    declare = bench.link_up()
    if state is link.BINDING:
        declare = only(Declare, bench.declared(declare))
    assert bench.call() == []
    if state is link.DECLARING:
        declare = only(Declare, bench.declared(declare))
    effects = bench.declared(declare)
    assert queues(only(Declare, effects)) == [""]
    assert kinds(effects) == ["Declare", "Consume", "Consume", "Ready"]
    assert bench.state is link.OPEN
    bind = only(Declare, bench.declared(only(Declare, effects)))
    assert kinds(bench.declared(bind)) == ["Consume", "Publish"]


@pytest.mark.parametrize("state", [link.IDLE, link.CONNECTING, link.BACKOFF])
def test_wanted_without_a_link_it_is_declared_with_the_others(state: str) -> None:
    bench = REACH[state]()
    assert bench.call() == []
    if state is not link.CONNECTING:
        bench.connect()
    declare = bench.link_up()
    assert queues(declare) == ["svc.events", "svc.commands", ""]
    bind = only(Declare, bench.declared(declare))
    assert [key for _, _, key in bound(bind)] == ["Happened", "svc.#", REPLY_KEY]
    assert of(Declare, bench.declared(bind)) == []


def test_wanted_once_it_is_part_of_each_new_link() -> None:
    bench = calling()
    for _ in range(2):
        bench.lose()
        bench.connect()
        declare = bench.link_up()
        assert queues(declare) == ["svc.events", "svc.commands", ""]
        effects = bench.declared(only(Declare, bench.declared(declare)))
        assert [consume.consumer_tag for consume in of(Consume, effects)] == [REPLIES, "events", "commands"]


def test_the_others_are_still_known() -> None:
    """Here these are the queues that an unconfigured service does not consume yet."""
    bench = opened(configurations=["Settings"])
    bind = only(Declare, bench.declared(only(Declare, bench.call())))
    bench.declared(bind)
    configured = bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert [(consume.queue, consume.consumer_tag) for consume in of(Consume, configured)] == [
        ("svc.events", "events"),
        ("svc.commands", "commands"),
    ]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_link_lost_while_it_is_added_begins_again_with_all_of_them(steps: int) -> None:
    bench = opened()
    effects = bench.call()
    for _ in range(steps):
        effects = bench.declared(only(Declare, effects))
    bench.lose()
    bench.connect()
    declare = bench.link_up()
    assert queues(declare) == ["svc.events", "svc.commands", ""]
    assert only(Publish, bench.declared(only(Declare, bench.declared(declare)))).routing_key == "peer.Do"


def test_a_broker_that_does_not_name_it_is_left() -> None:
    bench = opened()
    bench.call()
    effects = bench.did(bench.machine.declared(bench.epoch, [Exchange.DeclareOk()], bench.now))
    assert only(Close, effects).reason == "the broker did not name the queues it declared"
    assert kinds(effects) == ["Close", "Report"]
    assert "did not name" in only(Report, effects).text
    assert bench.state is link.BACKOFF


def test_replies_to_nothing_are_refused_as_soon_as_it_is_there() -> None:
    bench = calling()
    with pytest.raises(StateError):
        bench.machine.declared(bench.epoch, [], bench.now)
    assert bench.state is link.OPEN


def test_a_stop_cancels_the_others_only() -> None:
    """Handlers that still run may wait for results."""
    bench = calling()
    delivery = bench.take()
    bench.call(2, within=delivery)
    assert [getattr(effect, "consumer_tag", None) for effect in bench.stop()] == [None, "events", "commands"]
    assert bench.state is link.DRAINING


def test_a_stop_while_it_is_added_waits_for_it() -> None:
    bench = draining()
    declare = only(Declare, bench.call())
    bind = only(Declare, bench.declared(declare))
    assert kinds(bench.declared(bind)) == ["Consume", "Publish"]
    assert bench.state is link.DRAINING


@pytest.mark.parametrize("answered", [0, 1])
def test_a_broker_that_does_not_answer_is_left(answered: int) -> None:
    """Otherwise no call could be made as long as the link lasts. Each answer gives it the whole time again."""
    bench = opened(connect_timeout=12.0)
    effects = bench.call(timeout=1000.0)
    for _ in range(answered):
        bench.now += 5.0
        effects = bench.declared(only(Declare, effects))
    assert bench.machine.deadline() == pytest.approx(112.0 + 5.0 * answered)
    assert bench.wait(11.9) == []
    effects = bench.due()
    assert kinds(effects) == ["Close", "Report"]
    assert only(Close, effects).reason == "the broker has not answered a declaration for 12 s"
    assert bench.state is link.BACKOFF
    assert only(Publish, bench.open()).routing_key == "peer.Do"
    assert (bench.machine.deadline() or 0.0) - bench.now > 12.0, "nothing is declared any more"


def test_a_stop_does_not_wait_for_a_broker_that_does_not_answer() -> None:
    bench = opened(connect_timeout=12.0, stop_timeout=3.0)
    bench.call(timeout=1000.0)
    bench.stop()
    assert only(Close, bench.due()).reason == "the service stops"
    assert bench.machine.deadline() == pytest.approx(bench.now + bench.config.close_timeout)
