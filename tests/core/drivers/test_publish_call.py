"""What becomes of the messages of a call, and when the call gives up."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, PublishCall, PublishLimits, Unroutable
from eda_core.errors import LocalError, PublishError, PublishRefused
from eda_core.machine.effects import PublishDone


def begun(messages: int = 1, **limits: Any) -> PublishCall:
    call = PublishCall(PublishLimits(**limits), 100.0)
    for _ in range(messages):
        call.accepted(100.0)
    return call


def gives_up(call: PublishCall, now: float) -> bool:
    """Look at the limits, as a driver does."""
    reason = call.exceeded_limit(now)
    if reason:
        call.give_up(reason)
    return bool(reason)


def test_a_confirmed_message_is_neither_unconfirmed_nor_failed() -> None:
    call = begun(2)
    assert (call.taken, list(call.unconfirmed)) == (2, [0, 1])
    call.sent(0)
    call.done(PublishDone(0), 101.0)
    assert (list(call.unconfirmed), call.failed) == ([1], {})


def test_it_may_arrive_once_it_was_sent() -> None:
    call = begun(2)
    call.sent(1)
    call.last_error = "no link"
    call.done(PublishDone(0, "stopped"), 101.0)
    call.done(PublishDone(1, "stopped"), 101.0)
    never, perhaps = call.failed[0], call.failed[1]
    assert isinstance(never, NotConfirmed)
    assert isinstance(perhaps, NotConfirmed)
    assert (never.may_arrive, str(never)) == (False, "no link; it was never sent: publish it again")
    assert (perhaps.may_arrive, perhaps.hint) == (
        True,
        "it was sent, and may have arrived: published again, it may come twice",
    )


def test_without_an_error_the_reason_is_the_machines() -> None:
    call = begun()
    call.done(PublishDone(0, "the service stopped"), 101.0)
    assert str(call.failed[0]).startswith("the service stopped; ")


def test_a_message_that_the_broker_does_not_take_says_so() -> None:
    call = begun()
    call.sent(0)
    call.done(PublishDone(0, "too large", refused=True), 1.0)
    (error,) = call.failed.values()
    assert (type(error), str(error)) == (PublishRefused, "too large")


def test_what_cannot_be_sent_has_its_place() -> None:
    call, error = begun(1), LocalError("no")
    call.not_accepted(error)
    assert (call.taken, call.failed, list(call.unconfirmed)) == (2, {1: error}, [0])


def test_a_returned_message_fails() -> None:
    call = begun(3)
    call.sent(0)
    call.sent(1)
    call.done(PublishDone(1, returned="NO_ROUTE"), 101.0)
    assert list(call.failed) == [1]
    assert isinstance(call.failed[1], Unroutable)
    assert str(call.failed[1]) == "the message came back: NO_ROUTE; nobody subscribes to it"
    assert sorted(call.unconfirmed) == [0, 2]


def test_the_time_begins_anew_with_each_step_forward() -> None:
    call = begun(2, timeout=5.0)
    assert call.deadline() == 105.0
    assert not gives_up(call, 104.9)
    call.done(PublishDone(0), 104.0)
    assert call.deadline() == 109.0
    assert not gives_up(call, 105.0)
    call.accepted(108.0)
    assert not gives_up(call, 112.9)
    assert gives_up(call, 113.0)
    assert call.last_error == "no confirm within 5 s"


def test_what_took_its_time_elsewhere_does_not_count() -> None:
    call = begun(1, timeout=5.0)
    call.restart_timeout(200.0)
    assert call.deadline() == 205.0
    assert not gives_up(call, 204.9)


def test_there_may_be_no_limit_at_all() -> None:
    call = begun()
    for _ in range(1000):
        call.link_failed("gone")
        call.refused(100.0)
    assert call.deadline() is None
    assert not gives_up(call, 1e9)


def test_attempts_to_connect_are_counted_in_a_row() -> None:
    call = begun(connection_max_retries=1)
    for _ in range(3):
        call.link_failed("nobody there")
        assert not gives_up(call, 100.0)
        call.link_open()
    call.link_failed("nobody there")
    call.link_failed("still nobody")
    assert gives_up(call, 100.0)
    assert call.last_error == "no connection after 1 retries (still nobody)"


def test_retries_are_counted_whatever_they_are_for() -> None:
    call = begun(max_retries=2, retry_delay=1.0)
    call.link_failed("gone")
    call.link_open()
    call.refused(100.0)
    call.refused(100.9)  # of the same batch
    assert not gives_up(call, 100.9)
    call.refused(101.0)
    assert gives_up(call, 101.0)
    assert call.last_error == "given up after 2 retries (the broker refuses it: is a queue full?)"


def test_no_retry_means_that_the_first_failure_is_the_last() -> None:
    lost, refused = begun(max_retries=0), begun(max_retries=0)
    assert not gives_up(lost, 100.0)
    lost.link_failed("gone")
    refused.refused(100.0)
    assert gives_up(lost, 100.0)
    assert gives_up(refused, 100.0)


@pytest.mark.parametrize("count", [-1, 1.5, True, "3"])
@pytest.mark.parametrize("name", ["connection_max_retries", "max_retries"])
def test_a_number_of_retries_is_a_number(name: str, count: Any) -> None:
    with pytest.raises(LocalError, match=f"{name} is {count!r}; give a whole number, or None"):
        PublishLimits(**{name: count})


def test_partly_published_tells_which_are_and_which_are_not() -> None:
    error = PartlyPublished(5, {3: LocalError("too big"), 1: NotConfirmed("gone", may_arrive=True)})
    assert isinstance(error, PublishError)
    assert (error.taken, list(error.failed), error.confirmed) == (5, [1, 3], [0, 2, 4])
    assert str(error).startswith("2 of 5 messages are not published, the first is number 1: gone; it was sent")
    assert str(error).endswith("; see the attributes confirmed and failed")


def test_a_call_may_have_limits_of_its_own() -> None:
    limits = PublishLimits(timeout=30.0, max_retries=5)
    assert limits.of_call(1, 2.5) == PublishLimits(timeout=2.5, max_retries=1)
    assert limits.of_call(None, None) == PublishLimits(timeout=30.0, max_retries=None)


@pytest.mark.parametrize(("retries", "timeout"), [(-1, None), (1.5, None), (None, 0), (None, "soon")])
def test_a_limit_of_a_call_is_a_number(retries: Any, timeout: Any) -> None:
    with pytest.raises(LocalError, match=r"max_retries|timeout"):
        PublishLimits().of_call(retries, timeout)
