"""Deliveries in flight and their acknowledgements (rule R8), against the set of tags that a broker keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.machine.deliveries import RUNNING
from eda_core.machine.effects import Ack, Effect
from eda_core.machine.identifiers import DeliveryId, Epoch, delivery_id
from eda_core.machine.in_flight import Delivery, Group, InFlight
from eda_core.messages.values import Event
from tests.core.kit import acknowledged

EPOCH = Epoch(3)


def delivery(tag: int, epoch: Epoch = EPOCH) -> Delivery:
    event = Event("Happened", None, "c-1")
    number = delivery_id(epoch, tag)
    return Delivery(number, tag, event, Basic.Properties(), b"", f"key-{tag}", 1, [], RUNNING, number, 0.0)


def arrive(flight: InFlight, *tags: int) -> dict[int, Delivery]:
    arrived = {tag: delivery(tag) for tag in tags}
    for tag, each in arrived.items():
        assert flight.is_next(tag)
        flight.by_id[each.id] = each
    return arrived


def acknowledge(flight: InFlight, delivery: Delivery) -> None:
    """Remove a delivery that is acknowledged, as the machine does."""
    del flight.by_id[delivery.id]
    flight.to_ack.append(delivery.tag)


def flush(flight: InFlight) -> list[Effect]:
    effects: list[Effect] = []
    if flight.to_ack:
        flight.flush(effects)
    return effects


def after(deliveries: int, settled: list[int]) -> list[Effect]:
    flight = InFlight(EPOCH)
    arrived = arrive(flight, *range(1, deliveries + 1))
    for tag in settled:
        acknowledge(flight, arrived[tag])
    return flush(flight)


# Each step: a delivery (invalid ones are seen and rejected, never in flight), or one of those in flight is settled, or
# the acknowledgements go out.
moves = st.sampled_from(["deliver", "invalid", "skip", "flush"]) | st.tuples(
    st.sampled_from(["ack", "nack"]), st.integers(0, 30)
)


@given(st.lists(moves, max_size=60))
def test_acknowledgements_cover_what_was_settled_and_nothing_else(steps: list[str | tuple[str, int]]) -> None:
    flight, unacked, tag = InFlight(EPOCH), set[int](), 0
    running: dict[int, Delivery] = {}
    expected: set[int] = set()
    for step in steps:
        if step == "skip":  # of another channel's numbering: the core must not rely on every tag being used
            tag += 1
        elif step in ("deliver", "invalid"):
            tag += 1
            unacked.add(tag)
            assert flight.is_next(tag)
            if step == "deliver":
                running[tag] = flight.by_id[delivery_id(EPOCH, tag)] = delivery(tag)
            else:
                unacked.discard(tag)
        elif isinstance(step, tuple) and running:
            chosen = sorted(running)[step[1] % len(running)]
            if step[0] == "ack":
                acknowledge(flight, running.pop(chosen))
                expected.add(chosen)
            else:
                del flight.by_id[running.pop(chosen).id]
                unacked.discard(chosen)
        elif step == "flush":
            assert acknowledged(flush(flight), unacked) == expected
            expected.clear()
        assert {each.tag for each in flight} == set(running)
        assert len(flight) == len(running)
    assert acknowledged(flush(flight), unacked) == expected
    assert unacked == set(running)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(1, n + 1)), st.integers(1, n))))
def test_the_settled_prefix_goes_out_as_one_and_the_rest_singly(case: tuple[int, list[int], int]) -> None:
    deliveries, order, count = case
    settled = set(order[:count])
    prefix = 0
    while prefix + 1 in settled:
        prefix += 1
    expected = [Ack(EPOCH, prefix, prefix > 1)] if prefix else []
    expected += [Ack(EPOCH, tag, False) for tag in sorted(settled) if tag > prefix]
    assert after(deliveries, order[:count]) == (expected if count > 1 else [Ack(EPOCH, order[0], False)])


def test_a_slow_handler_holds_nobody_up() -> None:
    assert after(4, [4, 3, 2]) == [Ack(EPOCH, 2, False), Ack(EPOCH, 3, False), Ack(EPOCH, 4, False)]


def test_several_in_a_row_are_one_acknowledgement() -> None:
    assert after(4, [2, 1, 3]) == [Ack(EPOCH, 3, True)]


def test_one_alone_is_a_plain_acknowledgement() -> None:
    assert after(2, [1]) == [Ack(EPOCH, 1, False)]


def test_what_closes_a_gap_does_not_cover_what_went_out_before_it() -> None:
    flight = InFlight(EPOCH)
    arrived = arrive(flight, 1, 2, 3)
    acknowledge(flight, arrived[2])
    assert flush(flight) == [Ack(EPOCH, 2, False)]
    acknowledge(flight, arrived[3])
    acknowledge(flight, arrived[1])
    # Up to 3 in one: the broker has settled 2 already, so this covers 1 and 3.
    assert flush(flight) == [Ack(EPOCH, 3, True)]


def test_flushed_once() -> None:
    flight = InFlight(EPOCH)
    acknowledge(flight, arrive(flight, 1)[1])
    flush(flight)
    assert flight.to_ack == []


def test_a_tag_is_new_once_and_never_goes_back() -> None:
    flight = InFlight(EPOCH)
    assert [flight.is_next(tag) for tag in (1, 1, 2, 5, 4, 0, -1, 6)] == [
        True,
        False,
        True,
        True,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("tag", [2**48 + 1, 2**63 + 2, 2**64, 2**21])
def test_a_tag_out_of_the_blue_is_none(tag: int) -> None:
    """Its identifier could be that of another delivery, or counting up to it would take for ever."""
    flight = InFlight(EPOCH)
    arrived = arrive(flight, 1, 2**20 + 1)
    assert not flight.is_next(tag + 2**20 + 1)
    for each in arrived.values():
        acknowledge(flight, each)
    assert flush(flight) == [Ack(EPOCH, 2**20 + 1, True)]


def test_a_delivery_is_found_by_its_identifier_until_it_is_settled() -> None:
    flight = InFlight(EPOCH)
    first, second = arrive(flight, 1, 2).values()
    assert flight.by_id.get(first.id) is first
    assert flight.by_id.get(delivery_id(Epoch(EPOCH - 1), 1)) is None
    assert flight.by_id.get(DeliveryId(1)) is None
    del flight.by_id[first.id]
    acknowledge(flight, second)
    assert flight.by_id.get(first.id) is flight.by_id.get(second.id) is None
    assert not flight


def test_deliveries_are_kept_in_the_order_in_which_they_came() -> None:
    flight = InFlight(EPOCH)
    arrived = arrive(flight, 2, 3, 7)
    del flight.by_id[arrived[3].id]
    assert list(flight) == [arrived[2], arrived[7]]


def test_a_delivery_begins_with_its_handler_running_and_nothing_published() -> None:
    fresh = delivery(1)
    assert (fresh.stage, fresh.unconfirmed, fresh.failure, fresh.held) == (RUNNING, 0, None, [])
    assert fresh.held is not delivery(1).held


def test_a_delivery_is_shown_without_what_it_carries() -> None:
    assert repr(delivery(3)) == "<Delivery 3 <Event Happened c-1> running, attempt 1>"


def test_a_group_is_shown_by_its_size() -> None:
    assert repr(Group([delivery(1), delivery(2)], 1)) == "<Group of 2, 1 missing>"


def test_the_search_for_the_lowest_unsettled_never_goes_back() -> None:
    """On a whole link each tag is looked at once, however often acknowledgements are sent."""
    flight, count = InFlight(EPOCH), 1_000

    class Counting(dict[DeliveryId, Delivery]):
        looks = 0

        def __contains__(self, key: object) -> bool:
            self.looks += 1
            return super().__contains__(key)

    flight.by_id = counting = Counting()
    marks = []
    for tag in range(1, count + 1, 2):
        for each in arrive(flight, tag, tag + 1).values():
            acknowledge(flight, each)
        flush(flight)
        marks.append(flight._low)
    assert marks == sorted(marks)
    assert counting.looks <= 2 * count
