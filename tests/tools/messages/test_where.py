"""``--where``: what conditions mean, for any message; and errors that show their place."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_tools.messages.delivery import FIELDS
from eda_tools.messages.where import WhereError, follow, parse_path, parse_where

MESSAGE: dict[str, Any] = {
    "kind": "command",
    "name": "echo.Echo",
    "size": 12,
    "received": datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC),
    "payload": {
        "client_id": 123,
        "price": 1.5,
        "name": 'it\'s "quoted"',
        "from": "Zoë",
        "urgent": True,
        "nothing": None,
        "empty": [],
        "tags": ["a", "b"],
        "items": [{"id": 1}, {"id": 2, "x-y": "deep"}],
        "on": datetime.date(2026, 5, 1),
        7: "seven",
        "a b": 1,
    },
    "headers": {"x-first-death-reason": "expired", "x-death": [{"count": 3}]},
}


@pytest.mark.parametrize(
    "condition",
    [
        "payload.client_id == 123",
        "payload.client_id==123 and kind=='command'",
        "payload.client_id != 124",
        "payload.price > 1 and payload.price <= 1.5 and payload.price < 1.6e0 and payload.price >= -1",
        "size < 13",
        r'payload.name == "it\'s \"quoted\""',
        "payload.from == 'Zoë'",
        "payload.urgent",
        "payload.urgent == true",
        "payload.urgent != 1",  # true is no number
        "payload.nothing == null",
        "not payload.nothing",
        "not payload.empty",
        "payload.tags contains 'a'",
        "'b' in payload.tags",
        "'c' not in payload.tags",
        "payload contains 'price'",
        "payload.from contains 'oë'",
        "kind in ['event', 'command']",
        "payload.client_id not in [1, 2]",
        "payload.items[1].id == 2",
        "payload.items[-1].x-y == 'deep'",
        "payload.items.0.id == 1",
        "payload.7 == 'seven'",
        "payload['a b'] == 1",
        "headers.x-first-death-reason == 'expired'",
        'headers["x-death"][0].count >= 3',
        "name =~ '^echo\\.'",
        "received > '2026-05-01T11:00:00Z' and received < '2026-05-01T15:00+02:00'",
        "received > '2026-05-01'",
        "payload.on == '2026-05-01'",
        "false or true and not false",
        "(false or true) and not (true and false)",
        "not not true",
        "payload.tags == ['a', 'b']",
        "[] == []",
        r"payload.from != 'a\tb\n'",
    ],
)
def test_it_holds(condition: str) -> None:
    assert parse_where(condition)(MESSAGE)


@pytest.mark.parametrize(
    "condition",
    [
        "payload.nope",
        "payload.nope == 1",
        "payload.nope != 1",
        "payload.nope == null",
        "payload.nope in [1]",
        "payload.nope not in [1]",
        "1 in payload.nope",
        "1 not in payload.nope",
        "payload.nope contains 1",
        "payload.nope =~ '.'",
        "payload.client_id.deeper == 1",
        "payload.items[2].id == 1",
        "payload.items.x == 1",
        "payload.client_id < 'text'",
        "payload.tags < 1",
        "payload.urgent == 1",
        "payload.client_id =~ '123'",
        "received > 'tomorrow'",
        "payload.on > 12",
        "12 in 'text'",
        "12 in 12",
        "false",
        "null",
        "''",
        "true and false",
    ],
)
def test_it_does_not_hold(condition: str) -> None:
    assert not parse_where(condition)(MESSAGE)


@pytest.mark.parametrize(
    ("condition", "column", "reason"),
    [
        ("", 1, "a field or a value is missing"),
        ("payloda.x == 1", 1, "there is no field payloda; a path begins with one of kind, name"),
        ("payload.x ==", 13, "a field or a value is missing"),
        ("payload.x = 1", 11, "= is not expected"),
        ("(kind == 'a'", 13, "a ) is missing"),
        ("kind == 'a')", 12, ") is not expected here"),
        ('name == "abc', 9, "a text that does not end"),
        ("name =~ '('", 9, "not a regular expression"),
        ("name =~ kind", 9, "after =~ comes a regular expression"),
        ("1 2", 3, "2 is not expected here"),
        ("kind in [1 2]", 12, "a , or ] is missing"),
        ("kind in [kind]", 10, "kind is not expected here"),
        ("kind not 'a'", 10, "after this 'not' comes 'in'"),
        ("and", 1, "and is not expected here"),
        ("payload..x", 8, ". is not expected"),
        ("__import__('os')", 1, "there is no field __import__"),
        ("not " * 60 + "true", 201, "nested deeper than 50 levels"),
        ("(" * 1000, 51, "nested deeper than 50 levels"),
        (f"payload == {'9' * 5000}", 12, "9 is not expected"),
        (f"payload[{'9' * 5000}]", 8, "[ is not expected"),
    ],
)
def test_errors_point_at_their_place(condition: str, column: int, reason: str) -> None:
    with pytest.raises(WhereError) as caught:
        parse_where(condition)
    assert str(caught.value).startswith(f"column {column}: {reason}")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)
words = st.sampled_from(
    (
        *FIELDS,
        *". x [0] ( ) [ ] , and or not in contains == != < >= =~ 1 -2.5 true null 'a' \"2026-01-01\"".split(),
        *"payload.a.b headers['x']".split(),
        " ",
    )
)


@given(st.text() | st.lists(words).map(" ".join), st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_text_is_a_condition_or_an_error_and_no_message_makes_it_fail(text: str, message: dict[str, Any]) -> None:
    try:
        condition = parse_where(text)
    except WhereError:
        return
    assert condition(message) in (True, False)


@given(st.lists(st.text("abz_-09", min_size=1) | st.integers(-5, 5)))
def test_paths_come_back_as_their_steps(steps: list[str | int]) -> None:
    text = "payload" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    assert parse_path(text) == ("payload", *steps)


@pytest.mark.parametrize("step", ["--5", "-", "9" * 5000, "٣", "nope"])
def test_a_word_that_looks_like_a_number_is_looked_up_without_an_error(step: str) -> None:
    """Python does not read all of these as numbers, and never more than 4,300 digits."""
    condition = parse_where(f"payload.{step}")
    for payload in ([1], {None: 1, 5: 1}, {"x": [1]}, "text"):
        assert condition({"payload": payload}) is False
    assert condition({"payload": {step: 1}}) is True


def test_paths() -> None:
    assert follow(parse_path("payload.items[1].id"), MESSAGE) == 2
    assert follow(parse_path("payload.nope.deeper"), MESSAGE, "default") == "default"
    for wrong in ("", "payload.", "nope.x", "payload.a == 1", "1"):
        with pytest.raises(WhereError):
            parse_path(wrong)
