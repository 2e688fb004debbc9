"""Whose turn it is, without the life of a delivery around it (test_deliveries_turns.py has that)."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.machine.deliveries import RUNNING
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.in_flight import Delivery
from eda_core.machine.turns import Turns
from eda_core.messages.values import Event


def delivery(number: int, key: Any = "k") -> Delivery:
    run, message = DeliveryId(number), Event("Happened", None, "c")
    properties = Basic.Properties(headers={} if key is None else {"customer": key})
    return Delivery(run, number, message, properties, b"", number, 1, [], RUNNING, run, 0.0)


def test_each_key_goes_to_one_handler_after_the_other_in_order() -> None:
    turns, (first, second, third) = Turns("customer"), map(delivery, (1, 2, 3))
    assert [turns.take(each) for each in (first, second, third)] == [True, False, False]
    assert turns.pass_on(first.run) is second
    assert turns.pass_on(second.run) is third
    assert turns.pass_on(third.run) is None
    assert turns.take(delivery(4)), "nobody has the key any more"


def test_different_keys_do_not_wait_for_each_other() -> None:
    turns = Turns("customer")
    keys = ("a", 1, True, "1", ["a"], {"a": 1})
    assert all(turns.take(delivery(number, key)) for number, key in enumerate(keys))
    assert not any(turns.take(delivery(10 + number, key)) for number, key in enumerate(keys))
    following = turns.pass_on(DeliveryId(2))
    assert following is not None
    assert following.run == 12


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_nobody_waits_and_no_turn_is_passed_on(key: object) -> None:
    turns = Turns("customer")
    assert turns.take(delivery(1, key))
    assert turns.take(delivery(2, key))
    assert turns.pass_on(DeliveryId(1)) is None


def test_properties_may_have_no_headers_at_all() -> None:
    turns, bare = Turns("customer"), delivery(1)
    bare.properties.headers = None
    assert turns.take(bare)
    assert turns.take(delivery(2))


def test_a_turn_is_passed_on_once() -> None:
    turns, first, second = Turns("customer"), delivery(1), delivery(2)
    turns.take(first)
    turns.take(second)
    assert turns.pass_on(first.run) is second
    assert turns.pass_on(first.run) is None
    assert not turns.take(delivery(3)), "the second one has the key"


def test_those_that_wait_are_forgotten_and_the_handler_keeps_its_turn() -> None:
    turns, first = Turns("customer"), delivery(1)
    turns.take(first)
    turns.take(delivery(2))
    turns.forget_waiting()
    assert not turns.take(third := delivery(3))
    assert turns.pass_on(first.run) is third


def test_after_a_lost_link_only_the_handlers_that_run_have_a_turn() -> None:
    turns, running, paused = Turns("customer"), delivery(1, "a"), delivery(2, "b")
    for each in (running, paused, delivery(3, "a"), delivery(4, "b")):
        turns.take(each)
    turns.lose_link({running.run})
    assert turns.take(delivery(5, "b"))
    assert not turns.take(again := delivery(6, "a"))
    assert turns.pass_on(running.run) is again
