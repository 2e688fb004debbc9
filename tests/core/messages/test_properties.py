"""Properties: headers are written exactly as they were read."""

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.messages.properties import Properties, Unreadable, persistent
from eda_core.testing.wire import frames

HEADERS: dict[str, Any] = {
    "score": 0.1,
    "a": {"deep": [0.3, {"deeper": 1e300}, [], {}, None]},
    "no UTF-8": b"\xff",
    "bytes": bytearray(b"\xff"),
    "n" * 255: 2**40,
    "": True,
    "é": "☃",
    "at": datetime(2026, 1, 2, tzinfo=UTC),
    "price": Decimal("1.25"),
}


def read(properties: Basic.Properties) -> Any:
    """Return the headers as a client reads them."""
    written = properties.marshal()
    found = Basic.Properties()
    found.unmarshal(struct.unpack(">H", written[:2])[0], written[2:])
    return found.headers


def test_headers_are_written_as_they_were_read() -> None:
    again = read(Properties(headers=HEADERS))
    assert again == HEADERS
    assert list(again) == list(HEADERS)


@pytest.mark.parametrize("number", ["1E-7", "-1", "-0.25", "1E+3", "2147483647", "0"])
def test_decimals_are_written_as_they_are(number: str) -> None:
    assert read(Properties(headers={"price": Decimal(number)}))["price"] == Decimal(number)


def test_pamqp_alone_would_not_do() -> None:
    """If this fails, the module is not needed any more."""
    assert read(Basic.Properties(headers={"score": 0.1}))["score"] == pytest.approx(0.1)
    assert read(Basic.Properties(headers={"score": 0.1}))["score"] != 0.1


def test_other_properties_are_written_by_pamqp() -> None:
    others: dict[str, Any] = {"content_type": "text/plain", "priority": 3, "message_id": "m", "delivery_mode": 2}
    assert Properties(**others).marshal() == Basic.Properties(**others).marshal()
    assert Properties(headers={}, **others).marshal() == Basic.Properties(headers={}, **others).marshal()


def test_persistent_ones_are_those_that_the_constructor_makes() -> None:
    made = persistent("text/plain", HEADERS)
    assert made == Properties(content_type="text/plain", headers=HEADERS, delivery_mode=2)
    assert dict(made) == dict(Properties(content_type="text/plain", headers=HEADERS, delivery_mode=2))
    assert made.marshal() == Properties(content_type="text/plain", headers=HEADERS, delivery_mode=2).marshal()
    made.validate()


@pytest.mark.parametrize("headers", [{"n" * 256: 1}, {"k": object()}, {"k": 2**63}, {1: 1}, {"k": ["\ud800"]}])
def test_what_cannot_be_written_raises(headers: dict[Any, Any]) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        Properties(headers=headers).marshal()


@pytest.mark.parametrize("headers", [5, "text", [("k", 1)]])
def test_headers_that_are_no_table_raise(headers: Any) -> None:
    with pytest.raises(TypeError, match="the headers are no table, but "):
        Properties(headers=headers).marshal()


@given(st.floats())
def test_any_float_is_kept(value: float) -> None:
    again = read(Properties(headers={"k": [value]}))["k"][0]
    assert again == value or (math.isnan(again) and math.isnan(value))


def test_the_server_side_reads_the_same() -> None:
    _, found = frames.decode_content_header(struct.pack(">HHQ", 60, 0, 0) + Properties(headers=HEADERS).marshal())
    assert found.headers == HEADERS


def test_unreadable_properties_are_a_copy_with_reasons() -> None:
    given = Basic.Properties(message_id="m", headers={"conversation_id": "c"})
    found = Unreadable.of(given, "the routing key is not UTF-8")
    assert dict(found) == dict(given)
    assert found.reason == "the routing key is not UTF-8"
    again = Unreadable.of(found, "the exchange is not UTF-8")
    assert dict(again) == dict(given)
    assert again.reason == "the routing key is not UTF-8; the exchange is not UTF-8"
    assert found.reason == "the routing key is not UTF-8", "it is not changed"


def test_unreadable_properties_may_come_from_another_library() -> None:
    given = SimpleNamespace(app_id="a", headers={"conversation_id": "c"}, type="another name")
    found = Unreadable.of(given, "no")
    assert {name: value for name, value in found if value} == {"app_id": "a", "headers": {"conversation_id": "c"}}
