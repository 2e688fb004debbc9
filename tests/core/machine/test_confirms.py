"""Publisher confirms, against a list that is searched from one end to the other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eda_core.machine.confirms import Ledger
from eda_core.machine.effects import Effect, Publish
from eda_core.machine.identifiers import Epoch
from tests.core.kit import make_publish

EPOCH = Epoch(2)
tags = st.integers(-2, 14) | st.just(2**63 - 1)
steps = st.lists(
    st.just(("add", 0, False)) | st.tuples(st.just("settle"), tags, st.booleans()) | st.just(("drain", 0, False)),
    max_size=40,
)


class Naive:
    """What the ledger is, without any thought for speed."""

    def __init__(self) -> None:
        self.next = 1
        self.open: list[tuple[int, Publish]] = []

    def add(self, publish: Publish) -> None:
        self.open.append((self.next, publish))
        self.next += 1

    def settle(self, tag: int, multiple: bool) -> list[Publish]:
        hit = [each for each in self.open if each[0] == tag or (multiple and (tag == 0 or each[0] <= tag))]
        self.open = [each for each in self.open if each not in hit]
        return [publish for _, publish in hit]


class CountingDict(dict[int, Publish]):
    """A dictionary that counts how often it is looked into."""

    looks = 0

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)

    def pop(self, key: int, default: Any = None) -> Any:
        self.looks += 1
        return super().pop(key, default)


def send(ledger: Ledger, *publishes: Publish) -> None:
    effects: list[Effect] = []
    ledger.backlog.extend(publishes)
    ledger.send(EPOCH, 5.0, effects)
    assert effects == list(publishes)


def filled(count: int) -> tuple[Ledger, list[Publish]]:
    ledger, publishes = Ledger(1_000_000), [make_publish(number) for number in range(1, count + 1)]
    send(ledger, *publishes)
    return ledger, publishes


@given(steps)
def test_settles_what_a_naive_list_would(operations: list[tuple[str, int, bool]]) -> None:
    ledger, naive = Ledger(1_000_000), Naive()
    for number, (operation, tag, multiple) in enumerate(operations):
        if operation == "add":
            publish = make_publish(number)
            send(ledger, publish)
            naive.add(publish)
            assert publish.tag == naive.open[-1][0]
        elif operation == "settle":
            assert ledger.settle(tag, multiple) == naive.settle(tag, multiple)
        else:
            assert ledger.drain() == [publish for _, publish in naive.open]
            naive = Naive()
        assert len(ledger) == len(naive.open)
        assert ledger.oldest() is (naive.open[0][1] if naive.open else None)


def test_tags_count_from_one_in_the_order_of_publishing_on_each_link() -> None:
    ledger, publishes = filled(3)
    assert [(publish.tag, publish.epoch, publish.sent_at) for publish in publishes] == [
        (1, EPOCH, 5.0),
        (2, EPOCH, 5.0),
        (3, EPOCH, 5.0),
    ]
    ledger.drain()
    send(ledger, first := make_publish(4))
    assert first.tag == 1


def test_a_single_confirm_says_nothing_of_lower_tags() -> None:
    ledger, publishes = filled(3)
    assert ledger.settle(3, False) == [publishes[2]]
    assert ledger.oldest() is publishes[0]


def test_a_multiple_confirm_leaves_out_what_was_confirmed_before() -> None:
    ledger, publishes = filled(8)
    for tag in (1, 3, 5):
        ledger.settle(tag, False)
    assert ledger.settle(8, True) == [publishes[index] for index in (1, 3, 5, 6, 7)]


def test_tag_zero_means_all_with_multiple_and_nothing_without() -> None:
    ledger, publishes = filled(3)
    assert ledger.settle(0, False) == []
    assert ledger.settle(0, True) == publishes
    assert len(ledger) == 0


def test_a_repeated_or_unknown_confirm_is_about_nothing() -> None:
    ledger, _ = filled(2)
    ledger.settle(1, False)
    assert ledger.settle(1, False) == ledger.settle(1, True) == ledger.settle(9, False) == []
    assert len(ledger) == 1


def test_what_is_drained_is_known_no_more() -> None:
    ledger, publishes = filled(3)
    ledger.settle(2, False)
    assert ledger.drain() == [publishes[0], publishes[2]]
    assert len(ledger) == 0
    assert ledger.oldest() is None
    assert ledger.drain() == ledger.settle(0, True) == []


def test_the_low_water_mark_never_goes_back() -> None:
    ledger, _ = filled(6)
    marks = []
    for tag, multiple in ((4, True), (2, True), (0, False), (-1, True), (5, False), (3, True), (6, True)):
        ledger.settle(tag, multiple)
        ledger.oldest()
        marks.append(ledger._low)
    assert marks == sorted(marks)


def test_the_cost_of_a_whole_link_is_in_proportion_to_its_publishes() -> None:
    """Deleting from the front of a dictionary, or walking over it for each confirm, would be quadratic."""
    ledger, counting, count = Ledger(1_000_000), CountingDict(), 2_000
    ledger._open = counting
    for number in range(1, count + 1):
        send(ledger, make_publish(number))
    for tag in range(1, count + 1):
        ledger.settle(tag, tag % 3 == 0)
        ledger.oldest()
    assert len(ledger) == 0
    assert counting.looks <= 4 * count


def test_a_multiple_confirm_far_beyond_what_was_published_costs_nothing() -> None:
    ledger, publishes = filled(2)
    assert ledger.settle(2**63 - 1, True) == publishes
    send(ledger, late := make_publish(3))
    assert ledger.settle(3, False) == [late]
