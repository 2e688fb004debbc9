"""Checks of the values that users pass."""

from __future__ import annotations

import pytest

from eda_core.checks import check_seconds, is_number
from eda_core.errors import LocalError


@pytest.mark.parametrize("value", [1, 0.001, 1e9])
def test_seconds_are_more_than_none(value: float) -> None:
    check_seconds("timeout", value)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "5", None, True])
def test_what_are_no_seconds(value: object) -> None:
    with pytest.raises(LocalError) as caught:
        check_seconds("timeout", value)
    assert str(caught.value) == f"timeout is {value!r}; give seconds, more than 0"


@pytest.mark.parametrize(
    ("value", "is_one"), [(0, True), (-1.5, True), (float("inf"), True), (True, False), ("1", False), (None, False)]
)
def test_a_number_is_whole_or_a_float_and_no_truth_value(value: object, is_one: bool) -> None:
    assert is_number(value) is is_one
