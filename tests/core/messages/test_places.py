"""The place in a payload that is the reason why it cannot be sent."""

from __future__ import annotations

import decimal
import math
import re
from typing import Any

import pytest

from eda_core.errors import PayloadError
from eda_core.messages.codec import CBOR, JSON, Limits, encode
from eda_core.messages.places import too_deep


class Price:
    """A type that no content type has a form for."""


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("no words")


def refusal(payload: object, content_type: str = JSON, limits: Limits | None = None) -> str:
    with pytest.raises(PayloadError) as caught:
        encode(payload, content_type, limits or Limits())
    return str(caught.value)


ORDER = {"id": 7, "items": [{"price": 1}, {"price": 2}, {"price": 3}, {"price": decimal.Decimal("1.5")}]}


def test_the_place_of_a_value_that_json_has_no_form_for() -> None:
    assert refusal(ORDER) == (
        "payload cannot be written as application/json: payload.items[3].price: Object of type Decimal is not JSON "
        "serializable; send plain data"
    )
    assert encode(ORDER, CBOR), "CBOR has a form for it"


@pytest.mark.parametrize("content_type", [CBOR, JSON])
@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"a": Price()}, "payload.a: "),
        ({"a b": [1, Price()]}, "payload['a b'][1]: "),
        ({7: (Price(),)}, "payload[7][0]: "),
        ({"a": {"b": [{"c": Price()}, Price()]}}, "payload.a.b[0].c: "),
        ([[], {}, "text", Price()], "payload[3]: "),
        ({"ok": 1, "\ud800": 2}, "payload (the key '\\ud800'): "),
        ({"name": "\ud800"}, "payload.name: "),
    ],
)
def test_the_place_of_the_first_wrong_value(payload: Any, place: str, content_type: str) -> None:
    assert refusal(payload, content_type).startswith(f"payload cannot be written as {content_type}: {place}")


@pytest.mark.parametrize("content_type", [CBOR, JSON])
def test_the_payload_itself_has_no_place(content_type: str) -> None:
    text = refusal(Price(), content_type).removeprefix(f"payload cannot be written as {content_type}: ")
    assert "payload" not in text
    assert "Price" in text


def test_a_key_and_an_item_of_a_set_are_places() -> None:
    assert "payload.a (the key (1, 2)): keys must be str" in refusal({"a": {(1, 2): 1}})
    assert "payload.a (the item ('x', " in refusal({"a": {("x", Price())}}, CBOR)
    assert ": payload.a: Object of type set is not JSON" in refusal({"a": {1}})


def test_a_number_that_json_has_no_form_for_has_a_place() -> None:
    assert ": payload.rates[1]: Out of range float values" in refusal({"rates": [1.0, math.nan]})


def test_what_the_receiver_would_refuse_has_a_place() -> None:
    text = refusal({"rules": [{"match": re.compile("a")}]}, CBOR)
    assert text.startswith("payload would be refused by its receiver: payload.rules[0].match: malformed CBOR: ")


def test_what_cannot_be_shown_is_named_by_its_type() -> None:
    assert "payload (the item <Unspeakable>): " in refusal({Unspeakable()}, CBOR)


def test_a_place_that_is_too_deep() -> None:
    payload = {"orders": [{"ok": []}, {"more": {"tags": [[]]}}]}
    place = "payload.orders[1].more.tags[0]"
    assert refusal(payload, JSON, Limits(max_depth=5)) == (
        f"payload is nested deeper than 5 levels: {place}; flatten it"
    )
    assert encode(payload, JSON, Limits(max_depth=6))


@pytest.mark.parametrize("content_type", [CBOR, JSON])
def test_a_long_place_is_cut(content_type: str) -> None:
    payload: Any = Price()
    for _ in range(25):
        payload = {"a" * 100: payload}
    text = refusal(payload, content_type)
    assert len(text) < 500
    assert text.count("…") >= 2


def test_the_place_is_found_soon_although_the_payload_has_the_same_value_many_times() -> None:
    pair: Any = []
    for _ in range(40):
        pair = [pair, pair]
    assert "nested deeper than 32 levels: payload[0][0]" in refusal(pair, CBOR, Limits(max_bytes=2**60))
    leaf: Any = 1
    for _ in range(10):
        leaf = [leaf, leaf]
    assert ": payload[1].x: " in refusal([leaf, {"x": Price()}])


def test_a_payload_that_contains_itself_says_where_and_what() -> None:
    order: dict[str, Any] = {"id": 7, "items": [{}]}
    order["items"][0]["order"] = order
    text = refusal(order)
    assert "payload.items[0].order" in text


def test_a_value_in_a_set_is_found_by_what_it_is() -> None:
    """It has no index, and CBOR has a form for sets."""
    assert "payload.tags (the item " in refusal({"tags": {("a", Price())}}, CBOR)


def test_a_key_that_cannot_be_shown_is_named_by_its_type() -> None:
    assert "payload (the key <Unspeakable>): " in refusal({Unspeakable(): 1}, CBOR)


def test_a_payload_that_is_not_too_deep_has_no_such_place() -> None:
    assert too_deep({"a": [1, {"b": 2}]}, 3) == ("", "")
