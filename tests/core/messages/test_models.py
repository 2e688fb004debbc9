"""What a model is, which library it belongs to, and how payloads with models in them become plain."""

from __future__ import annotations

import datetime
import enum
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from eda_core.messages import models
from eda_core.messages.models import (
    ANY,
    MSGSPEC,
    PYDANTIC,
    Misfit,
    library,
    library_for,
    library_of,
    models_in,
    without_models,
)

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Item:
    name: str
    colour: Colour = Colour.RED
    parts: list[Item] = field(default_factory=list)


@dataclass
class Page(Generic[T]):
    first: T


class Address(TypedDict):
    street: str


class Card(msgspec.Struct):
    number: str


class Order(pydantic.BaseModel):
    items: list[Item]


@pydantic.dataclasses.dataclass
class Checked:
    number: int


@attrs.define
class Parcel:
    weight: int


Cards = NewType("Cards", list[Card])


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes a library unavailable."""

    def hide(name: str) -> None:
        monkeypatch.setitem(sys.modules, models._MODULES[name], None)
        library.cache_clear()

    yield hide
    monkeypatch.undo()
    library.cache_clear()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Item, ANY),
        (Page, ANY),
        (Address, ANY),
        (Card, MSGSPEC),
        (Parcel, MSGSPEC),
        (Order, PYDANTIC),
        (Checked, PYDANTIC),
        (dict, None),
        (str, None),
        (Any, None),
        (None, None),
        (Item("not a class"), None),
    ],
)
def test_a_class_belongs_to_a_library(kind: Any, name: str | None) -> None:
    assert library_of(kind) == name


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (Item, [Item]),
        (Item | None, [Item]),
        (typing.Optional[Item], [Item]),  # noqa: UP045
        (list[Card], [Card]),
        (dict[str, Card | Order], [Card, Order]),
        (Annotated[Item, "text"], [Item]),
        (Page[Card], [Page, Card]),
        (Cards, [Card]),
        (Any, []),
        (dict[str, Any], []),
        (dict, []),
        (Mapping[str, int], []),
        (Literal["Item"], []),
        (Callable[[int], str], []),
        (object, []),
        (T, []),
        (None, []),
        ("Item", []),
    ],
)
def test_the_models_of_an_annotation_are_found(annotation: Any, found: list[type]) -> None:
    assert list(models_in(annotation)) == found


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is Python 3.12")
def test_the_models_of_an_alias_are_found() -> None:
    names: dict[str, Any] = {"Item": Item, "Card": Card}
    exec("type Alias = Item | list[Card]", names)
    assert list(models_in(names["Alias"])) == [Item, Card]


def test_each_annotation_has_its_library() -> None:
    assert library_for(dict[str, Any]) is None
    assert library_for(Item) is library_for(list[Card]) is library_for(Address) is library(MSGSPEC)
    assert library_for(Order) is library_for(Item | Order) is library(PYDANTIC)


def test_dataclasses_are_for_pydantic_if_there_is_nothing_else(missing: Callable[[str], None]) -> None:
    missing(MSGSPEC)
    assert library_for(Item) is library(PYDANTIC)
    with pytest.raises(ImportError):
        library_for(Card)
    missing(PYDANTIC)
    with pytest.raises(ImportError, match=r"eda_models\.structs"):
        library_for(Item)


def test_a_payload_without_models_stays_the_same_object() -> None:
    payload = {"a": [1, (2, {"b": None})], "c": {3}, "when": datetime.datetime.now(datetime.UTC), "odd": object()}
    assert without_models(payload, json=False) is payload


@pytest.mark.parametrize("json", [False, True])
def test_models_become_maps_wherever_they_are(json: bool) -> None:
    part = Item("part")
    plain = {"name": "part", "colour": "red", "parts": []}
    payload = {"one": part, "many": (part, [part], 7), "card": Card("1"), "order": Order(items=[part])}
    assert without_models(payload, json=json) == {
        "one": plain,
        "many": [plain, [plain], 7],
        "card": {"number": "1"},
        "order": {"items": [plain]},
    }
    assert payload["one"] is part, "the payload of the caller stays as it is"
    assert without_models(Parcel(7), json=json) == {"weight": 7}
    assert without_models(Checked(7), json=json) == {"number": 7}


def test_a_container_that_is_there_many_times_becomes_plain_once() -> None:
    payload: Any = [Item("leaf")]
    for _ in range(40):
        payload = [payload, payload]
    found = without_models(payload, json=False)
    assert found[0] is found[1]


def test_dataclasses_need_no_library_to_be_written(missing: Callable[[str], None]) -> None:
    missing(MSGSPEC)
    item = Item("a", parts=[Item("b")])
    plain = {"name": "a", "colour": "red", "parts": [{"name": "b", "colour": "red", "parts": []}]}
    assert without_models(item, json=False) == plain
    missing(PYDANTIC)
    assert without_models([item], json=True) == [plain]
    item.parts.append(item)
    with pytest.raises(RecursionError):
        without_models(item, json=False)


def test_a_misfit_says_where_and_why() -> None:
    misfit = Misfit("payload.price", "expected int, got str")
    assert (misfit.place, misfit.reason, str(misfit)) == (
        "payload.price",
        "expected int, got str",
        "payload.price: expected int, got str",
    )
