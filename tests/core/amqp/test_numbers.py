"""The lowest number that is free, found without a look at all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eda_core.amqp.numbers import Numbers


class Used(set[int]):
    """Numbers in use, which counts how often it is asked for one."""

    looks = 0

    def __contains__(self, number: object) -> bool:
        self.looks += 1
        return super().__contains__(number)


def take(numbers: Numbers, used: set[int]) -> int:
    number = numbers.lowest()
    used.add(number)
    return number


@given(st.lists(st.integers(-12, 12)))
def test_it_is_the_lowest_whatever_came_before(steps: list[int]) -> None:
    """0 takes the lowest, a number above takes that one, and one below gives it back."""
    used: set[int] = set()
    numbers = Numbers(used)
    for step in steps:
        assert numbers.lowest() == min(set(range(1, 30)) - used)
        if step == 0:
            take(numbers, used)
        elif step > 0:
            used.add(step)
        elif -step in used:
            used.remove(-step)
            numbers.give_back(-step)


def test_it_takes_as_long_with_thousands_of_them_as_with_one() -> None:
    used = Used()
    numbers = Numbers(used)
    for _ in range(5_000):
        take(numbers, used)
    assert used.looks <= 2 * 5_000
    used.looks = 0
    for number in range(5_000, 2_000, -1):
        used.remove(number)
        numbers.give_back(number)
    assert [take(numbers, used) for _ in range(3_000)] == [*range(2_001, 5_001)]
    assert used.looks <= 2 * 3_000
    used.looks = 0
    for _ in range(3_000):
        used.remove(7)
        numbers.give_back(7)
        assert take(numbers, used) == 7
    assert used.looks <= 3 * 3_000
