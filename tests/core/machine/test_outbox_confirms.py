"""Publisher confirms, compared with a simple list."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eda_core.machine.effects import Publish
from eda_core.machine.outbox import Confirms
from tests.core.kit import make_publish

tags = st.integers(-2, 14) | st.just(2**63 - 1)
steps = st.lists(
    st.just(("add", 0, False)) | st.tuples(st.just("take"), tags, st.booleans()) | st.just(("clear", 0, False)),
    max_size=40,
)


class Naive:
    """The table of confirms as a list, without any thought for speed."""

    def __init__(self) -> None:
        self.next = 1
        self.open: list[tuple[int, Publish]] = []

    def add(self, publish: Publish) -> None:
        self.open.append((self.next, publish))
        self.next += 1

    def take(self, tag: int, multiple: bool) -> list[Publish]:
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


Table = Confirms[Publish]


def filled(count: int) -> tuple[Table, list[Publish]]:
    confirms: Table = Confirms()
    publishes = [make_publish(number) for number in range(1, count + 1)]
    assert [confirms.add(publish) for publish in publishes] == [*range(1, count + 1)]
    return confirms, publishes


@given(steps)
def test_takes_what_a_naive_list_would(operations: list[tuple[str, int, bool]]) -> None:
    confirms: Table = Confirms()
    naive = Naive()
    for number, (operation, tag, multiple) in enumerate(operations):
        if operation == "add":
            publish = make_publish(number)
            naive.add(publish)
            assert confirms.add(publish) == naive.open[-1][0]
        elif operation == "take":
            assert confirms.take(tag, multiple) == naive.take(tag, multiple)
        else:
            assert confirms.clear() == [publish for _, publish in naive.open]
            naive = Naive()
        assert len(confirms.open) == len(naive.open)
        assert confirms.oldest() is (naive.open[0][1] if naive.open else None)


def test_tags_count_from_one_in_the_order_of_publishing_on_each_link() -> None:
    confirms, publishes = filled(3)
    assert confirms.open == dict(enumerate(publishes, 1))
    confirms.clear()
    assert confirms.add(make_publish(4)) == 1


def test_a_single_confirm_says_nothing_of_lower_tags() -> None:
    confirms, publishes = filled(3)
    assert confirms.take(3, False) == [publishes[2]]
    assert confirms.oldest() is publishes[0]


def test_a_multiple_confirm_leaves_out_what_was_confirmed_before() -> None:
    confirms, publishes = filled(8)
    for tag in (1, 3, 5):
        confirms.take(tag, False)
    assert confirms.take(8, True) == [publishes[index] for index in (1, 3, 5, 6, 7)]


def test_tag_zero_means_all_with_multiple_and_nothing_without() -> None:
    confirms, publishes = filled(3)
    assert confirms.take(0, False) == []
    assert confirms.take(0, True) == publishes
    assert len(confirms.open) == 0


def test_a_repeated_or_unknown_confirm_is_about_nothing() -> None:
    confirms, _ = filled(2)
    confirms.take(1, False)
    assert confirms.take(1, False) == confirms.take(1, True) == confirms.take(9, False) == []
    assert len(confirms.open) == 1


def test_what_is_cleared_is_known_no_more() -> None:
    confirms, publishes = filled(3)
    confirms.take(2, False)
    assert confirms.clear() == [publishes[0], publishes[2]]
    assert len(confirms.open) == 0
    assert confirms.oldest() is None
    assert confirms.clear() == confirms.take(0, True) == []


def test_the_low_water_mark_never_goes_back() -> None:
    confirms, _ = filled(6)
    marks = []
    for tag, multiple in ((4, True), (2, True), (0, False), (-1, True), (5, False), (3, True), (6, True)):
        confirms.take(tag, multiple)
        confirms.oldest()
        marks.append(confirms._low)
    assert marks == sorted(marks)


def test_the_cost_of_a_whole_link_is_in_proportion_to_its_publishes() -> None:
    """Deleting from the front of a dictionary, or walking over it for each confirm, would be quadratic."""
    confirms: Table = Confirms()
    counting, count = CountingDict(), 2_000
    confirms.open = counting
    for number in range(1, count + 1):
        confirms.add(make_publish(number))
    for tag in range(1, count + 1):
        confirms.take(tag, tag % 3 == 0)
        confirms.oldest()
    assert len(confirms.open) == 0
    assert counting.looks <= 4 * count


def test_a_multiple_confirm_far_beyond_what_was_published_costs_nothing() -> None:
    confirms, publishes = filled(2)
    assert confirms.take(2**63 - 1, True) == publishes
    confirms.add(late := make_publish(3))
    assert confirms.take(3, False) == [late]
