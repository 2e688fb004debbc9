"""The messages of a queue in the order of delivery, compared with a list that is sorted each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from eda_core.testing.broker import AmqpMessage, Entry
from eda_core.testing.broker.ready import ALIKE, Priorities, Ready

QUEUE = Priorities(default=2, highest=5)
priorities = st.sampled_from((None, 0, 1, 2, 5, 7, 255))
#: Put in a message of this priority, take one out, or put back the oldest or the newest that was taken out.
steps = st.lists(
    st.one_of(priorities.map(lambda p: ("append", p)), st.sampled_from((("pop", 0), ("back", 0), ("back", -1))))
)


def entry(position: int, priority: int | None = None) -> Entry:
    return Entry(position, AmqpMessage("", ("q",), commands.Basic.Properties(priority=priority), b""))


def expected(entries: list[Entry], order: Priorities) -> list[Entry]:
    return sorted(entries, key=lambda entry: (-order.of(entry), entry.position))


@given(steps, st.sampled_from((QUEUE, ALIKE)))
def test_the_order_is_by_priority_and_then_by_age(played: list[tuple[str, int | None]], order: Priorities) -> None:
    ready, naive, taken = Ready(order), list[Entry](), list[Entry]()
    for position, (what, value) in enumerate(played):
        if what == "append":
            new = entry(position, value)
            ready.append(new)
            naive.append(new)
        elif what == "pop" and naive:
            first = expected(naive, order)[0]
            assert ready.pop() is first
            naive.remove(first)
            taken.append(first)
        elif what == "back" and taken and value is not None:
            back = taken.pop(value)
            ready.put_back([back])
            naive.append(back)
        assert list(ready) == expected(naive, order)
        assert len(ready) == len(naive)
        assert ready.head() is (expected(naive, order)[0] if naive else None)
        heads = list(ready.heads())
        assert [order.of(head) for head in heads] == sorted({order.of(each) for each in naive}, reverse=True)


@given(st.lists(priorities, max_size=12), st.data())
def test_several_come_back_to_their_places(given_priorities: list[int | None], data: st.DataObject) -> None:
    ready = Ready(QUEUE)
    ready.extend(entry(position, priority) for position, priority in enumerate(given_priorities))
    everything = list(ready)
    count = data.draw(st.integers(0, len(everything)))
    taken = [ready.pop() for _ in range(count)]
    ready.put_back(data.draw(st.permutations(taken)))
    assert list(ready) == everything


def test_a_head_of_a_lower_priority_can_be_taken_out() -> None:
    ready = Ready(QUEUE)
    first, low, high = entry(1, 0), entry(2, 0), entry(3, 5)
    ready.extend([first, low, high])
    assert ready.pop(first) is first
    assert list(ready) == [high, low]


def test_the_last_of_a_priority_is_replaced_and_no_other() -> None:
    ready = Ready(QUEUE)
    first, last = entry(1, 0), entry(2, 0)
    ready.extend([first, last, entry(3, 5)])
    ready.replace_last(first, entry(8, 0))
    ready.replace_last(last, entry(9, 0))
    ready.replace_last(entry(4, 1), entry(7, 1))
    assert [each.position for each in ready] == [3, 1, 9]


def test_a_copy_is_independent() -> None:
    ready = Ready(QUEUE)
    ready.extend([entry(1, 0), entry(2, 5)])
    copy = ready.copy()
    copy.pop()
    copy.append(entry(3, 9))
    assert [each.position for each in ready] == [2, 1]
    assert [each.position for each in copy] == [3, 1]
    ready.clear()
    assert (list(ready), len(ready), ready.head()) == ([], 0, None)
    assert len(copy) == 2
