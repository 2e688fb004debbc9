"""Payloads of a type are what travels: plain, in UTC, finite, and as deep as the type says."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, Literal, NamedTuple, NewType, Required, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.errors import LocalError
from eda_core.messages.codec import decode, encode
from eda_core.testing.strategies import typed
from tests.core.testing.strategies.test_subscribed import FEW

Number = NewType("Number", int)


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Tree:
    """Contains itself."""

    name: str
    children: list[Tree] = field(default_factory=list)


class Partial(TypedDict, total=False):
    id: Required[Number]
    more: Any


@dataclass
class Checked:
    """Refuses what its fields do not say."""

    count: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = self.count * 2


#: Types, and what holds for everything that is drawn for them.
TYPES: list[tuple[Any, Any]] = [
    (int, lambda value: type(value) is int),
    (float, math.isfinite),
    (Level, lambda value: type(value) is int and value in (1, 2)),
    (Point, lambda value: type(value) is list and len(value) == 2),
    (Number, lambda value: type(value) is int),
    (Partial, lambda value: {"id"} <= {*value} <= {"id", "more"}),
    (Checked, lambda value: value["doubled"] == value["count"] * 2),
    (Tree, lambda value: {*value} == {"name", "children"} and type(value["children"]) is list),
    (list[Tree], lambda value: all(type(each) is dict for each in value)),
    (list, lambda value: type(value) is list),
    (dict, lambda value: all(type(key) is str for key in value)),
    (dict[str, Any], lambda value: all(type(key) is str for key in value)),
    (Mapping[str, Level], lambda value: {*value.values()} <= {1, 2}),
    (Sequence[Point], lambda value: all(len(each) == 2 for each in value)),
    (tuple[int, ...], lambda value: type(value) is list),
    (tuple[int, str], lambda value: [type(each) for each in value] == [int, str]),
    (int | None, lambda value: value is None or type(value) is int),
    (Literal["a", "b"], lambda value: value in ("a", "b")),
    (Annotated[int, "a count"], lambda value: type(value) is int),
    (datetime.datetime, lambda value: value.tzinfo is datetime.UTC),
    (uuid.UUID, lambda value: type(value) is uuid.UUID),
    (Any, lambda value: True),
]


@pytest.mark.parametrize(("hint", "holds"), TYPES, ids=[str(hint) for hint, _ in TYPES])
def test_what_is_drawn_is_of_the_type_and_travels_unchanged(hint: Any, holds: Any) -> None:
    @FEW
    @given(typed(hint))
    def check(payload: Any) -> None:
        assert holds(payload)
        assert decode(encode(payload), "application/cbor") == payload

    check()


def test_a_key_that_is_not_required_is_there_in_some() -> None:
    found: list[Any] = []
    FEW(given(typed(Partial))(lambda payload: found.append(payload)))()
    assert {"more" in each for each in found} == {True, False}


def test_a_type_that_contains_itself_is_drawn_with_and_without_children() -> None:
    found: list[Any] = []
    FEW(given(typed(Tree))(lambda payload: found.append(payload)))()
    assert {bool(each["children"]) for each in found} == {True, False}


def test_a_registered_type_is_drawn_as_registered() -> None:
    class Money:
        pass

    st.register_type_strategy(Money, st.decimals(0, 10, places=2))
    found: list[Any] = []
    FEW(given(typed(dict[str, Money]))(lambda payload: found.append(payload)))()
    assert {type(value) for each in found for value in each.values()} == {decimal.Decimal}


class Refused:
    def __init__(self, unknown) -> None:  # type: ignore[no-untyped-def]
        self.unknown = unknown


@dataclass
class Holds:
    refused: Refused


@dataclass
class Endless:
    itself: Endless


@pytest.mark.parametrize("hint", [Refused, list[Refused], Holds, Endless, 3])
def test_a_type_for_which_there_is_nothing_is_refused(hint: Any) -> None:
    with pytest.raises(LocalError, match=r"there is no strategy for .*register_type_strategy"):
        typed(hint)
