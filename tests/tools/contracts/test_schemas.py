"""Whether what one type describes fits another."""

from __future__ import annotations

import datetime
import enum
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.messages.codec import JSON, decode, encode
from eda_core.messages.models import Misfit, library_for
from eda_tools.contracts.schemas import NoSchema, misfits, schema_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Red(enum.Enum):
    RED = "red"


@dataclass
class Item:
    name: str


@dataclass
class Order:
    number: int
    items: list[Item]
    note: str = ""


@dataclass
class Longer(Order):
    ratio: float = 0.0


@dataclass
class NumberIsRatio:
    number: float


@dataclass
class NumberIsText:
    number: str


@dataclass
class NumberOrNothing:
    number: int | None


@dataclass
class NeedsCustomer:
    number: int
    customer: str


@dataclass
class Part:
    name: int


@dataclass
class OtherItems:
    items: list[Part]


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    items: list[Item]


class Model(pydantic.BaseModel):
    number: int
    items: list[Item]


@dataclass
class Tree:
    leaves: list[Tree]
    colour: Colour = Colour.RED


@dataclass
class RedTree:
    leaves: list[RedTree]
    colour: Red = Red.RED


@dataclass
class When:
    at: Annotated[datetime.datetime, msgspec.Meta(tz=True)]


@dataclass
class AtText:
    at: str


@dataclass
class Counts:
    counts: dict[str, int]


@dataclass
class Texts:
    counts: dict[str, str]


@dataclass
class Untyped:
    order: dict[str, Any]


@dataclass
class HoldsOrder:
    order: Order


@dataclass
class Pair:
    pair: tuple[int, str]


@dataclass
class OtherPair:
    pair: tuple[int, int]


class One(msgspec.Struct, tag="one"):
    x: int


class Two(msgspec.Struct, tag="two"):
    x: int


@dataclass
class Fixed:
    word: Literal["a"]


@dataclass
class Word:
    word: str


@pytest.mark.parametrize(
    ("sender", "receiver", "found"),
    [
        (Order, Order, []),
        (Longer, Order, []),
        (Order, Longer, []),
        (Order, NumberIsRatio, []),
        (
            NumberIsRatio,
            Order,
            ["payload.items: the sender does not", "payload.number: number is sent, and integer is expected"],
        ),
        (Order, NumberIsText, ["payload.number: integer is sent, and string is expected"]),
        (Order, NumberOrNothing, []),
        (NumberOrNothing, NumberIsRatio, ["payload.number: null is sent, and number is expected"]),
        (NumberIsText, NumberOrNothing, ["payload.number: it fits none of what is expected"]),
        (Order, NeedsCustomer, ["payload.customer: the sender does not have it"]),
        (Order, OtherItems, ["payload.items[].name: string is sent, and integer is expected"]),
        (Order, Closed, ["payload.note: the receiver does not allow it"]),
        (Closed, Order, []),
        (Order, Model, []),
        (Model, Closed, []),
        (Tree, Tree, []),
        (Tree, RedTree, ["payload.colour: 'blue' may be sent, and is not expected"]),
        (RedTree, Tree, []),
        (When, AtText, []),
        (AtText, When, ["payload.at: any string is sent, and date-time is expected"]),
        (Counts, Texts, ["payload.counts.*: integer is sent, and string is expected"]),
        (Counts, Order, ["payload.number: the sender does not have it", "payload.items: the sender does not have it"]),
        (Item, dict[str, Item], ["payload.name: string is sent, and object is expected"]),
        (dict[str, Item], Item, ["payload.name: the sender does not", "payload.name: object is sent, and string is "]),
        (Untyped, HoldsOrder, []),
        (Pair, Pair, []),
        (Pair, OtherPair, ["payload.pair[1]: string is sent, and integer is expected"]),
        (One, One | Two, []),
        (One | Two, One, ["payload.type: 'two' may be sent, and is not expected"]),
        (list[Order], list[Order], []),
        (list[Order], Order, ["payload: array is sent, and object is expected"]),
        (Fixed, Word, []),
        (Word, Fixed, ["payload.word: any string is sent, and only 'a' is expected"]),
    ],
)
def test_what_does_not_fit_is_found(sender: Any, receiver: Any, found: list[str]) -> None:
    told = list(misfits(schema_of(sender), schema_of(receiver)))
    assert len(told) == len(found), told
    assert all(text.startswith(beginning) for text, beginning in zip(told, found, strict=True)), told


def test_what_cannot_be_described_is_told() -> None:
    class Odd:
        pass

    with pytest.raises(NoSchema, match="Custom cannot be described: "):
        schema_of(msgspec.defstruct("Custom", [("odd", Odd)]))


FIELDS = {
    "number": st.sampled_from(
        [int, str, float, int | None, Colour, Red, Literal["a", "b"], list[int], list[str], Item]
    ),
    "items": st.sampled_from([list[Item], list[Part], dict[str, int], dict[str, Item], Item | None]),
    "more": st.sampled_from([int, list[Item]]),
}
#: Types with some of these fields, each with a default or without.
STRUCTS = st.lists(st.sampled_from(sorted(FIELDS)), unique=True).flatmap(
    lambda names: st.builds(
        lambda types, closed: msgspec.defstruct(
            "Made", list(zip(names, types, strict=True)), forbid_unknown_fields=closed
        ),
        st.tuples(*[FIELDS[name] for name in names]),
        st.booleans(),
    )
)


@given(data=st.data(), sender=STRUCTS, receiver=STRUCTS)
def test_what_is_said_to_fit_is_read(data: st.DataObject, sender: Any, receiver: Any) -> None:
    """Whatever the sender may send, as JSON, the receiver reads, unless a misfit is told."""
    told = list(misfits(schema_of(sender), schema_of(receiver)))
    value = data.draw(st.builds(sender, **{each.name: values_of(each.type) for each in msgspec.structs.fields(sender)}))
    library = library_for(receiver)
    assert library is not None
    with suppress(Misfit) if told else nullcontext():
        library.reader(receiver)(decode(encode(value, JSON), JSON))


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type that JSON can express."""
    return st.floats(allow_nan=False, allow_infinity=False) if kind is float else st.from_type(kind)
