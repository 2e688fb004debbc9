"""What each library makes of payloads: round trips, and what is said of payloads that do not fit."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core import CBOR, JSON
from eda_core.errors import PayloadError
from eda_core.messages.codec import decode, encode
from eda_core.messages.models import MSGSPEC, PYDANTIC, Misfit, library, library_for

BOTH = pytest.mark.parametrize("content_type", [CBOR, JSON])


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Leaf:
    number: int
    text: str = ""
    ratio: float | None = None


@dataclass
class Plain:
    leaf: Leaf
    when: datetime.datetime
    day: datetime.date
    wait: datetime.timedelta
    amount: decimal.Decimal
    key: uuid.UUID
    raw: bytes
    colour: Colour
    point: Point
    counts: dict[int, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    leaves: list[Leaf] = field(default_factory=list)


class Struct(msgspec.Struct, rename="camel", tag=True, omit_defaults=True):
    some_leaf: Leaf
    when: datetime.datetime
    amount: decimal.Decimal
    raw: bytes
    colour: Colour = Colour.RED
    counts: dict[int, str] = {}
    positions: list[Point] = []


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    leaf: Leaf
    when: Annotated[datetime.datetime, pydantic.Field(alias="at")]
    wait: datetime.timedelta
    amount: decimal.Decimal
    key: uuid.UUID
    colour: Colour
    counts: dict[int, str]
    names: set[str]


TEXTS = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-(2**53), 2**53)
MOMENTS = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.just(datetime.UTC))
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=3)
WAITS = st.timedeltas(datetime.timedelta(-10_000), datetime.timedelta(10_000))
COLOURS = st.sampled_from(Colour)
COUNTS = st.dictionaries(NUMBERS, TEXTS)
LEAVES = st.builds(Leaf, NUMBERS, TEXTS, st.none() | st.floats(allow_nan=False, allow_infinity=False))
POINTS = st.builds(Point, NUMBERS, NUMBERS)
PLAIN = st.builds(
    Plain,
    LEAVES,
    MOMENTS,
    st.dates(),
    WAITS,
    AMOUNTS,
    st.uuids(),
    st.binary(),
    COLOURS,
    POINTS,
    COUNTS,
    st.frozensets(TEXTS),
    st.lists(LEAVES),
)
STRUCTS = st.builds(
    Struct,
    some_leaf=LEAVES,
    when=MOMENTS,
    amount=AMOUNTS,
    raw=st.binary(),
    colour=COLOURS,
    counts=COUNTS,
    positions=st.lists(POINTS),
)
MODELS = st.builds(
    Model,
    leaf=LEAVES,
    at=MOMENTS,
    wait=WAITS,
    amount=AMOUNTS,
    key=st.uuids(),
    colour=COLOURS,
    counts=COUNTS,
    names=st.sets(TEXTS),
)


def over_the_wire(value: Any, annotation: Any, content_type: str) -> Any:
    found = library_for(annotation)
    assert found is not None
    return found.reader(annotation)(decode(encode(value, content_type), content_type))


@BOTH
@given(value=PLAIN | STRUCTS | MODELS)
def test_what_is_published_as_a_model_is_read_as_the_same(content_type: str, value: Any) -> None:
    assert over_the_wire(value, type(value), content_type) == value


@BOTH
@given(values=st.lists(PLAIN, max_size=3))
def test_lists_of_models_are_read_as_the_same(content_type: str, values: list[Plain]) -> None:
    assert over_the_wire(values, list[Plain], content_type) == values


@BOTH
@given(value=PLAIN)
def test_pydantic_writes_dataclasses_that_it_and_msgspec_read(content_type: str, value: Plain) -> None:
    """Where only pydantic is installed it stands in for msgspec.

    But it writes bytes as UTF-8, and knows years: msgspec does not read these.
    """
    value.raw = b"text"
    value.wait %= datetime.timedelta(300)
    plain = decode(encode(library(PYDANTIC).plain(value, content_type == JSON), content_type), content_type)
    assert library(PYDANTIC).reader(Plain)(plain) == value
    if content_type == CBOR:
        assert library(MSGSPEC).reader(Plain)(plain) == value


@BOTH
def test_models_of_both_libraries_may_be_within_each_other(content_type: str) -> None:
    class Outer(msgspec.Struct):
        inner: Any
        others: list[Any]

    @pydantic.dataclasses.dataclass
    class Inner:
        number: int

    @dataclass
    class Third:
        inner: Any

    outer = Outer(Inner(1), [Third(Inner(2)), Leaf(3)])
    assert decode(encode({"outer": outer}, content_type), content_type) == {
        "outer": {
            "inner": {"number": 1},
            "others": [{"inner": {"number": 2}}, {"number": 3, "text": "", "ratio": None}],
        }
    }


def test_cbor_keeps_what_json_writes_as_text() -> None:
    moment = datetime.datetime(2026, 7, 9, tzinfo=datetime.UTC)
    struct = Struct(Leaf(1), moment, decimal.Decimal("1.50"), b"\xff")
    assert decode(encode(struct), CBOR) == {
        "type": "Struct",
        "someLeaf": {"number": 1, "text": "", "ratio": None},
        "when": moment,
        "amount": decimal.Decimal("1.50"),
        "raw": b"\xff",
    }
    as_json = decode(encode(struct, JSON), JSON)
    assert (as_json["when"], as_json["amount"], as_json["raw"]) == ("2026-07-09T00:00:00Z", "1.50", "/w==")


class Tagged(pydantic.BaseModel):
    kind: Literal["a"]


class OtherTag(pydantic.BaseModel):
    kind: Literal["b"]


class Picky(pydantic.BaseModel, extra="forbid"):
    number: int = 0
    union: Annotated[Tagged | OtherTag, pydantic.Field(discriminator="kind")] | None = None
    lists: dict[str, list[int]] = {}

    @pydantic.field_validator("number")
    @classmethod
    def _is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("it is odd")
        return number


class Narrow(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour = Colour.RED
    one_of: Literal["a", "b"] = "a"
    numbers: dict[str, list[int]] = {}
    short: Annotated[str, msgspec.Meta(max_length=3)] = ""
    by_number: dict[int, int] = {}

    def __post_init__(self) -> None:
        if self.short == "odd":
            raise ValueError("short is odd")


SECRET = "s3cret"


@pytest.mark.parametrize(
    ("annotation", "payload", "place", "reason"),
    [
        (Narrow, [], "payload", "expected object, got array"),
        (Narrow, {"colour": SECRET}, "payload.colour", "expected one of a few values, got another one"),
        (Narrow, {"one_of": SECRET}, "payload.one_of", "expected one of a few values, got another one"),
        (Narrow, {"other": SECRET}, "payload.other", "no field of this name is allowed"),
        (Narrow, {"numbers": {SECRET: [1, SECRET]}}, "payload.numbers[...][1]", "expected int, got str"),
        (Narrow, {"short": SECRET}, "payload.short", "expected str of length <= 3"),
        (Narrow, {"short": "odd"}, "payload", "short is odd"),
        (Narrow, {"by_number": {SECRET: 1}}, "key in payload.by_number", "expected int, got str"),
        (list[Narrow], [{}, {"short": 1}], "payload[1].short", "expected str, got int"),
        (Picky, [], "payload", "input should be a valid dictionary or instance of Picky; got list"),
        (Picky, {"number": 1}, "payload.number", "value error, it is odd"),
        (Picky, {"other": SECRET}, "payload.other", "extra inputs are not permitted"),
        (
            Picky,
            {"union": {"kind": SECRET}},
            "payload.union",
            "expected one of the tags 'a', 'b', got another one",
        ),
        (
            Picky,
            {"lists": {"x": [1, []]}, "number": []},
            "payload.number",
            "input should be a valid integer; got list (and 1 more)",
        ),
        (Picky, {"lists": {"x": [1, []]}}, "payload.lists.x[1]", "input should be a valid integer; got list"),
        (Tagged, {}, "payload.kind", "field required"),
    ],
)
def test_what_does_not_fit_is_named_and_no_value_is_quoted(
    annotation: Any, payload: Any, place: str, reason: str
) -> None:
    found = library_for(annotation)
    assert found is not None
    with pytest.raises(Misfit) as caught:
        found.reader(annotation)(payload)
    assert (caught.value.place, caught.value.reason) == (place, reason)
    assert str(caught.value) == f"{place}: {reason}"


def test_a_place_and_a_reason_are_of_bounded_length() -> None:
    found = library_for(Narrow)
    assert found is not None
    with pytest.raises(Misfit) as caught:
        found.reader(Narrow)({"x" * 100_000: 1})
    assert len(str(caught.value)) < 500


class Unfinished(pydantic.BaseModel):
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("annotation", [Model | Narrow, list[Narrow | Struct], Unfinished])
def test_an_annotation_that_cannot_be_read_is_a_type_error(annotation: Any) -> None:
    found = library_for(annotation)
    assert found is not None
    with pytest.raises(TypeError):
        found.reader(annotation)


class Odd(msgspec.Struct):
    value: Any


class OddModel(pydantic.BaseModel):
    value: Any


@BOTH
@pytest.mark.parametrize("kind", [Odd, OddModel, lambda value: [Leaf(value)]])
def test_a_model_with_a_value_that_cannot_be_written_is_refused(content_type: str, kind: Any) -> None:
    with pytest.raises(PayloadError, match=f"payload cannot be written as {content_type}: "):
        encode(kind(value=object()) if kind in (Odd, OddModel) else kind(object()), content_type)


@BOTH
def test_a_model_that_contains_itself_is_refused(content_type: str) -> None:
    odd = Odd(None)
    odd.value = odd
    with pytest.raises(PayloadError, match=f"payload cannot be written as {content_type}: "):
        encode(odd, content_type)


def test_a_model_that_is_nested_too_deep_is_refused() -> None:
    odd = Odd(None)
    for _ in range(40):
        odd = Odd(odd)
    with pytest.raises(PayloadError, match="payload is nested deeper than 32 levels"):
        encode(odd)


@pytest.mark.parametrize("kind", [Narrow, Tagged])
def test_the_schema_of_an_annotation_names_its_parts(kind: type) -> None:
    found = library_for(kind)
    assert found is not None
    schema, parts = found.schema(list[kind], "#/components/schemas/{name}")  # type: ignore[valid-type]
    assert schema["items"] == {"$ref": f"#/components/schemas/{kind.__name__}"}
    assert parts[kind.__name__]["type"] == "object"


def test_what_has_no_schema_is_a_type_error() -> None:
    class Custom:
        pass

    class WithCustom(pydantic.BaseModel, arbitrary_types_allowed=True):
        custom: Custom

    for kind in (msgspec.defstruct("WithCustomStruct", [("custom", Custom)]), WithCustom):
        found = library_for(kind)
        assert found is not None
        with pytest.raises(TypeError):
            found.schema(kind, "#/{name}")


@BOTH
def test_a_model_of_pydantic_that_holds_another_type_is_refused(content_type: str) -> None:
    model = Picky()
    model.number = "seven"  # type: ignore[assignment]
    with pytest.raises(PayloadError, match=r"payload cannot be written as .*: .*Expected `int`.*'number'"):
        encode(model, content_type)
