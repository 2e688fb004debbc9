"""Stopping, in every state and with every kind of work left."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.criticality import EMERGENCY, NOTICE
from eda_core.errors import BufferFull, LocalError, StateError
from eda_core.machine import link
from eda_core.machine.effects import (
    CREDENTIALS,
    VHOST,
    Cancel,
    Close,
    Connect,
    Declare,
    Dispatch,
    Nack,
    Publish,
    PublishDone,
    Report,
    Stopped,
)
from eda_core.machine.identifiers import Epoch
from eda_core.machine.outcomes import DEFERRED, Failed
from tests.core.kit import Bench, forget_stale, kinds, of, only, opened, snapshot
from tests.core.machine.states import REACH, closing, draining, every_state, stopped


@pytest.mark.parametrize(
    ("state", "effects", "after"),
    [
        (link.IDLE, ["Stopped"], link.STOPPED),
        (link.CONNECTING, ["Close"], link.CLOSING),
        (link.DECLARING, ["Close"], link.CLOSING),
        (link.BINDING, ["Close"], link.CLOSING),
        (link.OPEN, ["Report", "Cancel", "Cancel", "Close"], link.CLOSING),
        (link.DRAINING, [], link.DRAINING),
        (link.CLOSING, [], link.CLOSING),
        (link.BACKOFF, ["Stopped"], link.STOPPED),
        (link.STOPPED, [], link.STOPPED),
    ],
)
def test_a_stop_with_nothing_to_finish(state: str, effects: list[str], after: str) -> None:
    bench = REACH[state]()
    assert kinds(bench.stop()) == effects
    assert bench.state is after


@every_state
def test_a_stop_ends_in_every_state_though_nothing_ever_answers(state: str) -> None:
    """No handler ends, and neither broker nor driver reports anything: deadlines must end the service."""
    bench = REACH[state]()
    if state not in (link.CLOSING, link.STOPPED):
        bench.publish()
    bench.stop()
    start = bench.now
    while bench.state is not link.STOPPED:
        bench.due()
        assert bench.now - start <= bench.config.stop_timeout + bench.config.close_timeout
    assert only(Stopped, bench.seen).error is None
    assert bench.machine.deadline() is None


@every_state
def test_a_stop_ends_every_state_with_a_link_in_the_order_stop_close_stopped(state: str) -> None:
    bench = REACH[state]()
    bench.stop(0.0)
    bench.wait(0.0)
    if bench.state is link.CLOSING:
        assert of(Close, bench.seen)[-1] == Close(bench.epoch, "the service stops")
        assert kinds(bench.lose("closed")) == ["Stopped"]
    assert bench.state is link.STOPPED


def test_running_handlers_finish_and_are_acknowledged_before_the_link_closes() -> None:
    bench = opened()
    delivery = bench.take()
    effects = bench.stop()
    assert only(Report, effects) == Report(NOTICE, "stopping")
    assert of(Cancel, effects) == [Cancel(bench.epoch, "events"), Cancel(bench.epoch, "commands")]
    assert of(Close, effects) == []
    bench.publish(within=delivery)
    sent = only(Publish, bench.handled(delivery))
    effects = bench.confirm(sent)
    assert kinds(effects) == ["Ack", "Close"]
    assert kinds(bench.lose("closed")) == ["Stopped"]


def test_what_is_cancelled_is_what_the_present_link_consumes() -> None:
    bench = opened()
    bench.lose()
    bench.open()
    assert of(Cancel, bench.stop()) == [Cancel(Epoch(2), "events"), Cancel(Epoch(2), "commands")]


def test_messages_that_cross_the_cancel_go_back_to_the_queue() -> None:
    bench = draining()
    assert bench.deliver() == [Nack(bench.epoch, 2, True)]
    assert bench.deliver(body=b"\xff", headers={}) == [Nack(bench.epoch, 3, True)]
    assert len(of(Dispatch, bench.seen)) == 1


def test_a_stop_waits_for_acknowledgements_by_hand() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.stop()
    assert bench.state is link.DRAINING
    assert kinds(bench.ack(delivery)) == ["Ack", "Close"]


def test_a_stop_waits_for_each_hold_to_be_released() -> None:
    bench = opened()
    machine = bench.machine
    assert machine.hold(bench.now) == machine.hold(bench.now) == []
    bench.stop()
    assert machine.release(bench.now) == []
    assert bench.state is link.DRAINING
    assert kinds(bench.did(machine.release(bench.now))) == ["Close"]
    assert kinds(bench.lose("closed")) == ["Stopped"]


def test_a_hold_that_is_released_after_the_deadline_of_a_stop_is_no_matter() -> None:
    bench = opened()
    bench.machine.hold(bench.now)
    bench.stop(1.0)
    assert kinds(bench.wait(1.0)) == ["Close"]
    assert bench.machine.release(bench.now) == []
    assert kinds(bench.lose("closed")) == ["Stopped"]


def test_a_release_that_no_stop_waits_for_does_nothing() -> None:
    bench = opened()
    bench.machine.hold(bench.now)
    assert bench.machine.release(bench.now) == []
    assert bench.state is link.OPEN


def test_a_stop_waits_for_publishes_from_outside() -> None:
    bench = opened()
    sent = bench.send(ticket=1)
    bench.stop()
    assert bench.state is link.DRAINING
    assert kinds(bench.confirm(sent)) == ["PublishDone", "Close"]


def test_a_stop_waits_until_a_refused_publish_is_accepted() -> None:
    bench = opened(retry_delay=5.0)
    sent = bench.send()
    bench.stop()
    bench.refuse(sent)
    assert bench.state is link.DRAINING
    again = only(Publish, bench.due())
    assert kinds(bench.confirm(again)) == ["Close"]


def test_publishes_are_still_taken_while_handlers_finish() -> None:
    bench = draining()
    assert of(Publish, bench.publish())


def test_a_link_lost_while_stopping_is_taken_up_again_for_what_is_kept() -> None:
    bench = opened()
    sent = bench.send(ticket=1)
    bench.stop()
    effects = bench.lose()
    assert kinds(effects) == ["Report"]
    effects = bench.open()
    again = only(Publish, effects)
    assert bench.state is link.DRAINING
    assert kinds(effects) == ["Publish"]  # nothing is consumed, the service is not told that it is ready
    assert (again.pid, again.epoch) == (sent.pid, 2)
    assert kinds(bench.confirm(again)) == ["PublishDone", "Close"]


def test_a_link_lost_while_stopping_with_nothing_kept_is_the_end() -> None:
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.stop()
    assert kinds(bench.lose()) == ["Report", "Stopped"]


def test_a_stop_waits_for_handlers_whose_link_was_lost() -> None:
    """Their work outside the bus must not be interrupted. Other workers get their messages."""
    bench = draining()
    (dispatch,) = of(Dispatch, bench.seen)
    bench.lose()
    assert bench.state is link.BACKOFF
    assert kinds(bench.handled(dispatch.delivery)) == ["Stopped"]


def test_a_stop_while_connecting_waits_for_the_link_if_something_is_kept() -> None:
    bench = Bench()
    bench.connect()
    bench.publish()
    assert bench.stop() == []
    declare = bench.link_up()
    effects = bench.declared(only(Declare, bench.declared(declare)))
    assert kinds(effects) == ["Publish"]
    assert bench.state is link.DRAINING
    assert kinds(bench.confirm(only(Publish, effects))) == ["Close"]


def test_the_stop_deadline_abandons_what_is_unfinished_and_says_so() -> None:
    bench = opened(stop_timeout=20.0)
    bench.take()
    bench.send(ticket=1)
    bench.send(ticket=2)
    bench.publish()
    bench.stop()
    assert bench.machine.deadline() == pytest.approx(bench.now + 20.0)
    assert bench.wait(19.9) == []
    effects = bench.due()
    assert kinds(effects) == ["PublishDone", "PublishDone", "Report", "Close"]
    assert bench.lose("closed") == [Stopped()]
    assert [(each.ticket, bool(each.error)) for each in of(PublishDone, effects)] == [(1, True), (2, True)]
    assert only(Report, effects) == Report(EMERGENCY, "3 publish(es) were never confirmed by the broker")


def test_the_time_given_to_a_stop_goes_before_the_configurations() -> None:
    bench = draining()
    start = bench.now
    bench.stop(3.0)
    assert bench.machine.deadline() == pytest.approx(start + 3.0)


def test_a_second_stop_can_only_shorten_the_time() -> None:
    bench = draining()
    deadline = bench.machine.deadline()
    bench.now += 5.0
    assert bench.stop() == []
    assert bench.machine.deadline() == deadline
    bench.stop(1.0)
    assert bench.machine.deadline() == pytest.approx(bench.now + 1.0)
    bench.stop(2.0)
    assert bench.machine.deadline() == pytest.approx(bench.now + 1.0)


def test_a_stop_without_time_closes_at_the_next_tick() -> None:
    bench = draining()
    bench.stop(0.0)
    assert kinds(bench.wait(0.0)) == ["Close"]


def test_a_link_that_does_not_close_is_left_behind() -> None:
    bench = closing(close_timeout=4.0)
    assert bench.machine.deadline() == pytest.approx(bench.now + 4.0)
    assert bench.wait(3.9) == []
    assert kinds(bench.due()) == ["Stopped"]
    assert bench.lose("closed at last") == []


@pytest.mark.parametrize("refused", ["", CREDENTIALS, VHOST])
def test_however_the_link_closes_the_end_is_no_error(refused: str) -> None:
    bench = closing()
    assert bench.lose("closed", refused=refused) == [Stopped()]


def test_a_stop_before_the_start_is_the_end() -> None:
    bench = Bench()
    bench.stop()
    with pytest.raises(StateError):
        bench.machine.start(bench.now)
    assert of(Connect, bench.seen) == []


def test_a_link_that_comes_up_while_closing_is_not_used() -> None:
    bench = REACH[link.CONNECTING]()
    bench.stop()
    assert bench.machine.link_up(bench.epoch, bench.now) == []
    assert bench.machine.declared(bench.epoch, [], bench.now) == []
    assert bench.state is link.CLOSING


def test_nothing_happens_after_the_end() -> None:
    bench = stopped()
    before = snapshot(bench.machine)
    epoch, now = bench.epoch, bench.now
    machine = bench.machine
    assert machine.link_up(epoch, now) == machine.declared(epoch, [], now) == machine.link_down(epoch, "x", now) == []
    assert machine.tick(now + 1e9) == []
    assert machine.stale == 1  # the loss: there was none to lose
    forget_stale(machine)
    assert snapshot(machine) == before


def test_blocked_ends_with_the_wish_to_close() -> None:
    bench = draining()
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    bench.stop(0.0)
    bench.wait(0.0)
    assert bench.machine.deadline() == pytest.approx(bench.now + bench.config.close_timeout)


def test_a_stop_while_blocked_waits_for_the_alarm_to_clear() -> None:
    bench = opened()
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    bench.publish()
    bench.stop()
    effects = bench.machine.unblocked(bench.epoch, bench.now)
    assert kinds(bench.confirm(only(Publish, effects))) == ["Close"]


def test_after_close_nothing_more_is_asked_of_the_link() -> None:
    """``Close``: nothing more is sent on it. The broker redelivers what was not acknowledged in time."""
    bench = opened()
    succeeds, fails, by_hand = bench.take(), bench.take(), bench.take()
    bench.handled(by_hand, DEFERRED)
    sent = bench.send()
    bench.stop(0.0)
    assert kinds(bench.wait(0.0)) == ["Report", "Close"]
    effects = [*bench.handled(succeeds), *bench.ack(by_hand), *bench.confirm(sent)]
    effects += bench.handled(fails, Failed("no"))
    assert kinds(effects).count("Close") == 0
    assert not {"Ack", "Nack", "Publish", "PublishLog"} & {*kinds(effects)}


def test_an_acknowledgement_by_hand_after_the_end_is_too_late_and_no_error() -> None:
    """The task that acknowledges does not know that the service has stopped. The message comes again."""
    bench = opened()
    delivery = bench.take()
    bench.handled(delivery, DEFERRED)
    bench.stop(0.0)
    bench.wait(0.0)
    bench.lose("closed")
    assert bench.ack(delivery) == []
    assert bench.epoch == Epoch(1)


@pytest.mark.parametrize("timeout", [float("nan"), "5", True])
def test_a_timeout_that_is_no_number_changes_nothing(timeout: Any) -> None:
    bench = opened()
    before = snapshot(bench.machine)
    with pytest.raises(LocalError, match=r"the timeout of stop\(\) is .*; give seconds"):
        bench.stop(timeout)
    assert snapshot(bench.machine) == before


def test_what_was_not_held_cannot_be_released() -> None:
    """Otherwise a later stop would never end."""
    bench = opened()
    bench.machine.hold(bench.now)
    bench.machine.release(bench.now)
    with pytest.raises(StateError, match="nothing to release"):
        bench.machine.release(bench.now)
    bench.stop()
    assert bench.state is link.CLOSING


def test_nobody_is_told_of_space_after_the_end() -> None:
    bench = opened(buffer=1, window=1)
    delivery = bench.take()
    bench.send()
    with pytest.raises(BufferFull):
        bench.publish()
    bench.stop(0.0)
    bench.wait(0.0)
    assert kinds(bench.lose("closed")) == ["Stopped"]
    assert bench.handled(delivery) == []
