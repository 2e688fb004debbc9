"""The table of calls, and how each call ends. The machine's part is in ``test_machine_calls``."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.errors import BufferFull, CommandError, CommandTimeout, LocalError, PublishError
from eda_core.machine.calls import Call, Calls, answer, reply_key
from eda_core.machine.effects import Replied
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import ERROR, SUCCESS, Result
from tests.core.kit import make_publish


def waiting(*dues: float, limit: int = 10) -> Calls:
    """Return calls 0, 1 and so on, due at these times. The correlation id of each is its number."""
    calls = Calls("svc.tok", limit)
    for number, due in enumerate(dues):
        calls.add(str(number), Call(number, "peer.Do", due, make_publish(number)))
    return calls


def tickets(calls: list[Call]) -> list[int]:
    return [call.ticket for call in calls]


# The table


def test_a_result_ends_its_call_once() -> None:
    calls = waiting(10.0, 20.0)
    found = calls.take("1")
    assert found is not None
    assert (found.ticket, found.command, found.due) == (1, "peer.Do", 20.0)
    assert calls.take("1") is None
    assert len(calls) == 1


@pytest.mark.parametrize("correlation_id", [None, "", "7"])
def test_a_result_of_no_call_ends_none(correlation_id: str | None) -> None:
    calls = waiting(10.0)
    assert calls.take(correlation_id) is None
    assert len(calls) == 1


@pytest.mark.parametrize("own", ["svc.tok", "svc.*", "svc.#", "*.*", "#.tok"])
def test_results_come_under_a_key_that_the_service_is_not_bound_to(own: str) -> None:
    assert reply_key("svc", "tok", ["svc.Do", "other.#"]) == "svc.tok"
    assert reply_key("svc", "tok", ["svc.Do", own]) == "replies.svc.tok"


def test_calls_are_overdue_in_the_order_of_their_times() -> None:
    calls = waiting(30.0, 10.0, 20.0, 10.0)
    assert calls.overdue(9.9) == []
    assert tickets(calls.overdue(20.0)) == [1, 3, 2]
    assert calls.overdue(20.0) == []
    assert calls.deadline() == 30.0


def test_the_time_of_a_call_that_is_over_wakes_nobody() -> None:
    calls = waiting(10.0, 20.0, 30.0)
    calls.take("0")
    assert calls.deadline() == 20.0
    calls.take("1")
    assert calls.deadline() == 30.0
    assert calls.overdue(20.0) == []
    calls.take("2")
    assert calls.deadline() is None
    assert calls.overdue(99.0) == []


def test_the_table_forgets_in_any_order() -> None:
    calls = waiting(10.0, 9.0, 8.0)
    calls.take("2")
    assert calls.deadline() == 9.0
    assert tickets(calls.overdue(10.0)) == [1, 0]


def test_at_the_end_all_are_given_back_and_nothing_is_held() -> None:
    calls = waiting(10.0, 20.0)
    calls.hold(make_publish(1))
    assert tickets(calls.abandon()) == [0, 1]
    assert (len(calls), calls.release(), calls.deadline()) == (0, [], None)
    assert calls.abandon() == []


def test_commands_are_held_until_they_are_released_once() -> None:
    calls, first, second = waiting(), make_publish(1), make_publish(2)
    calls.hold(first)
    calls.hold(second)
    assert calls.release() == [first, second]
    assert calls.release() == []


def test_commands_whose_calls_are_over_are_not_held_any_more() -> None:
    calls, held = waiting(), [make_publish(number) for number in range(4)]
    for publish in held:
        calls.hold(publish)
    assert calls.drop([held[2], make_publish(9), held[0]]) == [held[0], held[2]]
    assert calls.drop([held[2]]) == []
    assert calls.release() == [held[1], held[3]]


def test_what_is_held_is_told_and_stays_held() -> None:
    calls, held = waiting(), make_publish(1, delivery=DeliveryId(7))
    calls.hold(held)
    assert calls.held() == [held]
    assert calls.release() == [held]


# One more


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), True, "5", None])
def test_a_timeout_is_seconds(timeout: Any) -> None:
    with pytest.raises(LocalError, match=r"timeout is .*; give seconds, more than 0"):
        waiting().check(timeout)


@pytest.mark.parametrize("timeout", [1, 0.001, 1e9])
def test_there_may_be_as_many_as_the_limit(timeout: float) -> None:
    calls = waiting(10.0, limit=2)
    calls.check(timeout)
    calls.add("1", Call(1, "peer.Do", 20.0, make_publish(1)))
    with pytest.raises(BufferFull, match="2 calls wait for results") as caught:
        calls.check(timeout)
    assert caught.value.temporary
    assert calls.full()
    calls.take("0")
    calls.check(timeout)


def test_those_that_are_over_take_no_room_behind_one_that_is_not() -> None:
    calls = Calls("svc.tok", 10_000)
    calls.add("slow", Call(0, "peer.Do", 50.0, make_publish(0)))
    for number in range(1, 1000):
        calls.add(str(number), Call(number, "peer.Do", 50.0 + number, make_publish(number)))
        if number % 100:
            assert calls.take(str(number))
        assert len(calls._due) <= 2 * (len(calls) + 1) + 100
    assert calls.deadline() == 50.0
    assert [call.ticket for call in calls.overdue(1e9)] == [0, *range(100, 1000, 100)]


# What a call comes to


def result(status: str, payload: object) -> Replied:
    return Replied(1, "peer.Do", Result("svc.tok", payload, "c-1", status, "0"))


@pytest.mark.parametrize("payload", [{"is": 7}, None, ""])
def test_the_answer_is_the_payload_whatever_it_is(payload: object) -> None:
    assert answer(result(SUCCESS, payload)) == payload


def test_an_error_is_raised_with_its_payload() -> None:
    with pytest.raises(CommandError, match=r"peer\.Do: .*no") as caught:
        answer(result(ERROR, {"why": "no"}))
    assert (caught.value.command, caught.value.payload) == ("peer.Do", {"why": "no"})


def test_no_result_in_time_is_a_timeout() -> None:
    with pytest.raises(CommandTimeout, match=r"peer\.Do: too late; a result that comes later is dropped") as caught:
        answer(Replied(1, "peer.Do", None, "too late", timed_out=True))
    assert isinstance(caught.value, TimeoutError)


def test_a_command_that_cannot_be_answered_was_not_published() -> None:
    with pytest.raises(PublishError, match=r"^peer\.Do: nobody is there$") as caught:
        answer(Replied(1, "peer.Do", None, "nobody is there"))
    assert not isinstance(caught.value, CommandTimeout)
